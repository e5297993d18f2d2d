"""What a server's runs ask a person, in the words of the hub."""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.cli.wire import Wire, at
from alcove.rights.approvals import Approval
from alcove.runs.approval_queries import ApprovalPage
from alcove.values import Json


class ApprovalAnswer(msgspec.Struct, kw_only=True):
    """A request as it goes over the wire."""

    approval_id: str
    run_id: str
    session_id: str
    user_id: str
    agent: str
    type: str
    id: str
    operation: str
    arguments: Json
    digest: str
    message: str
    status: str
    reason: str
    decided_by: str
    created_at: float
    expires_at: float
    decided_at: float | None

    def record(self) -> Approval:
        """Return it as the hub would, without what a server keeps to itself."""
        return Approval(
            id=self.approval_id,
            run_id=self.run_id,
            tenant="",
            user_id=self.user_id,
            session_id=self.session_id,
            agent=self.agent,
            kind=self.type,
            name=self.id,
            operation=self.operation,
            arguments_json=msgspec.json.encode(self.arguments, order="sorted").decode(),
            digest=self.digest,
            message=self.message,
            status=self.status,
            reason=self.reason,
            decided_by=self.decided_by,
            created_us=_micros(self.created_at),
            expires_us=_micros(self.expires_at),
            decided_us=_micros(self.decided_at or 0),
        )


class _Page(msgspec.Struct, kw_only=True):
    approvals: list[ApprovalAnswer]
    next_cursor: str | None


class RemoteApprovals:
    """The part of `hub.runs` of a server that lets runs wait for a person."""

    _wire: Wire

    async def approvals(
        self,
        run_id: str | None = None,
        *,
        session_id: str | None = None,
        waiting: bool = False,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> ApprovalPage:
        """List requests, newest first: see `Runs.approvals`."""
        path = at("approvals") if run_id is None else at("runs", run_id, "approvals")
        query = {"session_id": session_id, "waiting": waiting, "limit": limit, "cursor": cursor}
        page = (await self._wire.ask("GET", path, query=query)).read(_Page)
        return ApprovalPage([one.record() for one in page.approvals], page.next_cursor)

    async def approve(self, run_id: str, approval_id: str, *, reason: str = "") -> Approval:
        """Say yes to a request: see `Runs.approve`."""
        return await self._decide(run_id, "approve", approval_id, reason)

    async def deny(self, run_id: str, approval_id: str, *, reason: str = "") -> Approval:
        """Say no to a request: see `Runs.deny`."""
        return await self._decide(run_id, "deny", approval_id, reason)

    async def _decide(self, run_id: str, word: str, approval_id: str, reason: str) -> Approval:
        body = {"approval_id": approval_id, "reason": reason}
        return (await self._wire.ask("POST", at("runs", run_id, word), body=body)).read(ApprovalAnswer).record()


def _micros(at_s: float) -> int:
    return round(at_s * 1_000_000)
