"""The folder that holds the workspaces of one installation, its trash and its unfinished files.

`<base>/<session_id>/` is a workspace; `<base>/.alcove/` holds what must share its file system, out of the sessions'
sight. No session id begins with a dot.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from alcove import ids
from alcove.errors import AlreadyExistsError, ConfigurationError
from alcove.workspaces.failures import translated
from alcove.workspaces.model import Removed, Stray
from alcove.workspaces.move import move
from alcove.workspaces.remove import remove, unlock
from alcove.workspaces.renaming import rename_new
from alcove.workspaces.strays import vacant, within
from alcove.workspaces.temp import sweep, unfinished
from alcove.workspaces.tree import Tree

_OWN = ".alcove"
_log = logging.getLogger("alcove.workspaces")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITABLE_BY_ALL = 0o002
_REACHABLE_BY_ALL = 0o011
_NOTHING = Removed(files=0, folders=0, size_bytes=0)


class Base:
    """The workspaces of one installation. Open it with `Base.open`; blocks; safe to call from several threads.

    Every method checks the ids it is given and raises `InvalidError` for what cannot be one.
    """

    def __init__(self, root: int, trash: int, temp: int) -> None:
        self._root, self._trash, self._temp = root, trash, temp

    @classmethod
    def open(cls, path: str, installation: str, *, create: bool = True, shared: bool = False) -> Base:
        """Open the folder at `path`, which belongs to `installation` from the first time on.

        Several processes of one installation may have it open. What a crash left unfinished is cleaned up.

        Args:
            path: The folder; its parent must exist.
            installation: The id of this installation, as in its database.
            create: Make the folder when it is missing.
            shared: Processes of other uids work in their own workspaces: they may pass through, not look around.

        Raises:
            ConfigurationError: The folder or its parent is missing, a link, not a folder, not writable, writable by
                everybody, or belongs to another installation. Nothing was changed, except that it may have been made.
        """
        root = _open_root(path, create=create, shared=shared)
        opened = [root]
        try:
            found = _read_id(root, path)
            _refuse_other(found, installation, path)
            if found is None:
                _refuse_full(root, path)
            own = _open_own(root, _OWN)
            opened.append(own)
            opened += (trash := _open_own(own, "trash"), temp := _open_own(own, "temp"))
            if os.fstat(temp).st_dev != os.fstat(root).st_dev:
                raise ConfigurationError(
                    f"{path}/{_OWN} is on another file system than {path}", remedy="unmount it: files are renamed"
                )
            if found is None:
                _claim(own, temp, installation)
                _refuse_other(_read_id(root, path), installation, path)
            sweep(temp)
        except OSError as error:
            _close(opened)
            raise _unusable(path, error) from error
        except BaseException:
            _close(opened)
            raise
        os.close(own)
        return cls(root, trash, temp)

    def close(self) -> None:
        """Let go of the folder; no other call may be under way. Trees that are open stay open."""
        _close([fd for fd in (self._root, self._trash, self._temp) if fd >= 0])
        self._root = self._trash = self._temp = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, session_id: str, *, owner: int | None = None, guarded: bool = False, adopt: bool = False) -> None:
        """Make the workspace of a session, empty, mode 0700; 0770 when it is guarded.

        Args:
            session_id: Whose it is.
            owner: The uid and gid that own it; None for those of this process.
            guarded: See `settle`.
            adopt: Take a folder that is there already (files and all), and set its mode and owner right.

        Raises:
            AlreadyExistsError: It is there and `adopt` is false, or is no folder.
            StorageError: The disk is full or read-only; nothing was made.
        """
        name = ids.session_id(session_id)
        with translated(name):
            made = True
            try:
                os.mkdir(name, 0o700, dir_fd=self._root)
            except FileExistsError as error:
                if not adopt or not self.exists(name):
                    raise AlreadyExistsError(
                        f"there is something at the workspace folder {name!r}",
                        field="session_id",
                        remedy="move it away",
                    ) from error
                made = False
            try:
                self._settle(name, owner, guarded=guarded)
            except OSError:
                if made:
                    os.rmdir(name, dir_fd=self._root)
                raise
        if made:
            _log.info("workspace made", extra={"session_id": name})

    def exists(self, session_id: str) -> bool:
        """Return whether the session has a workspace folder: a link or a file in its place is none."""
        try:
            info = os.stat(ids.session_id(session_id), dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(info.st_mode)

    def tree(self, session_id: str, *, owner: int | None = None) -> Tree:
        """Open a workspace; the caller closes it.

        Args:
            session_id: Whose it is.
            owner: The uid and gid that new files are given to; None for those of this process.

        Raises:
            FileMissingError: The session has no workspace folder.
        """
        return Tree(self._root, ids.session_id(session_id), self._temp, owner=owner)

    def trash(self, session_id: str, trash_id: str) -> bool:
        """Move a workspace into a trashing, atomically. May be repeated.

        Returns:
            Whether the trashing holds it now; false when there was no folder.

        Raises:
            ConflictError: The trashing holds another folder of that name.
        """
        name, trashing = ids.session_id(session_id), ids.session_id(trash_id, field="trash_id")
        with translated(name):
            with suppress(FileExistsError):
                os.mkdir(trashing, 0o700, dir_fd=self._trash)
            # A sweep moves many, so that what nearly always works is tried first, with as few calls as there can be.
            with suppress(OSError):
                rename_new(self._root, name.encode(), self._trash, f"{trashing}/{name}".encode())
                return True
            into = os.open(trashing, _FOLDER, dir_fd=self._trash)
            try:
                return move(self._root, into, name)
            finally:
                os.close(into)
                self._forget_if_empty(trashing)

    def untrash(self, session_id: str, trash_id: str) -> bool:
        """Move a workspace back from a trashing, atomically. May be repeated.

        Returns:
            Whether the workspace is in its place now; false when the trashing did not hold it either.

        Raises:
            ConflictError: The session has another folder already.
        """
        name, trashing = ids.session_id(session_id), ids.session_id(trash_id, field="trash_id")
        with translated(name):
            try:
                source = os.open(trashing, _FOLDER, dir_fd=self._trash)
            except FileNotFoundError:
                return self.exists(name)
            try:
                return move(source, self._root, name)
            finally:
                os.close(source)
                self._forget_if_empty(trashing)

    def purge(self, trash_id: str) -> Removed:
        """Remove a trashing and every workspace in it. May be repeated: what is gone is no error.

        Raises:
            ConflictError: A process still writes there, or an attribute forbids it; a part may be gone.
            StorageError: Something is mounted inside, or the disk failed; a part may be gone.
        """
        trashing = ids.session_id(trash_id, field="trash_id")
        with translated(trashing):
            return remove(self._trash, os.fsencode(trashing))

    def discard(self, session_id: str) -> Removed:
        """Remove a workspace in its place. May be repeated; raises what `purge` does."""
        name = ids.session_id(session_id)
        with translated(name):
            return remove(self._root, os.fsencode(name)) if self.exists(name) else _NOTHING

    def purge_session(self, session_id: str, trash_id: str) -> Removed:
        """Remove one workspace, from a trashing and from its place. May be repeated; raises what `purge` does."""
        name, trashing = ids.session_id(session_id), ids.session_id(trash_id, field="trash_id")
        kept = self.discard(name)
        with translated(name):
            try:
                folder = os.open(trashing, _FOLDER, dir_fd=self._trash)
            except FileNotFoundError:
                return kept
            try:
                return kept + remove(folder, os.fsencode(name))
            finally:
                os.close(folder)
                self._forget_if_empty(trashing)

    def vacant(self, session_ids: list[str]) -> set[str]:
        """Return those whose workspace is empty, or is not there."""
        return {one for one in session_ids if vacant(self._root, ids.session_id(one))}

    def places(self, path: Path) -> list[Stray]:
        """Return the folders of workspaces and trashings; `path` is where this base is."""
        trash = within(self._trash, path / _OWN / "trash", "trashing")
        return [*within(self._root, path, "workspace"), *trash]

    def _settle(self, name: str, owner: int | None, *, guarded: bool) -> None:
        try:
            fd = os.open(name, _FOLDER, dir_fd=self._root)
        except PermissionError:
            unlock(self._root, os.fsencode(name))
            fd = os.open(name, _FOLDER, dir_fd=self._root)
        try:
            settle(fd, owner, guarded=guarded)
        finally:
            os.close(fd)

    def _forget_if_empty(self, trashing: str) -> None:
        with suppress(OSError):
            os.rmdir(trashing, dir_fd=self._trash)


def settle(folder: int, owner: int | None, *, guarded: bool) -> None:
    """Give a session's folder, open as `folder`, the owner and mode that keep every other uid out.

    Args:
        folder: The descriptor.
        owner: The leased uid of the session; None for none.
        guarded: Whether it stays this process's own, the session being let in as its group. Then no `chmod` of its
            programs can open it to others: needed where these see the machine's own file system.
    """
    if owner is None:
        os.fchmod(folder, 0o700)
    elif guarded:
        os.fchown(folder, os.geteuid(), owner)
        os.fchmod(folder, 0o770)
    else:
        os.fchown(folder, owner, owner)
        os.fchmod(folder, 0o700)


def installation(path: str) -> str | None:
    """Return the id of the installation that the base folder at `path` belongs to; None when it has none yet.

    Raises:
        ConfigurationError: The folder or the id cannot be read.
    """
    try:
        root = os.open(path, _FOLDER)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        return _read_id(root, path)
    except OSError as error:
        raise _unusable(path, error) from error
    finally:
        os.close(root)


def _open_root(path: str, *, create: bool, shared: bool) -> int:
    try:
        if create:
            with suppress(FileExistsError):
                os.mkdir(path, 0o711 if shared else 0o700)
        root = os.open(path, _FOLDER)
    except OSError as error:
        raise _unusable(path, error) from error
    mode = os.fstat(root).st_mode
    try:
        if mode & _WRITABLE_BY_ALL:
            raise ConfigurationError(f"everybody may write to {path}", remedy=f"chmod o-w {path}")
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=root, effective_ids=True):
            raise ConfigurationError(
                f"{path} is not writable", remedy="give it to the user that runs Alcove, or choose another folder"
            )
        if shared and mode & _REACHABLE_BY_ALL != _REACHABLE_BY_ALL:
            os.fchmod(root, stat.S_IMODE(mode) | _REACHABLE_BY_ALL)
    except OSError as error:
        os.close(root)
        raise _unusable(path, error) from error
    except ConfigurationError:
        os.close(root)
        raise
    return root


def _open_own(folder: int, name: str) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)


def _read_id(root: int, path: str) -> str | None:
    try:
        own = os.open(_OWN, _FOLDER, dir_fd=root)
    except FileNotFoundError:
        return None
    try:
        with os.fdopen(os.open("installation", _PLAIN, dir_fd=own), "rb") as file:
            text = file.read(256).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    finally:
        os.close(own)
    if not text:
        raise ConfigurationError(
            f"{path}/{_OWN}/installation is empty", remedy="put the installation's id in, or restore the file"
        )
    return text


def _claim(own: int, temp: int, installation: str) -> None:
    """Write the installation id once: of two processes that try, one wins, and no reader finds half an id."""
    with unfinished(temp) as (fd, name):
        os.write(fd, installation.encode("ascii") + b"\n")
        os.fsync(fd)
        with suppress(FileExistsError):
            os.link(name, "installation", src_dir_fd=temp, dst_dir_fd=own)
            os.fsync(own)


def _refuse_other(found: str | None, installation: str, path: str) -> None:
    if found is not None and found != installation:
        raise ConfigurationError(
            f"{path} belongs to another installation ({found[:40]})",
            remedy="set SESSIONS_BASE_DIR to a folder of its own, or ALCOVE_HOME to that installation's",
        )


def _refuse_full(root: int, path: str) -> None:
    strangers = sorted(set(os.listdir(root)) - {_OWN, "lost+found"})
    if strangers:
        raise ConfigurationError(
            f"the folder {path} is no base of Alcove's, and is not empty: there is {strangers[0]!r}",
            field="base",
            remedy="name a folder that is new or empty with SESSIONS_BASE_DIR",
        )


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _unusable(path: str, error: OSError) -> ConfigurationError:
    if os.path.islink(path):
        problem, remedy = "is a link", "name the folder that it points to"
    elif isinstance(error, FileNotFoundError):
        problem, remedy = "does not exist", f"mkdir -p {path}"
    elif isinstance(error, NotADirectoryError):
        problem, remedy = "is not a folder, or has a file on its way", "choose another folder"
    else:
        problem = f"cannot be used: {error.strerror}"
        remedy = "give it to the user that runs Alcove, or choose another folder"
    return ConfigurationError(f"the base folder {path} {problem}", field="SESSIONS_BASE_DIR", remedy=remedy)
