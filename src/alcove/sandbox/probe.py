"""What each rung really holds on this machine: tried, by the real launcher, against a live neighbour."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from alcove.errors import AlcoveError, ConfigurationError, LaunchError
from alcove.rights.model import Network
from alcove.sandbox import attempts, bubblewrap, processes
from alcove.sandbox.berths import Berth, Berths
from alcove.sandbox.cgroups import Groups
from alcove.sandbox.handover import HIDDEN
from alcove.sandbox.limits import Limits
from alcove.sandbox.plan import Errand, Rung, Target
from alcove.sandbox.policy import SHARING, Policy
from alcove.sandbox.proxy import Proxy, start_with_proxy
from alcove.sandbox.running import Process
from alcove.sandbox.spawner import Spawner
from alcove.sandbox.vector import GUARANTEES, RungReport, Vector
from alcove.sandbox.watch import Guard, Watch

RUNGS: Final[tuple[Rung, ...]] = ("userns", "bwrap", "landlock", "none")
_REMEDIES: Final[dict[Rung, str]] = {
    "userns": "allow user namespaces: sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 and "
    "kernel.apparmor_restrict_unprivileged_userns=0 where they exist, and in a container a profile that lets it "
    "unshare and mount; the kernel has to be 5.12 or newer",
    "bwrap": "install bubblewrap (apt-get install bubblewrap; 0.8 or newer), and let it make user namespaces: by "
    "sysctl as for userns, or by an AppArmor profile for it alone",
    "landlock": "use a kernel from 5.13 on with Landlock among its security modules (lsm=landlock,...)",
    "none": "see the failure: not even an unconfined program could be started",
}
_BETTER: Final[dict[Rung, str]] = {
    "userns": "use a kernel with Landlock ABI 6 (6.12 or newer)",
    "bwrap": "use a newer bubblewrap and kernel, or another rung",
    "landlock": "allow user namespaces, or run the server as root, so that each session gets a uid of its own",
    "none": "choose another rung: this one confines nothing",
}
# Modules without a package around them, by their names in it.
_PROGRAM: Final = """
import json, sys, types
for name in ("alcove", "alcove.sandbox"):
    sys.modules[name] = types.ModuleType(name)
for name, text in {texts!r}.items():
    module = sys.modules["alcove.sandbox." + name] = types.ModuleType("alcove.sandbox." + name)
    setattr(sys.modules["alcove.sandbox"], name, module)
    exec(compile(text, name, "exec"), module.__dict__)
