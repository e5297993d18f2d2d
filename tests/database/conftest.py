"""Places for databases."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from database.postgres_server import PostgresServer


@pytest.fixture
def shared_tmp() -> Iterator[Path]:
    """A folder that every user of the machine may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that was never opened."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'alcove.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url(server.create_database())
