"""What is swept, what never is, and how often anybody looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alcove import scratch
from alcove.scratch import sweeping
from scratch.conftest import DAY_S, Program, age

MAKE = "import alcove.scratch as s; print(s.session_dir('a'))"


def left(root: Path, trace_id: str = "old", *files: str) -> Path:
    """A folder that a process made, filled and left."""
    path = root / "a-sessions" / trace_id
    path.mkdir(parents=True, exist_ok=True)
    for file in files:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text("x")
    return path


def names(root: Path) -> set[str]:
    return {path.name for path in (root / "a-sessions").iterdir()} - {".sweep"}


def test_what_is_older_than_a_day_goes_and_the_rest_stays(root: Path) -> None:
    age(left(root, "old", "deep/er/file"))
    left(root, "new", "file")
    assert scratch.sweep("a", dry_run=True).removed == ["old"]
    assert names(root) == {"old", "new"}
    assert scratch.sweep("a").removed == ["old"]
    assert names(root) == {"new"}


def test_a_folder_in_use_is_never_swept_however_old(root: Path, program: Program) -> None:
    code = "import alcove.scratch as s, sys; print(s.session_dir('a'), flush=True); sys.stdin.read()"
    env = {**os.environ, "TRACE_ID": "long"}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        path = Path(holder.stdout.readline().strip())
        age(path, days=400)
        assert scratch.sweep("a").removed == []
        holder.kill()
    assert scratch.sweep("a").removed == ["long"], "the kernel drops the lock of a process that was killed"


def test_a_shell_keeps_its_folder_by_a_lock_on_it(root: Path) -> None:
    script = """
        set -e
        dir=$(TRACE_ID=sh "$PYTHON" -m alcove scratch dir --app a)
        exec 9<"$dir"; flock -s 9
        touch -d '9 days ago' "$dir"
        "$PYTHON" -m alcove scratch sweep --app a 2>/dev/null
        test -d "$dir"
        exec 9<&-
        "$PYTHON" -m alcove scratch sweep --app a 2>/dev/null
    """
    env = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", script], cwd=root, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "sh\n"), done.stderr


def test_a_file_refreshed_inside_is_activity(root: Path) -> None:
    path = left(root, "old", "one/two/three")
    age(path)
    os.utime(path / "one/two/three")
    assert scratch.sweep("a").removed == []
    age(path)
    assert scratch.sweep("a").removed == ["old"]


def test_a_link_to_something_fresh_is_not_activity(root: Path) -> None:
    path = left(root)
    (root / "fresh").mkdir()
    (path / "link").symlink_to(root / "fresh")
    age(path)
    assert scratch.sweep("a").removed == ["old"]
    assert (root / "fresh").is_dir()


def test_a_folder_of_the_future_counts_as_fresh(root: Path) -> None:
    age(left(root), days=-400)
    assert scratch.sweep("a").removed == []


def test_a_call_sweeps_the_others_at_most_once_per_interval(root: Path) -> None:
    scratch.session_dir("a", trace_id="t")
    age(left(root, "old"))
    scratch.session_dir("a", trace_id="t")
    assert names(root) == {"t", "old"}, "the mark was made just now"
    mark = root / "a-sessions" / ".sweep"
    stamp = mark.stat().st_mtime - sweeping.EVERY_S - 1
    os.utime(mark, (stamp, stamp))
    scratch.session_dir("a", trace_id="t")
    assert names(root) == {"t"}
    age(left(root, "older"))
    scratch.session_dir("a", trace_id="t")
    assert names(root) == {"t", "older"}, "swept within the interval"


def test_never_is_never(root: Path) -> None:
    scratch.session_dir("a", trace_id="t")
    age(left(root, "old"), days=1000)
    os.utime(root / "a-sessions" / ".sweep", (0, 0))
    scratch.session_dir("a", trace_id="t", max_age_s=None)
    assert names(root) == {"t", "old"}


def test_a_clock_that_was_set_back_does_not_stop_the_sweeps(root: Path) -> None:
    scratch.session_dir("a", trace_id="t")
    age(left(root, "old"))
    future = (root / "a-sessions" / ".sweep").stat().st_mtime + 365 * DAY_S
    os.utime(root / "a-sessions" / ".sweep", (future, future))
    scratch.session_dir("a", trace_id="t")
    assert names(root) == {"t"}


def test_one_call_does_a_part_of_much_and_the_next_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "NAMES", 10)
    scratch.session_dir("a", trace_id="t")
    for number in range(20):
        age(left(root, f"old{number}", "file"))
    os.utime(root / "a-sessions" / ".sweep", (0, 0))
    sizes: list[int] = []
    while len(names(root)) > 1:
        scratch.session_dir("a", trace_id="t")
        sizes.append(len(names(root)))
        assert len(sizes) < 20
    assert len(sizes) > 1
    assert sizes == sorted(sizes, reverse=True)
    assert (root / "a-sessions" / ".sweep").stat().st_mtime > 0


def test_two_processes_may_sweep_at_once_and_nothing_is_removed_twice(root: Path) -> None:
    for number in range(60):
        age(left(root, f"old{number}", "a/b/file", "c/file", "file"))
    code = "import alcove.scratch as s; swept = s.sweep('a'); print(*swept.removed); assert not swept.failed, swept"
    sweepers = [
        subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    removed = [name for sweeper in sweepers for name in sweeper.communicate(timeout=60)[0].split()]
    assert [sweeper.returncode for sweeper in sweepers] == [0, 0, 0]
    assert sorted(removed) == sorted(f"old{number}" for number in range(60))
    assert names(root) == set()


def test_a_folder_asked_for_while_it_is_swept_is_there_afterwards(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(left(root, "t", "file"))
    with pytest.MonkeyPatch.context() as patched:
        real, made = sweeping._remove, list[Path]()

        def remove(fd: int, gone: str) -> int:
            made.append(scratch.session_dir("a", trace_id="t"))  # between the claim and the removal
            return real(fd, gone)

        patched.setattr(sweeping, "_remove", remove)
        assert scratch.sweep("a").removed == ["t"]
    assert made[0].is_dir()
    assert list(made[0].iterdir()) == []
    assert names(root) == {"t"}


KILLED = """
import os, signal, sys
from alcove import scratch
steps = 0
def counting(real):
    def step(*args, **kwargs):
        global steps
        steps += 1
        if steps == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return step
os.rename, os.unlink, os.rmdir = counting(os.rename), counting(os.unlink), counting(os.rmdir)
assert scratch.sweep("a").removed == ["old"]
"""


def test_a_sweep_that_was_killed_at_any_step_is_finished_by_the_next(root: Path) -> None:
    step, killed = 0, True
    while killed:
        step += 1
        age(left(root, "old", "a/b/file", "file"))
        done = subprocess.run([sys.executable, "-c", KILLED, str(step)], cwd=root, capture_output=True, timeout=60)
        killed = done.returncode == -signal.SIGKILL
        assert killed or done.returncode == 0, done.stderr
        swept = scratch.sweep("a")
        assert swept.failed == []
        assert names(root) == set()
    assert step > 5
