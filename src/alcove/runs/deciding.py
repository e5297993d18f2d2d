"""What a check is answered from: a run's rights, compiled for look-ups, and the words for every no."""

from __future__ import annotations

from typing import Final, final

import msgspec

from alcove import limits
from alcove.clock import SECOND
from alcove.rights.model import ALIASES, APPROVED
from alcove.rights.rules import reaches
from alcove.rights.writing import within
from alcove.runs.grant_queries import Standing
from alcove.runs.granting import effective, revoked
from alcove.runs.grants import Grant
from alcove.runs.model import LIVE, RunStatus


class Decision(msgspec.Struct, frozen=True):
    """An answer to "may this run …?"; true when it may.

    Attributes:
        allowed: Whether it may.
        code: `allowed`, or why not: `unknown_run`, `not_started`, `finished`, `revoked`, `expired`, `wrong_caller`,
            `unknown_type`, `unknown_id`, `unknown_operation`, `needs_approval` when a person has to be asked first, or
            `unreachable` when the database could not be asked in time.
        message: The same for a person.
    """

    allowed: bool
    code: str
    message: str = ""

    def __bool__(self) -> bool:
        return self.allowed


ALLOWED: Final = Decision(True, "allowed")
UNREACHABLE: Final = Decision(False, "unreachable", "whether it still may cannot be told: the database does not answer")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One question: may the run do `operation` on `name`?

    Attributes:
        kind: Type of resource; or `path`, `network`, `storage`, `state`.
        name: Id of the resource; the path, the host, the flag, the scope.
        operation: Such as `call`; `''` for whether it may do anything with it.
        caller: Who asks, such as a plug-in's identity.
    """

    kind: str
    name: str
    operation: str = ""
    caller: str = ""


@final
class Known:
    """A run's authority as the database had it a moment ago.

    Attributes:
        allowed: Per type, per id: the operations, with `''` for any. Those that need approval are not in it.
        caller: Who may use it, `''` for whoever knows the run.
        until: On the monotonic clock: from then on the database has to be asked again.
        refusal: Why nothing is allowed, None while something is.
        line: The run and those above it.
        changes: Withdrawals that are in `allowed`.
        size: Resources in `allowed`.
        tenant: Whose run it is.
        user_id: Which user's.
        session_id: Where it works.
    """

    __slots__ = (
        "_asking",
        "_expires_us",
        "_grant",
        "allowed",
        "caller",
        "changes",
        "line",
        "refusal",
        "session_id",
        "size",
        "tenant",
        "until",
        "user_id",
    )

    def __init__(self, standing: Standing, asked_at: float) -> None:
        grant = effective(standing)
        self.caller = grant.caller
        self.line = standing.line
        self.changes = len(standing.changes)
        self.size = sum(map(len, grant.resources.values()))
        self.tenant = standing.tenant
        self.user_id = standing.user_id
        self.session_id = standing.session_id
        self._expires_us = grant.expires_us
        # Resources are compiled, and what is left of the grant is small.
        self._grant = msgspec.structs.replace(grant, resources={})
        self.allowed = _compiled(grant)
        self._asking = _asking(grant)
        self.until = 0.0
        self.refusal: Decision | None = None
        self.renew(standing, asked_at)

    def renew(self, standing: Standing, asked_at: float) -> None:
        """Take over that the database was asked at that time, on the monotonic clock, and what it said."""
        self.refusal = self._refused(standing)
        if self.refusal is not None:
            self.allowed = {}
        self.until = asked_at + limits.DECISION_S
        if self.refusal is None:
            ends = [at for at in (self._expires_us, standing.due_us) if at]
            self.until = min([self.until, *(asked_at + (at - standing.now) / SECOND for at in ends)])

    def _refused(self, standing: Standing) -> Decision | None:
        name = f"run {standing.run_id}"
        if standing.status == RunStatus.QUEUED:
            return Decision(False, "not_started", f"{name} is queued: it has not begun")
        if standing.ended:
            how = "was not heard of in time" if standing.status in LIVE else f"has ended ({standing.status})"
            return Decision(False, "finished", f"{name} {how}")
        if revoked(standing):
            reasons = [change.reason for change in standing.changes if change.kind == "revoke" and change.reason]
            return Decision(False, "revoked", f"the grant of {name} was revoked{f': {reasons[0]}' if reasons else ''}")
        if self._expires_us and self._expires_us <= standing.now:
            return Decision(False, "expired", f"the grant of {name} has expired")
        return None

    def decide(self, check: Check) -> Decision:
        """Answer a check."""
        if self.refusal is not None:
            return self.refusal
        if self.caller and self.caller != check.caller:
            return Decision(False, "wrong_caller", "the grant is for another caller")
        if check.kind == "path":
            return self._path(check)
        if check.kind == "network":
            return self._host(check)
        return self._resource(check)

    def _resource(self, check: Check) -> Decision:
        names = self.allowed.get(check.kind)
        if not names:
            return Decision(False, "unknown_type", f"the grant has nothing of the type {check.kind!r}")
        operations = names.get(check.name)
        if operations is None:
            return Decision(False, "unknown_id", f"the grant has no {check.kind} {check.name!r}")
        if check.operation not in operations:
            asking = self._asking.get(check.kind, {}).get(check.name, ())
            if check.operation in asking or (asking and not check.operation):
                what = " ".join(filter(None, (check.kind, check.name, check.operation)))
                return Decision(False, "needs_approval", f"{what} needs a person's approval each time")
            known = ", ".join(sorted(operations - {""}))
            return Decision(
                False, "unknown_operation", f"on {check.kind} {check.name!r} the grant allows {known}, nothing else"
            )
        return ALLOWED

    def _path(self, check: Check) -> Decision:
        grant = self._grant
        writable = (*grant.own, *grant.write)
        if check.operation not in {"", "read", "write"}:
            return Decision(False, "unknown_operation", "a path may be read or written: use read or write")
        folders = writable if check.operation == "write" else (*writable, *grant.read, *grant.program)
        if within(check.name, folders):
            return ALLOWED
        if check.operation == "write" and within(check.name, grant.read):
            return Decision(False, "unknown_operation", f"{check.name} may be read, not written")
        return Decision(False, "unknown_id", f"no path of the grant is {check.name} or above it")

    def _host(self, check: Check) -> Decision:
        if check.operation not in {"", "connect"}:
            return Decision(False, "unknown_operation", "a host may be reached: use connect")
        if self._grant.network == "none":
            return Decision(False, "unknown_type", "the grant has no network")
        if reaches(self._grant.network, check.name):
            return ALLOWED
        return Decision(False, "unknown_id", f"the grant does not reach {check.name}")


def _compiled(grant: Grant) -> dict[str, dict[str, frozenset[str]]]:
    """Return what a look-up needs; the same few lists of operations become the same few sets."""
    sets: dict[tuple[str, ...], frozenset[str]] = {}

    def as_set(operations: tuple[str, ...]) -> frozenset[str]:
        found = sets.get(operations)
        if found is None:
            plain = [one for one in operations if not one.endswith(APPROVED)]
            found = sets[operations] = frozenset((*plain, "") if plain else ())
        return found

    allowed = {kind: {name: as_set(of) for name, of in names.items()} for kind, names in grant.resources.items()}
    allowed["storage"] = dict.fromkeys(grant.storage, as_set(("use",)))
    scopes = {*grant.state, *(alias for alias, scope in ALIASES.items() if scope in grant.state)}
    allowed["state"] = dict.fromkeys(scopes, as_set(("read", "write")))
    return allowed


def _asking(grant: Grant) -> dict[str, dict[str, frozenset[str]]]:
    """Return, per type and id, the operations that need approval; of most grants that is nothing."""
    marked = {of for names in grant.resources.values() for of in set(names.values()) if any(map(_asks, of))}
    found: dict[str, dict[str, frozenset[str]]] = {}
    for kind, names in grant.resources.items() if marked else ():
        bare = {name: frozenset(one.removesuffix(APPROVED) for one in of if _asks(one)) for name, of in names.items()}
        found[kind] = {name: of for name, of in bare.items() if of}
    return found


def _asks(operation: str) -> bool:
    return operation.endswith(APPROVED)
