"""`alcove import`: reports, exit codes, dry runs."""

from __future__ import annotations

import json
from pathlib import Path

from cli.conftest import Run, loaded


def save(folder: Path, session_id: str) -> None:
    folder.mkdir(exist_ok=True)
    history = [{"role": "user", "content": "hi", "timestamp": "2024-03-01T12:00:00"}]
    (folder / f"{session_id}.json").write_text(
        json.dumps({"session_id": session_id, "message_count": 1, "history": history})
    )


def test_a_dry_run_makes_no_installation_and_an_import_makes_one(run: Run, place: Path) -> None:
    save(place / "old", "s1")
    result = run("import", "json-sessions", "old", "--dry-run")
    assert result.stdout == "s1\n"
    assert "1 session would be created" in result.stderr
    assert not (place / ".alcove").exists()
    assert run("import", "json-sessions", "old").stdout == "s1\n"
    again = run("import", "json-sessions", "old", "--timezone", "Asia/Tokyo")
    assert (again.stdout, "1 present already" in again.stderr) == ("", True)
    assert "s1" in run("list").stdout


def test_what_could_not_be_read_is_listed_and_makes_the_exit_code_1(run: Run, place: Path) -> None:
    save(place / "old", "s1")
    (place / "old" / "half\x1b[2J.json").write_text('{"sess')
    result = run("import", "json-sessions", "old", exit_code=1)
    assert result.stdout == "s1\n"
    assert "not imported: half\\x1b[2J.json: it is not JSON" in result.stderr
    report = loaded(run("import", "json-sessions", "old", "--json", exit_code=1))
    assert report["present"] == ["s1"]
    assert report["failed"][0]["path"] == "half\x1b[2J.json"


def test_directories_become_sessions(run: Run, place: Path) -> None:
    (place / "old" / "s1").mkdir(parents=True)
    (place / "old" / "s1" / "a.txt").write_text("a")
    assert "1 file (1 B)" in run("import", "session-dirs", "old", "--dry-run").stderr
    assert not (place / "sessions").exists()
    run("import", "session-dirs", "old", "--app", "q")
    assert (place / "sessions" / "s1" / "a.txt").read_text() == "a"


def test_bad_arguments_are_usage_errors(run: Run, place: Path) -> None:
    run("import", "json-sessions", "nowhere", exit_code=2)
    run("import", "json-sessions", ".", "--timezone", "Mars/Olympus", exit_code=2)
    run("import", "session-dirs", exit_code=2)
