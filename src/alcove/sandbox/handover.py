"""How the processes of a run get what they are given: a plan and descriptors, by a Unix socket.

Runs in the warm spawner and its children: standard library only, and of that only what is small.
"""

from __future__ import annotations

import json
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alcove.sandbox.plan import Plan, Rung

HIDDEN: tuple[Rung, ...] = ("userns", "bwrap")
"""On which a program sees no process of ours but, as the first of its own namespace, what it cannot end: so that one
can be confined as the program is, and start it as its child."""

DESCRIPTORS = 4 + 4 + 1
"""That come with a run at most: plan and standard ones, one for each hierarchy of its control group, its proxy's."""


def read_plan(descriptor: int) -> Plan:
    """Read the plan in a memory file from its beginning; several processes may, one after the other."""
    size = os.fstat(descriptor).st_size
    return json.loads(os.pread(descriptor, size, 0))


def receive(channel: socket.socket, least: int) -> list[int]:
    """Return the descriptors that come with a run, the plan's first; none when it is not to be."""
    # Not `socket.recv_fds`, which lets them through to whatever is started next.
    _, messages, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4 * DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
    descriptors = [one for *_, data in messages for (one,) in struct.iter_unpack("i", data)]
    return descriptors if len(descriptors) >= least else []


def keep_only(*descriptors: int) -> None:
    """Close every descriptor of this process except these."""
    low = 0
    for one in sorted(descriptors):
        if low < one:
            os.closerange(low, one)
        low = one + 1
    os.closerange(low, 2**31 - 1)
