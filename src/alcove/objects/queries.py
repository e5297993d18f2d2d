"""The transactions of objects.

The order that keeps bytes safe: an object's row is there before its file (`reserve`), its first claim counts only while
the row still names the same file (`refer`), and its row is gone before its file (`collect`, `release`). Names of files
are never used twice, so whoever removes a file late removes nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence

from alcove.clock import Micros
from alcove.database.op import Rows, Statement, Steps
from alcove.errors import ObjectGoneError
from alcove.objects.model import Ref, Released, Reserved, Swept, Usage


def reserve(now: Micros, digest: str, size: int, file: str) -> Steps[Reserved]:
    """Return where an object is, or make its row with `file`; either way no sweep takes it for a while."""
    rows = yield Statement(
        "INSERT INTO objects (hash, file, size_bytes, refs, written, touched_at) VALUES (?, ?, ?, 0, 0, ?) "
        "ON CONFLICT (hash) DO UPDATE SET touched_at = excluded.touched_at RETURNING file, written",
        (digest, file, size, now),
    )
    return Reserved(rows[0][0], bool(rows[0][1]))


def refer(now: Micros, session_id: str, refs: Sequence[Ref]) -> Steps[None]:
    """Claim objects for messages.

    Raises:
        ObjectGoneError: A sweep has taken one since it was reserved; reserve and write it again.
    """
    for ref in sorted(refs, key=lambda one: (one.hash, one.seq)):  # in one order, so that no two writers block
        rows = yield Statement(
            "UPDATE objects SET refs = refs + 1, written = 1, touched_at = ? WHERE hash = ? AND file = ? "
            "RETURNING hash",
            (now, ref.hash, ref.file),
        )
        if not rows:
            raise ObjectGoneError(f"object {ref.hash} was swept while its message was on its way")
    yield Statement(
        "INSERT INTO object_refs (session_id, seq, hash) VALUES (?, ?, ?)",
        [(session_id, ref.seq, ref.hash) for ref in refs],
        many=True,
    )


def copy(now: Micros, source: str, target: str, first: int, last: int, limit: int) -> Steps[int]:
    """Claim for `target` what messages `first` to `last` of `source` refer to, at most `limit` messages at a time.

    Returns the last seq that is done; `last` when all are. For whoever copies messages with their seq.
    """
    rows = yield Statement(
        "SELECT seq, hash FROM object_refs WHERE session_id = ? AND seq BETWEEN ? AND ? ORDER BY seq, hash LIMIT ?",
        (source, first, last, limit),
    )
    done = last
    if len(rows) == limit:
        # The last message may have more of them than were read.
        done = rows[-1][0] - 1 if rows[0][0] < rows[-1][0] else rows[-1][0]
        if rows[0][0] == rows[-1][0]:
            rows = yield Statement("SELECT seq, hash FROM object_refs WHERE session_id = ? AND seq = ?", (source, done))
        rows = [row for row in rows if row[0] <= done]
    for digest in sorted({row[1] for row in rows}):
        yield Statement(
            "UPDATE objects SET refs = refs + ?, touched_at = ? WHERE hash = ?",
            (sum(row[1] == digest for row in rows), now, digest),
        )
    if rows:
        yield Statement(
            "INSERT INTO object_refs (session_id, seq, hash) VALUES (?, ?, ?)",
            [(target, seq, digest) for seq, digest in rows],
            many=True,
        )
    return done


def release(now: Micros, session_id: str, limit: int) -> Steps[Released]:
    """Give up claims of a session, at most `limit`; objects without any other go at once, rows first."""
    rows = yield Statement(
        "DELETE FROM object_refs WHERE session_id = ? AND (seq, hash) IN "
        "(SELECT seq, hash FROM object_refs WHERE session_id = ? ORDER BY seq, hash LIMIT ?) RETURNING hash",
        (session_id, session_id, limit),
    )
    files: list[str] = []
    claims = [row[0] for row in rows]
    for digest in sorted(set(claims)):
        yield Statement("UPDATE objects SET refs = refs - ? WHERE hash = ?", (claims.count(digest), digest))
        gone = yield Statement("DELETE FROM objects WHERE hash = ? AND refs = 0 RETURNING file", (digest,))
        files += [row[0] for row in gone]
    yield from _leave(files)
    return Released(len(rows), tuple(files))


def collect(now: Micros, before: Micros, limit: int) -> Steps[tuple[Swept, tuple[str, ...]]]:
    """Remove rows of objects that nothing refers to since `before`; return what went and the files to remove."""
    rows: Rows = yield Statement(
        # The condition is outside too: a message may claim one while this waits for its row.
        "DELETE FROM objects WHERE refs = 0 AND touched_at < ? AND hash IN "
        "(SELECT hash FROM objects WHERE refs = 0 AND touched_at < ? ORDER BY touched_at, hash LIMIT ?) "
        "RETURNING file, size_bytes",
        (before, before, limit),
    )
    files = [row[0] for row in rows]
    yield from _leave(files)
    return Swept(objects=len(rows), size_bytes=sum(row[1] for row in rows)), tuple(files)


def _leave(files: Sequence[str]) -> Steps[None]:
    """Note files whose rows are gone, so that they are removed even when this process is not there any more."""
    if files:
        yield Statement("INSERT INTO object_remains (file) VALUES (?)", [(file,) for file in files], many=True)


def remains(now: Micros, limit: int) -> Steps[list[str]]:
    """Return files that are to be removed."""
    rows = yield Statement("SELECT file FROM object_remains ORDER BY file LIMIT ?", (limit,))
    return [row[0] for row in rows]


def removed(now: Micros, files: Sequence[str]) -> Steps[None]:
    """Forget files that are not there any more."""
    yield Statement("DELETE FROM object_remains WHERE file = ?", [(file,) for file in files], many=True)


def places(now: Micros, hashes: Sequence[str]) -> Steps[dict[str, str]]:
    """Return the file of each object that there is."""
    found: dict[str, str] = {}
    for digest in hashes:
        rows = yield Statement("SELECT file FROM objects WHERE hash = ?", (digest,))
        found.update((digest, row[0]) for row in rows)
    return found


def rowless(now: Micros, files: Sequence[str]) -> Steps[list[str]]:
    """Return those files that no row names. None ever will: a row comes before its file, and no name comes twice."""
    found: list[str] = []
    for file in files:
        rows = yield Statement("SELECT file FROM objects WHERE hash = ?", (file.partition("-")[0],))
        if not rows or rows[0][0] != file:
            found.append(file)
    return found


def refers(now: Micros, session_id: str, digest: str) -> Steps[bool]:
    """Return whether a message of a session refers to an object."""
    rows = yield Statement("SELECT 1 FROM object_refs WHERE session_id = ? AND hash = ? LIMIT 1", (session_id, digest))
    return bool(rows)


def usage(now: Micros) -> Steps[Usage]:
    """Return what the store holds. Reads every row."""
    [[count, size, unused]] = yield Statement(
        "SELECT COUNT(*), COALESCE(SUM(size_bytes), 0), COALESCE(SUM(CASE WHEN refs = 0 THEN 1 ELSE 0 END), 0) "
        "FROM objects"
    )
    return Usage(objects=int(count), size_bytes=int(size), unused=int(unused))


def damage(now: Micros, after: str, limit: int) -> Steps[tuple[list[tuple[str, str, int, int, int]], str | None]]:
    """Return hash, file, size, count and claims of objects above `after`, and where to go on: for an examination."""
    rows = yield Statement(
        "SELECT o.hash, o.file, o.size_bytes, o.refs, "
        "(SELECT COUNT(*) FROM object_refs r WHERE r.hash = o.hash) "
        "FROM objects o WHERE o.hash > ? AND o.written = 1 ORDER BY o.hash LIMIT ?",
        (after, limit),
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in rows], rows[-1][0] if len(rows) == limit else None
