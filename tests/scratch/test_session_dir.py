"""What a script is given, by which name, and what it is told when there is nothing to give."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from alcove import scratch
from alcove.scratch import ScratchError, taking
from scratch.conftest import Program, age


def test_the_folder_is_made_for_its_owner_only_and_is_the_same_on_each_call(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACE_ID", "4f1c")
    path = scratch.session_dir(app="kfs-answer")
    assert path == root / "kfs-answer-sessions" / "4f1c"
    assert path.stat().st_mode & 0o777 == 0o700
    (path / "kept.txt").write_text("x")
    assert scratch.session_dir(app="kfs-answer") == path
    assert (path / "kept.txt").read_text() == "x"


def test_a_call_refreshes_the_folder(root: Path) -> None:
    path = scratch.session_dir("a", trace_id="t")
    age(path)
    old = path.stat().st_mtime
    scratch.session_dir("a", trace_id="t")
    assert path.stat().st_mtime > old + 86_400


def test_the_root_is_the_argument_then_the_environment_then_the_home_of_a_run_then_the_current_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def where(root: str | None = None) -> Path:
        return scratch.session_dir("a", root, trace_id="t").parent.parent

    monkeypatch.setenv("HOME", str(root / "home"))
    assert where() == root
    monkeypatch.setenv("ALCOVE_RUN_ID", "r")
    assert where() == root / "home"
    monkeypatch.setenv("ALCOVE_SCRATCH_ROOT", str(root / "set"))
    assert where() == root / "set"
    assert where(root=str(root / "given")) == root / "given"


def test_without_a_trace_id_a_script_ends_with_status_1_and_a_sentence_on_stderr(program: Program) -> None:
    done = program("import alcove.scratch; alcove.scratch.session_dir('a'); print('went on')")
    assert (done.returncode, done.stdout) == (1, "")
    assert "TRACE_ID is not set" in done.stderr
    assert "TRACE_ID=$(uuidgen)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_may_go_on_without_a_folder(root: Path) -> None:
    with pytest.raises(ScratchError) as refused:
        scratch.session_dir("a")
    assert "framework" in refused.value.remedy
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["..", "../..", "/etc", "a/b", ".hidden", "a\0b", "", "a\n", "-flag", "x" * 129, "é", "\ud800", "a b", "."],
    ids=ascii,
)
def test_a_trace_id_or_app_that_is_no_plain_name_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ScratchError):
        scratch.session_dir("a", trace_id=name)
    with pytest.raises(ScratchError):
        scratch.session_dir(name, trace_id="t")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 128, "A.b_c-9", "0199b1c2-7d0e-7000-8000-000000000000"])
def test_any_other_name_is_one(root: Path, name: str) -> None:
    assert scratch.session_dir("a", trace_id=name).name == name


@pytest.mark.parametrize("given", ["", "a\0b", "file", "file/below", "/proc/no"])
def test_a_root_that_cannot_be_one_is_refused_in_a_sentence(root: Path, given: str) -> None:
    (root / "file").write_text("x")
    with pytest.raises(ScratchError):
        scratch.session_dir("a", root=given, trace_id="t")


def test_a_current_folder_that_is_gone_is_refused_in_a_sentence(root: Path) -> None:
    (root / "gone").mkdir()
    os.chdir(root / "gone")
    (root / "gone").rmdir()
    with pytest.raises(ScratchError, match="current folder is gone"):
        scratch.session_dir("a", trace_id="t")


def test_a_process_holds_one_descriptor_per_folder_until_it_releases_it(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    paths = [scratch.session_dir("a", trace_id=f"t{number}") for number in [1, 1, 1, 2, 2]]
    assert len(os.listdir("/proc/self/fd")) == before + 2
    for path in [*paths, root]:
        scratch.release(path)
    assert len(os.listdir("/proc/self/fd")) == before
    assert taking._held == {}


def test_a_folder_that_was_removed_by_hand_is_made_and_held_anew(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    path = scratch.session_dir("a", trace_id="t")
    path.rmdir()
    assert scratch.session_dir("a", trace_id="t") == path
    assert [folder.in_use for folder in scratch.folders("a")] == [True]
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_listing_says_who_is_idle_longest_and_who_is_in_use(root: Path, program: Program) -> None:
    old = Path(program("import alcove.scratch as s; print(s.session_dir('a'))", trace_id="old").stdout.strip())
    age(old)
    new = scratch.session_dir("a", trace_id="new")
    assert [(one.trace_id, one.path, one.in_use) for one in scratch.folders("a")] == [
        ("old", old, False),
        ("new", new, True),
    ]
    assert scratch.folders("nobody") == []


def test_it_loads_only_the_standard_library_and_nothing_else_of_alcove() -> None:
    code = "import sys; bare = set(sys.modules); import alcove.scratch; print(*set(sys.modules) - bare)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names | {"alcove"}} == set()
    assert {name for name in loaded if name.startswith("alcove.")} == {
        "alcove.scratch",
        *(f"alcove.scratch.{part}" for part in ("ageing", "places", "sweeping", "taking")),
    }
