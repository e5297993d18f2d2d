"""Records as they go over the wire. Instants are epoch seconds; fields may be added, none is renamed."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.messages.content import Part
from alcove.messages.model import PINNED, Message, Turn
from alcove.runs.model import Run
from alcove.server.call import Call
from alcove.sessions.model import Session
from alcove.values import Metadata

T = TypeVar("T")
Unset = msgspec.UnsetType
PageLimit = Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE)]
MessageLimit = Annotated[int, msgspec.Meta(ge=1, le=limits.MESSAGE_PAGE)]
Ttl = Annotated[float, msgspec.Meta(gt=0, le=limits.TTL_S)]
Name = Annotated[str, msgspec.Meta(max_length=limits.ID_CHARS)]
Title = Annotated[str, msgspec.Meta(max_length=limits.TITLE_CHARS)]
JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]


class SummaryView(msgspec.Struct, frozen=True, kw_only=True):
    """A session in a few words.

    Attributes:
        session_id: Its id, and the name of its folder.
        created_at: Epoch seconds.
        last_activity: Epoch seconds of the last append, run, file write, touch or `live`; never of a read.
        message_count: Messages that are visible.
        turn_count: Turns ever opened.
        status: `active`, `expired` or `trashed`.
        user_id: Whose session; empty for nobody's.
        title: What it is about.
        parent_id: Null for a root.
        root_id: The root of its tree; its own id for a root.
        depth: 0 for a root, its parent's plus one for a child.
        child_count: Direct children outside the trash.
    """

    session_id: str
    created_at: float
    last_activity: float
    message_count: int
    turn_count: int
    status: str
    user_id: str
    title: str
    parent_id: str | None
    root_id: str
    depth: int
    child_count: int


class SessionView(SummaryView, frozen=True, kw_only=True):
    """A session.

    Attributes:
        work_directory: The folder's name below the base.
        absolute_work_directory: Where it is on the server; only an administrator is told.
        app: Which application; empty for none.
        key: The caller's own name for it; null for none.
        agent: Who answers by default; empty for the installation's.
        metadata: The caller's own facts.
        last_seq: The `seq` of the last message ever appended; 0 when there is none.
        pinned: Whether it never expires, whatever its TTL and its end.
        expires_at: When it expires unless something happens; null for never.
        ttl_s: How long it may be idle; null for ever.
        ends_at: When it expires whatever happens, epoch seconds; null for never.
        version: Counts the changes to title, agent, metadata, pin, TTL and lifetime: the ETag.
        run_id: The run that holds it now; null when it is free.
        dialog_state: The state of its dialog; null for none.
    """

    work_directory: str
    absolute_work_directory: str | msgspec.UnsetType = msgspec.UNSET
    app: str
    key: str | None
    agent: str
    metadata: JsonObject
    last_seq: int
    pinned: bool
    ttl_s: float | None
    ends_at: float | None
    expires_at: float | None
    version: int
    run_id: str | None
    dialog_state: str | None


class SessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sessions.

    Attributes:
        sessions: Newest first.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    sessions: list[SessionView]
    next_cursor: str | None


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    """A message.

    Attributes:
        seq: Dense per session, from 1, never reused.
        turn: The turn that it belongs to; 0 before the first of a user.
        role: Who speaks.
        content: Text, or a list of parts.
        hidden: Whether it was popped or cleared.
        created_at: Epoch seconds.
        name: The speaker's or the tool's.
        tool_calls: What an assistant asks tools to do, as the provider gave it.
        tool_call_id: Which call a tool message answers.
        metadata: The caller's own facts; Alcove's about an answer.
        usage: What the provider reported for it.
        summary_of: The first and the last `seq` that it stands for, when it is a summary.
        pinned: There when it goes into every window.
        repaired: There when a repair wrote it.
    """

    seq: int
    turn: int
    role: str
    content: str | list[Part]
    hidden: bool
    created_at: float
    name: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[Part] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: str | msgspec.UnsetType = msgspec.UNSET
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET
    usage: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    summary_of: list[int] | msgspec.UnsetType = msgspec.UNSET
    pinned: bool | msgspec.UnsetType = msgspec.UNSET
    repaired: bool | msgspec.UnsetType = msgspec.UNSET


class MessageList(msgspec.Struct, frozen=True, kw_only=True):
    """Messages.

    Attributes:
        messages: Oldest first.
    """

    messages: list[MessageView]


class TurnView(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange.

    Attributes:
        number: From 1, dense per session.
        status: `open` while its run works; `done`, `failed`, `cancelled` or `lost` afterwards.
        run_id: The run that answered; null when none of Alcove's did.
        opened_at: Epoch seconds.
        closed_at: Epoch seconds; null while it is open.
    """

    number: int
    status: str
    run_id: str | None
    opened_at: float
    closed_at: float | None


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run.

    Attributes:
        run_id: Its id.
        session_id: Where it works; empty for a hosted run without a session.
        turn: The turn that it answers; 0 for a hosted run, and while it is queued.
        agent: Who answers.
        status: `queued` until its session is free, `running`, `waiting` for a person, or how it ended: `finished`,
            `failed`, `cancelled`, `interrupted` by a newer message, `timed_out` or `lost`.
        exit_code: The program's, 128 + signal when a signal ended it; null while it runs, for functions, and when no
            end was seen.
        error: Why it failed, empty otherwise.
        answer_seq: The message that is its answer; null while there is none.
        rung: The sandbox that it ran in; `hosted` when a host framework executes it.
        guarantees: What that rung was proven to guarantee.
        digest: SHA-256, in hex, of its grant: what it may do, frozen when it started; empty while it is queued.
        parent_run: The run that handed its rights on; null for none.
        root_run: The run at the top of its tree; its own id for one without a parent.
        user_id: Which user's; empty for nobody's.
        hosted: Whether a host framework executes it.
        due_at: Epoch seconds when it is lost unless it is heard of before; null when Alcove executes it.
        cancelling: Whether somebody asked to end it.
        steered: Whether it was going on already, and the message that was sent waits for it to take.
        created_at: Epoch seconds.
        ended_at: Epoch seconds; null while it runs.
    """

    run_id: str
    session_id: str
    turn: int
    agent: str
    status: str
    exit_code: int | None
    error: str
    answer_seq: int | None
    rung: str
    guarantees: JsonObject
    digest: str
    parent_run: str | None
    root_run: str
    user_id: str
    hosted: bool
    due_at: float | None
    cancelling: bool
    steered: bool
    created_at: float
    ended_at: float | None


class Paging(msgspec.Struct, frozen=True, kw_only=True):
    """Which page.

    Attributes:
        limit: How many at most.
        cursor: The `next_cursor` of the page before.
    """

    limit: PageLimit = limits.PAGE_DEFAULT
    cursor: str | Unset = msgspec.UNSET


def given(value: T | Unset) -> T | None:
    """Return a parameter, None when it was left out. Null as a default would be said by the text `null` too."""
    return None if isinstance(value, Unset) else value


def summary_view(session: Session) -> SummaryView:
    """Return a session in a few words."""
    return SummaryView(
        session_id=session.id,
        created_at=seconds(session.created_us),
        last_activity=seconds(session.last_activity_us),
        message_count=session.message_count,
        turn_count=session.turn_count,
        status=session.status,
        user_id=session.user_id,
        title=session.title,
        parent_id=session.parent_id or None,
        root_id=session.root_id,
        depth=session.depth,
        child_count=session.child_count,
    )


def session_view(call: Call, session: Session) -> SessionView:
    """Return a session as this caller sees it."""
    folders = call.hub.workspaces if call.is_admin else None
    return SessionView(
        session_id=session.id,
        created_at=seconds(session.created_us),
        last_activity=seconds(session.last_activity_us),
        message_count=session.message_count,
        turn_count=session.turn_count,
        work_directory=session.id,
        absolute_work_directory=str(folders.path(session.id)) if folders else msgspec.UNSET,
        status=session.status,
        user_id=session.user_id,
        app=session.app,
        key=session.key,
        title=session.title,
        agent=session.agent,
        metadata=msgspec.Raw(session.metadata_json),
        parent_id=session.parent_id or None,
        root_id=session.root_id,
        depth=session.depth,
        child_count=session.child_count,
        last_seq=session.last_seq,
        pinned=bool(session.pinned),
        ttl_s=seconds(session.ttl_us) if session.ttl_us else None,
        ends_at=seconds(session.ends_us) if session.ends_us else None,
        expires_at=None if session.expires_us is None else seconds(session.expires_us),
        version=session.version,
        run_id=session.lease_run or None,
        dialog_state=session.dialog_state or None,
    )


def message_view(message: Message) -> MessageView:
    """Return a message as it is shown."""
    detail = message.detail
    return MessageView(
        seq=message.seq,
        turn=message.turn,
        role=message.role,
        content=message.content,
        hidden=bool(message.hidden),
        created_at=seconds(message.created_us),
        name=detail.name or msgspec.UNSET,
        tool_calls=detail.tool_calls or msgspec.UNSET,
        tool_call_id=detail.tool_call_id or msgspec.UNSET,
        metadata=detail.metadata or msgspec.UNSET,
        usage=detail.usage or msgspec.UNSET,
        summary_of=[detail.summary_of.first, detail.summary_of.last] if detail.summary_of else msgspec.UNSET,
        pinned=True if message.kept == PINNED else msgspec.UNSET,
        repaired=True if message.repaired else msgspec.UNSET,
    )


def turn_view(turn: Turn) -> TurnView:
    """Return a turn as it is shown."""
    return TurnView(
        number=turn.number,
        status=turn.status,
        run_id=turn.run_id or None,
        opened_at=seconds(turn.opened_us),
        closed_at=seconds(turn.closed_us) if turn.closed_us else None,
    )


def run_view(run: Run) -> RunView:
    """Return a run as it is shown."""
    return RunView(
        run_id=run.id,
        session_id=run.session_id,
        turn=run.turn,
        agent=run.agent,
        status=run.status,
        exit_code=run.exit_code,
        error=run.error,
        answer_seq=run.answer_seq or None,
        rung=run.rung,
        guarantees=msgspec.Raw(run.guarantees_json or "{}"),
        digest=run.digest,
        parent_run=run.parent_run or None,
        root_run=run.root_run,
        user_id=run.user_id,
        hosted=bool(run.hosted),
        due_at=seconds(run.due_us) if run.due_us else None,
        cancelling=bool(run.cancelling),
        steered=run.steered,
        created_at=seconds(run.created_us),
        ended_at=seconds(run.ended_us) if run.ended_us else None,
    )
