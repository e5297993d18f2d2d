"""The sandbox of one server: which rung it confines runs by, what that guarantees, and the door to start programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, Self, final

from alcove import ids
from alcove.errors import ConfigurationError, GuaranteeError, LaunchError
from alcove.rights.model import Network
from alcove.sandbox import probe
from alcove.sandbox.berths import Berths
from alcove.sandbox.cgroups import Groups
from alcove.sandbox.handover import HIDDEN
from alcove.sandbox.plan import Rung
from alcove.sandbox.policy import SHARING, Policy
from alcove.sandbox.proxy import Proxy, Refused, start_with_proxy
from alcove.sandbox.resolving import Resolve, Resolver
from alcove.sandbox.running import Process
from alcove.sandbox.spawner import Spawner
from alcove.sandbox.vector import DEFAULT_MINIMUM, GUARANTEES, RungReport, Vector
from alcove.sandbox.watch import Watch
from alcove.workspaces import uids as numbers

_ORDER: Final[tuple[Rung, ...]] = ("userns", "bwrap", "landlock")


@final
class Sandbox:
    """Starts confined programs. Open it with `Sandbox.open`, on the event loop that will use it.

    Attributes:
        rung: How runs are confined.
        vector: What that guarantees here, as probed.
        uids: Whether runs need a leased uid, because the server is root.
        means: By what each limit of a run is kept here.
        minimum: The guarantees without which no run starts.
        resolve: Looks up the names that runs with a list of hosts ask their proxies for.
    """

    def __init__(
        self,
        spawner: Spawner,
        berths: Berths,
        reports: tuple[RungReport, ...],
        *,
        rung: Rung,
        minimum: frozenset[str],
        uids: bool,
        groups: Groups | None = None,
    ) -> None:
        self._spawner = spawner
        self._watch = Watch(groups)
        self.means = means(groups)
        self._berths = berths
        self._reports = reports
        self._report = next(report for report in reports if report.rung == rung)
        self.rung: Rung = rung
        self.vector: Vector = self._report.vector
        self.uids = uids
        self.minimum = minimum
        self.resolve: Resolve = Resolver()

    @classmethod
    async def open(
        cls,
        *,
        rung: Literal["auto", "userns", "bwrap", "landlock", "none"] = "auto",
        minimum: frozenset[str] | None = None,
        canary: Path | None = None,
        uids: bool | None = None,
        installation: str | None = None,
        cache: Path | None = None,
    ) -> Self:
        """Start the warm spawner, find out what each rung holds here, and choose one.

        A rung below the minimum does not fail here: `require` does, so that a server can start and say why it runs
        nothing.

        Args:
            rung: `auto` takes the best that meets the minimum, and never `none`, which is to be asked for by name.
            minimum: Guarantees that every run needs. None: `DEFAULT_MINIMUM`, or nothing when `none` is asked for.
            canary: An existing folder in the real base, for the folders of the probe; None for the system's own.
            uids: Whether runs get a uid of their own; None: when the server is root.
            installation: Whose spare uids the probe takes; None for some that are hardly anybody's.
            cache: A file that keeps the results until the next boot or change of code. Results that would let nothing
                run are tried again each time: whoever has followed a remedy need not know of the file.

        Raises:
            ConfigurationError: The minimum names a guarantee that there is not, or uids are asked for without root.
            LaunchError: The warm spawner does not start.
        """
        if minimum is None:
            minimum = frozenset() if rung == "none" else DEFAULT_MINIMUM
        if unknown := sorted(minimum - GUARANTEES.keys()):
            raise ConfigurationError(
                f"there is no guarantee {unknown[0]!r}", field="minimum", remedy=f"known: {', '.join(GUARANTEES)}"
            )
        root = os.geteuid() == 0
        uids = root if uids is None else uids
        if uids and not root:
            raise ConfigurationError("only a root server can lease uids", field="uids", remedy="run it as root")
        berths = Berths(canary, numbers.spare(installation or ids.new_id()) if uids else None)
        berths.sweep()
        groups = Groups.find()
        spawner = Spawner()
        try:
            key = probe.key(canary=canary, uids=uids, groups=" ".join(sorted(groups.kinds)) if groups else "")
            reports = probe.cached(cache, key)
            if reports is None or not _usable(reports, rung, minimum):
                reports = await probe.probe(spawner, berths, groups)
                probe.keep(cache, key, reports)
                await spawner.close()  # each start would copy what errands have loaded
                spawner = Spawner()
        except BaseException:
            await spawner.close()
            if groups:
                groups.close()
            raise
        chosen = _choose(reports, minimum) if rung == "auto" else rung
        return cls(spawner, berths, reports, rung=chosen, minimum=minimum, uids=uids, groups=groups)

    @property
    def spawner_pid(self) -> int | None:
        """The process id of the warm spawner, None while there is none."""
        return self._spawner.pid

    def report(self) -> tuple[RungReport, ...]:
        """Return what the probe found out about every rung, best rung first."""
        return self._reports

    def holds(self, *, nest: bool) -> Vector:
        """Return what is guaranteed for a program; `nest` is as in `Policy`."""
        return self._report.nested if nest and self.rung != "none" else self.vector

    def require(self, *, nest: bool = False, network: Network = "none") -> None:
        """Refuse to run anything below the minimum, or with a list of hosts that nothing here holds it to.

        Args:
            nest: As in `Policy`.
            network: As in `Policy`.

        Raises:
            GuaranteeError: `details["missing"]` names the missing guarantees, comma-separated.
        """
        missing = self.holds(nest=nest).missing(self.minimum)
        if not self._report.available:
            raise GuaranteeError(
                f"this machine cannot confine runs by {self.rung}: {self._report.failure}",
                remedy=self._report.remedy,
                missing=", ".join(missing),
            )
        if missing:
            said = "; ".join(GUARANTEES[name] for name in missing)
            raise GuaranteeError(
                f"the rung {self.rung} does not guarantee here that {said}",
                remedy=f"{self._report.remedy}; or lower the minimum by name ({', '.join(missing)})",
                missing=", ".join(missing),
            )
        if not isinstance(network, str) and not self.holds(nest=nest).hosts:
            raise GuaranteeError(
                f"the rung {self.rung} does not guarantee here that {GUARANTEES['hosts']}",
                field="network",
                remedy=f"{self._report.remedy or 'use another rung'}; or give that run no network, or the host's",
                missing="hosts",
            )

    @contextmanager
    def spare_uid(self) -> Generator[int | None]:
        """Hold a uid for a program that belongs to no session; None where none are leased.

        Raises:
            ConflictError: Other processes hold every one.
            StorageError: The base cannot be written to.
        """
        if not self.uids:
            yield None
            return
        with self._berths.borrow() as berth:
            yield berth.uid

    @property
    def guarded(self) -> bool:
        """Whether the folders of sessions have to be guarded (`workspaces.ensure`), because all runs can see them."""
        return self.rung in SHARING

    async def spawn(
        self, policy: Policy, *, stdin: bytes = b"", refused: Callable[[Refused], None] | None = None
    ) -> Process:
        """Start a program, confined.

        Args:
            policy: What it may touch.
            stdin: What it reads from its standard input, until end of file.
            refused: Is told of each destination that its proxy refused it, the first time.

        Raises:
            GuaranteeError: The rung is below the minimum, or holds no program to a list of hosts.
            ConfigurationError: A grant would show what is hidden, a tree cannot be reached, or the uid is missing.
            InvalidError: An argument or variable cannot be given to a program.
            AgentUnavailableError: There is no such program in the sandbox, or it cannot be executed.
            LaunchError: A step failed; `details["step"]` names it.
            ClosedError: The sandbox was closed.
        """
        if policy.nest:
            policy.check_nest(self.rung)
        self.require(nest=policy.nest, network=policy.network)
        policy.check()
        if self.uids != (policy.uid is not None) and self.rung != "none":
            raise ConfigurationError(
                "a root server leases a uid to each session" if self.uids else "only a root server can lease uids",
                field="uid",
            )
        policy.check_reach(self.rung)
        try:
            guard = await self._watch.guard(policy.bounds, policy.write, policy.taken_bytes, ours=self.rung in HIDDEN)
        except OSError as error:
            raise LaunchError(f"the control group of a run cannot be made: {error}", step="limits") from error
        try:
            plan = policy.plan(self.rung)
            if isinstance(policy.network, str):
                process = await self._spawner.start(plan, stdin, guard=guard)
            else:
                proxy = Proxy(policy.network, self.resolve, refused)
                process = await start_with_proxy(self._spawner, plan, stdin, proxy, guard=guard)
        except BaseException:
            self._watch.drop(guard)
            raise
        self._watch.add(guard)
        process.on_end(lambda: self._watch.drop(guard))
        return process

    async def close(self) -> None:
        """End every tree that is left, and the warm spawner."""
        await self._spawner.close()
        await self._watch.close()


def means(groups: Groups | None) -> dict[str, str]:
    """Return by what each limit of a run is kept: the kernel keeps one all the time, the watch looks now and then."""
    kinds = groups.kinds if groups else frozenset[str]()
    kernel = f"control group ({groups.version})" if groups else ""
    return {
        "memory": kernel if "memory" in kinds else "watch",
        "processes": kernel
        if "pids" in kinds
        else "rlimit where a run has a uid or a user namespace of its own, watch",
        "cpu": f"watch, counted by {kernel}" if kinds & {"kill", "cpuacct"} else "watch",
        "file_size": "rlimit",
        "open_files": "rlimit",
        "output": "pipe",
        "disk": "watch",
        "files": "watch",
        "end": "cgroup.kill" if "kill" in kinds else "freezer" if "freezer" in kinds else "signals",
    }


def _usable(reports: tuple[RungReport, ...], rung: str, minimum: frozenset[str]) -> bool:
    chosen = _choose(reports, minimum) if rung == "auto" else rung
    return any(one.rung == chosen and one.available and not one.vector.missing(minimum) for one in reports)


def _choose(reports: tuple[RungReport, ...], minimum: frozenset[str]) -> Rung:
    candidates = [report for report in reports if report.rung in _ORDER]
    for report in candidates:
        if report.available and not report.vector.missing(minimum):
            return report.rung
    # None will do: take the one that says most clearly what is missing.
    return max(candidates, key=lambda report: (report.available, report.vector.held())).rung
