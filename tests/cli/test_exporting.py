"""`alcove export`: a file with what there is to know, whole or not there."""

from __future__ import annotations

import json
import stat
from pathlib import Path

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
