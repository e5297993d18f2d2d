"""The server itself: whether it is well, what it guarantees, what it offers."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Final, Literal

import msgspec
from starlette.responses import HTMLResponse, Response

import alcove
from alcove import limits
from alcove.errors import AlcoveError, LaunchError
from alcove.server import openapi, page
from alcove.server.call import Call
from alcove.server.problems import NotReadyError
from alcove.server.route import PUBLIC, Route
from alcove.telemetry.metrics import MEDIA_TYPE


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That the server answers.

    Attributes:
        status: Always `healthy`.
        version: Alcove's.
    """

    status: Literal["healthy"] = "healthy"
    version: str = alcove.__version__


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """That the process runs.

    Attributes:
        status: Always `alive`.
    """

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """That requests can be served: the database took a write, and there is room on the disks.

    Attributes:
        status: Always `ready`.
        disk_free_bytes: On the fuller one of the disks of home and base.
    """

    status: Literal["ready"] = "ready"
    disk_free_bytes: int


class RungView(msgspec.Struct, frozen=True, kw_only=True):
    """What a way to confine programs was found to guarantee on this machine.

    Attributes:
        rung: Its name.
        available: Whether runs could be confined by it.
        guarantees: Each, and whether it holds.
        nested: The same for a program that may put a sandbox of its own inside (`inner_sandbox = "nest"`).
        holes: By guarantee, the attempts of the probe that succeeded.
        failure: Why a confined start failed, empty when it did not.
        remedy: What would make it available or complete.
    """

    rung: str
    available: bool
    guarantees: dict[str, bool]
    nested: dict[str, bool]
    holes: dict[str, tuple[str, ...]]
    failure: str
    remedy: str


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """How runs are confined.

    Attributes:
        rung: The one in use.
        minimum: The guarantees without which no run starts.
        missing: Those of them that do not hold: while there are any, no run starts.
        rungs: All of them, best first.
        limits: By what each limit of a run is kept: the kernel, or a watch that looks at short intervals.
    """

    rung: str
    minimum: list[str]
    missing: list[str]
    rungs: list[RungView]
    limits: dict[str, str]


async def health(call: Call) -> Health:
    """Say that the server answers."""
    del call
    return Health()


async def livez(call: Call) -> Alive:
    """Say that the process runs: for whoever restarts it otherwise."""
    del call
    return Alive()


async def readyz(call: Call) -> Ready:
    """Say whether requests can be served: for whoever sends them elsewhere otherwise."""
    try:
        await call.hub.probe()
    except AlcoveError as error:
        raise NotReadyError(error.message, field="database", remedy=error.remedy) from error
    settings = call.hub.settings
    free = min([_free(path) for path in {settings.home, settings.base} if path.exists()], default=0)
    if free < limits.DISK_FREE_BYTES:
        raise NotReadyError(
            f"{free} bytes are free on the disk", field="disk", limit=limits.DISK_FREE_BYTES, remedy="free some space"
        )
    return Ready(disk_free_bytes=free)


async def metrics(call: Call) -> Response:
    """Show the figures of this server, for Prometheus."""
    hub = call.hub
    gauges: dict[str, float] = {
        "alcove_runs_live": hub.runs.live_count,
        "alcove_sessions": await hub.sessions.count(),
        "alcove_database_waiting": hub.database.waiting,
        "alcove_audit_waiting": hub.audit.waiting,
        "alcove_audit_failing": float(hub.audit.failing),
    }
    if hub.workspaces is not None:
        totals = await hub.workspaces.totals()
        gauges["alcove_workspaces"] = totals.workspaces
        gauges["alcove_workspace_files"] = totals.files
        gauges["alcove_workspace_bytes"] = totals.size_bytes
    return Response(call.site.metrics.render(gauges), media_type=MEDIA_TYPE)


async def isolation(call: Call) -> Isolation:
    """Show how runs are confined, and what that was proven to guarantee here."""
    sandbox = await call.hub.workshop.sandbox()
    rungs = [
        RungView(
            rung=report.rung,
            available=report.available,
            guarantees=msgspec.structs.asdict(report.vector),
            nested=msgspec.structs.asdict(report.nested),
            holes=report.holes,
            failure=report.failure,
            remedy=report.remedy,
        )
        for report in sandbox.report()
    ]
    return Isolation(
        rung=sandbox.rung,
        minimum=sorted(sandbox.minimum),
        missing=sorted(sandbox.vector.missing(sandbox.minimum)),
        rungs=rungs,
        limits=sandbox.means,
    )


async def description(call: Call) -> Response:
    """Show this interface as OpenAPI 3.1."""
    return Response(await asyncio.to_thread(_description, call.site.routes), media_type="application/json")


async def docs(call: Call) -> Response:
    """Show this interface as a page for people."""
    return HTMLResponse(
        await asyncio.to_thread(_docs, call.site.routes), headers={"content-security-policy": page.POLICY}
    )


def _free(path: os.PathLike[str]) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@cache
def _description(routes: tuple[Route, ...]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(openapi.describe(routes)), indent=2)


@cache
def _docs(routes: tuple[Route, ...]) -> str:
    return page.render(openapi.describe(routes))


ROUTES: Final = (
    Route("GET", "/health", health, permission=PUBLIC),
    Route("GET", "/livez", livez, permission=PUBLIC),
    Route("GET", "/readyz", readyz, permission=PUBLIC, errors=(NotReadyError,)),
    Route("GET", "/metrics", metrics, permission="metrics.read", media=MEDIA_TYPE),
    Route("GET", "/api/v1/isolation", isolation, permission="isolation.read", errors=(LaunchError,)),
    Route("GET", "/openapi.json", description, permission=PUBLIC, media="application/json"),
    Route("GET", "/docs", docs, permission=PUBLIC, media="text/html"),
)
