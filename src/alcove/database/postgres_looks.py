"""Short reads for which a thread waits: one connection of their own, in a thread of its own.

A plain call cannot await the pool, and must not wait for ever: a server that has stopped, or a network that is gone,
is given up after `limits.LOOK_S`, whatever the connection is stuck in.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias, final

import psycopg

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Steps
from alcove.errors import DatabaseBusyError

Begun: TypeAlias = Callable[[Micros], Steps[Any]]
Connection: TypeAlias = "psycopg.Connection[Any]"
Transact: TypeAlias = Callable[[Connection, Begun], Any]


@final
class Looks:
    """Runs operations that only read, one after the other.

    Args:
        connect: Opens a connection; called in the thread that uses it.
        transact: Runs an operation on a connection.
    """

    def __init__(self, connect: Callable[[], Connection], transact: Transact) -> None:
        self._connect = connect
        self._transact = transact
        self._asked: queue.SimpleQueue[tuple[Begun, Future[Any]] | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._started = False

    def look(self, begun: Begun) -> Any:
        """Return what an operation finds; raises the driver's errors, and DatabaseBusyError when it takes too long."""
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._work, name="alcove-looks", daemon=True).start()
        future: Future[Any] = Future()
        self._asked.put((begun, future))
        try:
            return future.result(limits.LOOK_S)
        except TimeoutError:
            future.cancel()
            raise DatabaseBusyError(
                f"PostgreSQL did not answer within {limits.LOOK_S} s", limit=limits.LOOK_S, remedy="try again"
            ) from None

    def close(self) -> None:
        """Let go of the connection once the last look has ended."""
        self._asked.put(None)

    def _work(self) -> None:
        while asked := self._asked.get():
            begun, future = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._run(begun))
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to who waits
                future.set_exception(error)
        if self._connection is not None:
            self._connection.close()

    def _run(self, begun: Begun) -> Any:
        kept = self._connection is not None and not self._connection.broken
        try:
            return self._transact(self._opened(), begun)
        except psycopg.OperationalError:
            if not kept:
                raise
            # The server may have been started anew since the last look.
            self._connection = None
            return self._transact(self._opened(), begun)

    def _opened(self) -> Connection:
        if self._connection is None or self._connection.broken:
            self._connection = self._connect()
        return self._connection
