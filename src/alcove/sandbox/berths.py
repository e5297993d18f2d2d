"""Places for what belongs to no session: the probe's two parties, and the checks of agents.

A berth is a folder `.probe-N` in the base, beside the workspaces, and under a root server the Nth spare uid with it.
Whoever holds one has its folder locked; the kernel takes the lock from a process that was killed, so that anybody can
tell what one has left from what another process on the same base is using now.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, final

from alcove import limits
from alcove.errors import AlcoveError, ConflictError
from alcove.sandbox import leftovers
from alcove.workspaces.base import settle
from alcove.workspaces.failures import storage
from alcove.workspaces.holding import hold
from alcove.workspaces.remove import remove

_NAMES = [f".probe-{number}" for number in range(limits.UIDS_SPARE)]


class Berth(NamedTuple):
    """A folder of one's own, and a uid that nobody else has; None where none are leased."""

    folder: str
    uid: int | None


@final
class Berths:
    """The berths of one base.

    Args:
        base: The folder that the berths are in; None for a temporary one each time.
        uids: The spare uids, `limits.UIDS_SPARE` of them; None where none are leased.
    """

    def __init__(self, base: Path | None, uids: range | None) -> None:
        self._base = base
        self._uids = uids

    @contextmanager
    def borrow(self, *, guarded: bool = False) -> Generator[Berth]:
        """Hold a berth: an empty folder, as a workspace would be; afterwards it is removed.

        Args:
            guarded: As in `workspaces.ensure`.

        Raises:
            ConflictError: Every berth is held.
            StorageError: The base cannot be written to.
        """
        if self._base is None:
            with tempfile.TemporaryDirectory(prefix="alcove-probe-") as made:
                os.chmod(made, 0o711)  # a spare uid has to get through
                with Berths(Path(made), self._uids).borrow(guarded=guarded) as berth:
                    yield berth
            return
        first = secrets.randbelow(len(_NAMES))  # installations that share uids rarely share the first one
        with _opened(self._base) as base:
            for number in (*range(first, len(_NAMES)), *range(first)):
                held = _hold(base, _NAMES[number], make=True)
                if held is not None:
                    break
            else:
                raise ConflictError(
                    f"other processes hold every .probe-N in {self._base}",
                    limit=limits.UIDS_SPARE,
                    remedy="try again when they have ended",
                )
            try:
                uid = None if self._uids is None else self._uids[number]
                with _stored(_NAMES[number]):
                    _empty(held)
                    settle(held, uid, guarded=guarded)
                yield Berth(f"{self._base}/{_NAMES[number]}", uid)
            finally:
                _clear(base, _NAMES[number])
                os.close(held)

    def sweep(self) -> int:
        """End and remove what processes that were killed have left; return how many folders."""
        if self._base is None:
            return 0
        swept = 0
        with _opened(self._base) as base:
            for number, name in enumerate(_NAMES):
                if (held := _hold(base, name, make=False)) is not None:
                    if self._uids is not None:  # who holds the folder has the uid, so nobody else runs under it
                        leftovers.end_all_of(self._uids[number])
                    _clear(base, name)
                    os.close(held)
                    swept += 1
        return swept


@contextmanager
def _opened(path: Path) -> Generator[int]:
    with _stored(str(path)):
        base = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield base
    finally:
        os.close(base)


@contextmanager
def _stored(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise storage(error, path) from error


def _hold(base: int, name: str, *, make: bool) -> int | None:
    """Return a locked descriptor of the folder, None when somebody else holds it, or it is not there."""
    if make:
        with _stored(name), suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=base)
    return hold(base, name)


def _empty(folder: int) -> None:
    for name in os.listdir(folder):
        remove(folder, os.fsencode(name))


def _clear(base: int, name: str) -> None:
    with suppress(AlcoveError):  # what cannot be removed now is removed by the next sweep
        remove(base, os.fsencode(name))
