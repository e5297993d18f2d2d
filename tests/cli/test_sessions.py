"""`alcove list`, `detail`, `create` and `rm`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Run, either, golden, loaded

pytestmark = pytest.mark.usefixtures("frozen")

HOSTILE = "\x1b[31mred\x1b[0m\r\n\t\x9b2J\u202eevil"


@pytest.fixture
def three(run: Run, frozen: Callable[[int], None]) -> None:
    """Three sessions of different ages: one plain, one of a child, one with everything."""
    run("create", "--id", "order-1", "--user", "ana", "--title", "A first order", "--key", "k")
    frozen(90)
    run("create", "--id", "order-1.child", "--parent", "order-1", "--title", HOSTILE, "--ttl", "never")
    frozen(4000)
    run("create", "--id", "報告", "--user", "x", exit_code=2)
    run(
        "create",
        "--id",
        "report",
        "--user",
        "小明",
        "--app",
        "shop",
        "--title",
        "四半期の報告書をまとめる" * 4,
        "--ttl",
        "1h",
    )
    frozen(8000)


@either
@pytest.mark.usefixtures("three")
class TestList:
    def test_a_terminal_gets_a_table_of_its_width(self, run: Run, place: Path) -> None:
        golden("list.80.txt", run("list", columns=80).output, place)
        golden("list.50.txt", run("list", columns=50).output, place)

    def test_a_pipe_gets_lines(self, run: Run, place: Path) -> None:
        result = run("list")
        golden("list.piped.txt", result.output, place)
        assert {len(line.split("\t")) for line in result.stdout.splitlines()} == {7}

    def test_a_program_gets_json(self, run: Run, place: Path) -> None:
        golden("list.json.txt", run("list", "--json").output, place)

    def test_no_color_is_respected(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "\x1b" in run("list", columns=80).output
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in run("list", columns=80).output

    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            (["--user", "ana"], ["order-1.child", "order-1"]),
            (["--app", "shop"], ["report"]),
            (["--parent", "order-1"], ["order-1.child"]),
            (["--status", "expired"], ["report"]),
            (["--status", "active"], ["order-1.child", "order-1"]),
            (["--status", "trashed"], []),
            (["--user", "nobody"], []),
        ],
    )
    def test_filters_narrow(self, run: Run, filters: list[str], found: list[str]) -> None:
        assert [line.split("\t")[0] for line in run("list", *filters).stdout.splitlines()] == found

    def test_a_page_says_that_there_is_more(self, run: Run) -> None:
        result = run("list", "--limit", "2")
        assert len(result.stdout.splitlines()) == 2
        assert "--all" in result.stderr
        assert loaded(run("list", "--limit", "2", "--json"))["next_cursor"]
        result = run("list", "--limit", "2", "--all")
        assert (len(result.stdout.splitlines()), result.stderr) == (3, "")

    @pytest.mark.parametrize("limit", ["0", "201", "x"])
    def test_a_limit_out_of_range_is_refused(self, run: Run, limit: str) -> None:
        assert "--limit" in run("list", "--limit", limit, exit_code=2).stderr


@either
class TestIds:
    def test_on_a_terminal_they_are_cut_to_what_tells_them_apart(self, run: Run, place: Path) -> None:
        made = [run("create").stdout.strip() for _ in range(3)]
        shown = [line.split()[0] for line in run("list", columns=80).stdout.splitlines()[1:]]
        assert len(set(shown)) == 3
        assert all(len(one) < 36 for one in shown)
        for one in shown:
            assert run("detail", one).stdout.splitlines()[0].split("\t")[2] in made

    def test_in_a_pipe_they_are_whole(self, run: Run) -> None:
        assert run("create").stdout.strip() == run("list").stdout.split("\t")[0]


@either
@pytest.mark.usefixtures("three")
class TestDetail:
    def test_it_shows_the_session(self, run: Run, place: Path) -> None:
        golden("detail.80.txt", run("detail", "order-1.", columns=80).output, place)
        golden("detail.piped.txt", run("detail", "order-1.").output, place)
        golden("detail.json.txt", run("detail", "order-1.", "--json").output, place)

    def test_an_exact_id_wins_over_longer_ones(self, run: Run) -> None:
        assert loaded(run("detail", "order-1", "--json"))["session_id"] == "order-1"

    def test_an_ambiguous_beginning_names_the_candidates(self, run: Run) -> None:
        result = run("detail", "ord", exit_code=2)
        assert "order-1, order-1.child" in result.stderr

    @pytest.mark.parametrize("prefix", ["nothing", "order-12"])
    def test_an_unknown_one_is_not_found(self, run: Run, prefix: str) -> None:
        result = run("detail", prefix, exit_code=5)
        assert result.stderr.splitlines() == [
            f"error: there is no session {prefix!r}",
            "hint: `alcove list` shows those there are",
        ]

    @pytest.mark.parametrize("prefix", ["../x", "a/b", ".", "x" * 300, "a\u2024b", "ord%"])
    def test_what_cannot_be_an_id_is_refused(self, run: Run, prefix: str) -> None:
        assert "is not a session id" in run("detail", prefix, exit_code=2).stderr


@either
class TestCreate:
    def test_it_prints_the_id_and_makes_the_folder(self, run: Run, place: Path) -> None:
        result = run("create")
        assert (place / "sessions" / result.stdout.strip()).is_dir()
        assert result.stderr == ""

    def test_everything_given_is_kept(self, run: Run) -> None:
        options = ("--user", "ana", "--app", "shop", "--title", "T", "--key", "k", "--agent", "shell", "--ttl", "2h")
        made = loaded(run("create", "--id", "a", *options, "--metadata", "a=b=c", "--metadata", "n=", "--json"))
        assert (made["user_id"], made["app"], made["title"], made["key"]) == ("ana", "shop", "T", "k")
        assert (made["agent"], made["ttl_s"], made["metadata"]) == ("shell", 7200.0, {"a": "b=c", "n": ""})
        assert loaded(run("create", "--json"))["ttl_s"] == 86400.0
        assert loaded(run("create", "--ttl", "never", "--json"))["ttl_s"] is None

    @pytest.mark.parametrize(
        ("options", "exit_code", "said"),
        [
            (["--id", "../x"], 2, "is not a session id"),
            (["--ttl", "soon"], 2, "write a whole number and a unit"),
            (["--ttl", "0s"], 2, "ttl_s is 0"),
            (["--metadata", "nothing"], 2, "name=value"),
            (["--metadata", "=x"], 2, "name=value"),
            (["--title", "x" * 513], 2, "title has 513 characters"),
            (["--user", "a\nb"], 2, "control character"),
            (["--agent", "shel"], 5, "did you mean 'shell'?"),
            (["--id", "taken"], 3, "session taken exists"),
            (["--user", "ana", "--key", "k"], 3, "belongs to session taken"),
            (["--parent", "nobody"], 5, "there is no session 'nobody'"),
        ],
    )
    def test_what_cannot_be_is_refused(self, run: Run, options: list[str], exit_code: int, said: str) -> None:
        run("create", "--id", "taken", "--user", "ana", "--key", "k")
        assert said in run("create", *options, exit_code=exit_code).stderr
        assert len(run("list").stdout.splitlines()) == 1


@either
@pytest.mark.usefixtures("three")
class TestRm:
    def test_it_moves_a_tree_to_the_trash(self, run: Run, place: Path) -> None:
        result = run("rm", "order-1")
        assert result.stdout.split() == ["order-1", "order-1.child"]
        assert "2 sessions in the trash" in result.stderr
        assert not (place / "sessions" / "order-1").exists()
        assert [line.split("\t")[0] for line in run("list").stdout.splitlines()] == ["report"]
        assert len(run("list", "--status", "trashed").stdout.splitlines()) == 2
        assert "is in the trash" in run("rm", "order-1", exit_code=5).stderr
        assert "is in the trash" in run("detail", "order-1", exit_code=5).stderr

    def test_several_may_be_named_also_one_below_another(self, run: Run) -> None:
        assert sorted(run("rm", "order-1", "order-1.child", "rep").stdout.split()) == [
            "order-1",
            "order-1.child",
            "report",
        ]

    def test_nothing_goes_when_one_is_unknown(self, run: Run) -> None:
        run("rm", "report", "nothing", exit_code=5)
        assert len(run("list").stdout.splitlines()) == 3

    @pytest.mark.parametrize("flags", [[], ["--purge"]])
    def test_a_dry_run_shows_exactly_what_would_go(self, run: Run, place: Path, flags: list[str]) -> None:
        result = run("rm", "--dry-run", *flags, "order-1")
        golden(f"rm-dry-run{'-purge' if flags else ''}.piped.txt", result.output, place)
        would = [one["session_id"] for one in loaded(run("rm", "-n", *flags, "order-1", "--json"))["sessions"]]
        went = loaded(run("rm", *flags, "--yes", "order-1", "--json"))["removed"][0]["sessions"]
        assert sorted(went) == sorted(would) == ["order-1", "order-1.child"]

    def test_a_dry_run_of_what_is_in_the_trash_shows_exactly_what_would_go(self, run: Run) -> None:
        run("rm", "order-1")
        would = [one["session_id"] for one in loaded(run("rm", "-n", "--purge", "order-1", "--json"))["sessions"]]
        went = loaded(run("rm", "--purge", "-f", "order-1", "--json"))["removed"][0]
        assert (sorted(went["sessions"]), went["purged"]) == (sorted(would), True)
        assert sorted(would) == ["order-1", "order-1.child"]
        assert run("list", "--status", "trashed").stdout == ""

    def test_a_purge_without_a_terminal_needs_a_yes(self, run: Run) -> None:
        result = run("rm", "--purge", "report", exit_code=2)
        assert "add --force" in result.stderr
        assert "1 session removed for good" in run("rm", "--purge", "--yes", "report").stderr
        run("detail", "report", exit_code=5)

    @pytest.mark.usefixtures("somebody")
    def test_a_purge_on_a_terminal_asks(self, run: Run) -> None:
        result = run("rm", "--purge", "order-1", stdin="n\n", exit_code=1)
        assert "Remove 2 sessions for good?" in result.stderr
        assert "nothing was removed" in result.stderr
        run("rm", "--purge", "order-1", stdin="", exit_code=130)
        assert len(run("list").stdout.splitlines()) == 3
        assert "2 sessions removed for good" in run("rm", "--purge", "order-1", stdin="y\n").stderr

    def test_files_go_with_a_purge(self, run: Run, place: Path) -> None:
        (place / "sessions" / "report" / "a.txt").write_text("x" * 5000)
        receipt = loaded(run("rm", "--purge", "--yes", "report", "--json"))["removed"][0]
        assert (receipt["files"], receipt["size_bytes"] >= 5000) == (1, True)
        assert not os.path.lexists(place / "sessions" / "report")


class TestWithoutInstallation:
    def test_a_child_starts_no_installation(self, run: Run, place: Path) -> None:
        run("create", "--parent", "a", exit_code=5)
        assert list(place.iterdir()) == []

    @pytest.mark.parametrize("command", [["list"], ["detail", "a"], ["rm", "a"], ["rm", "--purge", "--yes", "a"]])
    @pytest.mark.parametrize("database", ["", "memory://", "sqlite:///nowhere/x.db"])
    def test_reading_commands_make_nothing(
        self, run: Run, place: Path, command: list[str], database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALCOVE_DATABASE", database)
        result = run(*command, exit_code=5)
        assert "there is no installation here" in result.stderr
        assert "`alcove serve` or `alcove create` starts one" in result.stderr
        assert list(place.iterdir()) == []


@pytest.mark.usefixtures("three")
def test_nothing_that_a_stranger_chose_reaches_the_terminal_raw(run: Run) -> None:
    detail = ["detail", "order-1.c"]
    for command in (["list"], ["list", "--json"], detail, [*detail, "--json"], ["rm", "-n", "order-1"]):
        for columns in (None, 60, 200):
            text = run(*command, columns=columns).output.replace("\x1b[1m", "").replace("\x1b[0m", "")
            assert "red" in text or columns == 60
            assert not {"\x1b", "\r", "\x9b", "\u202e"} & set(text), command
