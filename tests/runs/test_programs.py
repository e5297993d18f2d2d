"""Runs of a program that behaves like Amazon Q's, and of one that does its worst."""

from __future__ import annotations

from pathlib import Path

import pytest

from alcove import limits
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from runs.world import alive, output, said


async def test_q_answers_without_its_banner(session: Handle) -> None:
    reply = await session.chat("What is in this folder?", agent="q")
    assert (reply.text, reply.run.exit_code) == ("You said: What is in this folder?", 0)


async def test_q_is_told_what_was_said_before(session: Handle) -> None:
    await session.chat("first", agent="q")
    reply = await session.chat("second", agent="q")
    assert "You said: User: first" in reply.text
    assert "You said: Assistant: You said: first" in reply.text
    assert reply.text.endswith("You said: second")


async def test_q_is_told_nothing_of_failed_turns(hub: Alcove, session: Handle) -> None:
    def broken(context: object) -> str:
        raise ValueError("no")

    hub.agents.register("broken", broken)
    await session.chat("never heard of", agent="broken")
    assert "never heard of" not in (await session.chat("second", agent="q")).text


async def test_q_is_asked_for_a_language(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "hello", agent="q", language="中文")
    assert "Reply in 中文." in (await hub.runs.reply(run.id)).text


async def test_a_message_is_no_command_of_q(session: Handle, hub: Alcove) -> None:
    assert hub.workspaces
    reply = await session.chat("!touch owned\n/quit\nafter", agent="q")
    assert reply.text.endswith("You said: after")
    assert (await hub.workspaces.list_files(session.id)).files == ()


async def test_the_journal_has_the_raw_output_and_the_answer_is_clean(hub: Alcove, session: Handle) -> None:
    reply = await session.chat("go", agent="ansi")
    assert "\x1b" not in reply.text
    assert "\x1b[31mred" in await output(hub, reply.run.id)


async def test_bytes_that_are_not_text_become_replacement_characters(hub: Alcove, session: Handle) -> None:
    reply = await session.chat("go", agent="binary")
    assert reply.run.exit_code == 0
    assert reply.text.endswith("end")
    assert "\ufffd" in await output(hub, reply.run.id)


async def test_a_program_that_exits_with_nothing_has_finished(session: Handle) -> None:
    reply = await session.chat("go", agent="silent")
    assert (reply.text, reply.run.status, reply.run.exit_code) == ("", "finished", 0)


async def test_a_child_that_holds_the_pipe_ends_with_the_program(session: Handle, folder: Path) -> None:
    reply = await session.chat("go", agent="forks")
    assert (reply.text, reply.run.status) == ("parent done", "finished")
    assert not alive(str(folder.parent / "fakes" / "hostile"))


async def test_a_program_that_ignores_sigterm_is_ended(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KILL_GRACE_S", 0.2)
    run = await hub.runs.start(session.id, "go", agent="stubborn")
    await said(hub, run.id, "I stay")
    run = await hub.runs.cancel(run.id)
    assert run.status == "cancelled"
    [_, answer] = await session.last(2)
    assert answer.text == "I stay\n[cancelled]"


async def test_a_flood_keeps_its_head_and_its_tail(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JOURNAL_HEAD_BYTES", "JOURNAL_TAIL_BYTES"):
        monkeypatch.setattr(limits, name, limits.MIB)
    script = "echo first; yes 0123456789 | head -c 20000000; echo last"
    await _flood(hub, session, script, "shell", limits.MIB)


@pytest.mark.long
async def test_a_flood_of_200_megabytes_keeps_its_head_and_its_tail(hub: Alcove, session: Handle) -> None:
    await _flood(hub, session, "go", "flood", 8 * limits.MIB)


async def _flood(hub: Alcove, session: Handle, message: str, agent: str, kept: int) -> None:
    reply = await session.chat(message, agent=agent)
    assert reply.run.exit_code == 0
    assert reply.text.startswith("first\n")
    assert reply.text.endswith("last")
    assert len(reply.text.encode()) <= limits.ANSWER_BYTES

    events = [event async for event in hub.runs.events(reply.run.id)]
    [place] = [place for place, event in enumerate(events) if event.type == "gap"]
    head, gap, tail = events[:place], events[place], events[place + 1 :]
    assert gap.data == {"from": head[-1].n + 1, "to": tail[0].n - 1}
    assert gap.n == gap.data["to"]
    for part, first in ((head, 1), (tail, tail[0].n)):
        assert [event.n for event in part] == list(range(first, first + len(part)))
        size = sum(len(str(event.data["text"])) for event in part if event.type == "output")
        assert kept - limits.EVENT_BYTES < size < kept + limits.EVENT_BYTES
    assert str(head[3].data["text"]).startswith("first\n")
    # A stream that resumes inside of the gap hears what is missing from there on, and then the rest.
    inside = (head[-1].n + tail[0].n) // 2
    resumed = [event async for event in hub.runs.events(reply.run.id, inside)]
    assert resumed[0].data == {"from": inside + 1, "to": tail[0].n - 1}
    assert resumed[1:] == tail
