"""`alcove export`: a file with what there is to know, whole or not there."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cli.conftest import Run, either, loaded


@either
def test_every_session_is_in_it_with_what_detail_says(run: Run, place: Path) -> None:
    for arguments in (["--id", "ana", "--title", "A\x1b[2J"], ["--id", "kid", "--parent", "ana"], ["--id", "gone"]):
        run("create", *arguments)
    run("rm", "gone")
    (place / "note.txt").write_text("five5")
    run("cp", "note.txt", "kid:")
    result = run("export", "all.json")
    assert (result.stdout, result.stderr) == ("", "2 sessions in all.json\n")
    told = json.loads((place / "all.json").read_text())
    assert [one["session_id"] for one in told["sessions"]] == ["ana", "kid"]
    assert told["count"] == 2
    for one in told["sessions"]:
        detail = loaded(run("detail", one["session_id"], "--json"))
        assert one == {name: value for name, value in detail.items() if not name.startswith("last_") or name in one}
    assert told["sessions"][1]["files"]["count"] == 1
    assert stat.S_IMODE((place / "all.json").stat().st_mode) == 0o600
    assert loaded(run("export", "-", "kid"))["sessions"][0]["session_id"] == "kid"
    assert [one["session_id"] for one in loaded(run("export", "-", "ana"))["sessions"]] == ["ana", "kid"]


def test_a_file_that_is_there_stays_unless_forced(run: Run, place: Path) -> None:
    run("create", "--id", "ana")
    (place / "all.json").write_text("mine")
    assert "all.json is there already" in run("export", "all.json", exit_code=3).stderr
    assert (place / "all.json").read_text() == "mine"
    run("export", "all.json", "--force")
    assert json.loads((place / "all.json").read_text())["count"] == 1
    assert sorted(one.name for one in place.iterdir()) == [".alcove", "all.json", "sessions"]


def test_what_cannot_be_is_said(run: Run, place: Path) -> None:
    run("export", "all.json", exit_code=5)
    run("create", "--id", "ana")
    assert "neither" in run("export", "all.txt", exit_code=2).stderr
    assert "nowhere/all.json cannot be written" in run("export", "nowhere/all.json", exit_code=1).stderr
    run("export", "all.json", "ben", exit_code=5)
    assert not (place / "all.json").exists()


def test_an_archive_brings_sessions_to_another_installation(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("create", "--id", "ana", "--title", "A", "--metadata", "n=1")
    run("create", "--id", "kid", "--parent", "ana")
    run("create", "--id", "other")
    (place / "note.txt").write_text("five5")
    run("cp", "note.txt", "kid:")
    result = run("export", "tree.alcove", "an")
    assert (result.stdout, result.stderr.startswith("2 sessions, 0 messages, files of ")) == ("", True)
    assert loaded(run("export", "all.alcove", "--json"))["sessions"] == ["ana", "other", "kid"]
    (place / "second").mkdir()
    monkeypatch.chdir(place / "second")
    assert run("import", "../tree.alcove", "--dry-run").stdout == "ana\nkid\n"
    assert not (place / "second" / ".alcove").exists()
    assert run("import", "--json", "../tree.alcove").stdout
    assert run("cat", "kid:note.txt").stdout == "five5"
    again = run("import", "archive", "../tree.alcove")
    assert (again.stdout, "2 present already" in again.stderr) == ("", True)
    run("rm", "kid")
    assert "in the trash" in run("import", "../tree.alcove", exit_code=3).stderr


def test_what_is_no_archive_is_refused(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "x.alcove").write_text("mine")
    assert "cannot be read" in run("import", "x.alcove", exit_code=2).stderr
    assert "nowhere.alcove" in run("import", "nowhere.alcove", exit_code=2).stderr
    monkeypatch.setenv("ALCOVE_URL", "http://127.0.0.1:1")
    assert "ALCOVE_URL" in run("import", "x.alcove", exit_code=2).stderr
    assert "where the sessions are" in run("export", "y.alcove", exit_code=2).stderr
