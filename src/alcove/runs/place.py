"""The folder of one run: its temporary files and its socket, gone when it ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from alcove.errors import ConfigurationError
from alcove.workspaces.failures import translated
from alcove.workspaces.holding import hold
from alcove.workspaces.remove import remove

# What a run's environment takes over from the server's; everything else is made here or named by the agent.
_INHERITED: Final = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "COLORTERM")
_FOLDERS: Final = ("/usr/", "/bin", "/sbin", "/opt/")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SOCKET_PATH_BYTES: Final = 107  # sun_path of unix(7), less the NUL
_NAME_CHARS: Final = 16


class RunFolder:
    """`<home>/runs/<name>/`, with `tmp/` for the program and `socket` for Alcove. Its methods block.

    Whoever made it holds it locked until it is removed, so that one left by a process that was killed is known.

    Attributes:
        name: What the folder is called; the run's id tells it, so that whoever finds the run lost can remove it.
        path: The folder.
        tmp: TMPDIR of the run.
        socket: Where the run finds Alcove; short enough to be the address of a Unix socket.
    """

    def __init__(self, home: Path, run_id: str) -> None:
        self.name = name_of(run_id)
        self.path = home / "runs" / self.name
        if len(os.fsencode(self.path / "socket")) > _SOCKET_PATH_BYTES:
            self.path = Path(tempfile.gettempdir()) / f"alcove-{os.geteuid()}" / self.name
        self.tmp = self.path / "tmp"
        self.socket = self.path / "socket"
        self._held: int | None = None

    def make(self, *, owner: int | None) -> None:
        """Make the folder.

        Raises:
            StorageError: The disk could not do it; nothing was made.
            ConfigurationError: Somebody else has put something at its place.
        """
        above = self.path.parent
        with translated(str(self.path)):
            above.mkdir(mode=0o711, parents=True, exist_ok=True)
            if above.is_symlink() or above.stat().st_uid != os.geteuid():
                raise ConfigurationError(f"{above} belongs to somebody else", remedy="remove it, or set ALCOVE_HOME")
            self._make()
            try:
                self.tmp.mkdir(mode=0o700)
                if owner is not None:
                    os.chown(self.tmp, owner, owner)
                    # Ours, so that no chmod of the program opens what is in it to other sessions.
                    os.chown(self.path, -1, owner)
                    self.path.chmod(0o710)
            except OSError:
                self.remove()
                raise

    def remove(self) -> None:
        """Remove the folder and whatever the run left in it; one that is gone already is no error."""
        with suppress(FileNotFoundError):
            above = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                remove(above, os.fsencode(self.name))
            finally:
                os.close(above)
        self.let_go()

    def take(self) -> bool:
        """Hold a folder that whoever made it has left, being killed; false when somebody holds it, or it is gone."""
        self._hold(wait=False)
        return self._held is not None

    def let_go(self) -> None:
        """Hold it no more."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _make(self) -> None:
        """Make the folder and hold it. A sweep that came between the two takes it for abandoned: then once more."""
        while self._held is None:
            self.path.mkdir(mode=0o700)
            self._hold(wait=True)
            if self.path.exists():
                break  # on a file system without locks, where no sweep can take it either

    def _hold(self, *, wait: bool) -> None:
        with suppress(FileNotFoundError):
            above = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._held = hold(above, self.name, wait=wait)
            finally:
                os.close(above)


def name_of(run_id: str) -> str:
    """Return what the folder of a run is called: the random part of its id, a UUIDv7."""
    return run_id.replace("-", "")[-_NAME_CHARS:]


def folders(home: Path) -> list[RunFolder]:
    """Return the folders of runs that there are: of those that go on, and of those that were abandoned. Blocks."""
    place = RunFolder(home, "0" * _NAME_CHARS).path.parent
    try:
        if place.is_symlink() or place.stat().st_uid != os.geteuid():
            return []
        return [RunFolder(home, name) for name in os.listdir(place) if len(name) == _NAME_CHARS]
    except (FileNotFoundError, NotADirectoryError):
        return []


def environment(
    server: Mapping[str, str],
    agent: Mapping[str, str],
    *,
    session_id: str,
    run_id: str,
    home: Path,
    folder: RunFolder,
    readable: tuple[str, ...],
    guarded: Path | None = None,
) -> dict[str, str]:
    """Return the whole environment of a run: what Alcove says, what the agent's table says, a few words of locale.

    Nothing else of the server's environment is in it. What Alcove says cannot be overridden. `guarded` is a workspace
    that the program's uid does not own (`workspaces.ensure`): git is told that it is safe all the same.
    """
    env = {name: server[name] for name in _INHERITED if name in server}
    # Of the server's PATH only what a run can read; the rest is nobody's business.
    paths = [part for part in server.get("PATH", "").split(os.pathsep) if part.startswith((*_FOLDERS, *readable))]
    env["PATH"] = os.pathsep.join(dict.fromkeys([*paths, *_PATH.split(os.pathsep)]))
    if guarded:
        env.update(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0=str(guarded))
    env.update(agent)
    env.update(
        TRACE_ID=session_id,
        SESSION_ID=session_id,
        ALCOVE_SESSION_ID=session_id,
        ALCOVE_RUN_ID=run_id,
        HOME=str(home),
        TMPDIR=str(folder.tmp),
    )
    return env
