"""`signal` and `socket` without their wrappers, for the warm spawner and what is forked from it.

The modules of those names turn numbers into enums and load regular expressions, selectors and more: time and memory
that every start would pay for, as each copies the spawner.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
else:
    import _signal as signal
    import _socket as socket

__all__ = ["signal", "socket"]
