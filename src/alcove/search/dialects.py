"""The index in the two dialects: SQLite's FTS5, and PostgreSQL's tsvector. Both hold words that we have made.

The tables are made here and not by a migration: they hold nothing of their own, and may be dropped at any time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Rows, Statement, Steps, Value
from alcove.search.model import Entered, Place
from alcove.search.rules import Wanted, prefixed, tokens

VERSION = "1"
"""Of what stands in the index: another one, and it is made anew."""


class Dialect(ABC):
    """The statements of an index."""

    tables: tuple[str, ...]
    drops: tuple[str, ...]

    def open(self, now: Micros, fresh: str) -> Steps[str]:
        """Make the tables where they are missing or of another version; return the name of this index."""
        yield Statement("CREATE TABLE IF NOT EXISTS search_about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        rows = yield Statement("SELECT value FROM search_about WHERE name = 'name'")
        name = rows[0][0] if rows else ""
        if name.partition(":")[0] == VERSION:
            return name
        name = f"{VERSION}:{fresh}"
        for sql in (*self.drops, *self.tables):
            yield Statement(sql)
        yield Statement(
            "INSERT INTO search_about (name, value) VALUES ('name', ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name,),
        )
        return name

    def drop(self, now: Micros) -> Steps[None]:
        """Remove everything; the next `open` makes it anew."""
        yield Statement("CREATE TABLE IF NOT EXISTS search_about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        yield Statement("DELETE FROM search_about")
        for sql in self.drops:
            yield Statement(sql)

    def enter(self, now: Micros, entered: Sequence[Entered]) -> Steps[None]:
        """Put places into the index, unless it has them: another process may have been faster. Titles are replaced."""
        fresh: list[tuple[Place, str]] = []
        for one in entered:
            place = one.place
            if place.first:
                [[last]] = yield Statement(
                    "SELECT COALESCE(MAX(last_seq), 0) FROM search_places WHERE session_id = ? AND first_seq >= ?",
                    (place.session_id, place.first),
                )
                if last >= place.last:
                    continue
                if last:
                    yield from self.forget(now, place.session_id, place.first, 2**62, limits.SEARCH_BATCH_MESSAGES)
            else:
                yield from self.forget(now, place.session_id, 0, 0, limits.SEARCH_BATCH_MESSAGES)
            if any(one.texts):
                fresh.append((place, tokens(one.texts, one.marks)))
        if fresh:
            yield from self._insert(fresh)

    def count(self, now: Micros, session_id: str) -> Steps[int]:
        """Return how many places of a session there are."""
        [[number]] = yield Statement("SELECT COUNT(*) FROM search_places WHERE session_id = ?", (session_id,))
        return int(number)

    @abstractmethod
    def _insert(self, fresh: Sequence[tuple[Place, str]]) -> Steps[None]:
        """Put places with their words into the index."""

    @abstractmethod
    def forget(self, now: Micros, session_id: str, first: int, last: int, limit: int) -> Steps[int]:
        """Take places that begin from `first` to `last` out of the index; return how many, at most `limit`."""

    @abstractmethod
    def find(
        self, now: Micros, wanted: Sequence[Wanted], marks: Sequence[str], below: int, limit: int
    ) -> Steps[list[tuple[int, Place]]]:
        """Return places that have every word and mark, newest first, each with its number; those below a number."""


_PLACES = "FROM search_places WHERE session_id = ? AND first_seq BETWEEN ? AND ? ORDER BY first_seq LIMIT ?"


@final
class Fts5(Dialect):
    """SQLite: a table of words without contents, beside one of places."""

    tables = (
        """CREATE TABLE search_places (
            id INTEGER PRIMARY KEY, session_id TEXT NOT NULL, first_seq BIGINT NOT NULL, last_seq BIGINT NOT NULL)""",
        "CREATE INDEX search_places_by_session ON search_places (session_id, first_seq)",
        # `ascii` parts at every ASCII character that is no letter or digit, and our words have none.
        """CREATE VIRTUAL TABLE search_words USING fts5(
            words, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii')""",
    )
    drops = ("DROP TABLE IF EXISTS search_words", "DROP TABLE IF EXISTS search_places")

    def _insert(self, fresh: Sequence[tuple[Place, str]]) -> Steps[None]:
        # The words by themselves: at a statement that SQLite may have to undo (RETURNING makes an INSERT one), FTS5
        # writes out what it holds, so that each place became a part of the index, to be merged.
        [[last]] = yield Statement("SELECT COALESCE(MAX(id), 0) FROM search_places")
        yield Statement(
            "INSERT INTO search_words (rowid, words) VALUES (?, ?)",
            [(number, words) for number, (_, words) in enumerate(fresh, last + 1)],
            many=True,
        )
        yield Statement(
            "INSERT INTO search_places (id, session_id, first_seq, last_seq) VALUES (?, ?, ?, ?)",
            [(number, *_row(place)) for number, (place, _) in enumerate(fresh, last + 1)],
            many=True,
        )

    def forget(self, now: Micros, session_id: str, first: int, last: int, limit: int) -> Steps[int]:
        """Take places out: see `Dialect.forget`."""
        rows = yield Statement(f"SELECT id {_PLACES}", (session_id, first, last, limit))
        for row in rows:
            yield Statement("DELETE FROM search_words WHERE rowid = ?", row)
            yield Statement("DELETE FROM search_places WHERE id = ?", row)
        return len(rows)

    def find(
        self, now: Micros, wanted: Sequence[Wanted], marks: Sequence[str], below: int, limit: int
    ) -> Steps[list[tuple[int, Place]]]:
        """Find places: see `Dialect.find`."""
        asked = [f'"{word}"' for word in marks]
        for one in wanted:
            asked += [f'"{word}"' for word in one.words[:-1]]
            asked += [f'"{word}"{" *" if prefixed(one) else ""}' for word in one.words[-1:]]
        rows = yield Statement(
            # The words first, newest to oldest: a plan that began at the places would look at all of them.
            "SELECT p.id, p.session_id, p.first_seq, p.last_seq FROM "
            "(SELECT rowid AS id FROM search_words WHERE search_words MATCH ? AND rowid < ? "
            "ORDER BY rowid DESC LIMIT ?) w CROSS JOIN search_places p ON p.id = w.id ORDER BY p.id DESC",
            (" AND ".join(asked), below, limit),
        )
        return _numbered(rows)


