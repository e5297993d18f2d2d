"""The tree of errors: what its docstring draws, and what programs rely on."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import pytest

from alcove import errors
from alcove.errors import AlcoveError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AlcoveError)]


def test_the_docstring_draws_exactly_the_classes() -> None:
    drawn: list[tuple[str, str]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        names = [(found.start() // 4, found[0]) for found in re.finditer(r"\b[A-Z]\w*Error\b", line)]
        if names and line.lstrip("│├└─ ").startswith(names[0][1]):
            depth = names[0][0]
            above[depth:] = [names[0][1]]
            drawn += [(name, above[depth - 1] if depth else "Exception") for _, name in names]
    assert sorted(drawn) == sorted((kind.__name__, kind.__bases__[0].__name__) for kind in ALL)


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [vars(kind).get("code") for kind in ALL]
    assert None not in codes
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", ALL)
def test_an_error_without_a_message_says_its_docstring(kind: type[AlcoveError]) -> None:
    assert kind.__doc__
    assert str(kind()) == kind.__doc__.strip().splitlines()[0]


def _pickled(error: AlcoveError) -> AlcoveError:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("through", [_pickled, copy.copy, copy.deepcopy])
def test_an_error_survives_a_copy(kind: type[AlcoveError], through: Callable[[AlcoveError], AlcoveError]) -> None:
    error = kind("it broke", field="title", limit=3, remedy="shorten it", session_id="s1")
    again = through(error)
    assert type(again) is kind
    assert (str(again), vars(again)) == (str(error), vars(error))
