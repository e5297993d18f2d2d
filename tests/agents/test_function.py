from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest

from alcove import limits
from alcove.agents.base import AgentContext, Line
from alcove.agents.function import Function, FunctionAgent
from alcove.errors import InvalidError


async def answer(function: Function, message: str = "hi") -> tuple[str, list[str]]:
    emitted: list[str] = []

    async def history(rounds: int) -> Sequence[Line]:
        return [Line("user", f"last {rounds}")]

    async def drain() -> None:
        return None

    context = AgentContext(
        session_id="s", run_id="r", message=message, workspace="/w", history=history, emit=emitted.append, drain=drain
    )
    return await FunctionAgent("it", function).answer(context), emitted


async def coroutine(context: AgentContext) -> str:
    (line,) = await context.history(2)
    return f"{context.message} {line.text}"


async def pieces(context: AgentContext) -> AsyncIterator[str]:
    for word in (context.message, " ", "you"):
        yield word


async def deferred_pieces(context: AgentContext) -> AsyncIterator[str]:
    return pieces(context)


def plain(context: AgentContext) -> str:
    return context.message.upper()


def deferred(context: AgentContext) -> Awaitable[str]:
    return coroutine(context)


class Caller:
    async def __call__(self, context: AgentContext) -> str:
        return f"{context.message} from {threading.current_thread().name}"


@pytest.mark.parametrize(
    ("function", "expected", "streamed"),
    [
        (plain, "HI", []),
        (deferred, "hi last 2", []),
        (coroutine, "hi last 2", []),
        (pieces, "hi you", ["hi", " ", "you"]),
        (deferred_pieces, "hi you", ["hi", " ", "you"]),
        (Caller(), "hi from MainThread", []),
    ],
)
async def test_a_function_may_answer_in_each_form(function: Function, expected: str, streamed: list[str]) -> None:
    assert await answer(function) == (expected, streamed)


async def test_a_slow_plain_function_does_not_stop_the_loop() -> None:
    released = threading.Event()

    def slow(context: AgentContext) -> str:
        context.emit("waiting")
        assert released.wait(20)
        return "done"

    task = asyncio.create_task(answer(slow))
    await asyncio.sleep(0)
    released.set()
    assert await task == ("done", ["waiting"])


@pytest.mark.parametrize("value", [None, 1, b"bytes", ["list"]])
async def test_what_is_not_text_is_refused(value: object) -> None:
    def wrong(_: AgentContext) -> str:
        return value  # pyright: ignore[reportReturnType]

    async def wrong_piece(_: AgentContext) -> AsyncIterator[str]:
        yield value  # pyright: ignore[reportReturnType]

    for function in (wrong, wrong_piece):
        with pytest.raises(InvalidError, match="not text"):
            await answer(function)


async def test_what_a_function_raises_passes_and_its_generator_is_closed() -> None:
    closed: list[bool] = []

    async def broken(_: AgentContext) -> AsyncIterator[str]:
        try:
            yield "x"
            yield 1  # pyright: ignore[reportReturnType]
        finally:
            closed.append(True)

    with pytest.raises(InvalidError):
        await answer(broken)
    assert closed == [True]

    def fails(_: AgentContext) -> str:
        raise LookupError("theirs")

    with pytest.raises(LookupError, match="theirs"):
        await answer(fails)


async def test_an_endless_answer_is_kept_in_bounds() -> None:
    async def long(_: AgentContext) -> AsyncIterator[str]:
        for _number in range(40):
            yield "é\ud800" * (limits.ANSWER_BYTES // 40)

    text, _ = await answer(long)
    assert len(text.encode()) <= limits.ANSWER_BYTES
    assert "left out" in text
