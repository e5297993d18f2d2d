"""How a start comes along, and how it ends: told by the processes of a run, read by the spawner.

Runs in the warm spawner and its children: standard library only. Each step is noted in memory that the spawner shares
with its children, which takes no system call and wakes nobody; whatever happens to a process, its last step is there.
What the spawner has to hear at once, and what has words, goes through a pipe.
"""

from __future__ import annotations

import errno
import mmap
import os

_NAME = 16  # bytes of a step's name
_ENDED, _FORK = _NAME, _NAME + 2  # where a report says how the program ended, and where a fork's report begins
_SLOT = _FORK + _NAME
_SLOTS = 16384  # more than there can be processes to supervise
_EXITED, _SIGNALED = 1, 2


class Reports:
    """Where the reports of all runs are. Made by the spawner, before it has children."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SLOTS * _SLOT)
        self._free = list(range(0, _SLOTS * _SLOT, _SLOT))

    def open(self, pipe: int) -> Report:
        """Return a report that says nothing yet.

        Args:
            pipe: Where its words are written.

        Raises:
            OSError: There are too many.
        """
        if not self._free:
            raise OSError(errno.EAGAIN, "too many runs at once")
        place = self._free.pop()
        self._memory[place : place + _SLOT] = bytes(_SLOT)
        report = Report(self._memory, place, pipe)
        report.step("clone")
        return report

    def close(self, report: Report) -> None:
        """Let another have its place; nobody writes to it any more."""
        self._free.append(report.place)


class Report:
    """The report of one run.

    Attributes:
        place: Where it is in the memory.
        pipe: A descriptor for its words.
    """

    __slots__ = ("_memory", "pipe", "place")

    def __init__(self, memory: mmap.mmap, place: int, pipe: int) -> None:
        self._memory = memory
        self.place = place
        self.pipe = pipe

    def of_fork(self, pipe: int) -> Report:
        """Return the report of a process that takes steps beside this one's, and tells this one by a pipe."""
        return Report(self._memory, self.place + _FORK, pipe)

    def step(self, name: str) -> None:
        """Note which step is taken now."""
        self._memory[self.place : self.place + _NAME] = name.encode().ljust(_NAME, b"\0")

    @property
    def last(self) -> str:
        """The step that was taken last."""
        return self._memory[self.place : self.place + _NAME].rstrip(b"\0").decode()

    def say(self, line: bytes) -> None:
        """Write a line: `started`, or `failed ERRNO DETAIL`."""
        os.write(self.pipe, line)

    def fail(self, error: BaseException) -> None:
        """Write what went wrong in the step that was taken last."""
        number = error.errno if isinstance(error, OSError) else None
        named = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
        text = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
        said = f"failed {number or 0} {text}{named}".encode(errors="replace")
        self.say(said[:2000].replace(b"\n", b" ") + b"\n")

    def end(self, code: int) -> None:
        """Note how the program ended: an exit code, or a signal as its negative number."""
        how = _EXITED if code >= 0 else _SIGNALED
        self._memory[self.place + _ENDED : self.place + _FORK] = bytes((how, abs(code)))

    @property
    def ended(self) -> int | None:
        """How the program ended; None when nobody saw that."""
        how, number = self._memory[self.place + _ENDED : self.place + _FORK]
        return None if not how else number if how == _EXITED else -number
