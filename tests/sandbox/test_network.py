"""A run with a list of hosts: what it reaches through its proxy, on every rung that holds one, and nothing besides."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from alcove.errors import GuaranteeError, LaunchError
from alcove.sandbox import outlet, probe
from alcove.sandbox.berths import Berths
from alcove.sandbox.plan import Rung
from alcove.sandbox.proxy import Refused
from alcove.sandbox.spawner import Spawner
from sandbox.conftest import PYTHON, ROOT, World, until

# What a program inside tries; it says `done`, what it was told, or why it failed.
TRY = """
import json, os, socket, sys, urllib.request

def url(where):
    return urllib.request.urlopen(where, timeout=20).read().decode()

def tunnel(where):
    with socket.create_connection(("127.0.0.1", 3128), 20) as way:
        way.sendall(f"CONNECT {where} HTTP/1.1\\r\\n\\r\\n".encode())
        head = b""
        while b"\\r\\n\\r\\n" not in head and (more := way.recv(4096)):
            head += more
        if not head.startswith(b"HTTP/1.1 200"):
            return head.partition(b"(")[2].partition(b")")[0].decode()
        way.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        said = b""
        while more := way.recv(4096):
            said += more
        return said.rpartition(b"\\n")[2].decode()

def tcp(address, port):
    socket.create_connection((address, port), 5).close()

def udp(address, port):
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.connect((address, port))
        one.send(b"x")
        one.recv(1)

def look_up(name):
    socket.getaddrinfo(name, 80)

def fast_open(address, port):
    with socket.socket() as one:
        one.sendto(b"x", socket.MSG_FASTOPEN, (address, port))

result = []
for what, *arguments in json.load(sys.stdin):
    try:
        result.append(globals()[what](*arguments) or "done")
    except OSError as error:
        result.append(getattr(error, "headers", None) and error.headers["Alcove-Refusal"] or type(error).__name__)
