"""Agents with real programs: the shell, one that behaves like Amazon Q's, and one that does its worst."""

from __future__ import annotations

import signal
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from alcove import limits
from alcove.agents.base import Line, Prompt
from alcove.agents.catalog import Catalog
from alcove.agents.command import CommandAgent
from alcove.agents.table import CommandTable

Run = Callable[..., tuple[str, int]]
DOCS = Path(__file__).parents[2] / "docs" / "agents.md"


@pytest.fixture
def shell(environ: dict[str, str]) -> CommandAgent:
    agent = Catalog(environ=environ).get("shell")
    assert isinstance(agent, CommandAgent)
    return agent


@pytest.fixture
def q(environ: dict[str, str]) -> CommandAgent:
    """The worked example of the documentation, as printed there."""
    block = DOCS.read_text("utf-8").split("```toml\n", 2)[1].split("```")[0]
    agent = Catalog(tomllib.loads(block)["agents"], environ=environ).get("q")
    assert isinstance(agent, CommandAgent)
    return agent


@pytest.mark.parametrize(
    ("script", "answer", "exit_code"),
    [
        ("echo hi", "hi", 0),
        ("echo out; echo err >&2; exit 3", "out\nerr", 3),
        ('cat; read line; echo "got <$line>"', "got <>", 0),
        ("-n", "bash: line 1: -n: command not found", 127),
        ("cat <<X\nhere\nX\necho after", "here\nafter", 0),
        ("f() { return 4; }\nf", "", 4),
        ("set -u; echo ${script-unset}; echo $0 $#", "unset\nbash 0", 0),
        ("echo '中' \"$(printf 'a\\tb')\"  # comment", "中 a\tb", 0),
        ("printf '\\033[31mred\\033[0m\\n'", "red", 0),
        ("", "", 0),
    ],
)
def test_a_message_to_the_shell_is_a_script(
    shell: CommandAgent, run: Run, script: str, answer: str, exit_code: int
) -> None:
    said, code = run(shell, shell.invocation(Prompt(message=script, language="中文")))
    assert (said.partition("\nThe message is run")[0].removesuffix("\n"), code) == (answer, exit_code)


def test_the_shell_explains_what_it_takes_prose_for(shell: CommandAgent, run: Run) -> None:
    answer, exit_code = run(shell, shell.invocation(Prompt(message="Please summarise this")))
    assert exit_code == 127
    assert "Please: command not found" in answer
    assert "The message is run as a bash script" in answer
    assert "alcove.toml" in answer


def test_the_shell_says_where_a_script_is_broken(shell: CommandAgent, run: Run) -> None:
    answer, exit_code = run(shell, shell.invocation(Prompt(message="if true; then")))
    assert exit_code != 0
    assert "syntax error" in answer


def test_the_shell_takes_a_script_of_a_mebibyte(shell: CommandAgent, run: Run) -> None:
    script = "#" * (limits.CHAT_BYTES - 9) + "\necho end"
    assert run(shell, shell.invocation(Prompt(message=script))) == ("end", 0)


@pytest.mark.parametrize("message", ["What is in this folder?", "--help", "-", "中文 ✓"])
def test_q_answers_without_banner_prompt_or_colour(q: CommandAgent, run: Run, message: str) -> None:
    assert run(q, q.invocation(Prompt(message=message, language=""))) == (f"You said: {message}", 0)


@pytest.mark.parametrize("line", ["/quit", " /quit ", "/tools trust-all", "!touch owned", "  !touch owned"])
def test_no_line_of_a_message_is_a_command_of_q(q: CommandAgent, run: Run, tmp_path: Path, line: str) -> None:
    answer, _ = run(q, q.invocation(Prompt(message=f"{line}\nafter\r{line}\rend", language="")))
    assert answer.count("You said: >") == 2
    assert "You said: after" in answer
    assert answer.endswith("You said: end")
    assert "COMMAND" not in answer
    assert not (tmp_path / "workspace" / "owned").exists()


def test_unescaped_the_same_lines_would_be_commands(q: CommandAgent, run: Run, tmp_path: Path) -> None:
    """The negative control of the test above."""
    bare = CommandAgent("q", CommandTable(command=["q", "chat"]), folder=tmp_path, environ=q._environ)
    answer, _ = run(bare, bare.invocation(Prompt(message="!touch owned\n/tools trust-all\n/quit\nafter")))
    assert (tmp_path / "workspace" / "owned").exists()
    assert "COMMAND /tools" in answer
    assert "after" not in answer


def test_q_is_told_what_was_said_before(q: CommandAgent, run: Run) -> None:
    prompt = Prompt(message="now", history=[Line("user", "before"), Line("assistant", "/quit")], language="")
    answer, _ = run(q, q.invocation(prompt))
    assert "You said: User: before" in answer
    assert answer.endswith("You said: now")


def test_q_says_its_version_to_a_check(q: CommandAgent, run: Run) -> None:
    assert run(q, q.check_invocation()) == ("q 1.19.7", 0)


@pytest.fixture
def hostile(environ: dict[str, str], tmp_path: Path) -> Callable[..., CommandAgent]:
    def make(act: str, strip: list[str] | None = None) -> CommandAgent:
        table = CommandTable(command=["hostile", act], stdin_suffix="\n/quit\n", strip=strip or [])
        return CommandAgent("hostile", table, folder=tmp_path, environ=environ)

    return make


@pytest.mark.parametrize(
    ("act", "answer"),
    [
        ("ansi", "link\nred\n0;no end\nafter\n1;"),
        ("silent", ""),
        ("echo", ">/quit\n/quit\n/quit"),
    ],
)
def test_a_hostile_answer_is_plain_text(hostile: Callable[..., CommandAgent], run: Run, act: str, answer: str) -> None:
    agent = hostile(act)
    assert run(agent, agent.invocation(Prompt(message="/quit"))) == (answer, 0)


@pytest.mark.parametrize(("act", "end"), [("flood", "last"), ("line", "a"), ("binary", "end"), ("prompts", "x")])
def test_a_hostile_flood_is_kept_in_bounds(hostile: Callable[..., CommandAgent], run: Run, act: str, end: str) -> None:
    agent = hostile(act, strip=["^(> )+", r"\s+$"])
    answer, exit_code = run(agent, agent.invocation(Prompt(message="go")))
    assert exit_code == 0
    assert len(answer.encode()) <= limits.ANSWER_BYTES
    assert answer.rstrip().endswith(end)
    assert not set(answer) & set(map(chr, (*range(9), *range(11, 32), *range(127, 160))))
    if act == "flood":
        assert answer.startswith("first\n")
        assert "bytes of output left out" in answer


def test_what_a_stubborn_program_said_is_kept(hostile: Callable[..., CommandAgent], run: Run) -> None:
    agent = hostile("stubborn")
    assert run(agent, agent.invocation(Prompt(message="")), b"I stay") == ("I stay", -signal.SIGKILL)
