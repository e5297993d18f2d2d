"""What every part's tests share: databases of each kind, and an environment without the developer's settings."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from alcove.sandbox import probe
from alcove.sandbox.vector import RungReport

pytest.register_assert_rewrite("alcove.testing")

if TYPE_CHECKING:
    from alcove.database.op import Database
    from database.postgres_server import PostgresServer

# Machines are slow when they are shared, and a deadline would call that a fault.
settings.register_profile(
    "alcove", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
settings.load_profile("alcove")

# Who runs the tests in the background leaves Ctrl-C ignored, and every program that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Memory is SQLite's own driver, and what all nouns ask of PostgreSQL takes minutes: the quick tests ask it of these.
_QUICK_ON_POSTGRES = {"audit", "database", "sessions", "messages", "principals"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Leave contracts of the other databases to the long tests."""
    for item in items:
        kind = item.callspec.params.get("database_url") if hasattr(item, "callspec") else None
        folder = item.path.parent.name
        if (kind == "memory" and folder != "database") or (kind == "postgres" and folder not in _QUICK_ON_POSTGRES):
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a report travel between processes: what a test logged may hold a lone surrogate, which no wire takes."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


_PROVEN: dict[str, tuple[RungReport, ...]] = {}


@pytest.fixture(autouse=True)
def _proven_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prove once per process what the machine guarantees, where that is not what is tested: it takes a second."""
    if request.path.parent.name == "sandbox":
        return
    cached, keep, key = probe.cached, probe.keep, probe.key

    def remembered(cache: Path | None, key: str) -> tuple[RungReport, ...] | None:
        return cached(cache, key) or _PROVEN.get(key)

    def remember(cache: Path | None, key: str, reports: tuple[RungReport, ...]) -> None:
        _PROVEN[key] = reports
        keep(cache, key, reports)

    def anywhere(*, canary: Path | None, uids: bool, groups: str) -> str:
        del canary
        return key(canary=None, uids=uids, groups=groups)

    monkeypatch.setattr(probe, "cached", remembered)
    monkeypatch.setattr(probe, "keep", remember)
    monkeypatch.setattr(probe, "key", anywhere)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ALCOVE_", "SESSIONS_BASE_DIR", "AUTO_CLEANUP_SESSIONS")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run, started by the first test that needs one."""
    from database.postgres_server import PostgresServer

    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_name(postgres: PostgresServer) -> str:
    """A database of that server, used by one test after the other."""
    return postgres.create_database()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: the test runs once for each kind."""
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'alcove.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("postgres_name")
    return server.emptied(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open, empty database of each kind."""
    from alcove.database.opening import open_database

    database = await open_database(database_url)
    yield database
    await database.close()