@final
class TsVector(Dialect):
    """PostgreSQL: places with their words, under a GIN index."""

    tables = (
        """CREATE TABLE search_places (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, session_id TEXT NOT NULL,
            first_seq BIGINT NOT NULL, last_seq BIGINT NOT NULL, words TSVECTOR NOT NULL)""",
        "CREATE INDEX search_places_by_session ON search_places (session_id, first_seq)",
        "CREATE INDEX search_places_by_words ON search_places USING gin (words)",
    )
    drops = ("DROP TABLE IF EXISTS search_places",)

    def _insert(self, fresh: Sequence[tuple[Place, str]]) -> Steps[None]:
        yield Statement(
            "INSERT INTO search_places (session_id, first_seq, last_seq, words) "
            "VALUES (?, ?, ?, array_to_tsvector(string_to_array(?, ' ')))",
            [(*_row(place), words) for place, words in fresh],
            many=True,
        )

    def forget(self, now: Micros, session_id: str, first: int, last: int, limit: int) -> Steps[int]:
        """Take places out: see `Dialect.forget`."""
        rows = yield Statement(
            f"DELETE FROM search_places WHERE id IN (SELECT id {_PLACES}) RETURNING id",
            (session_id, first, last, limit),
        )
        return len(rows)

    def find(
        self, now: Micros, wanted: Sequence[Wanted], marks: Sequence[str], below: int, limit: int
    ) -> Steps[list[tuple[int, Place]]]:
        """Find places: see `Dialect.find`."""
        asked = [f"'{word}'" for word in marks]
        for one in wanted:
            asked += [f"'{word}'" for word in one.words[:-1]]
            asked += [f"'{word}'{':*' if prefixed(one) else ''}" for word in one.words[-1:]]
        values: tuple[Value, ...] = (" & ".join(asked), below, limit)
        rows = yield Statement(
            "SELECT id, session_id, first_seq, last_seq FROM search_places "
            "WHERE words @@ CAST(? AS tsquery) AND id < ? ORDER BY id DESC LIMIT ?",
            values,
        )
        return _numbered(rows)


def _numbered(rows: Rows) -> list[tuple[int, Place]]:
    return [(row[0], Place(row[1], row[2], row[3])) for row in rows]


def _row(place: Place) -> tuple[str, int, int]:
    return place.session_id, place.first, place.last
