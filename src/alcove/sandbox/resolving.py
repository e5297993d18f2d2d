"""From a name to a connection: the addresses that this machine knows for it, and the first of them that answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import final

from alcove import limits
from alcove.rights.hosts import Host
from alcove.sandbox.destinations import RefusalError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name, for a port; raises OSError when there are none."""


@final
class Resolver:
    """Looks names up as this machine does, so many at once, in threads that delay neither others' files nor the end."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(limits.PROXY_LOOKUPS)

    async def __call__(self, name: str, port: int) -> list[str]:
        """Return the addresses of a name.

        A look-up cannot be broken off: one whose caller has gone keeps its place until it ends.

        Raises:
            OSError: It has none.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def answer(addresses: list[str], error: OSError | None) -> None:
            self._room.release()
            if not found.done():
                found.set_exception(error) if error else found.set_result(addresses)

        def work() -> None:
            addresses, failure = _look_up(name, port)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(answer, addresses, failure)

        await self._room.acquire()
        try:
            threading.Thread(target=work, name="alcove-name", daemon=True).start()
        except RuntimeError as error:  # no more threads are to be had
            self._room.release()
            raise OSError(str(error)) from error
        return await found


def _look_up(name: str, port: int) -> tuple[list[str], OSError | None]:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except OSError as error:
        return [], error
    except UnicodeError as error:  # no name that could be asked for
        return [], OSError(str(error))
    return list(dict.fromkeys(str(address[0]) for *_, address in found)), None


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
