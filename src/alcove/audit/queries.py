"""The transactions of the audit. `record` is a part of other nouns' transactions: the act and its row, or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from alcove import limits
from alcove.audit import rules
from alcove.audit.model import DONE, Act, AuditFilters, Chain, Chained, Place, Recorded, RecordedPage, Witness, Words
from alcove.audit.seals import Seals
from alcove.clock import Micros
from alcove.database.op import Row, Rows, Statement, Steps, Value
from alcove.errors import InvalidError
from alcove.pages import decode_cursor, encode_cursor
from alcove.values import Json

CHAINED = "node, n, created_at, first_at, act, code, times, subject, who, words, prev, hash, seal"
WORDS = "tenant, user_id, session_id, subject, who, words, erased"
CHAIN = "node, n, hash, removed, removed_hash, seal"
_A = ", ".join(f"a.{name}" for name in CHAINED.split(", "))
_W = ", ".join(f"w.{name}" for name in WORDS.split(", "))
_FIELDS = len(Chained.__struct_fields__)
_END: Micros = 2**63 - 1
# What leads to rows by an index, the most telling first.
_LEADS = ("subject", "session_id", "user_id", "who", "act", "tenant")


def record(
    now: Micros,
    witness: Witness | None,
    act: str,
    subject: str,
    *,
    code: str = DONE,
    tenant: str = "",
    user_id: str = "",
    session_id: str = "",
    times: int = 1,
    **words: Json,
) -> Steps[None]:
    """Write the row of an act, in the transaction that does it: `yield from` it, last of all that the operation does.

    Last, because it locks the node's chain until the commit. With None for the witness nothing is audited: that is for
    services which were built without a hub.

    Args:
        now: The time.
        witness: Who does it, from `Audit.witness`.
        act: What, as `noun.verb`.
        subject: What it is about: `run:…`, `session:…`, `key:…`.
        code: `done`, or why it was denied.
        tenant: Whose.
        user_id: Which user's.
        session_id: In which session.
        times: How many of them at once.
        words: What else a person may want to know.
    """
    if witness is None:
        return
    done = Act(
        act=act,
        code=code,
        subject=subject,
        tenant=tenant,
        user_id=user_id,
        session_id=session_id,
        who=witness.who,
        words=words,
        times=times,
    )
    yield from append(now, witness.seals, [done])


def append(now: Micros, seals: Seals, acts: Sequence[Act]) -> Steps[Chain]:
    """Write rows at the end of this node's chain, at most `limits.AUDIT_BATCH`; return its new checkpoint."""
    [[n, prev, removed, removed_hash]] = yield Statement(
        f"INSERT INTO audit_chains ({CHAIN}) VALUES (?, ?, ?, 0, ?, '') "
        "ON CONFLICT (node) DO UPDATE SET n = audit_chains.n + excluded.n "
        "RETURNING n, hash, removed, removed_hash",
        (seals.node, len(acts), seals.genesis, seals.genesis),
    )
    n -= len(acts)
    rows: list[Row] = []
    spoken: list[Row] = []
    for act in acts:
        n += 1
        words = rules.words_of(act)
        row = rules.chained(seals, act, words, n, prev, now)
        prev = row.hash
        rows.append(msgspec.structs.astuple(row))
        spoken.append((row.node, n, row.created_us, *msgspec.structs.astuple(words)))
    marks = ", ".join("?" * _FIELDS)
    yield Statement(f"INSERT INTO audit ({CHAINED}) VALUES ({marks})", rows, many=True)
    yield Statement(
        f"INSERT INTO audit_words (node, n, created_at, {WORDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        spoken,
        many=True,
    )
    chain = rules.sealed(seals, n, prev, removed, removed_hash)
    yield Statement("UPDATE audit_chains SET hash = ?, seal = ? WHERE node = ?", (chain.hash, chain.seal, chain.node))
    return chain


