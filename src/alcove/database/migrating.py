"""Numbered SQL files bring a database to this version's schema; an older program refuses a newer one.

The files are written in the common subset of SQLite and PostgreSQL. A file that was released never changes: its
SHA-256 is stored with it and compared at every start.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources

import msgspec

from alcove.clock import Micros
from alcove.database.op import Database, Statement, Steps
from alcove.errors import SchemaError

_NAME = re.compile(r"(\d{4})_([a-z_]+)\.sql")


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self) -> list[str]:
        """Return the file's statements; they end in `;` at the end of a line."""
        bare = "\n".join(line for line in self.sql.splitlines() if not line.lstrip().startswith("--"))
        return [part.strip() for part in re.split(r";[ \t]*(?:\n|$)", bare) if part.strip()]


@cache
def migrations() -> tuple[Migration, ...]:
    """Return this program's migrations, in order."""
    found = (
        Migration(version=int(match[1]), name=match[2], sql=file.read_text("utf-8"))
        for file in (resources.files("alcove.database") / "migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    )
    return tuple(sorted(found, key=lambda step: step.version))


async def migrate(database: Database, known: tuple[Migration, ...] | None = None) -> int:
    """Bring the schema to the newest version, each migration in a transaction of its own; return that version.

    Raises:
        SchemaError: The database is newer than this program, or a migration that it has differs from ours.
    """
    known = migrations() if known is None else known
    applied = await database.write(_applied)
    newest = max(applied, default=0)
    if newest > known[-1].version:
        raise SchemaError(
            f"the database has schema {newest} ({applied[newest][0]}), this Alcove knows up to {known[-1].version}",
            remedy="use the newer Alcove that wrote it, or restore a backup from before the upgrade",
        )
    for step in known:
        if step.version not in applied:
            await database.write(_apply, step)
        elif applied[step.version][1] != step.checksum:
            raise SchemaError(
                f"migration {step.version:04d}_{step.name} of the database differs from this program's",
                remedy="install the release that wrote it; released migrations never change",
            )
    return known[-1].version


def _applied(now: Micros) -> Steps[dict[int, tuple[str, str]]]:
    yield Statement(
        "CREATE TABLE IF NOT EXISTS alcove_migrations ("
        "version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)"
    )
    rows = yield Statement("SELECT version, name, checksum FROM alcove_migrations")
    return {version: (name, checksum) for version, name, checksum in rows}


def _apply(now: Micros, step: Migration) -> Steps[None]:
    # Another process may have been faster: the row decides, inside the transaction.
    rows = yield Statement(
        "INSERT INTO alcove_migrations (version, name, checksum, applied_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (version) DO NOTHING RETURNING version",
        (step.version, step.name, step.checksum, now),
    )
    if rows:
        for sql in step.statements():
            yield Statement(sql)
