"""What the audit promises: nothing that must be audited happens without its row, and no row is changed unnoticed."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from alcove import limits
from alcove.audit import queries
from alcove.audit.keeping import KeyFile
from alcove.audit.lines import line, verify
from alcove.audit.model import AuditFilters, Recorded
from alcove.audit.service import Audit
from alcove.clock import SECOND
from alcove.database.op import Database
from alcove.errors import InvalidError
from alcove.principals.service import Keys
from alcove.testing.faults import FaultError, failing
from alcove.testing.rows import execute

_TABLES = ("audit", "audit_words", "audit_chains", "principal_keys")

# What somebody may do who can write to the database and has no key, and what verification says of which row.
TAMPERED: dict[str, tuple[list[str], str, int]] = {
    "a flipped byte in a code": (["UPDATE audit SET code = 'dons' WHERE n = 3"], "altered", 3),
    "a time that was moved": (["UPDATE audit SET created_at = created_at + 1 WHERE n = 3"], "altered", 3),
    "a number that was changed": (["UPDATE audit SET times = 7 WHERE n = 3"], "altered", 3),
    "a digest of somebody else": (
        ["UPDATE audit SET subject = (SELECT subject FROM audit o WHERE o.n = 4) WHERE n = 3"],
        "altered",
        3,
    ),
    "a hash that was changed": (["UPDATE audit SET hash = replace(hash, 'a', 'b') WHERE n = 3"], "altered", 3),
    "a seal that was changed": (["UPDATE audit SET seal = 'x' WHERE n = 3"], "unsealed", 3),
    "words that were changed": (["UPDATE audit_words SET words = '{}' WHERE n = 3"], "words_altered", 3),
    "a name that was changed": (["UPDATE audit_words SET tenant = 'other' WHERE n = 3"], "words_altered", 3),
    "words that are gone": (["DELETE FROM audit_words WHERE n = 3"], "words_missing", 3),
    "an erasure without the key": (
        ["UPDATE audit_words SET words = '', erased = 'x y' WHERE n = 3"],
        "words_altered",
        3,
    ),
    "a row that is gone": (["DELETE FROM audit WHERE n = 3", "DELETE FROM audit_words WHERE n = 3"], "missing", 3),
    "the first row gone": (["DELETE FROM audit WHERE n = 1"], "missing", 1),
    "the last row gone": (["DELETE FROM audit WHERE n = 6"], "missing", 6),
    "all rows gone": (["DELETE FROM audit"], "missing", 1),
    "two rows that changed places": (
        [
            "UPDATE audit SET n = 99 WHERE n = 3",
            "UPDATE audit SET n = 3 WHERE n = 4",
            "UPDATE audit SET n = 4 WHERE n = 99",
        ],
        "misplaced",
        3,
    ),
    "a tail that was cut off, and the checkpoint with it": (
        [
            "DELETE FROM audit WHERE n > 4",
            "UPDATE audit_chains SET n = 4, hash = (SELECT hash FROM audit WHERE n = 4)",
        ],
        "checkpoint_altered",
        4,
    ),
    "a head that was cut off, and the checkpoint with it": (
        [
            "DELETE FROM audit WHERE n <= 2",
            "UPDATE audit_chains SET removed = 2, removed_hash = (SELECT prev FROM audit WHERE n = 3)",
        ],
        "checkpoint_altered",
        6,
    ),
    "a checkpoint that is gone": (["DELETE FROM audit_chains"], "checkpoint_altered", 1),
}


class AuditContract:
    """Needs a `database` fixture; subclass it as it is."""

    async def test_an_act_leaves_a_row_that_says_who_did_what_to_what(self, database: Database) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 2)
        [second, first] = (await audit.list()).rows
        assert (first.chained.act, first.chained.code, first.chained.times) == ("key.created", "done", 1)
        assert first.words is not None
        assert (first.words.subject, first.words.who, first.words.tenant) == ("key:0", "local", "acme")
        assert first.told == {"label": "number 0"}
        assert second.chained.prev == first.chained.hash

    async def test_a_chained_row_holds_codes_and_keyed_digests_only(self, database: Database) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 1)
        rows = str(await execute(database, "SELECT * FROM audit"))
        for word in ("key:0", "acme", "local", "number"):
            assert word not in rows
        other = Audit(database, "here")
        assert other.witness("x").seals.digest("key:0") not in rows, "the digest needs the key"
        assert audit.witness("x").seals.digest("key:0") in rows

    async def test_an_act_and_its_row_happen_together_or_not_at_all(self, database: Database) -> None:
        audit = Audit(database, "here")
        keys = Keys(database, audit=audit)
        kept = (await keys.create()).key

        async def picture() -> list[Any]:
            return [sorted(await execute(database, f"SELECT * FROM {table}"), key=repr) for table in _TABLES]

        from alcove.principals import queries as of_keys

        before, number = await picture(), 0
        while True:
            number += 1
            try:
                await database.write(failing(of_keys.revoke, number), kept.id, audit.witness("local"))
            except FaultError:
                assert await picture() == before, f"statement {number} left something behind"
                continue
            break
        assert number > 5
        assert [row.chained.act for row in (await audit.list()).rows] == ["key.revoked", "key.created"]

    async def test_what_cannot_be_audited_is_not_done(self, database: Database) -> None:
        audit = Audit(database, "here")
        keys = Keys(database, audit=audit)
        issued = await keys.create()
        await execute(database, "ALTER TABLE audit RENAME TO away")
        with pytest.raises(Exception, match="audit"):
            await keys.create()
        with pytest.raises(Exception, match="audit"):
            await keys.revoke(issued.key.id)
        await execute(database, "ALTER TABLE away RENAME TO audit")
        assert [key.revoked_us for key in (await keys.list()).keys] == [0]
        assert (await keys.authenticate(issued.secret)).key_id == issued.key.id

    @pytest.mark.parametrize("how", TAMPERED)
    async def test_verification_names_the_row_that_was_tampered_with(self, database: Database, how: str) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 6)
        assert (await audit.verify()).findings == (), "the control"
        statements, what, n = TAMPERED[how]
        for sql in statements:
            await execute(database, sql)
        found = (await audit.verify()).findings
        assert (what, n) in [(one.what, one.n) for one in found], found
        assert all(one.node == audit.node and str(one.n) in one.message for one in found if one.what == what)

    async def test_a_chain_that_was_written_anew_without_the_key_is_found_out(self, database: Database) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 3)
        for table in _TABLES[:3]:
            await execute(database, f"DELETE FROM {table}")
        await _acts(database, Audit(database, "here"), 3)
        for table in _TABLES[:3]:
            await execute(database, f"UPDATE {table} SET node = ?", audit.node)
        assert {one.what for one in (await audit.verify()).findings} >= {"altered", "checkpoint_altered"}

    async def test_rows_of_another_installation_do_not_fit(self, database: Database) -> None:
        shared = _Shared()
        await _acts(database, shared.audit(database, "there"), 2)
        found = (await shared.audit(database, "here").verify()).findings
        assert "checkpoint_altered" in {one.what for one in found}

    async def test_each_node_has_its_own_chain_and_a_foreign_one_is_checked_as_far_as_can_be(
        self, database: Database
    ) -> None:
        here, there = Audit(database, "here"), Audit(database, "here")
        await asyncio.gather(*(_acts(database, audit, 5) for audit in (here, there)))
        found = await here.verify()
        assert (found.nodes, found.rows, found.foreign, found.findings) == (2, 10, 5, ())
        await execute(database, "UPDATE audit SET times = 9 WHERE node = ? AND n = 2", there.node)
        assert [(one.node, one.n, one.what) for one in (await here.verify()).findings] == [(there.node, 2, "altered")]

    async def test_writers_of_one_node_at_the_same_time_make_one_chain(self, database: Database) -> None:
        shared = _Shared()
        audits = [shared.audit(database, "here") for _ in range(3)]
        await asyncio.gather(*(_acts(database, audit, 10) for audit in audits))
        found = await audits[0].verify()
        assert (found.nodes, found.rows, found.findings) == (1, 30, ())

    # -- reading -------------------------------------------------------------------------------------------------------

    async def test_rows_are_found_by_what_they_say(self, database: Database) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 6)
        audit.denied("check.denied", "revoked", subject="run:r", tenant="acme", user_id="ana", session_id="s")
        await audit.flush()
        for filters, count in (
            (AuditFilters(act="key.created"), 6),
            (AuditFilters(act="key.created", tenant="other"), 0),
            (AuditFilters(code="revoked"), 1),
            (AuditFilters(denied=True), 1),
            (AuditFilters(denied=False), 6),
            (AuditFilters(tenant="acme"), 7),
            (AuditFilters(user_id="ana", session_id="s"), 1),
            (AuditFilters(subject="key:3"), 1),
            (AuditFilters(subject="key:3", who="local"), 1),
            (AuditFilters(subject="key:3", who="somebody"), 0),
            (AuditFilters(who="local"), 6),
            (AuditFilters(node=audit.node), 7),
            (AuditFilters(node="other"), 0),
            (AuditFilters(before_us=1), 0),
            (AuditFilters(after_us=2**60), 0),
        ):
            assert len((await audit.list(filters)).rows) == count, filters

    @pytest.mark.parametrize(
        "filters", [AuditFilters(), AuditFilters(tenant="acme"), AuditFilters(act="key.created")], ids=repr
    )
    async def test_pages_show_each_row_once_newest_first(self, database: Database, filters: AuditFilters) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 7)
        rows = await every_row(audit, filters, limit=2)
        assert [row.chained.n for row in rows] == [7, 6, 5, 4, 3, 2, 1]

    async def test_a_cursor_that_is_none_is_refused(self, database: Database) -> None:
        audit = Audit(database, "here")
        for cursor in ("x", "MTIzOmFiYw", "MTIzOmFiYy94"):
            with pytest.raises(InvalidError, match="cursor"):
                await audit.list(cursor=cursor)

    async def test_an_export_has_every_row_with_what_its_hash_is_made_of(self, database: Database) -> None:
        await _acts(database, audit := Audit(database, "here"), 3)
        lines = [line(row) async for row in audit.records()]
        assert all(name.encode() in lines[0] for name in ("prev", "hash", "seal", "number 0", "key:0"))
        assert (verify(lines).rows, verify(lines).findings) == (3, ())
        for wrong, n in (([lines[0], lines[2]], 2), ([*lines[:1], lines[1].replace(b"done", b"none"), lines[2]], 2)):
            assert [one.n for one in verify(wrong).findings] == [n]

    # -- erasing -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("what", [{"subject": "run:r"}, {"session_id": "s"}, {"user_id": "ana"}], ids=str)
    async def test_erased_words_are_gone_and_the_chain_holds(self, database: Database, what: dict[str, str]) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 2)
        audit.denied("check.denied", "revoked", subject="run:r", user_id="ana", session_id="s", name="a secret")
        assert (await audit.erase(**what, by="local")).rows == 1  # pyright: ignore[reportArgumentType]
        everything = str([await execute(database, f"SELECT * FROM {table}") for table in _TABLES])
        for word in ("run:r'", "'ana'", "'s'", "a secret"):
            assert word not in everything
        found = await audit.verify()
        assert (found.erased, found.findings) == (1, ())
        [row] = (await audit.list(AuditFilters(subject="run:r"))).rows
        assert (row.chained.act, row.chained.code, row.told) == ("check.denied", "revoked", {})
        acts = sorted(one.chained.act for one in (await audit.list()).rows)
        assert acts == ["audit.erased", "check.denied", "key.created", "key.created"]

    async def test_all_words_before_an_instant_are_erased(self, database: Database) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 5)
        assert (await audit.erase(before_us=2**60)).rows >= 5
        assert "number" not in str(await execute(database, "SELECT * FROM audit_words"))
        assert (await audit.verify()).findings == ()

    async def test_an_erasure_says_what_of(self, database: Database) -> None:
        for given in ({}, {"subject": ""}, {"subject": "a", "user_id": "b"}):
            with pytest.raises(InvalidError, match="erased"):
                await Audit(database, "here").erase(**given)  # pyright: ignore[reportArgumentType]

    # -- removing ------------------------------------------------------------------------------------------------------

    async def test_rows_past_their_number_go_and_what_is_left_is_verified(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "AUDIT_REMOVED", 2)
        audit = Audit(database, "here")
        await _acts(database, audit, 10)
        assert await audit.sweep(rows=4) == 6
        assert await audit.sweep(rows=4) == 0, "what says so is no reason to go on"
        rows = (await audit.list()).rows
        assert [row.chained.act for row in rows] == ["audit.removed", *["key.created"] * 4]
        assert rows[0].chained.times == 6
        assert (await audit.verify()).findings == ()
        await execute(database, "DELETE FROM audit WHERE n = 7")
        assert [(one.what, one.n) for one in (await audit.verify()).findings] == [("missing", 7)]

    async def test_rows_past_their_age_go(self, database: Database) -> None:
        audit = Audit(database, "here")
        await _acts(database, audit, 3)
        await execute(database, "UPDATE audit SET created_at = created_at - ?", 401 * 86400 * SECOND)
        assert await audit.sweep() == 2, "the last row stays: the checkpoint is its"
        assert await Audit(database, "here").sweep() == 0, "the chain of another node is not this one's"


async def _acts(database: Database, audit: Audit, count: int) -> None:
    for i in range(count):
        witness = audit.witness("local")
        await database.write(queries.record, witness, "key.created", f"key:{i}", tenant="acme", label=f"number {i}")


async def every_row(audit: Audit, filters: AuditFilters, limit: int = 200) -> list[Recorded]:
    """Return all rows that filters choose, read in pages."""
    rows: list[Recorded] = []
    cursor: str | None = None
    while True:
        page = await audit.list(filters, limit=limit, cursor=cursor)
        rows += page.rows
        cursor = page.next_cursor
        if cursor is None:
            return rows


class _Shared:
    """Audits of one node: with one key, as processes of one machine have it."""

    def __init__(self) -> None:
        self._first: Audit | None = None

    def audit(self, database: Database, installation: str) -> Audit:
        audit = Audit(database, installation, files=KeyFile(None))
        if self._first is None:
            self._first = audit
            audit.witness("")
        audit._kept = self._first._kept  # pyright: ignore[reportPrivateUsage]
        return audit
