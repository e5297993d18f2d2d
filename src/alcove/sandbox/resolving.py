"""From a name to a connection: the addresses that this machine knows for it, and the first of them that answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import final

from alcove import limits
from alcove.rights.hosts import Host
from alcove.sandbox.destinations import RefusalError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name, for a port; raises OSError when there are none."""


@final
class Resolver:
    """Looks names up as this machine does, in threads of its own: a slow name server delays nobody else's files."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(limits.PROXY_LOOKUPS, thread_name_prefix="alcove-names")

    async def __call__(self, name: str, port: int) -> list[str]:
        """Return the addresses of a name.

        Raises:
            OSError: It has none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, name, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Take no more; look-ups that are under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str, port: int) -> list[str]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(address[0]) for *_, address in found]


async def connected(addresses: Sequence[str], asked: Host) -> socket.socket:
    """Return a socket to the first of the addresses that answers.

    Raises:
        RefusalError: `unreachable`.
    """
    loop = asyncio.get_running_loop()
    for address in addresses[: limits.PROXY_ADDRESSES]:
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        one.setblocking(False)
        try:
            async with asyncio.timeout(limits.PROXY_CONNECT_S / limits.PROXY_ADDRESSES):
                await loop.sock_connect(one, (address, asked.port))
        except (OSError, TimeoutError):
            one.close()
        except BaseException:
            one.close()
            raise
        else:
            return one
    raise RefusalError(502, "unreachable", f"{asked} does not answer", str(asked))
