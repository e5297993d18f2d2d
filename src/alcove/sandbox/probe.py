"""What each rung really holds on this machine: tried, by the real launcher, against a live neighbour."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import msgspec

from alcove.errors import AlcoveError, ConfigurationError
from alcove.sandbox import processes
from alcove.sandbox.attempts import Errand, Target
from alcove.sandbox.berths import Berth, Berths
from alcove.sandbox.plan import Rung
from alcove.sandbox.policy import SHARING, Policy
from alcove.sandbox.spawner import Process, Spawner
from alcove.sandbox.vector import GUARANTEES, RungReport, Vector

RUNGS: Final[tuple[Rung, ...]] = ("userns", "landlock", "none")
_REMEDIES: Final[dict[Rung, str]] = {
    "userns": "allow user namespaces: sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 and "
    "kernel.apparmor_restrict_unprivileged_userns=0 where they exist, and in a container a profile that lets it "
    "unshare and mount; the kernel has to be 5.12 or newer",
    "landlock": "use a kernel from 5.13 on with Landlock among its security modules (lsm=landlock,...)",
    "none": "see the failure: not even an unconfined program could be started",
}
_BETTER: Final[dict[Rung, str]] = {
    "userns": "use a kernel with Landlock ABI 6 (6.12 or newer)",
    "landlock": "allow user namespaces, or run the server as root, so that each session gets a uid of its own",
    "none": "choose another rung: this one confines nothing",
}
_ANSWER: Final = msgspec.json.Decoder(dict[str, tuple[str, ...]])
_TARGET: Final = msgspec.json.Decoder(Target)
_REPORTS: Final = msgspec.json.Decoder(dict[str, tuple[RungReport, ...]])


async def probe(spawner: Spawner, berths: Berths) -> tuple[RungReport, ...]:
    """Return what every rung holds, best rung first.

    Args:
        spawner: Starts the probes.
        berths: Where the neighbour and its attacker live for the time being; in the real base.
    """
    reports: list[RungReport] = []
    for rung in RUNGS:
        async with _neighbour(spawner, berths, guarded=rung in SHARING) as target:
            reports.append(await _try(spawner, rung, target, berths))
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


def key(*, canary: Path | None, uids: bool) -> str:
    """Return what the probe's result depends on: boot, kernel, identity, place, and the code that confines."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return " ".join(
        (processes.boot_id(), platform.release(), str(os.geteuid()), str(uids), str(canary), digest.hexdigest())
    )


@contextlib.asynccontextmanager
async def _neighbour(spawner: Spawner, berths: Berths, *, guarded: bool) -> AsyncGenerator[Target]:
    """A session that is not protected, with a file, a process, sockets and shared memory, and the server's process."""
    with berths.borrow(guarded=guarded) as berth:
        errand = Errand(folder=berth.folder, token=f"alcove-{secrets.token_hex(8)}", target=None)
        try:
            process = await _start(spawner, "none", berth, errand)
        except ConfigurationError:  # leased uids cannot get there, which each rung has to cope with by itself
            process = await _start(spawner, "none", berth._replace(uid=None), errand)
        try:
            target = _TARGET.decode(await _line(process))
            own = os.getpid()
            target["processes"].append((own, processes.start_time(own) or 0))
            yield target
        finally:
            await process.kill(grace_s=1)
            process.close()


async def _try(spawner: Spawner, rung: Rung, target: Target, berths: Berths) -> RungReport:
    with berths.borrow() as berth:
        errand = Errand(folder=berth.folder, token="", target=target)
        try:
            process = await _start(spawner, rung, berth, errand)
            answer = await _line(process)
            await process.wait()
            holes = _ANSWER.decode(answer)
        except msgspec.MsgspecError:
            return _unavailable(rung, "the probe gave no answer", "")
        except AlcoveError as error:
            return _unavailable(rung, error.message, error.remedy)
    vector = Vector(**{name: name in holes and not holes[name] for name in GUARANTEES})
    found = {name: names for name, names in holes.items() if names}
    remedy = _BETTER[rung] if found else ""
    return RungReport(rung=rung, available=True, vector=vector, holes=found, failure="", remedy=remedy)


def _unavailable(rung: Rung, failure: str, remedy: str) -> RungReport:
    remedy = remedy or _REMEDIES[rung]
    return RungReport(rung=rung, available=False, vector=Vector(), holes={}, failure=failure, remedy=remedy)


async def _start(spawner: Spawner, rung: Rung, berth: Berth, errand: Errand) -> Process:
    policy = Policy(argv=("probe",), env={}, cwd=berth.folder, write=(berth.folder,), uid=berth.uid)
    policy.check_reach(rung)
    return await spawner.start(policy.plan(rung, errand=errand), b"")


async def _line(process: Process) -> bytes:
    text = b""
    async with contextlib.aclosing(process.output()) as output:
        async for _, chunk in output:
            text += chunk
            if text.endswith(b"\n"):
                break
    return text
