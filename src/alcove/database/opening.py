"""Database URLs: `sqlite:///path`, `memory://`, `postgresql://…`."""

# pyright: reportUnknownMemberType=false
# (apsw's stubs leave part of its binding types open.)

from __future__ import annotations

import os
from pathlib import Path

from alcove import limits
from alcove.clock import Clock, SystemClock
from alcove.database.migrating import migrate
from alcove.database.op import Database
from alcove.errors import ConfigurationError, DatabaseError

# SQLite before this may corrupt a WAL database when a checkpoint races a writer (sqlite.org/changes.html, 3.51.3).
_SQLITE_MIN = (3, 51, 3)


async def open_database(url: str, *, clock: Clock | None = None) -> Database:
    """Open a database, bring its schema up to date and return it.

    Args:
        url: `sqlite:///relative/or//absolute/path`, `memory://` (gone when closed) or `postgresql://…`.
        clock: Gives `now` to operations on SQLite; PostgreSQL uses its own clock.

    Raises:
        ConfigurationError: The URL is not understood, or the driver for it is not installed.
        DatabaseError: It cannot be opened, is not a database, is held by another program, or is read-only.
        SchemaError: It was written by a newer Alcove.
    """
    scheme, separator, rest = url.partition("://")
    if scheme in {"postgres", "postgresql"}:
        database = await _open_postgres(url)
    elif scheme == "memory" and separator:
        database = _open_sqlite(":memory:", "memory", clock or SystemClock())
    elif scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        database = _open_sqlite(rest[1:], "sqlite", clock or SystemClock())
    else:
        raise ConfigurationError(
            f"{url!r} is not a database URL",
            field="database",
            remedy="use sqlite:///path/to/file.db, memory:// or postgresql://user@host/name",
        )
    try:
        await migrate(database)
    except BaseException:
        await database.close()
        raise
    return database


async def _open_postgres(url: str) -> Database:
    try:
        from alcove.database.postgres import open_postgres
    except ImportError as error:
        raise ConfigurationError(
            f"the driver for PostgreSQL is missing: {error}",
            field="database",
            remedy="pip install alcove[postgres]",
        ) from error
    return await open_postgres(url)


def _open_sqlite(path: str, kind: str, clock: Clock) -> Database:
    import apsw

    from alcove.database.sqlite import SqliteDatabase
    from alcove.database.sqlite_errors import translated
    from alcove.database.sqlite_writer import busy_handler

    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < _SQLITE_MIN:
        raise ConfigurationError(
            f"SQLite {apsw.sqlite_lib_version()} may lose data (WAL-reset bug)",
            remedy="pip install -U apsw, which carries its own SQLite",
        )
    if kind == "sqlite":
        path = _prepare_file(path)

    def connect() -> apsw.Connection:
        connection = apsw.Connection(path)
        connection.set_busy_handler(busy_handler(clock))
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")  # one by one: apsw stops at the first row that nobody fetches
        # Without it SQLite plans a statement with joins anew for each value that is bound, in case statistics (which we
        # do not gather) say that the value is rare: four times the cost of reading a session.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.execute(f"PRAGMA journal_size_limit = {64 * limits.MIB}")
        return connection

    try:
        return SqliteDatabase(connect, kind=kind, clock=clock)
    except apsw.Error as error:
        raise translated(error, f"the database {path}") from error


def _prepare_file(path: str) -> str:
    """Make the file's folder (for its owner only) and the file; return the absolute path."""
    absolute = os.path.abspath(path)
    try:
        Path(absolute).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives -wal and -shm the file's mode, so the file is private before the first byte is in it.
        os.close(os.open(absolute, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DatabaseError(
            f"the database {absolute} cannot be written: {error.strerror}",
            remedy="make the file and its folder writable for this user, or name another with ALCOVE_DATABASE",
        ) from error
    return absolute
