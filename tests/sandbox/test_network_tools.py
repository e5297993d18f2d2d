"""Real tools find the proxy of a run by themselves, through TLS as well: what agents fetch things with all day."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from alcove.sandbox.plan import Rung
from sandbox.conftest import PYTHON, World
from sandbox.test_network import HOLDING, looked_up

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

GIT = "git clone -q https://site.test:{port}/one.git copy && git -C copy log --format=%s"
PIP = (
    "{python} -m venv env && env/bin/pip --quiet --disable-pip-version-check install --trusted-host site.test:{port} "
    "--index-url https://site.test:{port}/simple mine && env/bin/python -c 'import mine; print(mine.answer)'"
)
CURL = (
    "curl -sk https://site.test:{port}/hello && curl -s http://site.test:{plain}/hello && curl -sk {other} || echo $?"
)
OTHER = "https://other.test:{port}/hello"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the server has: a file, a repository, an index with one package."""
    folder = tmp_path / "files"
    (folder / "simple" / "mine").mkdir(parents=True)
    (folder / "hello").write_text("hello\n")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C")
    for command in (
        ("git", "init", "-q", str(tmp_path / "one")),
        (*git, str(tmp_path / "one"), "commit", "-q", "--allow-empty", "-m", "from afar"),
        ("git", "clone", "-q", "--bare", str(tmp_path / "one"), str(folder / "one.git")),
        ("git", "-C", str(folder / "one.git"), "update-server-info"),
    ):
        subprocess.run(command, check=True)
    name = "mine-1-py3-none-any.whl"
    with zipfile.ZipFile(folder / "simple" / "mine" / name, "w") as wheel:
        wheel.writestr("mine.py", "answer = 42\n")
        wheel.writestr("mine-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
        wheel.writestr("mine-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("mine-1.dist-info/RECORD", "mine.py,,\n")
    (folder / "simple" / "mine" / "index.html").write_text(f'<a href="{name}">{name}</a>')
    return folder


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A certificate that nobody signed."""
    where = tmp_path / "certificate"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=site.test -days 1"
    subprocess.run([*command.split(), "-keyout", where, "-out", f"{where}.pem"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{where}.pem", where)
    return context


@pytest.fixture
async def ports(files: Path, certificate: ssl.SSLContext) -> AsyncIterator[tuple[int, int]]:
    """The ports of a server of those files: by TLS, and plain."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = files / head.split()[1].decode().partition("?")[0].strip("/")
        path = path / "index.html" if path.is_dir() else path
        body = path.read_bytes() if path.is_file() else b""
        kind = "text/html" if path.suffix == ".html" else "application/octet-stream"
        status = "200 OK" if path.is_file() else "404 Not Found"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) for context in (certificate, None)]
    secure, plain = (server.sockets[0].getsockname()[1] for server in servers)
    yield secure, plain
    for server in servers:
        server.close()


@pytest.fixture(params=HOLDING)
async def fetching(
    opened: Callable[..., Any], request: pytest.FixtureRequest, ports: tuple[int, int]
) -> Callable[[str], Any]:
    """Runs a script in a run that may reach the server by its name, and returns what it said."""
    rung: Rung = request.param
    world: World = await opened(rung)
    world.sandbox.resolve = looked_up
    secure, plain = ports
    network = [f"{name}:{port}" for port in ports for name in ("site.test", "127.0.0.1")]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": world.session(), "GIT_SSL_NO_VERIFY": "1"}

    async def fetch(script: str) -> bytes:
        other = OTHER.format(port=secure)
        script = script.format(port=secure, plain=plain, python=PYTHON, other=other)
        outcome = await world.shell(script, env=env, network=tuple(network))
        assert outcome.exit.code == 0, outcome
        return outcome.stdout

    return fetch


@pytest.mark.parametrize("tool", ["curl", "git"])
def test_the_tools_are_there(tool: str) -> None:
    assert shutil.which(tool), f"apt-get install {tool}: this test is long, and asked for by name"


async def test_curl_gets_what_is_listed_and_nothing_else(fetching: Callable[[str], Any]) -> None:
    assert await fetching(CURL) == b"hello\nhello\n56\n", "56: the proxy refused the tunnel"


async def test_git_clones(fetching: Callable[[str], Any]) -> None:
    assert await fetching(GIT) == b"from afar\n"


async def test_pip_installs(fetching: Callable[[str], Any]) -> None:
    assert await fetching(PIP) == b"42\n"
