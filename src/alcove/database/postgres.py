"""PostgreSQL through psycopg: a pool of connections, each operation in a transaction of its own.

Writes run at READ COMMITTED, because operations begin with the UPDATE that locks what they decide on; reads run on
one snapshot. A transaction that the database ended for another one's sake runs again, the operation called anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, final

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Database, Operation, P, Rows, Statement, Steps, T
from alcove.database.postgres_errors import is_transient, outcome_unknown, translated
from alcove.database.postgres_looks import Looks
from alcove.errors import ClosedError, ConfigurationError

R = TypeVar("R")
_Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]

_NOW = "; SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_WRITE = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE{_NOW}".encode()
_READ = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY{_NOW}".encode()

# Two programs that bring the schema up to date must not do it at once; any number will do that is always this one.
_SCHEMA_LOCK = f"SELECT pg_advisory_xact_lock({0x616C636F7665})".encode()


async def open_postgres(url: str) -> Database:
    """Connect to PostgreSQL.

    Raises:
        ConfigurationError: The URL is not one, or the database cannot hold every Unicode text.
        DatabaseError: It cannot be reached, or does not let us in.
    """
    try:
        # Asked of a connection of its own first, because a pool would only say that it found none in time.
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=limits.CONNECT_TIMEOUT_S) as connection:
            encoding = connection.info.parameter_status("server_encoding")
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            f"the PostgreSQL URL cannot be read: {error}",
            field="database",
            remedy="write it as postgresql://user:password@host:5432/name",
        ) from error
    except psycopg.Error as error:
        raise translated(error) from error
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the PostgreSQL database has the encoding {encoding}",
            field="database",
            remedy="create one with ENCODING 'UTF8'",
        )
    pool: AsyncConnectionPool[_Connection] = AsyncConnectionPool(
        url,
        kwargs={"autocommit": True},  # transactions begin and end in _transact
        min_size=1,
        max_size=limits.POSTGRES_CONNECTIONS,
        max_waiting=limits.WRITE_QUEUE,
        timeout=limits.BUSY_TIMEOUT_S,
        configure=_configure,
        open=False,
    )
    await pool.open()
    return PostgresDatabase(pool, Looks(lambda: _connect(url), _look))


async def _configure(connection: _Connection) -> None:
    """Make a new connection durable, impatient and able to hold any text."""
    _adapt(connection)
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    await connection.execute("SELECT set_config('lock_timeout', %s, false)", (str(limits.BUSY_TIMEOUT_S * 1000),))


def _connect(url: str) -> psycopg.Connection[Any]:
    """Return a connection for `Looks`, which waits no longer than a look may take."""
    connection = psycopg.connect(
        url, autocommit=True, connect_timeout=2 * limits.LOOK_S, tcp_user_timeout=1000 * limits.LOOK_S
    )
    _adapt(connection)
    return connection


def _adapt(connection: psycopg.Connection[Any] | _Connection) -> None:
    connection.adapters.register_dumper(str, _TextDumper)
    connection.adapters.register_loader("text", _TextLoader)


def escape(text: str) -> str:
    """Return text without NUL, which PostgreSQL cannot hold: as SUB and a digit, and so is SUB itself."""
    if "\x00" in text or "\x1a" in text:
        return text.replace("\x1a", "\x1a1").replace("\x00", "\x1a0")
    return text


def unescape(text: str) -> str:
    """Return the text that `escape` was given."""
    return text.replace("\x1a0", "\x00").replace("\x1a1", "\x1a") if "\x1a" in text else text


class _TextDumper(Dumper):
    def dump(self, obj: str) -> bytes:
        return escape(obj).encode()


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        return unescape(str(data, "utf-8"))


@lru_cache(maxsize=1024)
def translated_sql(sql: str) -> bytes:
    """Return SQL of the common subset in PostgreSQL's dialect; texts compare by code point, as in SQLite."""
    sql = sql.replace("%", "%%").replace("?", "%s")
    if sql.startswith("CREATE TABLE"):
        sql = sql.replace(" TEXT", ' TEXT COLLATE "C"').replace(" WITHOUT ROWID", "")
    return sql.encode()


