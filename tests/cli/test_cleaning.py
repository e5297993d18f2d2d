"""restore, prune, cleanup-empty and cleanup-old: what goes, what comes back, and what is asked first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import NOW, Run, either, golden, loaded

DAY_S = 86400


@either
def test_what_went_to_the_trash_comes_back(run: Run, place: Path) -> None:
    run("create", "--id", "a", "--key", "k")
    run("create", "--id", "a.child", "--parent", "a")
    (place / "sessions" / "a" / "file").write_text("kept")
    run("rm", "a")
    back = run("restore", "a.c")
    assert back.stdout == "a\na.child\n"
    assert "2 sessions restored" in back.stderr
    assert (place / "sessions" / "a" / "file").read_text() == "kept"
    assert "no session 'a' in the trash" in run("restore", "a", exit_code=5).stderr
    run("rm", "a")
    run("create", "--id", "b", "--key", "k")
    assert "belongs to session b" in run("restore", "a", exit_code=3).stderr
    assert loaded(run("restore", "a", "--without-keys", "--json"))["restored"][0]["keyless"] == ["a"]


@either
def test_old_sessions_are_shown_first_and_then_go(run: Run, place: Path, frozen: Callable[[int], None]) -> None:
    for name in ("old", "old.child"):
        run("create", "--id", name, *(["--parent", "old"] if name != "old" else []))
    frozen(2 * DAY_S)
    run("create", "--id", "fresh")
    golden("cleanup-old.terminal.txt", run("cleanup-old", "--hours", "24", "--dry-run", columns=60).stdout, place)
    assert run("cleanup-old", "--older-than", "1d", "-n").stdout == "old\t2\t2d\n"
    shown = loaded(run("cleanup-old", "--hours", "24", "-n", "--json"))
    assert (shown["dry_run"], shown["sessions"], shown["groups"][0]["trash_id"]) == (True, 2, None)
    assert shown["groups"][0]["since"] == NOW / 1_000_000
    gone = run("cleanup-old", "--hours", "24")
    assert gone.stdout == "old\n"
    assert "2 sessions in the trash" in gone.stderr
    assert run("list").stdout.startswith("fresh\t")
    assert run("cleanup-old", "--hours", "24").stdout == ""
    assert run("restore", "old").stdout == "old\nold.child\n"


@pytest.mark.parametrize("args", [(), ("--hours", "1", "--older-than", "1h"), ("--hours", "0"), ("--older-than", "x")])
def test_how_old_has_to_be_said_once(run: Run, args: tuple[str, ...]) -> None:
    run("create")
    run("cleanup-old", *args, exit_code=2)


@either
def test_empty_sessions_go_and_others_stay(run: Run, place: Path, frozen: Callable[[int], None]) -> None:
    for name in ("empty", "used"):
        run("create", "--id", name)
    (place / "sessions" / "used" / "file").write_text("x")
    frozen(2 * 3600)
    run("create", "--id", "new")
    assert run("cleanup-empty", "-n").stdout == "empty\t1\t2h\n"
    assert run("cleanup-empty").stdout == "empty\n"
    assert run("list").stdout.count("\n") == 2


@either
def test_the_trash_is_emptied_for_good_when_somebody_agreed(run: Run, somebody: None, place: Path) -> None:
    run("create", "--id", "a")
    run("rm", "a")
    assert run("prune", "-n").stdout == "", "its grace is not over"
    assert run("prune", "--all", "-n").stdout.startswith("a\t1\t")
    run("prune", "--all", stdin="n\n", exit_code=1)
    assert run("list", "--status", "trashed").stdout.startswith("a\t")
    gone = run("prune", "--all", stdin="y\n")
    assert (gone.stdout, "1 session removed for good" in gone.stderr) == ("a\n", True)
    assert run("restore", "a", exit_code=5)


def test_where_nobody_can_be_asked_nothing_goes_for_good(run: Run) -> None:
    run("create", "--id", "a")
    run("rm", "a")
    assert "--force" in run("prune", "--all", exit_code=2).stderr
    assert run("prune", "--all", "--older-than", "1d", "--force", exit_code=2)
    assert loaded(run("prune", "--all", "--force", "--json"))["sessions"] == 1


@either
def test_folders_of_nobody_are_shown_and_removed(run: Run, place: Path) -> None:
    run("create", "--id", "a")
    stray = place / "sessions" / "stray"
    stray.mkdir()
    assert run("prune", "--strays", "-n").stdout == "", "touched within the hour"
    assert run("prune", "--strays", "--all", "--force").stdout == f"{stray}\n"
    assert not stray.exists()
    assert (place / "sessions" / "a").exists()
