"""The way out of a run whose network is its own: a listening socket made inside it, and handed to the server.

Runs in the warm spawner and its children: standard library only. The server accepts on that socket directly, so nothing
of ours has to run inside, and who connects to it can only be the run: nobody else is in its network. It is there before
the program is, and gone when the server closes it.
"""

from __future__ import annotations

import os
import struct

from alcove.sandbox import kernel
from alcove.sandbox.bare import socket
from alcove.sandbox.handover import send

HOST, PORT = "127.0.0.1", 3128
"""Where every run finds its proxy: the network is its own, so the port is always free."""

_NS_GET_USERNS = 0xB701
_IP_FREEBIND = 15
_BACKLOG = 128


def environment(listed: frozenset[str]) -> dict[str, str]:
    """Return the variables by which programs find the proxy.

    What a program asks of itself, by its own loopback, does not go through it; unless that name is listed, which then
    stands for this machine's.
    """
    names = ("http_proxy", "https_proxy", "all_proxy")
    found = {word: f"http://{HOST}:{PORT}" for name in names for word in (name, name.upper())}
    own = ",".join(name.strip("[]") for name in ("localhost", "127.0.0.1", "[::1]") if name not in listed)
    return {**found, "no_proxy": own, "NO_PROXY": own, "NODE_USE_ENV_PROXY": "1"}


def raise_loopback() -> None:
    """Bring up the loopback of this process's network, which nobody else is in yet."""
    one = socket.socket()
    kernel.call("ioctl", one.fileno(), 0x8914, struct.pack("16sH14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
    one.close()


def hand_out(door: int) -> None:
    """Listen in this process's network, and send the socket through a Unix socket."""
    listener, way = socket.socket(), socket.socket(fileno=os.dup(door))
    try:
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # the loopback may not be up yet
        listener.bind((HOST, PORT))
        listener.listen(_BACKLOG)
        send(way, b".", [listener.fileno()])
    finally:
        listener.close()
        way.close()


def hand_out_of(pid: int, door: int) -> None:
    """Do the same in the network of another process, which this one's user made.

    Raises:
        OSError: Its network cannot be entered.
    """
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    owner = kernel.call("ioctl", network, _NS_GET_USERNS)
    try:
        helper = os.fork()
        if not helper:
            code = 255
            try:
                kernel.call("setns", owner, kernel.CLONE_NEWUSER)
                kernel.call("setns", network, kernel.CLONE_NEWNET)
                hand_out(door)
                code = 0
            except OSError as error:
                code = error.errno or 255
            finally:
                os._exit(code)
    finally:
        os.close(network)
        os.close(owner)
    code = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if code:
        raise OSError(max(code, 0), f"the network of the run cannot be entered: {os.strerror(max(code, 0))}")
