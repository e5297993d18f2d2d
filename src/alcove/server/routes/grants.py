"""Grants: what runs may do, what withdraws of it, and the answer to "may this run …?"."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from alcove import limits
from alcove.clock import seconds
from alcove.errors import (
    InvalidError,
    NotPermittedError,
    RunNotFoundError,
    SessionNotFoundError,
    TooLargeError,
)
from alcove.principals.model import Role
from alcove.principals.rules import may
from alcove.rights.model import Rights
from alcove.rights.writing import bound
from alcove.runs.checking import Held
from alcove.runs.deciding import Check, Decision
from alcove.runs.grants import Asked, ask
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Name, Ttl
from alcove.values import Json

Written = dict[str, list[str] | dict[str, list[str]]]
Reason = Annotated[str, msgspec.Meta(max_length=limits.REASON_CHARS)]


class RightsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be done, part by part. A part that is left out says nothing.

    Attributes:
        resources: Per type a list of ids, which get the type's usual operations, or ids with operations.
        storage: `plugin`, `workspace`.
        read: Absolute paths that may be read, each with all below it.
        write: The same for writing, which includes reading.
        network: `none`, `host` for whatever the server reaches, or a list of hosts.
        state: Scopes of state: `session user subject agent app run`.
    """

    resources: Written | UnsetType = UNSET
    storage: list[str] | UnsetType = UNSET
    read: list[str] | UnsetType = UNSET
    write: list[str] | UnsetType = UNSET
    network: str | list[str] | UnsetType = UNSET
    state: list[str] | UnsetType = UNSET

    def bound(self) -> Rights:
        """Return it as what bounds a grant."""
        return bound(
            resources=self.resources,
            storage=self.storage,
            read=self.read,
            write=self.write,
            network=self.network,
            state=self.state,
        )


