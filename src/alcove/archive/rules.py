"""How a session file of the old kind is read: plain functions of what it holds.

Such a file is one JSON object with `session_id, parent_session_id, root_session_id, depth, user_id, created_at,
last_active, message_count, metadata, history`; its times are naive and local, and `message_count` counted turns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Final, cast

import msgspec

from alcove import ids
from alcove.clock import SECOND, Micros, micros
from alcove.errors import InvalidError
from alcove.messages.model import Draft, Part, Role, Stored
from alcove.messages.rules import stored
from alcove.sessions.model import NewSession
from alcove.sessions.rules import check_new, encode_metadata
from alcove.values import Json, Metadata

MARK: Final = "imported_from"  # the metadata of a session that an import made: where it comes from
_YEAR_10000: Final = 253_402_300_800 * SECOND


class Dated(msgspec.Struct, frozen=True):
    """A message and when it was said."""

    at: Micros
    message: Stored


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A session as a file tells it.

    Attributes:
        new: The session, its parent as the file names it.
        created_us: When it was created.
        active_us: When it was last active, not before its last message.
        history: What was said, oldest first.
        notes: What is taken over otherwise than it stands.
    """

    new: NewSession
    created_us: Micros
    active_us: Micros
    history: list[Dated]
    notes: list[str]


class Head(msgspec.Struct, frozen=True):
    """What is needed of every file before the first session is made."""

    path: str
    session_id: str
    parent_id: str


def object_of(raw: bytes) -> dict[str, Json]:
    """Return the JSON object in a file.

    Raises:
        InvalidError: It is none; an interrupted write leaves half of one.
    """
    try:
        value: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"it is not JSON, or only the beginning of it: {error}") from error
    if not isinstance(value, dict):
        raise InvalidError("it is JSON, but no object")
    return cast("dict[str, Json]", value)


def head(path: str, fields: Mapping[str, Json]) -> Head:
    """Return which session a file holds, and below which.

    Raises:
        InvalidError: The id is missing or cannot be one.
    """
    session_id, parent_id = fields.get("session_id"), fields.get("parent_session_id")
    if not isinstance(session_id, str):
        raise InvalidError("it has no session_id, so it is no session file")
    if parent_id is not None and not isinstance(parent_id, str):
        raise InvalidError("parent_session_id is no text")
    return Head(path, ids.session_id(session_id), ids.session_id(parent_id, field="parent_id") if parent_id else "")


def parents_first(heads: Sequence[Head]) -> tuple[list[Head], dict[str, str]]:
    """Return the files in an order in which every parent comes before its children, and why some lose their parent.

    A parent that is not among them may still be in the installation already; a circle of parents is cut.
    """
    by_id = {one.session_id: one for one in heads}
    order: list[Head] = []
    done: set[str] = set()
    cut: dict[str, str] = {}
    for start in heads:
        way: list[Head] = []
        one: Head | None = start
        while one and one.session_id not in done:
            way.append(one)
            done.add(one.session_id)
            one = by_id.get(one.parent_id)
            if one and one in way:
                cut[way[-1].session_id] = f"its parent {one.session_id} is below it"
        order += reversed(way)
    return order, cut


def session(fields: Mapping[str, Json], *, path: str, app: str, zone: tzinfo | None, now: Micros) -> Found:
    """Return the session that a file tells of.

    Args:
        fields: What is in the file.
        path: Which file, relative to the folder.
        app: Whose session it becomes.
        zone: Where its naive times are local; None for this machine's zone.
        now: Times after this are taken for now, and missing ones too.

    Raises:
        InvalidError: A field that cannot be taken over, named.
    """
    notes: list[str] = []
    times = _Times(zone, now)
    created = times.read(fields.get("created_at"), now)
    history = _history(fields.get("history"), times, created)
    last = history[-1].at if history else created
    active = max(times.read(fields.get("last_active"), last), last)
    if times.odd:
        notes.append(f"{times.odd} of its times are missing, unreadable or in the future: the nearest known was taken")
    user_id = fields.get("user_id")
    if user_id is not None and not isinstance(user_id, str):
        user_id = msgspec.json.encode(user_id).decode()
        notes.append("user_id is no text: its JSON was taken")
    turns = sum(dated.message.role == "user" for dated in history)
    counted = fields.get("message_count")
    if isinstance(counted, int) and counted != turns:
        notes.append(f"message_count (which counted turns) says {counted}, the history has {turns}")
    text, indexed = _metadata(fields.get("metadata"), path, notes)
    one = head(path, fields)
    new = NewSession(
        id=one.session_id,
        app=app,
        user_id=user_id or "",
        parent_id=one.parent_id,
        agent="",
        metadata_json=text,
        indexed=indexed,
    )
    return Found(new=check_new(new), created_us=created, active_us=active, history=history, notes=notes)


def _metadata(value: Json, path: str, notes: list[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return metadata with our mark. What has names that may be none of ours is kept whole, under one name."""
    own: Metadata = value if isinstance(value, dict) else {} if value is None else {"metadata": value}
    try:
        return encode_metadata({**own, MARK: path})
    except InvalidError as error:
        notes.append(f"its metadata is kept under the one name `metadata`: {error.message}")
        return encode_metadata({"metadata": own, MARK: path})


def _history(value: Json, times: _Times, created: Micros) -> list[Dated]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidError("history is no list")
    history: list[Dated] = []
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, dict):
            raise InvalidError(f"message {number} of the history is no object")
        content = entry.get("content")
        if content is not None and not isinstance(content, str | list):
            raise InvalidError(f"message {number} of the history has a content that is neither text nor parts")
        draft = Draft(cast("Role", entry.get("role")), cast("str | list[Part]", content or ""))
        at = times.read(entry.get("timestamp"), history[-1].at if history else created)
        try:
            history.append(Dated(at, stored(draft)))
        except InvalidError as error:
            raise InvalidError(f"message {number} of the history: {error.message}") from error
    return history


class _Times:
    """Reads times, and counts those that could not be taken as they stood."""

    def __init__(self, zone: tzinfo | None, now: Micros) -> None:
        self._zone = zone
        self._now = now
        self.odd = 0

    def read(self, value: Json, otherwise: Micros) -> Micros:
        """Return an instant: of ISO text (local where it does not say), or of epoch seconds."""
        at: Micros | None = None
        try:
            if isinstance(value, str):
                told = datetime.fromisoformat(value)
                at = micros(told if told.tzinfo else told.replace(tzinfo=self._zone).astimezone(self._zone))
            elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                at = int(value * SECOND)
        except (ValueError, OverflowError, OSError):
            at = None
        if at is None or not 0 <= at < _YEAR_10000:
            self.odd += 1
            return min(otherwise, self._now)
        if at > self._now:
            self.odd += 1
            return self._now
        return at
