"""Agents that are Python functions: trusted code in this process, registered in code and never by request."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Final, TypeAlias, cast, final

from alcove import limits
from alcove.agents.base import AgentContext, AgentInfo
from alcove.agents.transcript import Transcript
from alcove.errors import InvalidError
from alcove.rights.model import Rights

Answer: TypeAlias = str | AsyncIterator[str]
Function: TypeAlias = Callable[[AgentContext], Answer | Awaitable[Answer]]


@final
class FunctionAgent:
    """An agent that is a function of its context."""

    kind: Final = "function"

    def __init__(self, name: str, function: Function, *, description: str = "", declared: Rights | None = None) -> None:
        self.name = name
        self.description = description
        self.timeout_s = limits.RUN_TIMEOUT_S
        # The kernel holds nothing of a function: what is declared is what checks answer by.
        self.declared = declared or Rights(network="host")
        self._function = function

    async def answer(self, context: AgentContext) -> str:
        """Call the function and return its answer, head and tail of it past `limits.ANSWER_BYTES`.

        A plain function is called in a thread, so that a slow one does not stop the server; cancelling does not stop a
        thread, but what it emits afterwards is an error there. The pieces of an iterator are emitted as they come, and
        the next one is asked for when there is room for it.

        Raises:
            InvalidError: It returned, or yielded, something other than text.
        """
        # An async callable object hides behind its `__call__`.
        call = self._function if inspect.isroutine(self._function) else type(self._function).__call__
        if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
            answer = self._function(context)
        else:
            answer = await asyncio.to_thread(self._function, context)
        if inspect.isawaitable(answer):
            answer = await answer
        transcript = Transcript()
        if isinstance(answer, AsyncIterator):
            pieces = cast("AsyncIterator[str]", answer)
            async with _closing(pieces):
                async for piece in pieces:
                    context.emit(self._text(piece))
                    await context.drain()
                    transcript.feed("stdout", piece.encode(errors="replace"))
        else:
            transcript.feed("stdout", self._text(answer).encode(errors="replace"))
        kept = transcript.kept()
        return "\n".join(part for part in (kept.head, kept.note(), kept.tail) if part)

    def info(self) -> AgentInfo:
        """Return this agent as `doctor` and the API show it."""
        return AgentInfo(
            name=self.name, kind=self.kind, description=self.description, program="", network="host", available=True
        )

    def _text(self, value: object) -> str:
        if not isinstance(value, str):
            raise InvalidError(
                f"agent {self.name!r} answered {type(value).__name__}, not text",
                field="agent",
                remedy="return str, or an async iterator of str",
            )
        return value


def _closing(pieces: AsyncIterator[str]) -> AbstractAsyncContextManager[object]:
    """Let a generator clean up when the run is cancelled, and not at some later collection of garbage."""
    if isinstance(pieces, AsyncGenerator):
        return aclosing(cast("AsyncGenerator[str]", pieces))
    return nullcontext()
