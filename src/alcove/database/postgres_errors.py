"""psycopg's errors, said in Alcove's words. Nothing above the driver sees the driver's types."""

from __future__ import annotations

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from alcove.errors import (
    AlcoveError,
    ClosedError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
    InvalidError,
)

_ENDED_FOR_OTHERS = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
)
_BUSY = (*_ENDED_FOR_OTHERS, errors.LockNotAvailable, errors.TooManyConnections, PoolTimeout, TooManyRequests)

# The first that fits holds: what is caught, what it is to Alcove, what is said before the original words, what to do.
_MEANINGS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[AlcoveError], str, str], ...] = (
    (UnicodeEncodeError, InvalidError, "a text has a lone surrogate", "send valid Unicode"),
    (errors.NumericValueOutOfRange, InvalidError, "a number is out of range", "use a smaller one"),
    (errors.DiskFull, DatabaseFullError, "the disk of PostgreSQL is full", "free some space and try again"),
    (PoolClosed, ClosedError, "the database has been closed", "open it again"),
    (_BUSY, DatabaseBusyError, "PostgreSQL is busy", "try again"),
    (errors.ReadOnlySqlTransaction, DatabaseError, "PostgreSQL takes no writes here", "name the primary"),
    (errors.InsufficientPrivilege, DatabaseError, "PostgreSQL refuses this user", "grant the user what is missing"),
    (psycopg.OperationalError, DatabaseError, "PostgreSQL cannot be used", "check that it runs, the URL and the user"),
    (Exception, DatabaseError, "PostgreSQL", ""),
)


def is_transient(error: Exception) -> bool:
    """Return whether the transaction was ended through no fault of its own, and before it committed."""
    # A bare OperationalError is libpq's own: it lost the connection.
    return isinstance(error, _ENDED_FOR_OTHERS) or type(error) is psycopg.OperationalError


def outcome_unknown() -> DatabaseError:
    """Return the error of a commit that the server may or may not have heard."""
    return DatabaseError(
        "the connection to PostgreSQL was lost in the middle of a commit, and whether it happened is not known",
        remedy="read again; a request with an idempotency key can simply be repeated",
    )


def translated(error: Exception) -> AlcoveError:
    """Return the Alcove error for one of psycopg's; raise it `from` the original."""
    _, kind, said, remedy = next(meaning for meaning in _MEANINGS if isinstance(error, meaning[0]))
    return kind(f"{said}: {error}", remedy=remedy)
