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
from alcove.workspaces.remove import remove

# What a run's environment takes over from the server's; everything else is made here or named by the agent.
_INHERITED: Final = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "COLORTERM")
_FOLDERS: Final = ("/usr/", "/bin", "/sbin", "/opt/")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SOCKET_PATH_BYTES: Final = 107  # sun_path of unix(7), less the NUL


class RunFolder:
    """`<home>/runs/<name>/`, with `tmp/` for the program and `socket` for Alcove. Its methods block.

    Attributes:
        path: The folder; the run's id tells it, so that whoever finds the run lost can remove it.
        tmp: TMPDIR of the run.
        socket: Where the run finds Alcove; short enough to be the address of a Unix socket.
    """

    def __init__(self, home: Path, run_id: str) -> None:
        name = run_id.replace("-", "")[-16:]  # the random part of a UUIDv7
        self.path = home / "runs" / name
        if len(os.fsencode(self.path / "socket")) > _SOCKET_PATH_BYTES:
            self.path = Path(tempfile.gettempdir()) / f"alcove-{os.geteuid()}" / name
        self.tmp = self.path / "tmp"
        self.socket = self.path / "socket"

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
            self.path.mkdir(mode=0o700)
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
                remove(above, os.fsencode(self.path.name))
            finally:
                os.close(above)


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
