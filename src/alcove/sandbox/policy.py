"""What a run may touch: one record, checked here and compiled for the rung that runs it."""

from __future__ import annotations

import os
import re
from typing import Final

import msgspec

from alcove.errors import ConfigurationError, InvalidError
from alcove.rights.hosts import host
from alcove.rights.model import Network
from alcove.sandbox import outlet, plan as plans
from alcove.sandbox.handover import HIDDEN
from alcove.sandbox.limits import Limits
from alcove.sandbox.plan import Errand, Plan, Rung
from alcove.sandbox.system import NEVER, SYSTEM

SHARING: Final = frozenset[Rung]({"landlock", "none"})
"""The rungs on which a run sees the machine's own file system."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run may touch; the rest is denied. Paths are absolute.

    Attributes:
        argv: The program, looked up in the `PATH` of `env` when it has no slash, and its arguments.
        env: Its whole environment.
        cwd: The folder that it starts in.
        write: The run's own trees: workspace, home, run folder.
        share: Further trees that it may write, which are not its own.
        read: Further files and folders that it may read and execute, such as tool chains.
        network: `host` shares the server's network; `none` gives at most a loopback of its own, and so does a list of
            hosts (`rights.hosts`), which a proxy there leads to.
        nest: Whether the program may put a sandbox of its own inside: then it may make namespaces and mounts.
        uid: The uid (and gid) leased to the session, when the server is root. Nobody else may have it: whatever
            runs under it is ended with the run.
        hide: Paths that must never be granted: base, database, ALCOVE_HOME, configuration.
        bounds: What it may take.
        taken_bytes: What the workspace took when it was last measured.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    write: tuple[str, ...]
    share: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    network: Network = "none"
    nest: bool = False
    uid: int | None = None
    hide: tuple[str, ...] = ()
    bounds: Limits = Limits()
    taken_bytes: int = 0

    def check(self) -> None:
        """Refuse what must never be granted; looks at the file system to resolve links.

        Raises:
            InvalidError: An argument or a variable cannot be given to a program.
            ConfigurationError: A path is not absolute, or a grant shows a hidden path.
        """
        if not self.argv or not self.argv[0]:
            raise InvalidError("a run needs a program", field="argv", remedy="give one")
        for text in (*self.argv, *self.env, *self.env.values()):
            if "\0" in text:
                raise InvalidError("an argument or variable holds NUL", field="argv", remedy="remove it")
        for name in self.env:
            if not name or "=" in name:
                raise InvalidError(f"{name!r} cannot be the name of a variable", field="env", remedy="rename it")
        for path in (self.cwd, *self.write, *self.share, *self.read):
            if os.path.normpath(path) != path or not path.startswith("/") or path == "/":
                raise ConfigurationError(f"{path!r} cannot be granted", remedy="give an absolute path without '..'")
        self._check_grants()

    def check_nest(self, rung: Rung) -> None:
        """Refuse a sandbox inside of a rung that lets no program make one.

        Raises:
            ConfigurationError: The rung is `landlock`.
        """
        if self.nest and rung == "landlock":
            raise ConfigurationError(
                "no sandbox can be put inside of the rung landlock",
                field="inner_sandbox",
                remedy='switch the inner one off (inner_sandbox = "off" and the program\'s own flag), or allow user '
                "namespaces, so that the rung is userns or bwrap",
            )

    def check_reach(self, rung: Rung) -> None:
        """Refuse trees that the leased uid cannot get to by itself, on a rung where it has to.

        Raises:
            ConfigurationError: A folder above one of them lets only its owner pass.
        """
        if rung == "userns" or self.uid is None:
            return
        for tree in (*self.write, *self.share, *self.read):
            folder = os.path.dirname(os.path.realpath(tree))
            while folder != "/":
                found = os.stat(folder)
                if not found.st_mode & (0o100 if found.st_uid == self.uid else 0o001):
                    raise ConfigurationError(
                        f"the uid of a session cannot get to {tree}: {folder} lets only its owner pass",
                        remedy=f"chmod o+x {folder}, or put it elsewhere, or allow user namespaces",
                    )
                folder = os.path.dirname(folder)

    def plan(self, rung: Rung, *, errand: Errand | None = None) -> Plan:
        """Compile the policy for a rung."""
        alone = rung in {"userns", "bwrap"}
        return Plan(
            rung=rung,
            network=_network(self.network),
            nest=self.nest,
            probing=errand is not None,
            uid=self.uid,
            argv=list(self.argv),
            env=self._environment(),
            cwd=self.cwd,
            write=[*self.write, *self.share],
            read=[path for path in self.read if path not in {*self.write, *self.share}],
            files=self._accounts() if alone else {},
            limits=self._limits(rung),
            errand=errand,
        )

    def _environment(self) -> dict[str, str]:
        if isinstance(self.network, str):
            return self.env
        return {**self.env, **outlet.environment(frozenset(one.name for one in map(host, self.network) if one))}

    def _check_grants(self) -> None:
        own = {path: os.path.realpath(path) for path in self.write}
        others = {path: os.path.realpath(path) for path in (*self.share, *self.read)}
        hidden = [os.path.realpath(path) for path in self.hide]
        for path, real in [*own.items(), *others.items()]:
            if any(_within(real, folder) for folder in NEVER):
                raise ConfigurationError(
                    f"{path} cannot be granted", remedy="leave it out: a run gets a view of its own"
                )
        # What lies in a tree of the run's own is already its own.
        others = {path: real for path, real in others.items() if not any(_within(real, tree) for tree in own.values())}
        for secret in hidden:
            shown = [path for path, real in own.items() if _within(secret, real)]
            shown += [path for path, real in others.items() if _within(secret, real) or _within(real, secret)]
            shown += [folder for folder in SYSTEM if _within(secret, folder) and os.path.exists(folder)]
            if shown:
                raise ConfigurationError(
                    f"granting {shown[0]} would show {secret}",
                    remedy="move one of them, so that neither lies in the other",
                )

    def _accounts(self) -> dict[str, str]:
        """The accounts that a view shows: the machine's users are nobody's business."""
        uid = os.geteuid() if self.uid is None else self.uid
        gid = os.getegid() if self.uid is None else self.uid
        home = re.sub(r"[:\n]", "_", self.env.get("HOME", "/"))
        own = f"alcove:x:{uid}:{gid}:alcove:{home}:/bin/sh\n" if uid else ""
        group = f"alcove:x:{gid}:\n" if gid else ""
        return {
            "/etc/passwd": f"root:x:0:0:root:/root:/bin/sh\n{own}nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
            "/etc/group": f"root:x:0:\n{group}nogroup:x:65534:\n",
        }

    def _limits(self, rung: Rung) -> dict[str, int]:
        given = self.bounds
        # One process may not take more processor time than all together. A second later than whoever tells why.
        bounds = {"CORE": 0, "NOFILE": given.open_files, "FSIZE": given.file_bytes, "CPU": given.cpu_s + 1}
        # By uid. Bubblewrap makes its namespace after this, so without a leased one all that the user runs counts.
        if rung == "userns" or self.uid is not None:
            bounds["NPROC"] = given.processes + (rung in HIDDEN)  # whose supervisor is of that uid too
        return bounds


def _network(network: Network) -> plans.Network:
    if isinstance(network, str):
        return "host" if network == "host" else "none"
    return "proxy"


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
