"""What passes through a proxy: two ends, each with its connection, neither faster than the other takes it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, cast

from alcove import limits

_NOTHING: Final = asyncio.Transport()


class Side(asyncio.Protocol):
    """One end of what passes through: what comes here goes to the other side, no faster than that takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport = _NOTHING
        self.other: Side | None = None
        self.heard_at = 0.0
        self.ended = False  # nothing more comes from this side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(limits.PROXY_BUFFER_BYTES)

    def pass_on(self, data: bytes) -> None:
        """Send to this side."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def pause_writing(self) -> None:
        """Hear no more of the other side: this one is slower."""
        if self.other is not None:
            with contextlib.suppress(RuntimeError):
                self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Hear the other side again."""
        if self.other is not None:
            with contextlib.suppress(RuntimeError):
                self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        """Say to the other side that nothing more comes; what it still says is passed on."""
        self.ended = True
        if self.other is None:
            return False
        if self.other.ended:
            self.transport.close()
            self.other.transport.close()
        elif not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side too, when it has been sent everything; at once when this one broke."""
        if self.other is not None:
            self.other.transport.abort() if exc else self.other.transport.close()


class Server(Side):
    """The end towards a host."""

    def __init__(self, *, tunnel: bool) -> None:
        super().__init__()
        self._tunnel = tunnel

    def eof_received(self) -> bool:
        """End the run's side too; that of a tunnel may still have something to say."""
        return super().eof_received() if self._tunnel else False

    def data_received(self, data: bytes) -> None:
        """Pass it on to the run."""
        assert self.other is not None
        self.heard_at = asyncio.get_running_loop().time()
        self.other.pass_on(data)