def page(
    now: Micros, filters: AuditFilters, digests: Mapping[str, str], limit: int, cursor: str | None
) -> Steps[RecordedPage]:
    """Return rows, newest first; at most `limits.AUDIT_LOOKED_AT` are looked at.

    Args:
        now: The time.
        filters: Which.
        digests: The keyed digests of `subject` and `who` of the filters, where the key is here.
        limit: How many.
        cursor: `next_cursor` of the page before.
    """
    at = _place(cursor) if cursor else (filters.before_us or _END, Place("", 0))
    lead = next((name for name in _LEADS if getattr(filters, name) is not None), "")
    asked: set[str] = {getattr(filters, lead), digests.get(lead, getattr(filters, lead))} if lead else {""}
    found: list[Recorded] = []
    looked = 0
    while True:
        rows: list[Recorded] = []
        for value in sorted(asked):
            rows += [_recorded(row) for row in (yield _older(lead, value, at, limits.AUDIT_PAGE))]
        rows.sort(key=lambda row: (row.chained.created_us, *row.chained.place), reverse=True)
        for row in rows[: limits.AUDIT_PAGE]:
            looked += 1
            at = (row.chained.created_us, row.chained.place)
            if filters.after_us and row.chained.created_us < filters.after_us:
                return RecordedPage(found, None)
            if rules.matches(row, filters, digests):
                found.append(row)
            if len(found) == limit:
                break
        more = len(rows) >= limits.AUDIT_PAGE or len(found) == limit
        if not more or len(found) == limit or looked >= limits.AUDIT_LOOKED_AT:
            return RecordedPage(found, encode_cursor(at[0], f"{at[1].node}/{at[1].n}") if more else None)


def _older(lead: str, value: str, at: tuple[Micros, Place], limit: int) -> Statement:
    """Return the statement for rows before a place, newest first: in all, or of those with a value."""
    place: tuple[Value, ...] = (at[0], *at[1], limit)
    if lead in {"", "act"}:
        condition, values = ("a.act = ? AND ", (value, *place)) if lead else ("", place)
        return Statement(
            f"SELECT {_A}, {_W} FROM audit a LEFT JOIN audit_words w ON w.node = a.node AND w.n = a.n "
            f"WHERE {condition}(a.created_at, a.node, a.n) < (?, ?, ?) "
            "ORDER BY a.created_at DESC, a.node DESC, a.n DESC LIMIT ?",
            values,
        )
    there = f" AND w.{lead} <> ''" if lead in {"session_id", "user_id"} else ""
    return Statement(
        f"SELECT {_A}, {_W} FROM audit_words w CROSS JOIN audit a WHERE a.node = w.node AND a.n = w.n "
        f"AND w.{lead} = ?{there} AND (w.created_at, w.node, w.n) < (?, ?, ?) "
        "ORDER BY w.created_at DESC, w.node DESC, w.n DESC LIMIT ?",
        (value, *place),
    )


def _place(cursor: str) -> tuple[Micros, Place]:
    at, text = decode_cursor(cursor)
    node, _, n = text.partition("/")
    if not n.isascii() or not n.isdigit() or len(n) > 18:
        raise InvalidError("cursor is not one of ours", field="cursor", remedy="pass next_cursor as it came")
    return at, Place(node, int(n))


def _recorded(row: Row) -> Recorded:
    words = row[_FIELDS:]
    return Recorded(Chained(*row[:_FIELDS]), None if words[0] is None else Words(*words))


def chains(now: Micros) -> Steps[list[Chain]]:
    """Return every node's checkpoint; nodes that have rows and no checkpoint come with an empty one."""
    rows = yield Statement(f"SELECT {CHAIN} FROM audit_chains ORDER BY node LIMIT ?", (limits.AUDIT_NODES,))
    return [Chain(*row) for row in rows]


def stray(now: Micros, after: str) -> Steps[Place | None]:
    """Return the first row, of nodes after that one, whose node has no checkpoint."""
    rows = yield Statement(
        "SELECT node, n FROM audit WHERE node > ? AND NOT EXISTS "
        "(SELECT 1 FROM audit_chains c WHERE c.node = audit.node) ORDER BY node, n LIMIT 1",
        (after,),
    )
    return Place(*rows[0]) if rows else None


def rows_after(now: Micros, node: str, after: int, limit: int) -> Steps[tuple[Chain | None, list[Recorded]]]:
    """Return a node's checkpoint and its next rows, in order, as of one moment."""
    found = yield Statement(f"SELECT {CHAIN} FROM audit_chains WHERE node = ?", (node,))
    rows = yield Statement(
        f"SELECT {_A}, {_W} FROM audit a LEFT JOIN audit_words w ON w.node = a.node AND w.n = a.n "
        "WHERE a.node = ? AND a.n > ? ORDER BY a.n LIMIT ?",
        (node, after, limit),
    )
    return (Chain(*found[0]) if found else None), [_recorded(row) for row in rows]


