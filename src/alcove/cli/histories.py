"""What `alcove doctor --histories` looks at: every history, and every large part of one."""

from __future__ import annotations

from collections import Counter

import click

from alcove.cli import output
from alcove.errors import AlcoveError, DatabaseError
from alcove.hub import Alcove
from alcove.values import Json

_STEP = 1000  # sessions or objects from one sign of life to the next
_SHOWN = 100  # faults in a report; the counts have all of them


class Histories:
    """The state of all histories.

    Attributes:
        problems: What is wrong, and stays so.
    """

    def __init__(self) -> None:
        self.problems: list[AlcoveError] = []
        self._sessions = self._messages = self._damaged = self._objects = 0
        self._kinds: Counter[str] = Counter()
        self._faults: list[Json] = []
        self._skipped: list[Json] = []
        self._lost: list[Json] = []

    async def examine(self, hub: Alcove, *, repair: bool) -> None:
        """Look at everything, and repair what can be repaired when asked. Says how far it is on stderr."""
        async for one in hub.messages.examine(repair=repair):
            self._sessions += 1
            self._messages += one.messages
            self._damaged += bool(one.faults)
            self._kinds.update(fault.kind for fault in one.faults)
            for fault in one.faults[: _SHOWN - len(self._faults)]:
                about: dict[str, Json] = {"session_id": one.session_id, "seq": fault.seq, "kind": fault.kind}
                self._faults.append({**about, "detail": fault.detail})
            if one.skipped:
                self._skipped.append({"session_id": one.session_id, "reason": one.skipped})
            if self._sessions % _STEP == 0:
                output.note(f"{self._sessions} histories looked at, {self._damaged} with faults")
        async for count, wrong in hub.objects.examine():
            self._objects = count
            if wrong:
                self._lost.append(wrong)
            if count % _STEP == 0:
                output.note(f"{count} objects looked at")
        if repair:
            await hub.objects.sweep()
        if self._damaged and not repair:
            self.problems.append(
                DatabaseError(
                    f"{self._damaged} of {self._sessions} histories would be refused by a provider",
                    remedy="`alcove doctor --histories --repair` makes them acceptable; nothing is deleted",
                )
            )
        if self._skipped:
            self.problems.append(
                DatabaseError(
                    f"{output.counted(len(self._skipped), 'session')} could not be looked at: {self._skipped[0]}",
                    remedy="try again when no run holds them",
                )
            )
        if self._lost:
            self.problems.append(
                DatabaseError(
                    f"{output.counted(len(self._lost), 'object')} damaged: {self._lost[0]}",
                    remedy="restore the folder `objects` from a backup",
                )
            )

    def report(self) -> dict[str, Json]:
        """Return it as JSON."""
        return {
            "sessions": self._sessions,
            "messages": self._messages,
            "damaged": self._damaged,
            "kinds": dict(self._kinds),
            "faults": self._faults,
            "skipped": self._skipped,
            "objects": self._objects,
            "lost": self._lost,
        }

    def write(self) -> None:
        """Write it for people."""
        facts = {
            "histories": f"{self._sessions} with {self._messages} messages",
            "with faults": str(self._damaged),
            **{kind.replace("_", " "): str(count) for kind, count in sorted(self._kinds.items())},
            "objects": f"{self._objects}, {len(self._lost)} damaged",
        }
        output.write_facts(facts, kind="histories")


def check_options(*, histories: bool, repair: bool) -> None:
    """Refuse what makes no sense together."""
    if repair and not histories:
        raise click.UsageError("--repair goes with --histories")
