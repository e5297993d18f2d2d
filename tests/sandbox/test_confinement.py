"""What a confined program is left with, and what it is given."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from alcove.sandbox.plan import Rung
from alcove.sandbox.spawner import Spawner
from alcove.sandbox.system import SYSTEM
from sandbox.conftest import ENV, PYTHON, PYTHON_FOLDERS, ROOT, UIDS, World, finish, line

STATUS = "import json; print(json.dumps(dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)))"
CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5).close(); print('reached')"


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of the machine that answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


async def status(world: World, **changes: Any) -> dict[str, str]:
    outcome = await world.python(STATUS, **changes)
    return {name: value.strip() for name, value in json.loads(outcome.stdout).items()}


async def test_a_confined_program_has_no_capability_and_can_get_none(confined_world: World) -> None:
    own = await status(confined_world)
    assert {int(own[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert own["NoNewPrivs"] == "1"
    assert own["Seccomp"] == "2"
    if ROOT or confined_world.view:
        assert int(own["CapBnd"], 16) == 0


async def test_without_confinement_these_flags_are_not_set(opened: Callable[..., Any]) -> None:
    own = await status(await opened("none"), uid=None)
    assert own["NoNewPrivs"] == "0"
    assert own["Seccomp"] == "0"
    assert int(own["CapBnd"], 16) != 0


async def test_a_program_runs_as_the_leased_uid_or_as_the_server(world: World) -> None:
    own = await status(world)
    uid, gid = (UIDS[0], UIDS[0]) if ROOT else (os.getuid(), os.getgid())
    assert own["Uid"].split() == [str(uid)] * 4
    assert own["Gid"].split() == [str(gid)] * 4
    if ROOT:
        assert own["Groups"] == ""


@pytest.mark.skipif(not ROOT, reason="an ordinary user cannot change its groups")
async def test_a_leased_uid_has_none_of_the_groups_of_the_server(opened: Callable[..., Any], rung: Rung) -> None:
    groups = os.getgroups()
    os.setgroups([1, 2, 3])
    try:
        assert (await status(await opened(rung)))["Groups"] == ""
    finally:
        os.setgroups(groups)


async def test_the_mask_of_the_server_does_not_reach_a_program(opened: Callable[..., Any], rung: Rung) -> None:
    before = os.umask(0o077)
    try:
        assert (await (await opened(rung)).shell("umask")).stdout == b"0022\n"
    finally:
        os.umask(before)


async def test_the_environment_is_exactly_what_the_policy_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SECRET", "of the server")
    wanted = {**ENV, "ODD": "a=b\n\N{SNOWMAN}", "EMPTY": ""}
    outcome = await world.run("/usr/bin/env", "-0", env=wanted)
    if world.sandbox.rung == "bwrap":
        wanted["PWD"] = world.session()  # says bubblewrap, and cannot be told not to
    assert dict(one.split("=", 1) for one in outcome.stdout.decode().split("\0") if one) == wanted


async def test_no_descriptor_of_the_server_reaches_a_program(world: World, base: Path) -> None:
    leaked = os.open(base, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    listing = (
        "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')))"
    )
    try:
        outcome = await world.python(listing)
        control = subprocess.run([sys.executable, "-c", listing], close_fds=False, stdout=subprocess.PIPE, check=True)
    finally:
        os.close(leaked)
    assert outcome.stdout == b"[0, 1, 2]\n"
    assert str(leaked) in control.stdout.decode()


async def test_a_program_is_alone_in_its_session_and_process_group(world: World) -> None:
    program = "import os; os.kill(0, 0); print(os.getpgid(0) == os.getsid(0) == (os.getpid() if {} else 1))"
    # On `bwrap` its leader is bubblewrap's own process 1.
    outcome = await world.python(program.format(world.sandbox.rung != "bwrap"))
    assert outcome.stdout == b"True\n"


async def test_signals_are_as_a_shell_would_leave_them(world: World) -> None:
    own = await status(world)
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25) and handles SIGINT (2). 32 and 33 are the C library's own:
    # whoever started the tests may have left them ignored, and no program can tell.
    library = 3 << 31
    assert int(own["SigBlk"], 16) == 0
    assert int(own["SigIgn"], 16) & ~library == 1 << 12 | 1 << 24
    said = (await world.shell("exec grep -E 'SigIgn|SigBlk' /proc/self/status")).stdout.split()[1::2]
    assert [int(mask, 16) & ~library for mask in said] == [0, 0]


@pytest.mark.skipif(not ROOT, reason="only root can make a setuid program that would give something")
async def test_a_setuid_program_gains_nothing(world: World, rung: Rung) -> None:
    folder = world.session()
    program = f"{folder}/id"
    shutil.copy("/usr/bin/id", program)
    os.chown(program, 0, 0)
    os.chmod(program, 0o4755)
    outcome = await world.run(program)
    assert (b"euid=0" in outcome.stdout) == (rung == "none"), "`none` is the control"


async def test_without_network_nothing_of_the_machine_is_reached(confined_world: World, listener: int) -> None:
    outcome = await confined_world.python(CONNECT, str(listener))
    assert outcome.stdout == b""
    assert outcome.exit.code == 1


async def test_with_the_hosts_network_the_machine_is_reached(world: World, listener: int) -> None:
    outcome = await world.python(CONNECT, str(listener), network="host")
    assert outcome.stdout == b"reached\n"


async def test_without_network_a_program_can_still_talk_to_itself(opened: Callable[..., Any]) -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname());"
        "c.send(b'x'); print(s.accept()[0].recv(1))"
    )
    outcome = await (await opened("userns")).python(program)
    assert outcome.stdout == b"b'x'\n"


async def test_a_program_writes_its_own_trees_and_nothing_else(confined_world: World) -> None:
    folder = confined_world.session()
    script = (
        "echo mine > here; mkdir -p a/b; mv here a/b/there; ln -s a link; cat link/b/there; chmod 755 a;"
        "for d in / /usr /etc /opt /proc /dev /var; do touch $d/planted && echo $d; done"
    )
    outcome = await confined_world.shell(script)
    assert outcome.stdout == b"mine\n"
    assert (Path(folder) / "a/b/there").read_text() == "mine\n"
    if ROOT:
        assert (Path(folder) / "a").stat().st_uid == UIDS[0]


async def test_read_grants_are_read_only(confined_world: World, base: Path) -> None:
    tools = base / "tools"
    tools.mkdir(mode=0o755)
    (tools / "tool").write_text("#!/bin/sh\necho it works\n")
    (tools / "tool").chmod(0o755)
    if ROOT:
        os.chown(tools, UIDS[0], UIDS[0])
        os.chown(tools / "tool", UIDS[0], UIDS[0])
    script = f"{tools}/tool; touch {tools}/planted; echo >> {tools}/tool; rm {tools}/tool"
    outcome = await confined_world.shell(script, read=(str(tools),))
    assert outcome.stdout == b"it works\n"
    assert [path.name for path in tools.iterdir()] == ["tool"]
    assert (await confined_world.shell(f"{tools}/tool")).stdout == b"", "the control: it is not there unless granted"


async def test_userns_shows_only_what_was_granted(opened: Callable[..., Any], base: Path) -> None:
    world: World = await opened("userns")
    folder = world.session()
    world.session("neighbour")
    program = (
        "import os; print(os.listdir(os.path.dirname(os.getcwd())), *sorted(os.listdir('/')),"
        "sorted(n for n in os.listdir('/proc') if n.isdigit()), os.listdir('/dev/shm'), os.uname().nodename)"
    )
    outcome = await world.python(program)
    top = {name.split("/")[1] for name in (*SYSTEM, *PYTHON_FOLDERS, folder) if os.path.exists(name)}
    names = sorted(top | {"dev", "etc", "proc", "run", "tmp", "var"})
    assert outcome.stdout.decode() == f"['own'] {' '.join(names)} ['1', '2'] [] alcove\n"


async def test_userns_gives_a_private_tmp_and_knows_its_user(opened: Callable[..., Any]) -> None:
    world: World = await opened("userns")
    first = await world.shell("id -un; echo ~; echo x > /tmp/mine; echo x > /dev/shm/mine; ls /tmp/mine /dev/shm/mine")
    expected = f"alcove\n{world.session()}\n/dev/shm/mine\n/tmp/mine\n"
    assert first.stdout.decode() == expected
    second = await world.shell("ls /tmp/mine /dev/shm/mine")
    assert second.stdout == b""


async def test_a_terminal_of_ones_own_works(opened: Callable[..., Any]) -> None:
    world: World = await opened("userns")
    program = "import os, pty; pty.spawn(['/bin/sh', '-c', 'tty; echo on it'])"
    outcome = await world.python(program)
    assert b"/dev/pts/0\r\non it\r\n" in outcome.stdout


async def test_limits_are_set(confined_world: World) -> None:
    program = "import resource as r; print([r.getrlimit(x) for x in (r.RLIMIT_CORE, r.RLIMIT_NOFILE, r.RLIMIT_FSIZE)])"
    outcome = await confined_world.python(program, open_files=123, file_bytes=1 << 20)
    assert outcome.stdout.decode() == f"[(0, 0), (123, 123), ({1 << 20}, {1 << 20})]\n"
    grown = await confined_world.shell("head -c 2000000 /dev/zero > big; stat -c %s big", file_bytes=1 << 20)
    assert grown.stdout == f"{1 << 20}\n".encode()


async def test_a_limit_above_the_servers_own_is_cut_to_it(confined_world: World) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcome = await confined_world.shell("ulimit -n", open_files=2**30)
    assert outcome.stdout.decode() == f"{min(hard, 2**30)}\n"


async def test_processes_are_limited_per_run(confined_world: World) -> None:
    program = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        if not os.fork(): time.sleep(600)\n"
        "        made += 1\n"
        "except OSError as error: print(made < 100)\n"
        "else: time.sleep(600)\n"
    )
    process = await confined_world.start(PYTHON, "-I", "-S", "-c", program, processes=20)
    outcome = await finish(process)
    if ROOT or confined_world.sandbox.rung == "userns":
        assert outcome.stdout == b"True\n"
    else:  # there the kernel counts all that this user runs, so the watch ends the run instead
        assert process.guard
        assert process.guard.excess
        assert process.guard.excess.name == "processes"


async def test_the_programs_of_a_tool_chain_work(confined_world: World) -> None:
    script = (
        "set -e; git init -q repo; cd repo; git config user.email a@b; git config user.name a; echo x > f; git add f;"
        f"git commit -qm one; git log --oneline | wc -l; {PYTHON} -c 'import json, ssl, sqlite3; print(1)'"
    )
    outcome = await confined_world.shell(script)
    assert outcome.stderr == b""
    assert outcome.stdout.split() == [b"1", b"1"]


async def test_a_32_bit_system_call_ends_the_program(opened: Callable[..., Any], confined: Rung) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only x86_64 has a second system call table")
    world: World = await opened(confined)
    # mov eax, 20 (getpid on i386); int 0x80; ret
    program = (
        "import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex('b814000000cd80c3'));"
        "f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m))); print(f() > 0)"
    )
    assert (await world.python(program)).exit.signal == 31
    control: World = await opened("none")
    assert (await control.python(program)).stdout in {b"True\n", b""}, "a kernel without 32-bit programs has none"


async def test_clone3_and_x32_are_absent(confined_world: World) -> None:
    program = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "for n in (435, 0x40000000 + 39): print(c.syscall(n, 0, 0), ctypes.get_errno())"
    )
    outcome = await confined_world.python(program)
    expected = 2 if os.uname().machine == "x86_64" else 1
    assert outcome.stdout.splitlines()[:expected] == [b"-1 38"] * expected


async def test_the_message_is_what_the_program_reads(world: World) -> None:
    text = os.urandom(1 << 20)
    outcome = await world.run("/bin/cat", stdin=text)
    assert outcome.stdout == text


async def test_a_program_that_never_reads_blocks_nobody(world: World) -> None:
    process = await world.start("/bin/sh", "-c", "echo up; exec sleep 600", stdin=b"x" * (1 << 20))
    assert await line(process) == b"up\n"
    await process.kill()


@pytest.mark.parametrize("abi", [1, 2, 3, 4, 5])
async def test_an_older_landlock_still_keeps_files_apart(
    confined_world: World, broken: Callable[[str], Spawner], abi: int
) -> None:
    secret = Path(confined_world.session("neighbour", UIDS[0]), "secret")
    secret.write_text("of the neighbour")
    secret.chmod(0o644)
    if ROOT:
        os.chown(secret, UIDS[0], UIDS[0])
    spawner = broken(f"from alcove.sandbox import landlock; landlock.abi = lambda: {abi}")
    script = f"echo mine > here; cat here; cat {secret}; echo x >> {secret}"
    policy = confined_world.policy("/bin/sh", "-c", script)
    outcome = await finish(await spawner.start(policy.plan(confined_world.sandbox.rung), b""))
    assert outcome.stdout == b"mine\n"
    assert secret.read_text() == "of the neighbour"


@pytest.mark.skipif(not ROOT, reason="about programs that run as root")
async def test_a_program_that_runs_as_root_has_no_power_over_the_machine(opened: Callable[..., Any]) -> None:
    world: World = await opened("userns", uids=False)
    folder = world.session("own", 0)
    os.chown(folder, 0, 0)
    program = (
        "import os\n"
        "for p in ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/usr/bin/env', '/etc/passwd', '/'):\n"
        "    assert not os.access(p, os.W_OK), p\n"
        "print(os.getuid())"
    )
    outcome = await world.python(program, uid=None)
    assert (outcome.stdout, outcome.stderr) == (b"0\n", b"")
