"""`alcove files`, `cat` and `cp`: here and on a server."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from alcove import limits
from alcove.cli import copying, output
from alcove.cli.remote import RemoteWorkspaces
from alcove.workspaces.model import File, Listing
from alcove.workspaces.service import Workspaces
from cli.conftest import Run, either, golden, loaded
from workspaces import tars

NASTY = "\x1b[31mred\x1b[0m\r\n\u202eevil"
TREE = {"notes.txt": b"one\n", "src/main.py": b"print(1)\n", "src/lib/a.py": b"", "src/lib/b.py": b"\x00\xff\x1b[2J"}


@pytest.fixture
def tree(run: Run, place: Path) -> Path:
    """A session `a` with files, and its workspace."""
    run("create", "--id", "a")
    workspace = place / "sessions" / "a"
    for path, content in TREE.items():
        file = workspace / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (1_790_000_000, 1_790_000_000))
    return workspace


def folder(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@either
@pytest.mark.usefixtures("tree")
class TestFiles:
    def test_they_are_listed_in_every_form(self, run: Run, place: Path) -> None:
        for name, options in (("plain", []), ("long", ["--long"]), ("tree", ["--tree"])):
            golden(f"files-{name}.80.txt", run("files", "a", *options, columns=80).output, place)
            golden(f"files-{name}.50.txt", run("files", "a", *options, columns=50).output, place)
            golden(f"files-{name}.piped.txt", run("files", "a", *options).output, place)
        golden("files.json.txt", run("files", "a", "--json").output, place)

    def test_a_folder_can_be_named(self, run: Run) -> None:
        assert run("files", "a:src/lib/").stdout.split() == ["src/lib/a.py", "src/lib/b.py"]
        assert loaded(run("files", "a:src", "--json"))["file_count"] == 3
        run("files", "a:sr", exit_code=5)

    def test_names_do_no_harm(self, run: Run, tree: Path) -> None:
        (tree / NASTY).write_text("x")
        (tree / os.fsdecode(b"\xff")).write_text("x")
        for options in ([], ["-l"], ["--tree"], ["--json"]):
            for columns in (None, 80):
                text = run("files", "a", *options, columns=columns).output
                assert not {"\x1b", "\r", "\u202e", "\udcff"} & set(text.replace("\x1b[1m", "").replace("\x1b[0m", ""))
        shown = {file["path"]: file.get("raw_path") for file in loaded(run("files", "a", "--json"))["files"]}
        assert shown["\ufffd"] == "%FF"
        assert shown[NASTY] is None


@either
@pytest.mark.usefixtures("tree")
class TestCat:
    def test_a_pipe_gets_every_byte(self, run: Run) -> None:
        assert run("cat", "a:src/lib/b.py", "a:notes.txt").stdout_bytes == b"\x00\xff\x1b[2Jone\n"

    def test_a_terminal_is_not_steered(self, run: Run) -> None:
        assert run("cat", "a:src/lib/b.py", columns=80).stdout == "\ufffd"
        assert run("cat", "--raw", "a:src/lib/b.py", columns=80).stdout_bytes == b"\x00\xff\x1b[2J"

    @pytest.mark.parametrize(
        ("argument", "exit_code", "said"),
        [
            ("a", 2, "write it as ID:PATH"),
            ("a:", 2, "write it as ID:PATH"),
            ("a:nothing", 5, "there is no 'nothing' in the workspace"),
            ("a:src", 2, "is a folder"),
            ("a:../b/x", 2, "not a plain relative path"),
            ("b:x", 5, "there is no session 'b'"),
        ],
    )
    def test_what_cannot_be_is_refused(self, run: Run, argument: str, exit_code: int, said: str) -> None:
        assert said in run("cat", argument, exit_code=exit_code).stderr


@either
class TestCp:
    @pytest.mark.parametrize(
        ("source", "target", "there"),
        [
            ("in/f", "a:", "f"),
            ("in/f", "a:g", "g"),
            ("in/f", "a:deep/er/", "deep/er/f"),
            ("in/f", "a:src", "src/f"),
            ("in/d", "a:", "d/x d/e/y"),
            ("in/d", "a:new", "new/x new/e/y"),
            ("in/d", "a:src", "src/d/x src/d/e/y"),
            ("in/d/.", "a:src", "src/x src/e/y"),
            ("in/d/.", "a:", "x e/y"),
            ("./in/f", "a:.", "f"),
        ],
    )
    def test_into_a_session(self, run: Run, tree: Path, place: Path, source: str, target: str, there: str) -> None:
        (place / "in/d/e").mkdir(parents=True)
        for path in ("in/f", "in/d/x", "in/d/e/y"):
            (place / path).write_bytes(path.encode())
        result = run("cp", source, target)
        new = folder(tree).keys() - TREE.keys()
        assert new == {*there.split()}
        assert result.stderr.startswith(f"{len(new)} file")

    @pytest.mark.parametrize(
        ("source", "target", "here"),
        [
            ("a:notes.txt", ".", "notes.txt"),
            ("a:notes.txt", "copy", "copy"),
            ("a:notes.txt", "deep/er/", "deep/er/notes.txt"),
            ("a:src", "out", "out/main.py out/lib/a.py out/lib/b.py"),
            ("a:src/", "there", "there/src/main.py there/src/lib/a.py there/src/lib/b.py"),
            ("a:src/.", "there", "there/main.py there/lib/a.py there/lib/b.py"),
            ("a:", "all", "all/notes.txt all/src/main.py all/src/lib/a.py all/src/lib/b.py"),
        ],
    )
    @pytest.mark.usefixtures("tree")
    def test_out_of_a_session(self, run: Run, place: Path, source: str, target: str, here: str) -> None:
        work = place / "elsewhere"
        (work / "there").mkdir(parents=True)
        run("cp", source, f"{work}/{target}")
        assert folder(work).keys() == {*here.split()}
        for path, content in folder(work).items():
            assert content in TREE.values(), path

    def test_a_folder_keeps_what_may_be_run_and_replaces_what_is_there(self, run: Run, tree: Path, place: Path) -> None:
        (place / "in").mkdir()
        (place / "in/main.py").write_text("new")
        (place / "in/main.py").chmod(0o755)
        (tree / "src/lib").rename(tree / "lib")
        (tree / "src/lib").symlink_to("../lib")
        run("cp", "in/.", "a:src")
        assert (tree / "src/main.py").read_text() == "new"
        assert (tree / "src/main.py").stat().st_mode & 0o777 == 0o755
        assert (tree / "src/lib").is_symlink()
        (place / "in/lib").mkdir()
        (place / "in/lib/c.py").write_text("c")
        (place / "in/main.py").write_text("newer")
        assert "src/lib" in run("cp", "in/.", "a:src", exit_code=3).stderr
        assert (tree / "src/main.py").read_text() == "new", "all of it or nothing"

    def test_names_that_are_no_text_come_and_go(self, run: Run, tree: Path, place: Path) -> None:
        name = os.fsdecode(b"d\xff")
        (place / name).mkdir()
        for number in range(3):
            (place / name / f"{number}\n%2f ü").write_text(str(number))
        run("cp", name, "a:")
        run("cp", f"a:{name}", "back")
        assert folder(place / name) == folder(tree / name) == folder(place / "back")

    def test_many_files_need_few_requests(
        self, run: Run, tree: Path, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(copying, "_BATCH_FILES", 100)
        (place / "many").mkdir()
        for number in range(250):
            (place / f"many/{number}").write_text(str(number))
        calls: list[str] = []
        for there in (Workspaces, RemoteWorkspaces):
            for name in ("extract", "archive", "write", "open_read"):
                monkeypatch.setattr(there, name, _counted(getattr(there, name), f"{there.__name__}.{name}", calls))
        run("cp", "many", "a:")
        assert folder(tree / "many") == folder(place / "many")
        run("cp", "a:many", "back")
        assert folder(place / "back") == folder(place / "many")
        assert calls.count("Workspaces.extract") == 3
        assert {call for call in calls if call.endswith(".write")} == set()
        assert calls.count("RemoteWorkspaces.archive") == ("ALCOVE_URL" in os.environ)
        assert "RemoteWorkspaces.open_read" not in calls

    def test_between_two_sessions(self, run: Run, tree: Path, place: Path) -> None:
        run("create", "--id", "b")
        run("cp", "a:src", "b:")
        assert folder(place / "sessions/b") == {path: TREE[path] for path in TREE if path.startswith("src/")}

    def test_by_standard_input_and_output(self, run: Run, tree: Path) -> None:
        assert run("cp", "-q", "-", "a:in", stdin=b"\xff\n").stderr == ""
        assert (tree / "in").read_bytes() == b"\xff\n"
        assert run("cp", "a:in", "-").stdout_bytes == b"\xff\n"

    def test_a_large_file_arrives_whole(self, run: Run, tree: Path, place: Path) -> None:
        content = random.Random(1).randbytes(5_000_001)
        (place / "large").write_bytes(content)
        run("cp", "large", "a:")
        run("cp", "a:large", "again")
        assert (tree / "large").read_bytes() == (place / "again").read_bytes() == content

    def test_links_are_left_out_and_said_so(self, run: Run, tree: Path, place: Path) -> None:
        (place / "in").mkdir()
        (place / "in/f").write_text("f")
        (place / "in/link").symlink_to("/etc/passwd")
        (place / "in/folder").symlink_to("/etc")
        os.mkfifo(place / "in/pipe")
        result = run("cp", "in", "a:")
        assert folder(tree).keys() - TREE.keys() == {"in/f"}
        assert result.stderr.count("left out:") == 3
        (tree / "in/link").symlink_to("/etc/passwd")
        assert "left out: in/link" in run("cp", "a:in", "out").stderr
        assert folder(place / "out") == {"f": b"f"}

    def test_a_link_here_leads_no_file_out_of_the_target(self, run: Run, tree: Path, place: Path) -> None:
        (place / "target").mkdir()
        (place / "outside").mkdir()
        (place / "target/lib").symlink_to(place / "outside")
        assert "leads out" in run("cp", "a:src/.", "target", exit_code=3).stderr
        assert folder(place / "outside") == {}

    @pytest.mark.parametrize(
        ("source", "target", "exit_code", "said"),
        [
            ("x", "y", 2, "write one as ID:PATH"),
            ("a:nothing", "y", 5, "there is no 'nothing'"),
            ("nothing", "a:", 5, "there is no 'nothing' here"),
            ("a:notes.txt", "no/such/folder", 5, "here"),
            ("a:../x", "y", 2, "not a plain relative path"),
            ("-", "a:", 2, "the file has no name there"),
            ("a:notes.txt", "a:notes.txt/x", 3, "is not a folder"),
        ],
    )
    @pytest.mark.usefixtures("tree")
    def test_what_cannot_be_is_refused(self, run: Run, source: str, target: str, exit_code: int, said: str) -> None:
        assert said in run("cp", source, target, exit_code=exit_code).stderr


def test_a_server_that_means_harm_writes_nothing_outside(
    run: Run, tree: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lying(self: Workspaces, session_id: str) -> Listing:
        file = File(path="src/../../evil", kind="file", size_bytes=1, modified_at=0)
        return Listing(files=(file,), truncated=False)

    monkeypatch.setattr(Workspaces, "list_files", lying)
    assert "not a plain relative path" in run("cp", "a:src", "out", exit_code=2).stderr
    assert not (place / "evil").exists()


async def _evil(self: RemoteWorkspaces, session_id: str, path: str = "") -> AsyncGenerator[bytes]:
    yield gzip.compress(tars.member("fine", b"x") + tars.member("../evil", b"x") + bytes(1024))


async def _cut(self: RemoteWorkspaces, session_id: str, path: str = "") -> AsyncGenerator[bytes]:
    yield gzip.compress(tars.member("main.py", b"other"))[:40]


@pytest.mark.parametrize("run", ["server"], indirect=True)
@pytest.mark.usefixtures("tree")
def test_an_archive_of_a_server_that_means_harm_writes_nothing_outside(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteWorkspaces, "archive", _evil)
    assert "not a plain relative path" in run("cp", "a:src", "out", exit_code=2).stderr
    assert folder(place / "out") == {"fine": b"x"}
    assert not (place / "evil").exists()


@pytest.mark.parametrize("run", ["server"], indirect=True)
def test_an_archive_that_breaks_off_is_fetched_file_by_file_instead(
    run: Run, tree: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteWorkspaces, "archive", _cut)
    run("cp", "a:src", "out")
    assert folder(place / "out") == folder(tree / "src")


@pytest.mark.parametrize("run", ["server"], indirect=True)
def test_what_packs_well_is_no_bomb_when_it_is_ones_own(
    run: Run, tree: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ARCHIVE_RATIO_FREE_BYTES", 1000)
    (tree / "src/zeros").write_bytes(bytes(3_000_000))
    run("cp", "a:src", "out")
    assert folder(place / "out") == folder(tree / "src")


def _counted(call: Any, name: str, calls: list[str]) -> Any:
    def counting(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return call(*args, **options)

    return counting


def test_a_copy_that_breaks_leaves_what_was_there(
    run: Run, tree: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "out").write_text("before")

    def broken(fd: int, step: copying.Steps) -> object:
        yield b"half"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "_pieces", broken)
    assert "No space left" in run("cp", "a:notes.txt", "out", exit_code=1).stderr
    assert (place / "out").read_text() == "before"
    assert [path.name for path in place.iterdir() if path.name.startswith(".alcove-")] == []


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("a\x1bb", 2) as step:
        step(2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with output.progress("a\x1bb", 2) as step:
        step(2)
    shown = capsys.readouterr().err
    assert "a\\x1bb" in shown
    assert "100%" in shown
