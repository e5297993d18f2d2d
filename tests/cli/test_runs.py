"""`alcove exec`, `runs`, `tail` and `children`: here and on a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.conftest import Run, either, golden, loaded

ALCOVE = [sys.executable, "-m", "alcove"]


@either
class TestExec:
    def test_a_command_runs_in_the_workspace_and_its_exit_code_is_passed_on(self, run: Run, place: Path) -> None:
        run("create", "--id", "a")
        result = run("exec", "a", "--", "sh", "-c", "echo \"$PWD\" '$x'; echo err >&2; exit 7", exit_code=7)
        assert (result.stdout, result.stderr) == (f"{place}/sessions/a $x\n", "err\n")
        assert run("exec", "a", "printf", "%s|", "a b", "*", "--raw").stdout == "a b|*|--raw|"
        assert run("exec", "a", "--", "true").output == ""

    def test_a_pipe_gets_what_the_program_wrote(self, run: Run) -> None:
        run("create", "--id", "a")
        assert run("exec", "a", "printf", r"\033[31mr\r\n\007\303\251").stdout_bytes == b"\x1b[31mr\r\n\x07\xc3\xa9"
        assert run("exec", "a", "printf", r"\033[31mr\007\n", columns=80).stdout == "r\n"
        assert run("exec", "--raw", "a", "printf", r"\033[31mr\007\n", columns=80).stdout == "\x1b[31mr\x07\n"

    def test_a_run_that_times_out_is_an_error(self, run: Run) -> None:
        run("create", "--id", "a")
        result = run("exec", "--timeout", "1s", "a", "sleep", "60", exit_code=1)
        assert result.stderr == "error: the run timed out\n"

    def test_what_cannot_be_is_refused(self, run: Run) -> None:
        run("create", "--id", "a")
        assert "no command after `--`" in run("exec", "a", "--", exit_code=2).stderr
        assert "Missing argument" in run("exec", "a", exit_code=2).stderr
        run("exec", "b", "true", exit_code=5)
        assert loaded(run("runs", "a", "--json"))["runs"] == []


@either
class TestRuns:
    def test_they_are_listed_with_their_sessions(self, run: Run) -> None:
        run("create", "--id", "a")
        run("create", "--id", "b")
        for session, code in (("a", 0), ("b", 3)):
            run("exec", session, "sh", "-c", f"exit {code}", exit_code=code)
        rows = [line.split("\t") for line in run("runs").stdout.splitlines()]
        assert [(row[1], row[3], row[4]) for row in rows] == [("b", "finished", "3"), ("a", "finished", "0")]
        assert run("runs", columns=80).stdout.splitlines()[0].split()[1] == "SESSION"
        [one] = loaded(run("runs", "a", "--json"))["runs"]
        assert (one["session_id"], one["status"], one["exit_code"]) == ("a", "finished", 0)
        assert "the newest 1 are shown" in run("runs", "--limit", "1").stderr


@either
class TestTail:
    def test_a_pipe_gets_a_line_for_each_event(self, run: Run) -> None:
        run("create", "--id", "a")
        assert run("tail", "a").output == ""
        run("exec", "a", "printf", r"x\t\033[2J\n")
        lines = [line.split("\t") for line in run("tail", "a").stdout.splitlines()]
        assert [line[1] for line in lines] == [str(n) for n in range(1, len(lines) + 1)]
        assert (lines[0][2], lines[-1][2]) == ("run.queued", "run.finished")
        assert {"stream": "stdout", "text": "x\t\x1b[2J\n"} in [json.loads(line[3]) for line in lines]
        events = [json.loads(line) for line in run("tail", "a", "--json").stdout.splitlines()]
        assert [(one["run_id"], str(one["id"]), one["event"]) for one in events] == [tuple(line[:3]) for line in lines]

    def test_a_terminal_gets_what_was_said(self, run: Run) -> None:
        run("create", "--id", "a")
        run("exec", "a", "printf", r"x\033[2Jy\n")
        result = run("tail", "a", columns=80)
        assert result.stdout == "xy\n"
        assert "run.finished status=finished exit_code=0" in result.stderr

    def test_it_resumes_behind_a_number(self, run: Run) -> None:
        run("create", "--id", "a")
        run("exec", "a", "true")
        whole = run("tail", "a").stdout.splitlines()
        first = whole[0].split("\t")[0]
        run("exec", "a", "true")
        assert run("tail", "a", "--run", first, "--after", "2").stdout.splitlines() == whole[2:]
        assert run("tail", "a", "--run", first[:30], "-f", "--after", "2").stdout.splitlines() == whole[2:]
        assert run("tail", "a", "--run", first, "-n", "1").stdout.splitlines() == whole[-1:]
        assert run("tail", "a").stdout.splitlines() != whole
        assert "begins several ids" in run("tail", "a", "--run", "0", exit_code=2).stderr
        run("tail", "a", "--run", "nothing", exit_code=5)


@either
def test_tail_follows_from_run_to_run(place: Path, run: Run) -> None:
    run("create", "--id", "a")
    run("exec", "a", "echo", "first")
    with subprocess.Popen(
        [*ALCOVE, "tail", "a", "-f"], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as tail:
        assert tail.stdout
        for said in ("first", "second", "third"):
            if said != "first":
                run("exec", "a", "echo", said)
            lines = [tail.stdout.readline().split("\t") for _ in range(7)]
            assert (lines[0][2], lines[-1][2]) == ("run.queued", "run.finished")
            assert [json.loads(line[3])["text"] for line in lines if line[2] == "output"] == [f"{said}\n"]
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130


def test_ctrl_c_cancels_what_exec_runs(place: Path, run: Run) -> None:
    run("create", "--id", "a")
    with subprocess.Popen(
        [*ALCOVE, "exec", "a", "sh", "-c", "echo begun; sleep 60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert loaded(run("runs", "a", "--json"))["runs"][0]["status"] == "cancelled"


@either
def test_children_are_shown_as_a_list_and_as_a_tree(run: Run, place: Path) -> None:
    for name, parent in (("a", ""), ("a.1", "a"), ("a.2", "a"), ("a.1.1", "a.1")):
        run("create", "--id", name, "--title", f"\x1b[2J{name}", *(["--parent", parent] if parent else []))
    assert [line.split("\t")[0] for line in run("children", "a").stdout.splitlines()] == ["a.2", "a.1"]
    assert [one["session_id"] for one in loaded(run("children", "a", "--tree", "--json"))["sessions"]] == [
        "a.1",
        "a.2",
        "a.1.1",
    ]
    golden("children-tree.piped.txt", run("children", "a", "--tree").output, place)
    golden("children-tree.50.txt", run("children", "a", "--tree", columns=50).output, place)
    run("children", "b", exit_code=5)


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_each_shell_has_its_script(self, run: Run, shell: str) -> None:
        assert "_ALCOVE_COMPLETE" in run("completion", shell).stdout

    def test_the_login_shell_is_the_default(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHELL", "/bin/zsh")
        assert run("completion").stdout.startswith("#compdef")
        monkeypatch.setenv("SHELL", "/bin/tcsh")
        assert "name bash, zsh or fish" in run("completion", exit_code=2).stderr

    @either
    def test_session_ids_are_completed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        run("create", "--id", "order-1")
        run("create", "--id", "order-2")
        run("create", "--id", "report")
        assert self._completed(monkeypatch, "alcove detail ord") == ["order-1", "order-2"]
        assert self._completed(monkeypatch, "alcove rm report ") == ["report", "order-2", "order-1"]
        assert self._completed(monkeypatch, "alcove detail ../") == []

    def test_bash_completes_by_what_it_printed(self, run: Run, place: Path) -> None:
        run("create", "--id", "order-1")
        run("create", "--id", "order-2")
        (place / "alcove").write_text(f'#!/bin/sh\nexec {sys.executable} -m alcove "$@"\n')
        (place / "alcove").chmod(0o755)
        script = """
            eval "$(alcove completion bash)"
            complete -p alcove
            function typed() {
                COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
                _alcove_completion alcove
                echo "${COMPREPLY[@]}"
            }
            typed alcove detail ord
            typed alcove clean
            typed alcove rm --pu
        """
        environ = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            ["bash", "--norc", "-c", script], capture_output=True, text=True, env=environ, cwd=place, timeout=60
        )
        assert done.stdout.splitlines() == [
            "complete -o nosort -F _alcove_completion alcove",
            "order-1 order-2",
            "cleanup-empty cleanup-old",
            "--purge",
        ], done.stderr

    def test_without_installation_nothing_is_offered_and_nothing_is_made(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self._completed(monkeypatch, "alcove detail ord") == []
        assert list(place.iterdir()) == []

    def _completed(self, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
        environ = {"_ALCOVE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        code = "from alcove.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environ}, timeout=30
        )
        return [word.removeprefix("plain,") for word in done.stdout.splitlines() if word]


@pytest.fixture
def little(place: Path) -> None:
    (place / "alcove.toml").write_text('[sandbox.limits]\ndisk = "4MiB"\n')


@either
def test_a_run_that_a_limit_ended_says_which_its_value_and_what_to_do(little: None, run: Run) -> None:
    result = run("chat", "echo before; head -c 20000000 /dev/zero > big; sleep 60", exit_code=1)
    assert result.stdout.startswith("before")
    assert "limit disk: the run and its session take more than 4MiB of the disk" in result.stderr
    assert "raise disk in [agents.shell.limits]" in result.stderr
    [shown] = loaded(run("runs", "--json"))["runs"]
    assert shown["status"] == "failed"
    assert "limit disk" in shown["error"]
