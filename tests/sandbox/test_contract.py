"""Alcove's own rungs under the contract that any other one has to pass (docs/adding-a-rung.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alcove.sandbox.plan import Rung as Name
from alcove.testing.contract.rungs import Finished, Program, RungContract
from alcove.workspaces import uids
from sandbox.conftest import PYTHON, ROOT, World

# For an ordinary user Landlock holds less than the minimum, which its vector says.
OWN = ["userns", "bwrap", *(["landlock"] if ROOT else [])]


class OwnRung:
    """One of Alcove's rungs, as the contract sees it."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def run(self, program: Program) -> Finished:
        folder = program.workspace
        done = await self.world.run(
            *program.argv,
            stdin=program.stdin,
            env=dict(program.env),
            cwd=folder,
            write=(folder,),
            **msgspec.structs.asdict(program.bounds),
        )
        code = done.exit.code if done.exit.signal is None else 128 + done.exit.signal
        assert code is not None
        return Finished(code=code, stdout=done.stdout, stderr=done.stderr)


class TestOwnRungs(RungContract):
    python = PYTHON
    # The control groups that keep limits are root's on this machine; elsewhere they are not claimed.
    claims = RungContract.claims | {"quota", *(["limits"] if ROOT else [])}

    @pytest.fixture(params=OWN)
    async def world(self, opened: Callable[..., Any], request: pytest.FixtureRequest) -> World:
        name: Name = request.param
        return await opened(name)

    @pytest.fixture
    def rung(self, world: World) -> OwnRung:
        return OwnRung(world)

    @pytest.fixture
    def place(self, base: Path) -> Path:
        return base

    @pytest.fixture
    def uids(self, world: World) -> range | None:
        return uids.spare("contract") if ROOT and world.sandbox.guarded else None

    @pytest.fixture
    def workspace(self, world: World) -> str:
        return world.session()