print(json.dumps(result))
"""


class Site:
    """A server on this machine's loopback; `hits` are the paths that it was asked for."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(65536)  # nothing from one that only connects
        path = head.split()[1].decode() if head else "/connected"
        self.hits.append(path)
        where = f"Location: {path[6:]}\r\n" if path.startswith("/move/") else ""
        writer.write(f"HTTP/1.0 {'302 Found' if where else '200 OK'}\r\n{where}\r\nwelcome".encode())
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A server that answers whoever reaches it."""
    site = Site()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()


HOLDING: list[Rung] = ["userns", "bwrap", *(["landlock"] if ROOT else [])]


@pytest.fixture(params=HOLDING)
async def holding(opened: Callable[..., Any], request: pytest.FixtureRequest) -> World:
    """A world on each rung that holds a run to a list: on `landlock` only a root server can."""
    world: World = await opened(request.param)
    world.sandbox.resolve = looked_up
    return world


async def looked_up(name: str, port: int) -> Sequence[str]:
    known = {"metadata.test": ["169.254.169.254"], "mixed.test": ["192.0.66.1", "127.0.0.1"], "nowhere.test": []}
    return known.get(name, ["127.0.0.1"])


async def tried(world: World, *attempts: tuple[Any, ...], **changes: Any) -> list[str]:
    outcome = await world.python(TRY, stdin=json.dumps(attempts).encode(), **changes)
    assert outcome.stderr == b""
    return json.loads(outcome.stdout)


async def test_a_listed_host_is_reached_by_the_variables_that_programs_know(holding: World, site: Site) -> None:
    network = (f"site.test:{site.port}", f"127.0.0.1:{site.port}")
    said = await tried(
        holding,
        ("url", f"http://site.test:{site.port}/plain"),
        ("tunnel", f"site.test:{site.port}"),
        ("tunnel", f"SITE.test.:{site.port}"),
        network=network,
    )
    assert said == ["welcome"] * 3
    assert site.hits == ["/plain", "/", "/"]


async def test_what_is_not_listed_is_refused_and_told(holding: World, site: Site) -> None:
    port = site.port
    refusals: list[Refused] = []
    attempts = {
        ("tunnel", f"other.test:{port}"): "unlisted",
        ("url", f"http://other.test:{port}/"): "unlisted",
        ("tunnel", "site.test:22"): "unlisted",
        ("tunnel", f"127.0.0.1:{port}"): "unlisted",
        ("tunnel", f"[::ffff:127.0.0.1]:{port}"): "unlisted",
        ("tunnel", f"2130706433:{port}"): "malformed",
        ("tunnel", f"0x7f000001:{port}"): "malformed",
        ("tunnel", f"0177.0.0.1:{port}"): "malformed",
        ("tunnel", f"127.1:{port}"): "malformed",
        ("tunnel", f"site.test@127.0.0.1:{port}"): "malformed",
        ("tunnel", f"site.test:{port}"): "address",
        ("tunnel", f"mixed.test:{port}"): "address",
        ("tunnel", "metadata.test:80"): "address",
        ("url", "http://metadata.test/latest/meta-data/"): "address",
        ("url", "http://169.254.169.254/latest/meta-data/"): "unlisted",
        ("tunnel", "[fd00:ec2::254]:80"): "unlisted",
        ("tunnel", "nowhere.test:80"): "unresolved",
    }
    policy = holding.policy(
        PYTHON,
        *("-I", "-S", "-c", TRY),
        network=(f"site.test:{port}", f"mixed.test:{port}", "metadata.test:80", "nowhere.test"),
    )
    process = await holding.sandbox.spawn(policy, stdin=json.dumps(list(attempts)).encode(), refused=refusals.append)
    said = b"".join([chunk async for _, chunk in process.output()])
    assert dict(zip(attempts, json.loads(said), strict=True)) == attempts
    assert site.hits == []
    assert (f"other.test:{port}", "unlisted") in {(one.host, one.code) for one in refusals}
    assert len([one for one in refusals if one.host == "metadata.test:80"]) == 1, "the same is told once"


async def test_no_way_but_the_proxy_leads_out(holding: World, site: Site) -> None:
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as ear:
        ear.bind(("127.0.0.1", 0))
        heard = ear.getsockname()[1]
        attempts = (
            ("tcp", "127.0.0.1", site.port),
            ("tcp", "127.0.0.2", site.port),
            ("fast_open", "127.0.0.1", site.port),
            ("tcp", "192.0.2.1", 80),
            ("udp", "127.0.0.1", heard),
            ("udp", "192.0.2.1", 53),
            ("look_up", "example.org"),
        )
        said = await tried(holding, *attempts, network=(f"127.0.0.1:{site.port}",))
        assert not {"done", "welcome"} & set(said)
        with pytest.raises(BlockingIOError):
            ear.recv(1, socket.MSG_DONTWAIT)
    assert site.hits == []


async def test_with_the_hosts_network_the_same_program_gets_out(confined_world: World, site: Site) -> None:
    said = await tried(
        confined_world, ("tcp", "127.0.0.1", site.port), ("url", f"http://127.0.0.1:{site.port}/"), network="host"
    )
    assert said == ["done", "welcome"]
    assert site.hits == ["/connected", "/"]


async def test_a_redirect_is_the_programs_own_to_follow_and_meets_the_list_again(holding: World, site: Site) -> None:
    network = (f"site.test:{site.port}", f"127.0.0.1:{site.port}")
    moved = f"http://site.test:{site.port}/move/"
    said = await tried(
        holding,
        ("url", f"{moved}http://site.test:{site.port}/there"),
        ("url", f"{moved}http://other.test:{site.port}/"),
        ("url", f"{moved}http://169.254.169.254/"),
        network=network,
    )
    assert said == ["welcome", "unlisted", "unlisted"]
    assert [path for path in site.hits if not path.startswith("/move/")] == ["/there"]


async def test_nobody_but_the_run_reaches_its_proxy_and_it_ends_with_the_run(holding: World, site: Site) -> None:
    network = (f"127.0.0.1:{site.port}",)
    hold = (
        "import socket, sys; one = socket.create_connection(('127.0.0.1', 3128)); print('in', flush=True); one.recv(1)"
    )
    process = await holding.start(PYTHON, "-I", "-S", "-c", hold, network=network)
    assert (await anext(process.output()))[1] == b"in\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outlet.HOST, outlet.PORT), 1)
    assert await tried(holding, ("tcp", "127.0.0.1", outlet.PORT)) != ["done"]
    before = len([task for task in asyncio.all_tasks() if not task.done()])
    await process.kill()
    await until(lambda: not _held_here(), within_s=5)
    assert len([task for task in asyncio.all_tasks() if not task.done()]) <= before


def _held_here() -> list[str]:
    """The sockets of this process that are bound to a proxy's address: all in networks of runs."""
    import os

    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            one = socket.socket(fileno=os.dup(int(number)))
        except OSError:
            continue
        with one:
            if one.family == socket.AF_INET and one.getsockname() == (outlet.HOST, outlet.PORT):
                found.append(number)
    return found


