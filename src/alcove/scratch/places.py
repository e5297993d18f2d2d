"""Which folder: trace ids, apps and roots, and how a program is told that there is none."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Final

_CHARACTERS: Final = 128
_FIRST: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_OTHERS: Final = _FIRST | frozenset("._-")
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ScratchError(SystemExit):
    """There is no folder to give.

    Uncaught it ends a script as the protocol of trace ids says: the message on standard error, exit status 1. It is
    no `Exception`; catch it by its name to go on without a folder.

    Attributes:
        message: One sentence.
        remedy: What to do about it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"error: {message}\nhint: {remedy}")
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[ScratchError], tuple[str, str]]:
        return ScratchError, (self.message, self.remedy)


def is_name(name: str) -> bool:
    """Return whether this may name a folder: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, said without loading `re`."""
    return 0 < len(name) <= _CHARACTERS and name[0] in _FIRST and _OTHERS.issuperset(name)


def trace_id(given: str | None) -> str:
    """Return the trace id that is given, else the environment's.

    Raises:
        ScratchError: There is none, or it cannot be the name of a folder.
    """
    name = os.environ.get("TRACE_ID", "") if given is None else given
    if not name:
        raise ScratchError(
            "TRACE_ID is not set, so there is no telling which session this is",
            "the framework that calls this program sets it, one value for each agent session; "
            "by hand: TRACE_ID=$(uuidgen) before the command",
        )
    return _checked(name, "TRACE_ID")


def _checked(name: str, what: str) -> str:
    if not is_name(name):
        raise ScratchError(
            f"{what} {name[:40]!r} cannot be the name of a folder",
            "use letters, digits, '.', '_' and '-', at most 128 of them, the first a letter or digit",
        )
    return name


def _root(given: str | os.PathLike[str] | None) -> str:
    """Return where app folders are. Inside a run the current folder is the workspace, which is for the user's files."""
    default = os.environ.get("HOME") if "ALCOVE_RUN_ID" in os.environ else None
    root = os.fspath(given) if given is not None else os.environ.get("ALCOVE_SCRATCH_ROOT") or default or "."
    if not root or "\0" in root:
        raise ScratchError(f"root {root!r} is no folder", "name one, or leave it out")
    try:
        return os.path.abspath(root)
    except FileNotFoundError as error:
        raise ScratchError("the current folder is gone", "go to another, or name a root") from error


@contextmanager
def app_folder(app: str, root: str | os.PathLike[str] | None, *, make: bool) -> Generator[tuple[int, str]]:
    """Open the folder of an app. Links on the way to the root are its owner's choice; below it there may be none.

    Raises:
        ScratchError: It cannot be used.
        FileNotFoundError: It is not there and is not to be made.
    """
    above = _root(root)
    path = os.path.join(above, f"{_checked(app, 'app')}-sessions")
    try:
        with refusing(path):
            if make:
                os.makedirs(above, exist_ok=True)
                with suppress(FileExistsError):
                    os.mkdir(path, 0o700)
            fd = os.open(path, FOLDER)
    except FileNotFoundError as error:
        if make:
            raise ScratchError(f"the folder {path!r} was removed meanwhile", "try again") from error
        raise
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise ScratchError(f"the folder {path!r} belongs to somebody else", "name another root or app")
        yield fd, path
    finally:
        os.close(fd)


@contextmanager
def refusing(path: str) -> Generator[None]:
    """Turn what the disk refuses into a sentence; a FileNotFoundError passes, because callers know better."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        link = error.errno in {errno.ELOOP, errno.ENOTDIR}
        raise ScratchError(
            f"the folder {path!r} " + ("is a link or a file" if link else f"cannot be used: {error.strerror}"),
            f"{'remove it' if link else 'make it usable for this user'}, or name another root (ALCOVE_SCRATCH_ROOT)",
        ) from error