class GrantBody(RightsBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grant as it is asked for. A part that is left out is as much as the agent declares.

    Attributes:
        caller: Who may use it, such as a plug-in's identity; empty for whoever knows the run.
        labels: The caller's own facts, such as a query id.
        context: Whose state: `actor`, `subject`, `binding`.
        ttl_s: Seconds after which it ends; null for with the run.
        exact: Refuse when anything would be cut off, instead of granting what is left.
    """

    caller: Name = ""
    labels: dict[str, str] = {}
    context: dict[str, str] = {}
    ttl_s: Ttl | None = None
    exact: bool = False

    def asked(self) -> Asked:
        """Return it as the hub takes it."""
        return ask(
            resources=self.resources,
            storage=self.storage,
            read=self.read,
            write=self.write,
            network=self.network,
            state=self.state,
            caller=self.caller,
            labels=self.labels,
            context=self.context,
            ttl_s=self.ttl_s,
            exact=self.exact,
        )


class Narrowing(RightsBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a grant is narrowed to; a part that is left out stays as it is.

    Attributes:
        reason: Why, for whoever looks later.
    """

    reason: Reason = ""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a grant is withdrawn.

    Attributes:
        reason: For whoever looks later.
    """

    reason: Reason = ""


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question.

    Attributes:
        type: Of the resource; or `path`, `network`, `storage`, `state`.
        id: Of the resource; the path, the host, the flag, the scope.
        operation: Such as `call`; empty for whether it may do anything with it.
        caller: Who asks; has to be the grant's, when that names one.
    """

    type: Name
    id: Annotated[str, msgspec.Meta(max_length=limits.PATH_BYTES)]
    operation: Name = ""
    caller: Name = ""

    def check(self) -> Check:
        """Return it as the hub takes it."""
        return Check(kind=self.type, name=self.id, operation=self.operation, caller=self.caller)


class Authorize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question, or many in `checks`.

    Attributes:
        type: Of the resource; or `path`, `network`, `storage`, `state`.
        id: Of the resource; the path, the host, the flag, the scope.
        operation: Such as `call`; empty for whether the run may do anything with it.
        caller: Who asks; has to be the grant's, when that names one.
        approval_id: The request that a person approved, for what needs that: the answer is yes once.
        arguments: With which arguments; those that were approved.
        checks: Questions that are answered at one moment; then those above are left out.
        fresh: Ask the database whatever was known.
    """

    type: Name | UnsetType = UNSET
    id: Annotated[str, msgspec.Meta(max_length=limits.PATH_BYTES)] | UnsetType = UNSET
    operation: Name = ""
    caller: Name = ""
    approval_id: Name = ""
    arguments: Json = None
    checks: Annotated[list[Wish], msgspec.Meta(max_length=limits.CHECKS)] | UnsetType = UNSET
    fresh: bool = False


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """An answer.

    Attributes:
        allowed: Whether the run may.
        code: `allowed`, or why not: `finished`, `revoked`, `expired`, `wrong_caller`, `unknown_type`, `unknown_id`,
            `unknown_operation`, `needs_approval`, `unreachable`.
        message: The same for a person.
    """

    allowed: bool
    code: str
    message: str


class AuthorizeView(DecisionView, frozen=True, kw_only=True):
    """The answer, or the answers.

    Attributes:
        decisions: One for each of `checks`, in their order; `allowed` is then whether all are, and `code` and `message`
            those of the first that is not.
    """

    decisions: list[DecisionView] | UnsetType = UNSET


class CutView(msgspec.Struct, frozen=True, kw_only=True):
    """What a bound took off the grant that was asked for.

    Attributes:
        by: `agent`, `session`, `parent` or `resolver`.
        count: How many rights.
        first: The first of them: `tool search call`.
    """

    by: str
    count: int
    first: list[str]


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """A withdrawal.

    Attributes:
        run_id: From which run's grant: this one's, or that of one above it.
        kind: `revoke` or `narrow`.
        rights: Within what the grant is from then on.
        reason: In the words of whoever did it.
        made_by: Who that was.
        created_at: Epoch seconds.
    """

    run_id: str
    kind: str
    rights: Rights
    reason: str
    made_by: str
    created_at: float


class GrantView(msgspec.Struct, frozen=True, kw_only=True):
    """A run's authority.

    Attributes:
        run_id: The run.
        digest: SHA-256 of the grant's canonical JSON, in hex.
        agent: Who works.
        caller: Who may use it; empty for whoever knows the run.
        parent_run: The run that handed it on; null for none.
        labels: The caller's own facts.
        context: Whose state.
        granted: As it was frozen when the run started.
        rights: What is left of it now.
        refusal: Why nothing of it holds any more: `finished`, `revoked`, `expired`; null while something does.
        expires_at: Epoch seconds; null for with the run.
        cuts: What was asked for and not granted.
        changes: Withdrawals since, its own and those of runs above it.
    """

    run_id: str
    digest: str
    agent: str
    caller: str
    parent_run: str | None
    labels: dict[str, str]
    context: dict[str, str]
    granted: Rights
    rights: Rights
    refusal: str | None
    expires_at: float | None
    cuts: list[CutView]
    changes: list[ChangeView]


class CeilingView(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in a session may be granted at most.

    Attributes:
        session_id: The session.
        rights: The bound; null for none of its own.
    """

    session_id: str
    rights: Rights | None


async def authorize(call: Call, body: Authorize) -> AuthorizeView:
    """Say whether a run may do something now: allowed or denied, with a reason code; also many questions at once."""
    run_id = call.path["run_id"]
    # Its own socket answers a run for itself, not for others of its session.
    if call.principal.role is Role.RUN and call.principal.run_id != run_id:
        raise RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
    await call.reach_run(run_id)
    if not isinstance(body.checks, UnsetType):
        if body.approval_id:
            raise InvalidError("an approval answers one question", field="approval_id", remedy="ask without checks")
        checks = [wish.check() for wish in body.checks]
        answers = [_view(one) for one in await call.hub.runs.authorize(run_id, checks, fresh=body.fresh)]
        first = next((one for one in answers if not one.allowed), None)
        if first is None:
            return AuthorizeView(allowed=True, code="allowed", message="", decisions=answers)
        return AuthorizeView(allowed=False, code=first.code, message=first.message, decisions=answers)
    if isinstance(body.type, UnsetType) or isinstance(body.id, UnsetType):
        raise InvalidError("nothing is asked", field="type", remedy="give type and id, or checks")
    if body.approval_id:
        decision = await call.hub.runs.redeem(
            run_id, body.approval_id, body.type, body.id, body.operation, body.arguments, caller=body.caller
        )
    else:
        asked = Check(kind=body.type, name=body.id, operation=body.operation, caller=body.caller)
        [decision] = await call.hub.runs.authorize(run_id, [asked], fresh=body.fresh)
    return AuthorizeView(allowed=decision.allowed, code=decision.code, message=decision.message)


async def show(call: Call) -> GrantView:
    """Show a run's authority: as it was frozen, what was cut off and withdrawn, and what is left."""
    run = await call.run()
    return _grant_view(await call.hub.runs.grant(run.id))


async def revoke(call: Call, body: Revocation) -> GrantView:
    """Withdraw a run's whole grant, and those of the runs below it. A run that this server executes is ended."""
    run = await call.run()
    return _grant_view(await call.hub.runs.revoke(run.id, reason=body.reason, made_by=call.principal.name))


async def narrow(call: Call, body: Narrowing) -> GrantView:
    """Keep of a run's grant only what is within the rights given. Withdrawing files or network ends the run."""
    run = await call.run()
    held = await call.hub.runs.narrow(run.id, body.bound(), reason=body.reason, made_by=call.principal.name)
    return _grant_view(held)


async def ceiling(call: Call) -> CeilingView:
    """Show what runs in a session may be granted at most."""
    await call.session()
    return CeilingView(session_id=call.session_id, rights=await call.hub.runs.ceiling(call.session_id))


async def set_ceiling(call: Call, body: RightsBody) -> CeilingView:
    """Set what runs in a session, and in those below it, may be granted at most. Runs that have started keep theirs."""
    await call.hub.runs.set_ceiling(call.session_id, body.bound(), made_by=call.principal.name)
    return await ceiling(call)


async def clear_ceiling(call: Call) -> None:
    """Take the bound away."""
    await call.hub.runs.set_ceiling(call.session_id, None, made_by=call.principal.name)


async def asked_for(call: Call, body: GrantBody | None, parent_run: str | None) -> Asked | None:
    """Return the grant that a caller asks for with a run.

    Raises:
        NotPermittedError: The caller is a user, whom nobody trusts with what an agent may do.
        RunNotFoundError: The parent is not the caller's.
    """
    if parent_run is not None:
        await call.reach_run(parent_run)
    if body is None:
        return None
    if not may(call.principal, "runs.authorize"):
        raise NotPermittedError(
            "a user's key asks for no grant", field="grant", remedy="leave it out: the run gets what its agent declares"
        )
    return body.asked()


def _view(decision: Decision) -> DecisionView:
    return DecisionView(allowed=decision.allowed, code=decision.code, message=decision.message)


def _grant_view(held: Held) -> GrantView:
    grant = held.grant
    return GrantView(
        run_id=held.run_id,
        digest=held.digest,
        agent=grant.agent,
        caller=grant.caller,
        parent_run=grant.parent or None,
        labels=grant.labels,
        context=grant.context,
        granted=grant.rights,
        rights=held.rights,
        refusal=held.refusal or None,
        expires_at=seconds(grant.expires_us) if grant.expires_us else None,
        cuts=[CutView(by=cut.by, count=cut.count, first=list(cut.first)) for cut in held.cuts],
        changes=[
            ChangeView(
                run_id=change.run_id,
                kind=change.kind,
                rights=change.rights,
                reason=change.reason,
                made_by=change.made_by,
                created_at=seconds(change.created_us),
            )
            for change in held.changes
        ],
    )


_NONE: Final = (RunNotFoundError,)
_LONG: Final = (*_NONE, TooLargeError)
_RUN: Final = "/api/v1/runs/{run_id}"
_CEILING: Final = "/api/v1/sessions/{session_id}/ceiling"
_SESSION: Final = (SessionNotFoundError,)

ROUTES: Final = (
    Route("POST", f"{_RUN}/authorize", authorize, permission="runs.authorize", errors=_LONG, run=True),
    Route("GET", f"{_RUN}/grant", show, permission="grants.read", errors=_NONE),
    Route("POST", f"{_RUN}/revoke", revoke, permission="grants.withdraw", errors=_NONE),
    Route("POST", f"{_RUN}/narrow", narrow, permission="grants.withdraw", errors=_LONG),
    Route("GET", _CEILING, ceiling, permission="ceilings.read", errors=_SESSION),
    Route("PUT", _CEILING, set_ceiling, permission="ceilings.write", errors=(*_SESSION, TooLargeError)),
    Route("DELETE", _CEILING, clear_ceiling, permission="ceilings.write", status=204, errors=_SESSION),
)