module.run(json.load(sys.stdin))
"""
_NOWHERE: Final = ("alcove.invalid:443",)
_LIMITED: Final = {"limits", "quota"}  # what no rung changes
_BETTER_LIMITS: Final = (
    "for limits that the kernel keeps, give the server control groups: Delegate=yes in its systemd unit, a container "
    "with a writable hierarchy of its own, or root"
)
BOUNDS: Final = Limits(memory_bytes=attempts.MEMORY_BYTES, processes=attempts.PROCESSES, disk_bytes=attempts.DISK_BYTES)
"""What the probe is given, and tries to take more of."""
_LOOK_S: Final = 0.02
_ANSWER: Final = msgspec.json.Decoder(dict[str, tuple[str, ...]])
_TARGET: Final = msgspec.json.Decoder(Target)
_REPORTS: Final = msgspec.json.Decoder(dict[str, tuple[RungReport, ...]])


async def probe(spawner: Spawner, berths: Berths, groups: Groups | None = None) -> tuple[RungReport, ...]:
    """Return what every rung holds, best rung first.

    Args:
        spawner: Starts the probes.
        groups: Where runs get control groups.
        berths: Where the neighbour and its attacker live for the time being; in the real base.
    """
    reports: list[RungReport] = []
    for rung in RUNGS:
        async with neighbour(spawner, berths, guarded=rung in SHARING) as target:
            reports.append(await _try(Probing(spawner, berths, groups), rung, target))
    return tuple(reports)


def cached(cache: Path | None, key: str) -> tuple[RungReport, ...] | None:
    """Return the reports that were kept under that key, if any."""
    if cache is None:
        return None
    try:
        return _REPORTS.decode(cache.read_bytes()).get(key)
    except (OSError, msgspec.MsgspecError):
        return None  # a cache that cannot be read is as good as none


def keep(cache: Path | None, key: str, reports: tuple[RungReport, ...]) -> None:
    """Keep the reports for the next start; atomic. A place that cannot be written to costs a probe, no more."""
    if cache is None:
        return
    with contextlib.suppress(OSError):
        new = cache.with_name(f"{cache.name}.{os.getpid()}")
        new.write_bytes(msgspec.json.encode({key: reports}))
        new.replace(cache)


def key(*, canary: Path | None, uids: bool, groups: str = "") -> str:
    """Return what the probe's result depends on: boot, kernel, identity, place, groups, and the code that confines."""
    digest = hashlib.sha256(repr(bubblewrap.version()).encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return " ".join(
        (processes.boot_id(), platform.release(), str(os.geteuid()), str(uids), groups, str(canary), digest.hexdigest())
    )


@contextlib.asynccontextmanager
async def neighbour(spawner: Spawner, berths: Berths, *, guarded: bool) -> AsyncGenerator[Target]:
    """A session that nothing protects, with files, a process, sockets and shared memory; and this process.

    Args:
        spawner: Starts it.
        berths: Where it lives.
        guarded: Whether its folder is guarded, as in `workspaces.ensure`.

    Raises:
        LaunchError: It cannot live there: a full disk, a limit.
    """
    with berths.borrow(guarded=guarded) as berth:
        errand = Errand(folder=berth.folder, token=f"alcove-{secrets.token_hex(8)}", target=None)
        try:
            process = await _start(spawner, "none", berth, errand)
        except ConfigurationError:  # leased uids cannot get there, which each rung has to cope with by itself
            process = await _start(spawner, "none", berth._replace(uid=None), errand)
        try:
            target = _target(*await _answer(process))
            own = os.getpid()
            target["processes"].append((own, processes.start_time(own) or 0))
            yield target
        finally:
            await process.kill(grace_s=1)
            process.close()


def _target(answer: bytes, complaint: str) -> Target:
    try:
        return _TARGET.decode(answer)
    except msgspec.MsgspecError:
        raise LaunchError(
            f"the sandbox cannot be proven: its probe did not begin: {complaint or 'nothing was said'}",
            remedy="look for a full disk or a limit that was reached; the next run tries again",
            step="probe",
        ) from None


class Probing(NamedTuple):
    """What a probe is made with."""

    spawner: Spawner
    berths: Berths
    groups: Groups | None


async def _try(probing: Probing, rung: Rung, target: Target) -> RungReport:
    found = await _attack(probing, rung, target, nest=False)
    if isinstance(found, AlcoveError):
        remedy = found.remedy or _REMEDIES[rung]
        return RungReport(rung=rung, available=False, vector=Vector(), holes={}, failure=found.message, remedy=remedy)
    found["hosts"] = await _leave(probing, rung, target, nest=False)
    nested = await _attack(probing, rung, target, nest=True)
    if not isinstance(nested, AlcoveError):
        nested["hosts"] = await _leave(probing, rung, target, nest=True)
    if rung != "none":
        # The watch stands outside of every run, so it is the same for a sandbox inside.
        found["quota"] = await _fill(probing, rung)
        if not isinstance(nested, AlcoveError):
            nested["quota"] = found["quota"]
    return RungReport(
        rung=rung,
        available=True,
        vector=_vector(found),
        holes={name: names for name, names in found.items() if names},
        nested=Vector() if isinstance(nested, AlcoveError) else _vector(nested),
        failure="",
        remedy=_remedy(rung, found),
    )


def _remedy(rung: Rung, found: dict[str, tuple[str, ...]]) -> str:
    if any(names for name, names in found.items() if name not in _LIMITED):
        return _BETTER[rung]
    return _BETTER_LIMITS if found["limits"] else ""


async def _leave(probing: Probing, rung: Rung, target: Target, *, nest: bool) -> tuple[str, ...]:
    """Return how a run with a list of hosts, none of which is the target, got to that all the same."""
    # Nothing holds anybody on `none`, where there is no network of its own to put a proxy into.
    network = "none" if rung == "none" else _NOWHERE
    found = await _attack(probing, rung, target, nest=nest, network=network)
    return (f"start ({found.message})",) if isinstance(found, AlcoveError) else found["network"]


async def _attack(
    probing: Probing, rung: Rung, target: Target, *, nest: bool, network: Network = "none"
) -> dict[str, tuple[str, ...]] | AlcoveError:
    """Return by guarantee which attempts succeeded, or why nothing could be tried."""
    with probing.berths.borrow() as berth:
        errand = Errand(folder=berth.folder, token="", target=target)
        complaint = ""
        # On `none` a program may leave its group, so there it counts for nothing.
        groups = None if rung == "none" else probing.groups
        group = None
        try:
            group = groups.make(BOUNDS, ours=rung in HIDDEN) if groups else None
            guard = Guard(BOUNDS, group=group)
            process = await _start(probing.spawner, rung, berth, errand, nest=nest, network=network, guard=guard)
            answer, complaint = await _answer(process)
            await process.wait()
            return _ANSWER.decode(answer)
        except msgspec.MsgspecError:
            return LaunchError(f"the probe gave no answer: {complaint or 'nothing was said'}", step="program")
        except AlcoveError as error:
            return error
        finally:
            if groups and group:
                groups.release(group, again=False)
                groups.tidy()


async def _fill(probing: Probing, rung: Rung) -> tuple[str, ...]:
    """Return whether a run that fills the disk goes on."""
    watch = Watch(every_s=_LOOK_S)
    with probing.berths.borrow() as berth:
        guard = Guard(BOUNDS, (berth.folder,))
        errand = Errand(folder=berth.folder, token="", target=None, fill=True)
        try:
            process = await _start(probing.spawner, rung, berth, errand, guard=guard)
        except AlcoveError as error:
            return (f"start ({error.message})",)
        watch.add(guard)
        try:
            await _answer(process)
            await process.wait()
        finally:
            watch.drop(guard)
            await watch.close()
    return () if guard.excess and guard.excess.name == "disk" else ("write more",)


def _vector(holes: dict[str, tuple[str, ...]]) -> Vector:
    return Vector(**{name: name in holes and not holes[name] for name in GUARANTEES})


async def _start(
    spawner: Spawner,
    rung: Rung,
    berth: Berth,
    errand: Errand,
    *,
    nest: bool = False,
    network: Network = "none",
    guard: Guard | None = None,
) -> Process:
    python, read = interpreter(berth.uid) if rung == "bwrap" else ("", ())
    policy = Policy(
        argv=(python, "-I", "-S", "-c", program()) if python else ("probe",),
        env={},
        cwd=berth.folder,
        write=(berth.folder,),
        read=read,
        network=network,
        nest=nest,
        uid=berth.uid,
        bounds=guard.bounds if guard else Limits(),
    )
    policy.check_nest(rung)
    policy.check_reach(rung)
    # With python another program stands between the launcher and the probe, which therefore has to be one itself.
    plan = policy.plan(rung) if python else policy.plan(rung, errand=errand)
    stdin = msgspec.json.encode(errand) if python else b""
    if isinstance(network, str):
        return await spawner.start(plan, stdin, guard=guard)
    return await start_with_proxy(spawner, plan, stdin, Proxy(network, _look_nothing_up), guard=guard)


async def _look_nothing_up(name: str, port: int) -> list[str]:
    raise OSError(f"{name}:{port} is not looked up")


def program() -> str:
    """Return the probe as a program of its own: any Python runs it, with an errand as JSON on standard input."""
    names = ("bare", "kernel", "processes", "attempts")
    texts = {name: Path(__file__).with_name(f"{name}.py").read_text("utf-8") for name in names}
    return _PROGRAM.format(texts=texts)


def interpreter(uid: int | None) -> tuple[str, tuple[str, ...]]:
    """Return a Python that a run may execute, and what has to be granted for it.

    Raises:
        ConfigurationError: The leased uid can get to none.
    """
    own = os.path.realpath(sys.executable)
    folders = tuple({os.path.realpath(sys.base_prefix), os.path.dirname(own)})
    try:
        Policy(argv=("probe",), env={}, cwd="/", write=(), read=folders, uid=uid).check_reach("bwrap")
    except ConfigurationError:
        for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
            if os.access(path, os.X_OK):
                return path, ()
        raise
    return own, folders


async def _answer(process: Process) -> tuple[bytes, str]:
    """Return the first line of output, and the first of errors."""
    said = {"stdout": b"", "stderr": b""}
    async with contextlib.aclosing(process.output()) as output:
        async for stream, chunk in output:
            said[stream] += chunk
            if said["stdout"].endswith(b"\n"):
                break
    return said["stdout"], said["stderr"].decode(errors="replace").strip().partition("\n")[0]
