"""Verification: goes through every chain, a bounded number of rows at a time, beside those who write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import final

from alcove import limits
from alcove.audit import queries, rules
from alcove.audit.keeping import Checkpoint
from alcove.audit.model import Chain, Finding, Place, Recorded, Verified
from alcove.audit.seals import Seals
from alcove.database.op import Database


@final
class Verifying:
    """Looks for what is wrong with the audit; nothing is changed.

    Args:
        database: Where the rows are.
        installation: Whose.
    """

    def __init__(self, database: Database, installation: str) -> None:
        self._database = database
        self._installation = installation

    async def run(self, seals: Seals | None, kept: Checkpoint | None) -> Verified:
        """Look through every chain.

        Args:
            seals: This node's, None when it has no key.
            kept: The checkpoint beside the database, read before this.
        """
        proofs = {seals.node: seals} if seals else {}
        findings: list[Finding] = []
        nodes = count = erased = foreign = 0
        for first in await self._database.read(queries.chains):
            nodes += 1
            own = proofs.get(first.node)
            chain, last = first, (first.removed, first.removed_hash)
            begun = False
            async for latest, rows in self.rows(first):
                chain = latest
                if not begun:
                    last, begun = (latest.removed, latest.removed_hash), True
                    findings += rules.judge_chain(latest, self._installation, own)
                elif latest.removed > last[0]:
                    last = (latest.removed, latest.removed_hash)  # what was next went meanwhile, by its age
                found = rules.judge(rows, last, own, proofs)
                findings += rules.some(found, limits.AUDIT_FINDINGS - len(findings))
                if rows:
                    last = (rows[-1].chained.n, rows[-1].chained.hash)
                count += len(rows)
                foreign += 0 if own else len(rows)
                erased += sum(bool(row.words and row.words.erased) for row in rows)
            findings += rules.judge_end(chain, last)
        findings += await self._strays()
        if seals:
            findings += await self.judge_kept(kept, seals)
        return Verified(
            nodes=nodes, rows=count, erased=erased, foreign=foreign, findings=tuple(findings[: limits.AUDIT_FINDINGS])
        )

    async def rows(self, chain: Chain) -> AsyncIterator[tuple[Chain, list[Recorded]]]:
        """Yield a chain as it is and its next rows, to the end that it has when that is reached."""
        after = 0
        while True:
            found, rows = await self._database.read(queries.rows_after, chain.node, after, limits.AUDIT_PAGE)
            yield found or chain, rows
            if len(rows) < limits.AUDIT_PAGE:
                return
            after = rows[-1].chained.n
            await asyncio.sleep(0)

    async def _strays(self) -> list[Finding]:
        findings: list[Finding] = []
        after = ""
        while len(findings) < limits.AUDIT_FINDINGS and (found := await self._database.read(queries.stray, after)):
            after = found.node
            text = f"node {found.node} has rows from {found.n} on, and its checkpoint is gone"
            findings.append(Finding(*found, "checkpoint_altered", text))
        return findings

    async def judge_kept(self, kept: Checkpoint | None, seals: Seals) -> list[Finding]:
        """Compare the checkpoint beside the database, read before this, with what is in the database."""
        if kept is None or (kept.installation, kept.node) != (self._installation, seals.node):
            return []
        if not seals.holds("checkpoint", f"{kept.installation} {kept.n} {kept.hash}", kept.seal):
            text = f"the checkpoint file of node {kept.node} was written without the key"
            return [Finding(kept.node, kept.n, "checkpoint_altered", text)]
        # As of one moment: between two, the row may go by its age.
        chain, hashed = await self._database.read(queries.standing, Place(kept.node, kept.n))
        if chain is not None and (kept.n <= chain.removed or hashed == kept.hash):
            return []
        text = (
            f"row {kept.n} of node {kept.node}, which was written, is not in the database: "
            "an older copy of it was put back, or its end was cut off"
        )
        return [Finding(kept.node, kept.n, "rewound", text)]
