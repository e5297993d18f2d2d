"""What a server answers, as the hub's records. Fields that this version does not know are left out."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import msgspec

from alcove.clock import Micros
from alcove.dialogs.model import Cause, Dialog, Step
from alcove.messages.content import Part
from alcove.messages.model import Detail, Message
from alcove.principals.model import Key
from alcove.runs.model import Run
from alcove.search.model import Found, Hit
from alcove.sessions.model import Session
from alcove.values import Json, Metadata
from alcove.workspaces.model import Extracted, File, Kind, Listing
from alcove.workspaces.paths import decode


class SessionAnswer(msgspec.Struct, kw_only=True):
    """A session as it goes over the wire."""

    session_id: str
    created_at: float
    last_activity: float
    message_count: int
    turn_count: int
    absolute_work_directory: str = ""
    status: str
    user_id: str
    app: str
    key: str | None
    title: str
    agent: str
    metadata: msgspec.Raw
    parent_id: str | None
    root_id: str
    depth: int
    child_count: int
    last_seq: int
    pinned: bool
    ttl_s: float | None
    ends_at: float | None = None
    version: int
    run_id: str | None
    dialog_state: str | None = None

    def record(self) -> Session:
        """Return it as the hub would."""
        return Session(
            id=self.session_id,
            tenant="",
            app=self.app,
            user_id=self.user_id,
            key=self.key,
            parent_id=self.parent_id or "",
            root_id=self.root_id,
            depth=self.depth,
            title=self.title,
            agent=self.agent,
            metadata_json=bytes(self.metadata).decode(),
            pinned=int(self.pinned),
            ttl_us=_micros(self.ttl_s),
            ends_us=_micros(self.ends_at),
            version=self.version,
            created_us=_micros(self.created_at),
            last_seq=self.last_seq,
            message_count=self.message_count,
            turn_count=self.turn_count,
            child_count=self.child_count,
            last_activity_us=_micros(self.last_activity),
            epoch=0,
            lease_run=self.run_id or "",
            dialog_state=self.dialog_state or "",
            status=self.status,
        )


class SessionsAnswer(msgspec.Struct, kw_only=True):
    """Sessions, and the cursor of the next page."""

    sessions: list[SessionAnswer]
    next_cursor: str | None = None


class MessageAnswer(msgspec.Struct, kw_only=True):
    """A message as it goes over the wire."""

    seq: int
    turn: int
    role: str
    content: str | list[Part]
    hidden: bool
    created_at: float
    name: str | None = None
    tool_calls: list[Part] | None = None
    tool_call_id: str | None = None
    metadata: Metadata | None = None

    def record(self) -> Message:
        """Return it as the hub would."""
        detail = Detail(self.name, self.tool_calls, self.tool_call_id, self.metadata)
        text = isinstance(self.content, str)
        return Message(
            seq=self.seq,
            turn=self.turn,
            role=self.role,
            format=0 if text else 1,
            raw=str(self.content) if text else msgspec.json.encode(self.content).decode(),
            detail_json="" if detail == Detail() else msgspec.json.encode(detail).decode(),
            hidden=int(self.hidden),
            created_us=_micros(self.created_at),
        )


class MessagesAnswer(msgspec.Struct):
    """Messages, oldest first."""

    messages: list[MessageAnswer]


class DialogAnswer(msgspec.Struct, kw_only=True):
    """A dialog as it goes over the wire."""

    session_id: str
    name: str
    number: int
    version: int
    state: str
    slots: dict[str, Json]
    takes: list[str]
    final: bool
    due_at: float | None
    changed_at: float

    def record(self) -> Dialog:
        """Return it as the hub would."""
        return Dialog(
            session_id=self.session_id,
            name=self.name,
            number=self.number,
            version=self.version,
            state=self.state,
            slots=self.slots,
            takes=tuple(self.takes),
            final=self.final,
            due_us=_micros(self.due_at),
            changed_us=_micros(self.changed_at),
        )


class StepAnswer(msgspec.Struct, kw_only=True):
    """One thing that happened in a dialog, as it goes over the wire."""

    session_id: str
    version: int
    cause: Cause
    event: str
    before: str
    state: str
    slots: dict[str, Json]
    message: str
    first_seq: int | None
    last_seq: int
    due_at: float | None
    created_at: float

    def record(self) -> Step:
        """Return it as the hub would."""
        return Step(
            session_id=self.session_id,
            version=self.version,
            cause=self.cause,
            event=self.event,
            before=self.before,
            state=self.state,
            slots=self.slots,
            message=self.message,
            first_seq=self.first_seq or 0,
            last_seq=self.last_seq,
            due_us=_micros(self.due_at),
            created_us=_micros(self.created_at),
        )


class StepsAnswer(msgspec.Struct):
    """What happened in a dialog, oldest first."""

    steps: list[StepAnswer]


class DefinitionAnswer(msgspec.Struct):
    """What a dialog was declared as."""

    definition: msgspec.Raw


class HitAnswer(msgspec.Struct, kw_only=True):
    """A place that was found, as it goes over the wire."""

    session_id: str
    seq: int
    role: str
    snippet: str
    marks: list[tuple[int, int]]
    score: float
    title: str
    user_id: str
    created_at: float

    def record(self) -> Hit:
        """Return it as the hub would."""
        return Hit(
            session_id=self.session_id,
            seq=self.seq,
            role=self.role,
            snippet=self.snippet,
            marks=self.marks,
            score=self.score,
            title=self.title,
            user_id=self.user_id,
            created_us=_micros(self.created_at),
        )


class FoundAnswer(msgspec.Struct, kw_only=True):
    """The answer to a search."""

    hits: list[HitAnswer]
    more: bool
    behind: int

    def record(self) -> Found:
        """Return it as the hub would."""
        return Found(hits=[one.record() for one in self.hits], more=self.more, behind=self.behind)


class RunAnswer(msgspec.Struct, kw_only=True):
    """A run as it goes over the wire."""

    run_id: str
    session_id: str
    turn: int
    agent: str
    status: str
    exit_code: int | None
    error: str
    answer_seq: int | None
    rung: str
    digest: str
    created_at: float
    ended_at: float | None
    steered: bool = False

    def record(self) -> Run:
        """Return it as the hub would, without what a server keeps to itself."""
        return Run(
            id=self.run_id,
            session_id=self.session_id,
            turn=self.turn,
            agent=self.agent,
            status=self.status,
            exit_code=self.exit_code,
            error=self.error,
            answer_seq=self.answer_seq or 0,
            epoch=0,
            holder="",
            tree="",
            digest=self.digest,
            rung=self.rung,
            guarantees_json="{}",
            created_us=_micros(self.created_at),
            ended_us=_micros(self.ended_at),
            steered=self.steered,
        )


class RunsAnswer(msgspec.Struct, kw_only=True):
    """Runs, and the cursor of the next page."""

    runs: list[RunAnswer]
    next_cursor: str | None = None


class FileAnswer(msgspec.Struct, kw_only=True):
    """A file as it goes over the wire."""

    path: str
    size: int
    modified_time: float
    kind: Kind = "file"
    raw_path: str = ""

    def record(self) -> File:
        """Return it as the hub would."""
        path = decode(unquote_to_bytes(self.raw_path)) if self.raw_path else self.path
        return File(path=path, kind=self.kind, size_bytes=self.size, modified_at=_micros(self.modified_time))


class FilesAnswer(msgspec.Struct, kw_only=True):
    """The files of a workspace."""

    files: list[FileAnswer]
    truncated: bool = False

    def record(self) -> Listing:
        """Return them as the hub would."""
        return Listing(files=tuple(file.record() for file in self.files), truncated=self.truncated)


class ExtractedAnswer(msgspec.Struct, kw_only=True):
    """What came out of an archive."""

    files: int
    folders: int
    size: int
    skipped: list[str]
    skipped_count: int

    def record(self) -> Extracted:
        """Return it as the hub would."""
        return Extracted(
            files=self.files,
            folders=self.folders,
            size_bytes=self.size,
            skipped=tuple(self.skipped),
            skipped_count=self.skipped_count,
        )


class AgentAnswer(msgspec.Struct):
    """An agent, by its name."""

    name: str


class AgentsAnswer(msgspec.Struct):
    """Who can answer."""

    agents: list[AgentAnswer]


class KeyAnswer(msgspec.Struct, kw_only=True):
    """A key as it goes over the wire."""

    key_id: str
    role: str
    tenant: str
    user_id: str
    label: str
    rate_per_s: int
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None

    def record(self) -> Key:
        """Return it as the hub would."""
        times = (self.created_at, self.expires_at, self.revoked_at, self.last_used_at)
        return Key(
            self.key_id,
            self.tenant,
            self.role,
            self.user_id,
            self.label,
            self.rate_per_s,
            *(_micros(time) for time in times),
        )


class SecretAnswer(msgspec.Struct):
    """The secret of a new key."""

    secret: str


class KeysAnswer(msgspec.Struct, kw_only=True):
    """A page of keys."""

    keys: list[KeyAnswer]
    next_cursor: str | None


def _micros(at: float | None) -> Micros:
    """Return epoch seconds as microseconds: a float has enough digits until the year 2255."""
    return 0 if at is None else round(at * 1_000_000)
