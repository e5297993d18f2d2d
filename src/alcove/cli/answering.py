"""Asks whoever sits at the terminal what a run asks, while the run goes on."""

from __future__ import annotations

import asyncio
import sys
from typing import final

import click

from alcove.cli import output
from alcove.cli.installation import Hub
from alcove.errors import AlcoveError
from alcove.events.model import Event

_YES = frozenset({"y", "yes"})


@final
class Answering:
    """Puts one question after the other. The event loop reads the answers, so Ctrl-C is heard and nothing else waits.

    Args:
        hub: Takes the answers.
        run_id: Whose questions.
    """

    def __init__(self, hub: Hub, run_id: str) -> None:
        self._hub = hub
        self._run_id = run_id
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[str, asyncio.Task[None]] = {}  # that nobody has answered

    def hear(self, event: Event) -> None:
        """Ask what an event says that a run asks, or stop asking what it says that somebody answered elsewhere."""
        approval_id = str(event.data.get("approval_id"))
        if event.type == "approval.requested":
            task = self._open[approval_id] = asyncio.create_task(self._ask(approval_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif event.type == "approval.decided" and (task := self._open.pop(approval_id, None)):
            task.cancel()

    async def close(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, approval_id: str) -> None:
        async with self._turn:
            click.echo(f"approve {approval_id}? [y/N]: ", err=True, nl=False)
            try:
                approved = (await _line()).strip().lower() in _YES
            except asyncio.CancelledError:
                click.echo(err=True)
                raise
            # Answered: what happens now is heard as everything else that the run says.
            self._open.pop(approval_id, None)
            try:
                await (self._hub.runs.approve if approved else self._hub.runs.deny)(self._run_id, approval_id)
            except AlcoveError as error:
                output.complain(error.message, error.remedy)


async def _line() -> str:
    """Return the next line that is entered, `''` at the end of all."""
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    loop.add_reader(sys.stdin, entered.set)
    try:
        await entered.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()