def standing(now: Micros, place: Place) -> Steps[tuple[Chain | None, str | None]]:
    """Return a node's checkpoint and the hash of one of its rows, None when it is not there, as of one moment."""
    found = yield Statement(f"SELECT {CHAIN} FROM audit_chains WHERE node = ?", (place.node,))
    rows = yield Statement("SELECT hash FROM audit WHERE node = ? AND n = ?", tuple(place))
    return (Chain(*found[0]) if found else None), (rows[0][0] if rows else None)


def erase(now: Micros, seals: Seals, column: str, value: str, limit: int) -> Steps[int]:
    """Erase the words of rows that have a value in a column, at most `limit` of them; return how many.

    The rows themselves stay: what they say in codes and digests, their hashes and seals.
    """
    assert column in {"subject", "session_id", "user_id"}, column
    rows = yield Statement(
        f"SELECT {_A} FROM audit_words w CROSS JOIN audit a WHERE a.node = w.node AND a.n = w.n "
        f"AND w.{column} = ? AND w.{column} <> '' AND w.erased = '' ORDER BY w.created_at, w.node, w.n LIMIT ?",
        (value, limit),
    )
    yield from _erase(seals, rows)
    return len(rows)


def erase_before(
    now: Micros, seals: Seals, after: tuple[Micros, Place], before: Micros, limit: int
) -> Steps[tuple[int, tuple[Micros, Place] | None]]:
    """Erase the words of rows older than an instant, at most `limit` looked at; return how many, and where to go on."""
    rows = yield Statement(
        f"SELECT {_A}, w.erased FROM audit a CROSS JOIN audit_words w WHERE w.node = a.node AND w.n = a.n "
        "AND (a.created_at, a.node, a.n) > (?, ?, ?) AND a.created_at < ? "
        "ORDER BY a.created_at, a.node, a.n LIMIT ?",
        (after[0], *after[1], before, limit),
    )
    standing = [row[:-1] for row in rows if not row[-1]]
    yield from _erase(seals, standing)
    last = Chained(*rows[-1][:-1]) if len(rows) == limit else None
    return len(standing), (last.created_us, last.place) if last else None


def _erase(seals: Seals, rows: Rows) -> Steps[None]:
    left = [(*msgspec.structs.astuple(rules.erased(seals, row)), *row.place) for row in (Chained(*row) for row in rows)]
    names = ", ".join(f"{name} = ?" for name in WORDS.split(", "))
    yield Statement(f"UPDATE audit_words SET {names} WHERE node = ? AND n = ?", left, many=True)


def forget_session(now: Micros, witness: Witness | None, session_id: str, limit: int) -> Steps[int]:
    """Erase the words of what was audited in a session, at most `limit` rows: a part of its purge."""
    if witness is None:
        return 0
    return (yield from erase(now, witness.seals, "session_id", session_id, limit))


def remove(now: Micros, seals: Seals, older: Micros, most: int, limit: int) -> Steps[int]:
    """Remove the oldest rows of this node's chain: those older than so long, and those beyond so many.

    The checkpoint keeps number and hash of the last that went, so that what is left is verified as before.

    Returns:
        How many went, at most `limit`; 0 when there is nothing to do.
    """
    found = yield Statement(
        f"UPDATE audit_chains SET n = n WHERE node = ? RETURNING {CHAIN}",
        (seals.node,),
    )
    if not found:
        return 0
    chain = Chain(*found[0])
    rows = yield Statement(
        "SELECT n, hash, created_at FROM audit WHERE node = ? AND n > ? AND n < ? ORDER BY n LIMIT ?",
        (seals.node, chain.removed, chain.n, limit),
    )
    going = [(n, hashed) for n, hashed, at in rows if n <= chain.n - most or at < now - older]
    # A prefix only: what is left begins where the checkpoint says.
    going = [one for i, one in enumerate(going) if one[0] == rows[i][0]]
    if not going:
        return 0
    last, hashed = going[-1]
    for table in ("audit", "audit_words"):
        yield Statement(f"DELETE FROM {table} WHERE node = ? AND n <= ?", (seals.node, last))
    new = rules.sealed(seals, chain.n, chain.hash, last, hashed)
    yield Statement(
        "UPDATE audit_chains SET removed = ?, removed_hash = ?, seal = ? WHERE node = ?",
        (new.removed, new.removed_hash, new.seal, new.node),
    )
    return len(going)
