"""How the processes of a run get what they are given: a plan and descriptors, by a Unix socket.

Runs in the warm spawner and its children: standard library only, and of that only what is small.
"""

from __future__ import annotations

import marshal
import os
import struct

from alcove.sandbox.bare import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alcove.sandbox.plan import Plan, Rung

HIDDEN: tuple[Rung, ...] = ("userns", "bwrap")
"""Where a program cannot end the process above it, which is the first of its pid namespace or outside of that: so that
one can be as confined as the program, and start it."""

GIVEN = 4
"""Descriptors that every run gets: its plan and the standard ones. A proxied run gets a Unix socket too."""
DESCRIPTORS = GIVEN + 1 + 4
"""That come with an order at most: those, and one for each hierarchy of its control group."""


def read_plan(descriptor: int) -> Plan:
    """Read the plan in a memory file from its beginning; several processes may, one after the other."""
    size = os.fstat(descriptor).st_size
    return marshal.loads(os.pread(descriptor, size, 0))


def send(channel: socket.socket, message: bytes, descriptors: list[int]) -> None:
    """Send a message with descriptors, as `socket.send_fds` does, which `bare` has not."""
    channel.sendmsg(
        [message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
    )


def receive(channel: socket.socket, least: int) -> list[int]:
    """Return the descriptors that come with a run, the plan's first; none when it is not to be."""
    _, descriptors = take(channel, 1, GIVEN + 1)
    return descriptors if len(descriptors) >= least else []


def take(channel: socket.socket, most_bytes: int, most: int) -> tuple[bytes, list[int]]:
    """Return a message, `b""` at the end, and the descriptors that came with it, at most so many."""
    message, rest, _, _ = channel.recvmsg(most_bytes, socket.CMSG_SPACE(4 * most), socket.MSG_CMSG_CLOEXEC)
    return message, [one for *_, data in rest for (one,) in struct.iter_unpack("i", data)]


def keep_only(*descriptors: int) -> None:
    """Close every descriptor of this process except these."""
    low = 0
    for one in sorted(descriptors):
        if low < one:
            os.closerange(low, one)
        low = one + 1
    os.closerange(low, 2**31 - 1)
