"""A state machine of sessions and messages: whatever sequence of calls, the database and a dict say the same."""

# ruff: noqa: D102 - the name of a rule is its sentence

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, invariant, multiple, rule

from alcove import ids
from alcove.database.op import Database
from alcove.errors import (
    AlcoveError,
    AlreadyExistsError,
    IdempotencyError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleSequenceError,
    VersionMismatchError,
)
from alcove.messages.model import Draft, Role
from alcove.messages.service import Messages
from alcove.sessions import queries
from alcove.sessions.model import Changes
from alcove.sessions.service import Sessions
from alcove.testing.rows import idle
from alcove.values import Metadata

T = TypeVar("T")
_TTL_S = 600.0
_PAST_S = 1000.0

_USERS = st.sampled_from(["ana", "ben"])
_KEYS = st.sampled_from([None, "", "k"])
_SESSIONS = Bundle[str]("sessions")
_DRAFTS = st.lists(
    st.builds(
        Draft, st.sampled_from(["user", "assistant", "tool"]), st.text(st.sampled_from("ab\x00\x1a1ä🦊"), max_size=3)
    ),
    min_size=1,
    max_size=4,
)


@dataclasses.dataclass
class Expected:
    """What the machine knows of a session."""

    id: str
    user: str
    key: str | None
    parent: str | None
    ttl: bool
    metadata: Metadata
    title: str = ""
    version: int = 1
    idle: bool = False
    pinned: bool = False
    trashed: bool = False
    turns: int = 0
    messages: list[tuple[Role, str, int]] = dataclasses.field(default_factory=list[tuple[Role, str, int]])
    hidden: set[int] = dataclasses.field(default_factory=set[int])

    @property
    def status(self) -> str:
        """As the database should say it."""
        expired = self.idle and self.ttl and not self.pinned
        return "trashed" if self.trashed else "expired" if expired else "active"

    @property
    def visible(self) -> list[tuple[int, Role, str, int]]:
        """Seq, role, text and turn of the messages in view."""
        return [(i, *one) for i, one in enumerate(self.messages, 1) if i not in self.hidden]


