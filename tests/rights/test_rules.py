"""No right comes out that did not go in: what is left within bounds, whatever they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from alcove.errors import InvalidError
from alcove.rights.model import NOTHING, Rights, read_rights, written
from alcove.rights.rules import bounded, complete, covers, cut, reaches, removed, touches_sandbox
from alcove.rights.writing import bound, rights, within

IDS = st.sampled_from(["a", "b", "c", "d"])
OPERATIONS = st.lists(
    st.sampled_from(["call", "call?", "detail", "detail?", "invoke"]), min_size=1, max_size=3, unique=True
)
PATHS = st.lists(st.sampled_from(["/a", "/a/b", "/a/b/c", "/a/bc", "/d", "/d/e", "/"]), max_size=4, unique=True)
HOSTS = st.lists(st.sampled_from(["x.org", "x.org:443", "y.org", "y.org:1"]), max_size=3, unique=True)
NETWORK = st.sampled_from(["none", "host"]) | HOSTS
KINDS = st.sampled_from(["tool", "model", "weather"])
SCOPES = st.lists(st.sampled_from(["session", "user", "agent", "run"]), max_size=4, unique=True)
STORAGE = st.lists(st.sampled_from(["plugin", "workspace"]), max_size=2, unique=True)


def parts(*, ids: st.SearchStrategy[str], operations: st.SearchStrategy[list[str]]) -> dict[str, Any]:
    return {
        "resources": st.dictionaries(KINDS, st.dictionaries(ids, operations, max_size=4), max_size=3),
        "storage": STORAGE,
        "read": PATHS,
        "write": PATHS,
        "network": NETWORK,
        "state": SCOPES,
    }


ASKED = st.fixed_dictionaries({}, optional=parts(ids=IDS, operations=OPERATIONS)).map(lambda d: rights(**d))
BOUNDS = st.fixed_dictionaries(
    {}, optional=parts(ids=IDS | st.just("*"), operations=OPERATIONS | st.just(["*"]) | st.just(["*?"]))
).map(lambda d: bound(**d))
FULL = st.tuples(ASKED, BOUNDS).map(lambda pair: complete(*pair))
few = settings(max_examples=40)


@few
@given(FULL, BOUNDS)
def test_what_is_left_is_within_the_bound_and_within_what_was_asked(asked: Rights, limit: Rights) -> None:
    left = cut(asked, limit)
    assert covers(limit, left)
    assert covers(asked, left)
    assert cut(left, limit) == left


@few
@given(FULL, st.lists(BOUNDS, max_size=4))
def test_a_child_never_holds_more_than_its_parent(asked: Rights, bounds: list[Rights]) -> None:
    parent, _ = bounded(asked, [("agent", one) for one in bounds])
    for wanted in (asked, complete(Rights(), asked), cut(asked, NOTHING)):
        child, _ = bounded(wanted, [("parent", parent)])
        assert covers(parent, child)
        assert not list(removed(child, cut(child, parent)))


@few
@given(FULL, BOUNDS, BOUNDS)
def test_the_order_of_bounds_does_not_matter_for_what_is_allowed(asked: Rights, one: Rights, other: Rights) -> None:
    assert covers(one, cut(cut(asked, one), other))
    assert covers(other, cut(cut(asked, one), other))
    assert covers(one, cut(cut(asked, other), one))


@few
@given(FULL, BOUNDS)
def test_what_was_cut_off_is_told_and_nothing_else(asked: Rights, limit: Rights) -> None:
    left, cuts = bounded(asked, [("agent", limit)])
    assert bool(cuts) == (left != asked)
    for told in cuts:
        assert told.count >= len(told.first) > 0


@few
@given(FULL)
def test_rights_come_back_as_they_were_written(given_: Rights) -> None:
    assert read_rights(written(given_)) == given_


@few
@given(FULL)
def test_nothing_covers_nothing_only(given_: Rights) -> None:
    assert covers(NOTHING, cut(given_, NOTHING))
    assert cut(given_, NOTHING) == NOTHING
    assert covers(given_, given_)


def test_a_part_that_nobody_asked_for_is_as_much_as_is_declared_and_a_star_grants_nothing() -> None:
    declared = bound(
        resources={"tool": {"search": ["call"], "*": ["detail"]}, "model": ["*"]}, read=["/data"], network="host"
    )
    found = complete(Rights(), declared)
    assert found.resources == {"tool": {"search": ("call",)}}
    assert (found.read, found.network, found.state) == (("/data",), "host", ("session", "user"))
    assert complete(rights(network="none", state=[]), declared).network == "none"


def test_a_star_bounds_any_id_or_any_operation() -> None:
    asked = rights(resources={"tool": {"a": ["call", "drop"], "b": ["detail"]}, "model": ["gpt"]})
    limit = bound(resources={"tool": {"*": ["call"], "b": ["*"]}})
    assert cut(asked, limit).resources == {"tool": {"a": ("call",), "b": ("detail",)}}


def test_of_a_path_and_one_below_it_the_lower_one_is_left() -> None:
    asked = complete(rights(read=["/a", "/b/c"]), Rights())
    assert cut(asked, bound(read=["/a/x", "/b"])).read == ("/a/x", "/b/c")
    assert cut(asked, bound(read=[], write=["/a"])).read == ("/a",), "what may be written may be read"
    assert cut(asked, bound(read=["/ab", "/b/cd"])).read == (), "a name that begins the same is another one"


@pytest.mark.parametrize("path", ["/a/../b", "/a/", "a", "", "/a//b", "/a/./b", "//a", "/ab", "/b", "/a\x00/../b/.."])
def test_a_path_that_is_not_plain_or_only_begins_the_same_is_not_within(path: str) -> None:
    assert within("/a/b", ("/a",))
    assert within("/a", ("/a",))
    assert not within(path, ("/a",))


@pytest.mark.parametrize(
    ("network", "host", "expected"),
    [
        ("none", "x.org", False),
        ("host", "x.org", True),
        ("host", "not a host", False),
        (("x.org",), "x.org", True),
        (("x.org",), "X.org:443", True),
        (("x.org:443",), "x.org:443", True),
        (("x.org:443",), "x.org", False),
        (("x.org:443",), "x.org:80", False),
        (("x.org",), "evil-x.org", False),
        (("x.org",), "x.org.evil.org", False),
        (("x.org",), "x.org:443:1", False),
    ],
)
def test_a_host_is_reached_when_it_is_listed(network: str | tuple[str, ...], host: str, expected: bool) -> None:
    assert reaches(network, host) is expected


def test_files_and_network_are_what_the_kernel_was_told() -> None:
    full = rights(resources={"tool": ["a"]}, read=["/a"], network="host", storage=["plugin"], state=["user"])
    full = complete(full, Rights())
    assert not touches_sandbox(full, cut(full, bound(resources={}, storage=[], state=[])))
    assert touches_sandbox(full, cut(full, bound(read=[])))
    assert touches_sandbox(full, cut(full, bound(network="none")))


@pytest.mark.parametrize(
    ("asked", "limit", "left"),
    [
        (["call"], {"rm": ["call?"]}, ["call?"]),
        (["call?"], {"rm": ["call"]}, ["call?"]),
        (["call?"], {"rm": ["call?"]}, ["call?"]),
        (["call", "detail"], {"rm": ["*?"]}, ["call?", "detail?"]),
        (["call", "detail"], {"rm": ["call?"], "*": ["*"]}, ["call?", "detail"]),
        (["call"], {"rm": ["call"], "*": ["call?"]}, ["call?"]),
        (["call", "call?"], {"rm": ["*"]}, ["call?"]),
        (["call?"], {"rm": ["detail"]}, None),
        (["call2", "call"], {"rm": ["call?", "call2"]}, ["call2", "call?"]),
    ],
)
def test_what_asks_on_one_side_asks_from_then_on(asked: list[str], limit: Any, left: list[str] | None) -> None:
    found = cut(complete(rights(resources={"tool": {"rm": asked}}), Rights()), bound(resources={"tool": limit}))
    assert found.resources == ({"tool": {"rm": tuple(left)}} if left else {})


@pytest.mark.parametrize("wrong", ["?", "call??", "*?"])
def test_a_mark_without_an_operation_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidError):
        rights(resources={"tool": {"rm": [wrong]}})


def test_nobody_is_granted_everything_because_an_agent_declares_a_bound_that_asks() -> None:
    declared = bound(resources={"tool": {"rm": ["*?"], "*": ["call?"], "ls": ["call?"]}})
    assert complete(Rights(), declared).resources == {"tool": {"ls": ("call?",)}}
