"""apsw's errors, said in Alcove's words. Nothing above the driver sees the driver's types."""

from __future__ import annotations

import apsw

from alcove.errors import (
    AlcoveError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
)

_FLUSHES = frozenset(
    {apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC, apsw.SQLITE_IOERR_CLOSE, apsw.SQLITE_IOERR_TRUNCATE}
)


def failed_flush(error: apsw.Error) -> bool:
    """Return whether the disk failed to make data durable. A retry may then lie, so there is none (fsyncgate)."""
    return getattr(error, "extendedresult", 0) in _FLUSHES


def translated(error: apsw.Error, where: str = "the database") -> AlcoveError:
    """Return the Alcove error for one of apsw's; raise it `from` the original."""
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return DatabaseBusyError(
            f"another program holds {where}", remedy="wait for it, or find it with `fuser` and stop it"
        )
    if isinstance(error, apsw.FullError):
        return DatabaseFullError(f"the disk that holds {where} is full", remedy="free some space and try again")
    if isinstance(error, apsw.ReadOnlyError):
        return DatabaseError(f"{where} cannot be written", remedy="make the file and its folder writable for this user")
    if isinstance(error, apsw.NotADBError):
        return DatabaseError(f"{where} is not a SQLite database", remedy="name another file, or move this one away")
    if isinstance(error, apsw.CorruptError):
        return DatabaseError(f"{where} is damaged", remedy="restore it from a backup; do not write to it")
    if isinstance(error, apsw.CantOpenError | apsw.PermissionsError):
        return DatabaseError(f"{where} cannot be opened", remedy="check that the folder exists and who may write to it")
    if isinstance(error, apsw.IOError):
        return DatabaseError(f"reading or writing {where} failed: {error}", remedy="check the disk")
    return DatabaseError(f"{where}: {error}")
