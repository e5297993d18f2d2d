"""The system-call filter as a program: run here by a small BPF machine, for both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from alcove.sandbox import kernel, seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
X86, ARM = kernel.ARCHITECTURES["x86_64"], kernel.ARCHITECTURES["aarch64"]


def run(program: bytes, number: int, *arguments: int, architecture: int = X86) -> int:
    """Interpret the program as the kernel would."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(word & 2**64 - 1 for word in words))
    at, accumulator = 0, 0
    while True:
        code, true, false, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += true if holds else false


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The filter of each architecture, whichever this machine has."""
    monkeypatch.setattr(kernel, "MACHINE", request.param)
    monkeypatch.setattr(kernel, "NUMBERS", kernel._numbers())
    return kernel.ARCHITECTURES[request.param]


@pytest.mark.parametrize("sockets", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_every_call_gets_the_answer_that_is_meant_for_it(machine: int, sockets: bool, shared: bool) -> None:
    program = seccomp.build(sockets=sockets, shared=shared)
    denied = {*seccomp._DENIED.split(), *(seccomp._IPC.split() if shared else ())}
    special = {"clone", "clone3", "unshare", "ioctl", "socket"}
    special |= {*seccomp._AIMED.split(), "setpriority", "ioprio_set", "kill"} if shared else set()
    numbers = kernel.NUMBERS
    expected = {numbers[name]: EPERM for name in denied if name in numbers} | {numbers["clone3"]: ENOSYS}
    apart = {numbers[name] for name in special - {"clone3"}}
    for number in range(600):
        if number not in apart:
            assert run(program, number, architecture=machine) == expected.get(number, ALLOW), number


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("clone", (17,), ALLOW),
        ("clone", (0x3D0F00,), ALLOW),  # a thread
        *(("clone", (1 << bit | 17,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
        ("unshare", (0x400,), ALLOW),
        ("unshare", (0x80,), EPERM),
        ("unshare", (0x10000000,), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x5412 | 1 << 32), EPERM),  # the kernel drops the upper half
        ("ioctl", (0, 0x541C), EPERM),
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (1, 7), EPERM),
        ("sched_setaffinity", (4000,), EPERM),
        ("setpriority", (0, 0), ALLOW),
        ("setpriority", (0, 1), EPERM),
        ("setpriority", (2, 0), EPERM),
        ("ioprio_set", (1, 0), ALLOW),
        ("ioprio_set", (1, 9), EPERM),
        ("kill", (1, 9), ALLOW),
        ("kill", (-1, 9), EPERM),
        ("socket", (1, 1, 0), ALLOW),
        ("socket", (2, 1, 0), EPERM),
        ("socket", (16, 3, 0), EPERM),
    ],
)
def test_arguments_decide(machine: int, name: str, arguments: tuple[int, ...], answer: int) -> None:
    program = seccomp.build(sockets=False, shared=True)
    assert run(program, kernel.NUMBERS[name], *arguments, architecture=machine) == answer


@pytest.mark.parametrize(("family", "protocol"), [(1, 0), (2, 0), (10, 0), (16, 0)])
def test_with_sockets_the_usual_families_may_be_made(machine: int, family: int, protocol: int) -> None:
    program = seccomp.build(sockets=True, shared=False)
    assert run(program, kernel.NUMBERS["socket"], family, 1, protocol, architecture=machine) == ALLOW


@pytest.mark.parametrize("family", [0, 3, 4, 17, 29, 31, 38, 40, 44])
def test_with_sockets_no_other_family_may_be_made(machine: int, family: int) -> None:
    program = seccomp.build(sockets=True, shared=False)
    number = kernel.NUMBERS["socket"]
    assert run(program, number, family, 3, 0, architecture=machine) == EPERM
    assert run(program, number, 16, 3, 15, architecture=machine) == EPERM, "netlink, but not of routes"


def test_another_architecture_is_killed_and_x32_is_absent(machine: int) -> None:
    program = seccomp.build(sockets=True, shared=False)
    for other in {X86, ARM, 0x40000003, 0x40000028} - {machine}:
        assert run(program, 1, architecture=other) == KILL
    if machine == X86:
        assert run(program, 0x40000001) == ENOSYS


def test_a_machine_that_we_have_no_filter_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MACHINE", "riscv64")
    with pytest.raises(OSError, match="riscv64"):
        seccomp.build(sockets=True, shared=True)
