"""How sessions, messages and runs look: as JSON in the shape that they have over HTTP, and as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from alcove.cli import output
from alcove.clock import Micros, instant, seconds
from alcove.messages.model import Message
from alcove.runs.model import Run, RunStatus
from alcove.sessions.model import Session, Status
from alcove.values import Json
from alcove.workspaces.model import Usage

_SHOWN_CHARS = 200  # of a message in a table


def session_json(session: Session, folder: Path | None) -> dict[str, Json]:
    """Return a session as JSON; with its folder, where that is known."""
    expires_at = session.expires_at
    return {
        "session_id": session.id,
        "created_at": seconds(session.created_us),
        "last_activity": seconds(session.last_activity_us),
        "message_count": session.message_count,
        "turn_count": session.turn_count,
        "work_directory": session.id,
        **({"absolute_work_directory": str(folder)} if folder else {}),
        "status": session.status,
        "user_id": session.user_id,
        "app": session.app,
        "key": session.key,
        "title": session.title,
        "agent": session.agent,
        "metadata": session.metadata,
        "parent_id": session.parent_id or None,
        "root_id": session.root_id,
        "depth": session.depth,
        "child_count": session.child_count,
        "last_seq": session.last_seq,
        "pinned": bool(session.pinned),
        "ttl_s": seconds(session.ttl_us) if session.ttl_us else None,
        "ends_at": seconds(session.ends_us) if session.ends_us else None,
        "expires_at": expires_at.timestamp() if expires_at else None,
        "version": session.version,
        "run_id": session.lease_run or None,
        "dialog_state": session.dialog_state or None,
    }


def message_json(message: Message) -> dict[str, Json]:
    """Return a message as JSON."""
    return {
        "seq": message.seq,
        "turn": message.turn,
        "role": message.role,
        "content": message.content if isinstance(message.content, str) else [*message.content],
        "created_at": seconds(message.created_us),
    }


def run_json(run: Run) -> dict[str, Json]:
    """Return a run as JSON."""
    return {
        "run_id": run.id,
        "session_id": run.session_id,
        "turn": run.turn,
        "agent": run.agent,
        "status": run.status,
        "exit_code": run.exit_code,
        "error": run.error,
        "rung": run.rung,
        "created_at": seconds(run.created_us),
        "ended_at": seconds(run.ended_us) if run.ended_us else None,
    }


def ending(run: Run) -> str:
    """Return a sentence about a run that ended otherwise than its program."""
    if run.status == RunStatus.FAILED:
        return run.error or "the run failed"
    said = "the run timed out" if run.status == RunStatus.TIMED_OUT else f"the run was {run.status}"
    return f"{said}: {run.error}" if run.error else said


def write_sessions(sessions: Sequence[Session], now: Micros) -> None:
    """Write a table of sessions."""
    rows = [
        (
            session.id,
            session.user_id or "-",
            session.status,
            str(session.message_count),
            str(session.turn_count),
            output.duration(now - session.last_activity_us),
            session.title,
        )
        for session in sessions
    ]
    output.write_table(("ID", "USER", "STATUS", "MESSAGES", "TURNS", "IDLE", "TITLE"), rows)


def draw_sessions(top: Session, below: Sequence[Session]) -> None:
    """Write a session and its descendants as a tree, with their titles."""
    members: dict[str, list[tuple[str, str]]] = {}
    for one in below:
        members.setdefault(one.parent_id, []).append((one.id, f"{one.id}  {one.title}".rstrip()))
    click.echo(output.visible(f"{top.id}  {top.title}".rstrip()))
    output.draw(top.id, members)


def write_session(session: Session, usage: Usage, folder: Path | None, now: Micros) -> None:
    """Write what there is to know of one session."""

    def at(us: Micros) -> str:
        return f"{instant(us):%Y-%m-%d %H:%M:%S} UTC ({output.duration(now - us)} ago)"

    left = output.duration(session.expires_us - now) if session.expires_us else ""
    ends = f", expires in {left}" if left and session.status == Status.ACTIVE else ""
    facts = {
        "id": session.id,
        "title": session.title,
        "user": session.user_id,
        "app": session.app,
        "key": session.key or "",
        "parent": session.parent_id,
        "root": session.root_id if session.parent_id else "",
        "status": f"{session.status}{', pinned' if session.pinned else ends}",
        "agent": session.agent or "the default",
        "metadata": json.dumps(session.metadata, ensure_ascii=False) if session.metadata else "",
        "created": at(session.created_us),
        "activity": at(session.last_activity_us),
        "messages": f"{session.message_count} in {output.counted(session.turn_count, 'turn')}",
        "children": str(session.child_count),
        "files": f"{usage.files} ({output.size(usage.size_bytes)})",
        "workspace": str(folder or ""),
        "run": session.lease_run,
    }
    output.write_facts(facts, kind="session")


def write_messages(messages: Sequence[Message]) -> None:
    """Write the beginnings of messages."""
    if messages:
        output.heading("last messages")
        rows = [(str(message.seq), message.role, message.text[:_SHOWN_CHARS]) for message in messages]
        output.write_table(("SEQ", "ROLE", "TEXT"), rows, kind="message")


def write_runs(runs: Sequence[Run], now: Micros, *, sessions: bool = False) -> None:
    """Write a table of runs: a command's result with their sessions, a part of a larger one without."""
    rows = [
        (
            run.id,
            *([run.session_id] if sessions else []),
            run.agent,
            run.status,
            "-" if run.exit_code is None else str(run.exit_code),
            f"{output.duration(now - run.created_us)} ago",
            output.duration((run.ended_us or now) - run.created_us),
            run.rung or "-",
        )
        for run in runs
    ]
    header = ("ID", *(["SESSION"] if sessions else []), "AGENT", "STATUS", "EXIT", "STARTED", "TOOK", "RUNG")
    if sessions:
        output.write_table(header, rows)
    elif rows:
        output.heading("last runs")
        output.write_table(header, rows, kind="run")
