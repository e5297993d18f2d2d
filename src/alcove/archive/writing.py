"""Writing a file that is there whole, for its owner only, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from alcove.errors import AlreadyExistsError, StorageError


@contextmanager
def written(path: str | Path, *, replace: bool) -> Generator[IO[bytes]]:
    """Give a file that appears at a path when it is complete; until then nothing is there.

    Raises:
        AlreadyExistsError: There is something already, and `replace` is false.
        StorageError: It cannot be written there.
    """
    place = Path(path)
    taken = AlreadyExistsError(f"{path} is there already", field="file", remedy="choose another name, or replace it")
    if not replace and place.exists():
        raise taken
    try:
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name[:100]}-", delete=False) as out:
            try:
                yield out
                out.flush()
                os.fsync(out.fileno())
                if replace:
                    os.replace(out.name, place)
                else:
                    os.link(out.name, place)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(out.name)
    except FileExistsError as error:
        raise taken from error
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", remedy="name another file") from error
