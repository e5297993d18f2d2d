"""Reads for which a thread waits, where the database does not answer."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.database.postgres_looks import Connection, Looks
from alcove.errors import DatabaseBusyError


def _now(now: Micros) -> Steps[Micros]:
    yield Statement("SELECT 1")
    return now


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOOK_S", 0.05)
    answering = threading.Event()

    class Fake:
        broken = False

        def close(self) -> None:
            return None

    def connect() -> Connection:
        answering.wait(30)
        return cast("Connection", Fake())

    def transact(_: Connection, begun: Any) -> Micros:
        steps = begun(7)
        next(steps)
        try:
            steps.send([])
        except StopIteration as end:
            return end.value
        raise AssertionError

    looks = Looks(connect, transact)
    with pytest.raises(DatabaseBusyError) as refused:
        looks.look(_now)
    assert refused.value.retryable
    answering.set()
    monkeypatch.setattr(limits, "LOOK_S", 30)
    assert looks.look(_now) == 7
    looks.close()
