"""Grants of a server's runs, in the words of the hub."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alcove.cli.wire import Wire, at
from alcove.rights.model import Cut, Rights
from alcove.runs.checking import Held
from alcove.runs.deciding import Check, Decision
from alcove.runs.grant_queries import Change
from alcove.runs.grants import Grant


class ChangeAnswer(msgspec.Struct, kw_only=True):
    """A withdrawal as it goes over the wire."""

    run_id: str
    kind: str
    rights: Rights
    reason: str
    made_by: str
    created_at: float


class GrantAnswer(msgspec.Struct, kw_only=True):
    """A run's authority as it goes over the wire."""

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
    cuts: list[Cut]
    changes: list[ChangeAnswer]

    def record(self) -> Held:
        """Return it as the hub would, without what a server keeps to itself."""
        given = {
            name: value
            for name in Rights.__struct_fields__
            if (value := getattr(self.granted, name)) is not msgspec.UNSET
        }
        return Held(
            run_id=self.run_id,
            digest=self.digest,
            grant=Grant(
                agent=self.agent,
                caller=self.caller,
                parent=self.parent_run or "",
                labels=self.labels,
                context=self.context,
                expires_us=_micros(self.expires_at or 0),
                **given,
            ),
            cuts=tuple(self.cuts),
            changes=tuple(
                Change(one.run_id, one.kind, one.rights, one.reason, one.made_by, _micros(one.created_at))
                for one in self.changes
            ),
            rights=self.rights,
            refusal=self.refusal or "",
        )


class _Decisions(msgspec.Struct, kw_only=True):
    decisions: list[Decision]


async def decisions(wire: Wire, run_id: str, checks: Sequence[Check], *, fresh: bool) -> list[Decision]:
    """Return what a server answers to checks about one run."""
    asked = [{"type": one.kind, "id": one.name, "operation": one.operation, "caller": one.caller} for one in checks]
    answer = await wire.ask("POST", at("runs", run_id, "authorize"), body={"checks": asked, "fresh": fresh})
    return answer.read(_Decisions).decisions


def _micros(at_s: float) -> int:
    return round(at_s * 1_000_000)