@final
class PostgresDatabase(Database):
    """A pool of connections to one PostgreSQL database.

    Args:
        pool: Open, its connections in autocommit mode; closed with this.
        looks: Reads for which a thread waits.
    """

    def __init__(self, pool: AsyncConnectionPool[_Connection], looks: Looks) -> None:
        self.kind = "postgres"
        self._pool = pool
        self._looks = looks
        self._pid = os.getpid()
        self._closed = False
        self._accepted: set[asyncio.Task[Any]] = set()

    async def write(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._accept(_WRITE, lambda now: operation(now, *args, **kwargs))

    async def read(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._accept(_READ, lambda now: operation(now, *args, **kwargs))

    def read_now(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        try:
            return self._looks.look(lambda now: operation(now, *args, **kwargs))
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise translated(error) from error

    async def durability(self) -> str:
        return await self.write(_durability)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._accepted:
            await asyncio.wait(self._accepted)
        self._looks.close()
        await self._pool.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the database has been closed", remedy="open it again")
        if os.getpid() != self._pid:
            raise ClosedError("the database was opened before a fork", remedy="open it in the process that uses it")

    async def _accept(self, begin: bytes, begun: Callable[[Micros], Steps[R]]) -> R:
        self._check_open()
        picked_up = asyncio.Event()
        task = asyncio.create_task(self._run(begin, begun, picked_up))
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if picked_up.is_set():
                task.add_done_callback(_forget)
            else:
                task.cancel()
            raise

    async def _run(self, begin: bytes, begun: Callable[[Micros], Steps[R]], picked_up: asyncio.Event) -> R:
        attempts = 0
        while True:
            attempts += 1
            try:
                async with self._pool.connection() as connection:
                    picked_up.set()
                    return await _transact(connection, begin, begun)
            except (psycopg.Error, UnicodeEncodeError) as error:
                if not is_transient(error) or attempts == limits.TRANSACTION_ATTEMPTS:
                    raise translated(error) from error
                # When the server went away, other connections of the pool are gone as well.
                await self._pool.check()


def _forget(task: asyncio.Task[Any]) -> None:
    """Take the outcome of an operation whose caller has left, which would be reported as never looked at."""
    if not task.cancelled():
        task.exception()


async def _transact(connection: _Connection, begin: bytes, begun: Callable[[Micros], Steps[R]]) -> R:
    cursor = connection.cursor()
    await cursor.execute(begin)
    cursor.nextset()
    [now] = await cursor.fetchone() or (0,)
    steps = begun(now)
    try:
        statement = next(steps)
        while True:
            statement = steps.send(await _execute(cursor, statement))
    except StopIteration as end:
        result: R = end.value
    try:
        await cursor.execute(b"COMMIT")
    except psycopg.OperationalError as error:
        raise (outcome_unknown() if connection.broken else translated(error)) from error
    return result


def _look(connection: psycopg.Connection[Any], begun: Callable[[Micros], Steps[Any]]) -> Any:
    """Run an operation that only reads on a connection of `Looks`."""
    cursor = connection.cursor()
    cursor.execute(_READ)
    try:
        cursor.nextset()
        [now] = cursor.fetchone() or (0,)
        steps = begun(now)
        statement = next(steps)
        while True:
            cursor.execute(translated_sql(statement.sql), statement.values)
            statement = steps.send(cursor.fetchall())
    except StopIteration as end:
        return end.value
    finally:
        if not connection.broken:
            cursor.execute(b"ROLLBACK")


async def _execute(cursor: psycopg.AsyncCursor[TupleRow], statement: Statement) -> Rows:
    sql, values, many = statement
    if sql.startswith("CREATE"):
        await cursor.execute(_SCHEMA_LOCK)
    if many:
        await cursor.executemany(translated_sql(sql), values)
        return []
    await cursor.execute(translated_sql(sql), values)
    return await cursor.fetchall() if cursor.description else []


def _durability(now: Micros) -> Steps[str]:
    rows = yield Statement(
        "SELECT name, setting FROM pg_settings "
        "WHERE name IN ('fsync', 'full_page_writes', 'server_version', 'synchronous_commit')"
    )
    settings = dict(rows)
    version = settings.pop("server_version")
    return f"postgres {version} {' '.join(f'{name}={setting}' for name, setting in sorted(settings.items()))}"
