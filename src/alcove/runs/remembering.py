"""Whose state a run means: decided by its grant and what stands behind it, never by what it says."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from alcove.errors import ClosedError, InvalidError, NotPermittedError, StaleEpochError
from alcove.events.model import NewEvent
from alcove.runs import hosted_queries
from alcove.runs.approvals import Approvals
from alcove.runs.deciding import Check
from alcove.sessions import queries as session_queries
from alcove.state.rules import scope_of


class StateOf(msgspec.Struct, frozen=True):
    """A place, as the arguments of `hub.state`.

    Attributes:
        scope: `session user subject agent app run`.
        of: Whose.
        tenant: Of which tenant.
        app: In which app.
    """

    scope: str
    of: str
    tenant: str
    app: str


class Remembering(Approvals):
    """Adds the places in which runs keep state."""

    async def state_of(self, run_id: str, scope: str, operation: str, caller: str = "") -> StateOf:
        """Return whose state a run means by a scope, if it may use that now.

        The session and the run are its own; the user is its grant's `actor`, else its session's; the subject is its
        grant's; the agent is its own, apart for each `binding` of its grant; the app is its session's.

        Args:
            run_id: The run.
            scope: As for `hub.state`.
            operation: `read` or `write`.
            caller: Who asks; has to be the grant's, when that names one.

        Raises:
            NotPermittedError: The grant does not allow it, or not any more; it is audited.
            InvalidError: There is no such scope, or nobody stands behind the run whose state that could be.
        """
        found = scope_of(scope)
        [decision] = await self.authorize(run_id, [Check(kind="state", name=found, operation=operation, caller=caller)])
        if not decision:
            raise NotPermittedError(
                f"run {run_id} may not {operation} state of the scope {found}: {decision.message or decision.code}",
                field="scope",
                remedy="let its agent, or whoever registers it, declare the scope",
                reason=decision.code,
            )
        grant = (await self.grant(run_id)).grant
        owner = await self.owner(run_id)
        assert owner
        app = ""
        if owner.session_id:
            app = (await self._database.read(session_queries.get, owner.session_id)).app
        binding = grant.context.get("binding", "")
        of = {
            "session": owner.session_id,
            "user": grant.context.get("actor") or owner.user_id,
            "subject": grant.context.get("subject", ""),
            "agent": f"{grant.agent}/{binding}" if binding else grant.agent,
            "run": run_id,
        }.get(found, "")
        if not of and found != "app":
            raise InvalidError(
                f"run {run_id} has no {found}", field="scope", remedy="name it in the context of the grant"
            )
        return StateOf(found, of, owner.tenant, app)

    async def note_state(self, run_id: str, scope: str, key: str, version: int) -> None:
        """Tell whoever listens to a run that it has set a value; what the value is, is read where it is.

        A run that has ended, or that another process looks after, tells nothing.

        Args:
            run_id: The run.
            scope: Of the value.
            key: Of the value.
            version: Of the value, 0 for one that was deleted.
        """
        entry = NewEvent("state", {"scope": scope, "key": key, "version": version})
        desk = self._desk(run_id)
        if desk:
            with suppress(ClosedError, StaleEpochError):
                await desk.say(entry)
        elif await self._database.write(hosted_queries.say, run_id, entry, len(key.encode(errors="replace"))):
            self._events.wake(run_id)
