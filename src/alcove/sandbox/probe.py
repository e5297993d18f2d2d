"""What each rung really holds on this machine: tried, by the real launcher, against a live neighbour."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Final

import msgspec

from alcove.errors import AlcoveError, ConfigurationError
from alcove.sandbox import processes
from alcove.sandbox.attempts import Errand, Target
from alcove.sandbox.plan import Rung
from alcove.sandbox.policy import Policy
from alcove.sandbox.spawner import Process, Spawner
from alcove.sandbox.vector import GUARANTEES, RungReport, Vector

RUNGS: Final[tuple[Rung, ...]] = ("userns", "landlock", "none")
_UIDS: Final = 1_879_048_190, 1_879_048_191  # below the first that is leased to a session, above all that others use
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


async def probe(spawner: Spawner, *, canary: Path | None, uids: bool) -> tuple[RungReport, ...]:
    """Return what every rung holds, best rung first.

    Args:
        spawner: Starts the probes.
        canary: An existing folder of the real base, in which the neighbour gets its folder for the time being.
        uids: Whether runs get leased uids.
    """
    pair = probe_uids() if uids else (None, None)
    async with _neighbour(spawner, canary, pair[0]) as target:
        return tuple([await _try(spawner, rung, target, canary, pair[1]) for rung in RUNGS])


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


def probe_uids() -> tuple[int, int]:
    """Return two uids that no session is given."""
    mapped = [line.split() for line in Path("/proc/self/uid_map").read_text("ascii").splitlines()]
    ranges = [(int(start), int(start) + int(count) - 1) for start, _, count in mapped]
    if any(low <= _UIDS[0] and _UIDS[1] <= high for low, high in ranges):
        return _UIDS
    low, high = max(ranges, key=lambda pair: pair[1] - pair[0])
    middle = low + (high - low) // 2  # sessions get the upper half there
    return middle - 2, middle - 1


@contextlib.asynccontextmanager
async def _neighbour(spawner: Spawner, canary: Path | None, uid: int | None) -> AsyncGenerator[Target]:
    """A session that is not protected, with a file, a process, sockets and shared memory, and the server's process."""
    with _folder(canary, uid) as folder:
        errand = Errand(folder=folder, token=f"alcove-{secrets.token_hex(8)}", target=None)
        try:
            process = await _start(spawner, "none", folder, uid, errand)
        except ConfigurationError:  # leased uids cannot get there, which each rung has to cope with by itself
            process = await _start(spawner, "none", folder, None, errand)
        try:
            target = _TARGET.decode(await _line(process))
            own = os.getpid()
            target["processes"].append((own, processes.start_time(own) or 0))
            yield target
        finally:
            await process.kill(grace_s=1)
            process.close()


async def _try(spawner: Spawner, rung: Rung, target: Target, canary: Path | None, uid: int | None) -> RungReport:
    with _folder(canary, uid) as folder:
        errand = Errand(folder=folder, token="", target=target)
        try:
            process = await _start(spawner, rung, folder, uid, errand)
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


async def _start(spawner: Spawner, rung: Rung, folder: str, uid: int | None, errand: Errand) -> Process:
    policy = Policy(argv=("probe",), env={}, cwd=folder, write=(folder,), uid=uid)
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


@contextlib.contextmanager
def _folder(canary: Path | None, uid: int | None) -> Generator[str]:
    folder = tempfile.mkdtemp(prefix=".probe-", dir=canary)
    try:
        if uid is not None:
            os.chown(folder, uid, uid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
