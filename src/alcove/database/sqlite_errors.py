"""apsw's errors, said in Alcove's words. Nothing above the driver sees the driver's types."""

from __future__ import annotations

import apsw

from alcove.errors import (
    AlcoveError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
    InvalidError,
)

_FLUSHES = frozenset(
    {apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC, apsw.SQLITE_IOERR_CLOSE, apsw.SQLITE_IOERR_TRUNCATE}
)


# What apsw raises: its own errors, and Python's for values that SQLite cannot hold.
DRIVER_ERRORS = (apsw.Error, UnicodeEncodeError, OverflowError)


# Where SQLite does not say what the system did: the index of the log cannot grow.
_FULL = frozenset({apsw.SQLITE_IOERR_SHMSIZE})


def failed_flush(error: Exception) -> bool:
    """Return whether the disk failed to make data durable. A retry may then lie, so there is none (fsyncgate)."""
    return getattr(error, "extendedresult", 0) in _FLUSHES


# The first that fits holds: what is caught, what it is to Alcove, what is said of it, what to do.
_MEANINGS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[AlcoveError], str, str], ...] = (
    (UnicodeEncodeError, InvalidError, "a text has a lone surrogate", "send valid Unicode"),
    (OverflowError, InvalidError, "a number is out of range", "use a smaller one"),
    (
        (apsw.BusyError, apsw.LockedError),
        DatabaseBusyError,
        "another program holds {where}",
        "wait for it, or find it with `fuser` and stop it",
    ),
    (apsw.FullError, DatabaseFullError, "the disk that holds {where} is full", "free some space and try again"),
    (
        apsw.ReadOnlyError,
        DatabaseError,
        "{where} cannot be written",
        "make the file and its folder writable for this user",
    ),
    (apsw.NotADBError, DatabaseError, "{where} is not a SQLite database", "name another file, or move this one away"),
    (apsw.CorruptError, DatabaseError, "{where} is damaged", "restore it from a backup; do not write to it"),
    (
        (apsw.CantOpenError, apsw.PermissionsError),
        DatabaseError,
        "{where} cannot be opened",
        "check that the folder exists and who may write to it",
    ),
    (apsw.IOError, DatabaseError, "reading or writing {where} failed: {error}", "check the disk"),
    (Exception, DatabaseError, "{where}: {error}", ""),
)


def translated(error: Exception, where: str = "the database") -> AlcoveError:
    """Return the Alcove error for one of apsw's; raise it `from` the original."""
    if getattr(error, "extendedresult", 0) in _FULL:
        error = apsw.FullError(str(error))
    _, kind, said, remedy = next(meaning for meaning in _MEANINGS if isinstance(error, meaning[0]))
    return kind(said.format(where=where, error=error), remedy=remedy)
