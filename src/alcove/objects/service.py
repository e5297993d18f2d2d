"""Objects, as the rooms above use them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence

from alcove import ids, limits
from alcove.clock import SECOND, Clock, SystemClock
from alcove.database.op import Database
from alcove.errors import AlcoveError, ClosedError, NotFoundError, TooLargeError
from alcove.objects import queries
from alcove.objects.files import Folder
from alcove.objects.model import Swept, Usage

_log = logging.getLogger("alcove.objects")
_NAME_CHARS = 12  # of what makes a file's name its own, after the hash


class Objects:
    """Keeps bytes once, by their SHA-256, for as long as a message refers to them.

    Args:
        database: Where the rows are.
        folder: Where the files are; made when the first object is written.
        passing: Whether the rows go with the process, and so the files too.
        clock: Tells the age of what writers that died have left.
    """

    def __init__(
        self, database: Database, folder: str | os.PathLike[str], *, passing: bool = False, clock: Clock | None = None
    ) -> None:
        self._database = database
        self._folder = Folder(os.fspath(folder))
        self._passing = passing
        self._clock = clock or SystemClock()

    async def keep(self, contents: Iterable[bytes]) -> dict[str, str]:
        """Write contents that are not there yet; return the file of each by its hash.

        They are durable when this returns, but stay only when a message refers to them (`queries.refer`) in time.

        Raises:
            TooLargeError: One is longer than `limits.OBJECT_BYTES`.
            StorageError: The disk is full or fails.
        """
        files: dict[str, str] = {}
        for data in contents:
            if len(data) > limits.OBJECT_BYTES:
                raise TooLargeError(
                    f"an object has {len(data)} bytes",
                    field="content",
                    limit=limits.OBJECT_BYTES,
                    remedy="write it to a file of the workspace and append a reference",
                )
            digest = await asyncio.to_thread(_digest, data)
            if digest in files:
                continue
            own = f"{digest}-{ids.new_secret()[:_NAME_CHARS]}"
            reserved = await self._database.write(queries.reserve, digest, len(data), own)
            if not reserved.written:
                await asyncio.to_thread(self._folder.write, reserved.file, data)
            files[digest] = reserved.file
        return files

    async def read(self, hashes: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of objects.

        Raises:
            NotFoundError: There is none of such a hash (any more).
            StorageError: A file is missing or cannot be read.
        """
        wanted = sorted(set(hashes))
        places = await self._database.read(queries.places, wanted)
        found: dict[str, bytes] = {}
        for digest in wanted:
            if digest not in places:
                raise NotFoundError(f"there is no object {digest}", field="hash")
            found[digest] = await asyncio.to_thread(self._folder.read, places[digest])
        return found

    async def read_of(self, session_id: str, digest: str) -> bytes:
        """Return an object that a message of a session refers to.

        Raises:
            NotFoundError: No message of this session does; whether another's does is not told.
        """
        if not await self._database.read(queries.refers, session_id, digest):
            raise NotFoundError(f"no message of session {session_id} refers to object {digest}", field="hash")
        return (await self.read([digest]))[digest]

    async def usage(self) -> Usage:
        """Return how many objects there are and how large they are."""
        return await self._database.read(queries.usage)

    async def release(self, session_id: str) -> int:
        """Give up everything that a session refers to, and remove what nobody else does; return how many claims.

        An interrupted one is finished by calling it again; files whose rows are gone are removed by the next sweep.
        """
        count = 0
        while (step := await self._database.write(queries.release, session_id, limits.PURGE_ROWS)).refs:
            count += step.refs
            await self._remove(step.files)
        return count

    async def sweep(self, grace_s: float = limits.OBJECT_GRACE_S) -> Swept:
        """Remove objects that nothing has referred to for so long, and what interrupted removals have left.

        Safe at any time and with any grace, from any number of processes: a message on its way whose object went
        writes it again.
        """
        await self._remove_remains()
        objects = size = 0
        while True:
            before = await self._before(grace_s)
            swept, files = await self._database.write(queries.collect, before, limits.OBJECT_SWEEP)
            await self._remove(files)
            objects, size = objects + swept.objects, size + swept.size_bytes
            if swept.objects < limits.OBJECT_SWEEP:
                break
        # A writer whose row was swept before its file was there, or who died then, has left one that nobody knows.
        for shard in await asyncio.to_thread(self._folder.shards):
            files = await asyncio.to_thread(self._folder.names, shard)
            for start in range(0, len(files), limits.OBJECT_SWEEP):
                chunk = files[start : start + limits.OBJECT_SWEEP]
                for file in await self._database.read(queries.rowless, chunk):
                    await asyncio.to_thread(self._folder.remove, file)
        temps = self._clock.now() / SECOND - limits.OBJECT_TEMP_S
        await asyncio.to_thread(self._folder.remove_temps, temps)
        return Swept(objects=objects, size_bytes=size)

    async def watch(self) -> None:
        """Sweep once an hour, for as long as this is not cancelled."""
        while True:
            await asyncio.sleep(limits.OBJECT_GRACE_S)
            try:
                await self.sweep()
            except ClosedError:
                return
            except (AlcoveError, OSError):
                _log.warning("objects are not swept", exc_info=True)

    async def examine(self) -> AsyncIterator[tuple[int, str | None]]:
        """Look at every object: yield how many were looked at so far, and what is wrong with the last one, or None."""
        looked_at, after = 0, ""
        while True:
            rows, more = await self._database.read(queries.damage, after, limits.PAGE)
            for digest, file, size, refs, claims in rows:
                looked_at += 1
                found = await asyncio.to_thread(self._folder.size, file)
                wrong = None
                if found != size:
                    wrong = (
                        f"object {digest}: its file has {found} bytes instead of {size}"
                        if found is not None
                        else (f"object {digest}: its file {file} is missing")
                    )
                elif refs != claims:
                    wrong = f"object {digest}: counts {refs} references, and there are {claims}"
                yield looked_at, wrong
            if more is None:
                return
            after = more

    async def close(self) -> None:
        """Remove the files of an installation that lives in memory."""
        if self._passing:
            await asyncio.to_thread(self._folder.remove_all)

    async def _before(self, grace_s: float) -> int:
        """Return the instant before which an unused object is old, by the database's own clock."""
        return await self._database.read(_ago, round(grace_s * SECOND))

    async def _remove_remains(self) -> None:
        while files := await self._database.read(queries.remains, limits.OBJECT_SWEEP):
            await self._remove(files)

    async def _remove(self, files: Sequence[str]) -> None:
        if files:
            for file in files:
                await asyncio.to_thread(self._folder.remove, file)
            await self._database.write(queries.removed, files)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _ago(now: int, duration: int) -> queries.Steps[int]:
    yield from ()
    return now - duration