async def test_what_programs_say_to_themselves_does_not_go_through_the_proxy(holding: World) -> None:
    program = (
        "import os, socket; one = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(one.getsockname(), 5).close()\n"
        "print(os.environ['NO_PROXY'], os.environ['https_proxy'], os.environ['HTTP_PROXY'])"
    )
    outcome = await holding.python(program, network=("site.test",))
    assert outcome.stdout == b"localhost,127.0.0.1,::1 http://127.0.0.1:3128 http://127.0.0.1:3128\n"


async def test_a_loopback_address_that_is_listed_is_this_machines(holding: World, site: Site) -> None:
    said = await tried(
        holding, ("url", f"http://127.0.0.1:{site.port}/"), network=(f"127.0.0.1:{site.port}", f"[::1]:{site.port}")
    )
    assert said == ["welcome"]
    outcome = await holding.shell("echo $no_proxy", network=("127.0.0.1:80", "[::1]:80"))
    assert outcome.stdout == b"localhost\n"


async def test_a_sandbox_inside_is_held_to_the_list_too(holding: World, site: Site) -> None:
    if holding.sandbox.rung == "landlock":
        return  # no sandbox can be put inside of it: see `Policy.check_nest`
    said = await tried(
        holding,
        ("tcp", "127.0.0.1", site.port),
        ("tunnel", f"127.0.0.1:{site.port}"),
        network=(f"127.0.0.1:{site.port}",),
        nest=True,
    )
    assert said == ["ConnectionRefusedError", "welcome"]


async def test_the_probe_notices_a_network_that_is_not_the_runs_own(
    base: Path, broken: Callable[[str], Spawner]
) -> None:
    spawner = broken(
        "from alcove.sandbox import namespaces, kernel, outlet\n"
        "flags = namespaces.flags\n"
        "def shared(kind): return flags(kind) & (~kernel.CLONE_NEWNET if kind['network'] == 'proxy' else -1)\n"
        "namespaces.flags, outlet.raise_loopback = shared, lambda: None\n"
        # In the machine's network, where another test at the same time sees that nobody listens there.
        "outlet.PORT = 0\n"
    )
    first, *_ = await probe.probe(spawner, Berths(base, None))
    assert (first.rung, first.vector.network, first.vector.hosts) == ("userns", True, False)
    assert first.holes["hosts"] == ("connect by TCP", "talk by UDP")


@pytest.mark.parametrize("rung", sorted({"none", "landlock"} - {*HOLDING}))
async def test_a_rung_that_holds_no_list_refuses_the_run(opened: Callable[..., Any], rung: Rung) -> None:
    world: World = await opened(rung)
    with pytest.raises(GuaranteeError) as refused:
        await world.shell("true", network=("site.test",))
    assert refused.value.details["missing"] == "hosts"
    assert "another" in refused.value.remedy or "allow" in refused.value.remedy
    assert not world.sandbox.vector.hosts


async def test_a_program_whose_way_out_cannot_be_made_does_not_run(
    holding: World, broken: Callable[[str], Spawner]
) -> None:
    spawner = broken(
        "from alcove.sandbox import outlet\ndef fail(door): raise OSError(28, 'no room')\noutlet.hand_out = fail\n"
    )
    policy = holding.policy("/bin/sh", "-c", "touch ran", network=("site.test",))
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(LaunchError) as failed:
        await spawner.start(policy.plan(holding.sandbox.rung), b"", door=theirs.fileno())
    assert failed.value.details["step"] == "proxy"
    assert not (holding.base / "own" / "ran").exists()
