"""Whatever sequence of calls: the database and a dict say the same."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from alcove.database.opening import open_database
from alcove.testing.machine import SessionsMachine

EXAMPLES = {"memory": 60, "sqlite": 15, "postgresql": 8}


def _run(url: str, examples: int, steps: int) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(open_database(url))
        try:

            class Machine(SessionsMachine):
                def __init__(self) -> None:
                    super().__init__(runner, database)

            run_state_machine_as_test(
                Machine,
                settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None),
            )
        finally:
            runner.run(database.close())


def test_the_database_and_a_dict_say_the_same(database_url: str) -> None:
    _run(database_url, EXAMPLES[database_url.partition(":")[0]], 30)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_database_and_a_dict_say_the_same_for_long(database_url: str) -> None:
    _run(database_url, 20 * EXAMPLES[database_url.partition(":")[0]], 60)