class SessionsMachine(RuleBasedStateMachine):
    """Run it with `hypothesis.stateful.run_state_machine_as_test(lambda: SessionsMachine(runner, database))`.

    Args:
        runner: Runs the calls.
        database: Open; each run of the machine takes a tenant of its own in it.
    """

    def __init__(self, runner: asyncio.Runner, database: Database) -> None:
        super().__init__()
        self._runner = runner
        self._database = database
        self._sessions = Sessions(database)
        self._messages = Messages(database)
        self._tenant = ids.new_id()
        self._known: dict[str, Expected] = {}
        self._answered: dict[tuple[str, str], tuple[object, tuple[int, int]]] = {}

    def _run(self, call: Coroutine[Any, Any, T], error: type[AlcoveError] | None) -> T | None:
        """Run a call; it has to raise exactly that error, or none."""
        found, raised = None, None
        try:
            found = self._runner.run(call)
        except AlcoveError as refused:
            raised = refused
        assert (type(raised) if raised else None) is error, f"{raised or found!r} instead of {error}"
        return found

    def _refusal(self, session: Expected) -> type[AlcoveError] | None:
        refusals = {"trashed": SessionNotFoundError, "expired": SessionExpiredError}
        return refusals.get(session.status)

    def _holder(self, user: str, key: str | None) -> Expected | None:
        found = (one for one in self._known.values() if (one.user, one.key) == (user, key) and not one.trashed)
        return next(found, None) if key is not None else None

    def _below(self, session_id: str) -> Iterator[Expected]:
        yield self._known[session_id]
        for one in [one for one in self._known.values() if one.parent == session_id and not one.trashed]:
            yield from self._below(one.id)

    @rule(target=_SESSIONS, user=_USERS, key=_KEYS, ttl=st.booleans(), n=st.integers(0, 2))
    def create(self, user: str, key: str | None, ttl: bool, n: int) -> str | MultipleResults[str]:
        return self._create(user, key, None, ttl, {"n": n})

    @rule(target=_SESSIONS, parent=_SESSIONS, user=_USERS, key=_KEYS)
    def spawn(self, parent: str, user: str, key: str | None) -> str | MultipleResults[str]:
        return self._create(user, key, parent, False, {})

    def _create(
        self, user: str, key: str | None, parent: str | None, ttl: bool, metadata: Metadata
    ) -> str | MultipleResults[str]:
        error = SessionNotFoundError if parent and self._known[parent].trashed else None
        if self._holder(user, key):
            error = error or AlreadyExistsError
        call = self._sessions.create(
            user_id=user, key=key, parent_id=parent, ttl_s=_TTL_S if ttl else None, metadata=metadata,
            tenant=self._tenant,
        )  # fmt: skip
        made = self._run(call, error)
        if made is None:
            return multiple()
        self._known[made.id] = Expected(made.id, user, key, parent, ttl, metadata)
        return made.id

    @rule(target=_SESSIONS, user=_USERS, key=st.sampled_from(["", "k"]))
    def live(self, user: str, key: str) -> str | MultipleResults[str]:
        holder = self._holder(user, key)
        found = self._run(self._sessions.live(user, key, ttl_s=_TTL_S, tenant=self._tenant), None)
        assert found is not None
        session, made = found
        if holder and holder.status == "active":
            assert (session.id, made) == (holder.id, False)
            holder.idle = False
            return multiple()
        assert made
        if holder:
            holder.key = None
            holder.version += 1
        self._known[session.id] = Expected(session.id, user, key, None, True, {})
        return session.id

    @rule(
        at=_SESSIONS,
        drafts=_DRAFTS,
        behind=st.sampled_from([None, None, 0, 1]),
        key=st.sampled_from([None, None, "i1", "i2"]),
    )
    def append(self, at: str, drafts: list[Draft], behind: int | None, key: str | None) -> None:
        session = self._known[at]
        expected_seq = None if behind is None else len(session.messages) + behind
        body = (drafts, expected_seq)
        error = self._refusal(session) or (StaleSequenceError if behind else None)
        first = self._answered.get((at, key)) if key else None
        if first:
            error = None if first[0] == body else IdempotencyError
        call = self._messages.append(at, drafts, expected_seq=expected_seq, idempotency_key=key)
        done = self._run(call, error)
        if done is None:
            return
        answer = (done.first_seq, done.last_seq)
        assert done.replayed == bool(first)
        if first:
            assert answer == first[1]
            return
        assert answer == (len(session.messages) + 1, len(session.messages) + len(drafts))
        for draft in drafts:
            session.turns += draft.role == "user"
            session.messages.append((draft.role, str(draft.content), session.turns))
        session.idle = False
        if key:
            self._answered[at, key] = (body, answer)

    @rule(at=_SESSIONS)
    def append_from_two_sides(self, at: str) -> None:
        session = self._known[at]
        error = self._refusal(session)

        async def both() -> list[int]:
            asked = [self._messages.append(at, [Draft("user", text)]) for text in "xy"]
            # When one is refused, the other must not be under way still while the next rule changes what it finds.
            done = await asyncio.gather(*asked, return_exceptions=True)
            if refused := [one for one in done if isinstance(one, BaseException)]:
                assert len(refused) == len(done), done
                raise refused[0]
            return [one.first_seq for one in done if not isinstance(one, BaseException)]

        places = self._run(both(), error)
        if places is not None:
            assert sorted(places) == [len(session.messages) + 1, len(session.messages) + 2]
            for text in sorted("xy", key=lambda text: places["xy".index(text)]):
                session.turns += 1
                session.messages.append(("user", text, session.turns))
            session.idle = False

    @rule(at=_SESSIONS, count=st.integers(1, 3))
    def pop(self, at: str, count: int) -> None:
        session = self._known[at]
        popped = self._run(self._messages.pop(at, count), self._refusal(session))
        if popped is not None:
            assert [one.seq for one in popped] == [one[0] for one in session.visible[-count:]]
            session.hidden |= {one.seq for one in popped}
            session.idle = False

    @rule(at=_SESSIONS)
    def clear(self, at: str) -> None:
        session = self._known[at]
        cleared = self._run(self._messages.clear(at), self._refusal(session))
        if cleared is not None:
            assert cleared == len(session.visible)
            session.hidden |= set(range(1, len(session.messages) + 1))
            session.idle = False

    @rule(at=_SESSIONS, title=st.text(max_size=3), n=st.sampled_from([None, 1, "x"]), stale=st.booleans())
    def update(self, at: str, title: str, n: int | str | None, stale: bool) -> None:
        session = self._known[at]
        error = SessionNotFoundError if session.trashed else VersionMismatchError if stale else None
        version = session.version - stale
        if self._run(self._sessions.update(at, Changes(title=title, metadata={"n": n}), version=version), error):
            session.title = title
            session.version += 1
            merged: Metadata = {**session.metadata, "n": n}
            session.metadata = {name: value for name, value in merged.items() if value is not None}

    @rule(at=_SESSIONS, pinned=st.booleans())
    def pin(self, at: str, pinned: bool) -> None:
        session = self._known[at]
        if self._run(self._sessions.pin(at, pinned), SessionNotFoundError if session.trashed else None):
            session.pinned = pinned
            session.version += 1

    @rule(at=_SESSIONS)
    def touch(self, at: str) -> None:
        session = self._known[at]
        if self._run(self._sessions.touch(at), SessionNotFoundError if session.trashed else None):
            session.idle = False

    @rule(at=_SESSIONS)
    def time_passes(self, at: str) -> None:
        self._runner.run(idle(self._database, at, _PAST_S))
        self._known[at].idle = True

    @rule(at=_SESSIONS)
    def trash(self, at: str) -> None:
        going = [] if self._known[at].trashed else list(self._below(at))
        went = self._run(self._database.write(queries.trash, at, ids.new_id(), 1000), None)
        assert sorted(went or ()) == sorted(one.id for one in going)
        for one in going:
            one.trashed = True

    @rule(at=_SESSIONS, count=st.integers(1, 5))
    def read(self, at: str, count: int) -> None:
        session = self._known[at]
        error = SessionNotFoundError if session.trashed else None
        found = self._run(self._messages.last(at, count), error)
        assert [(one.seq, one.role, one.content, one.turn) for one in found or ()] == (
            [] if error else session.visible[-count:]
        )
        page = self._run(self._messages.page(at, hidden=True, limit=1000), error)
        assert [(one.role, one.content, one.turn) for one in (page.messages if page else ())] == (
            [] if error else session.messages
        )

    @rule(user=_USERS, n=st.integers(0, 2), status=st.sampled_from([None, "active", "expired", "trashed"]))
    def list_sessions(self, user: str, n: int, status: str | None) -> None:
        page = self._run(
            self._sessions.list(user_id=user, status=status, metadata={"n": n}, limit=200, tenant=self._tenant), None
        )
        assert page is not None
        assert sorted(one.id for one in page.sessions) == sorted(
            one.id
            for one in self._known.values()
            if one.user == user and one.metadata.get("n") == n and (one.status == status if status else not one.trashed)
        )

    @invariant()
    def every_session_is_as_expected(self) -> None:
        for one in self._known.values():
            found = self._run(self._sessions.find(one.id), None)
            assert found is not None
            assert found.status == one.status
            assert (found.user_id, found.key, found.title, found.version) == (one.user, one.key, one.title, one.version)
            assert (found.metadata, found.parent_id) == (one.metadata, one.parent or "")
            assert (found.last_seq, found.message_count) == (len(one.messages), len(one.visible))
            assert found.turn_count == one.turns
            children = sum(other.parent == one.id and not other.trashed for other in self._known.values())
            assert one.trashed or found.child_count == children
