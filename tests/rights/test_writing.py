"""What people write becomes rights in one form, or an error that names the field."""

from __future__ import annotations

from typing import Any

import pytest

from alcove import limits
from alcove.errors import InvalidError, TooLargeError
from alcove.rights.writing import PARTS, bound, rights
from alcove.runs.grants import Asked, ask, freeze, thaw


def test_a_resource_without_operations_has_those_usual_for_its_type() -> None:
    found = rights(
        resources={
            "model": ["gpt"],
            "tool": ["search"],
            "knowledge_base": ["docs"],
            "skill": ["sing"],
            "file": ["f1"],
            "weather": ["rome"],
        }
    ).resources
    assert found == {
        "model": {"gpt": ("invoke", "rerank", "stream")},
        "tool": {"search": ("call", "detail")},
        "knowledge_base": {"docs": ("list", "retrieve")},
        "skill": {"sing": ("activate",)},
        "file": {"f1": ("read",)},
        "weather": {"rome": ("use",)},
    }


def test_every_list_has_one_order_and_aliases_one_name() -> None:
    one = rights(resources={"tool": {"a": ["b", "a", "b"]}}, read=["/b", "/a"], state=["actor", "conversation"])
    other = rights(resources={"tool": {"a": ["a", "b"]}}, read=["/a", "/b", "/a"], state=["session", "user"])
    assert one == other
    assert rights(network=[]).network == "none"
    assert rights(network=["B.org", "a.org", "b.org"]).network == ("a.org", "b.org")


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("resources.tool", {"resources": {"tool": ["*"]}}),
        ("resources.tool", {"resources": {"tool": {"a": ["*"]}}}),
        ("resources.tool", {"resources": {"tool": ["a\x00b"]}}),
        ("resources.tool", {"resources": {"tool": [""]}}),
        ("resources.tool", {"resources": {"tool": ["x" * (limits.ID_CHARS + 1)]}}),
        ("resources.tool", {"resources": {"tool": {"a": ["\ud800"]}}}),
        ("resources.tool", {"resources": {"tool": {"a": [str(i) for i in range(limits.GRANT_OPERATIONS + 1)]}}}),
        ("resources", {"resources": {"": ["a"]}}),
        *((f"resources.{part}", {"resources": {part: ["a"]}}) for part in sorted(PARTS)),
        ("storage", {"storage": ["disk"]}),
        ("state", {"state": ["world"]}),
        ("read", {"read": ["data"]}),
        ("read", {"read": ["/a/../b"]}),
        ("read", {"read": ["/a/"]}),
        ("read", {"read": ["//a"]}),
        ("write", {"write": ["/a\x00"]}),
        ("write", {"write": [f"/{i}" for i in range(limits.GRANT_PATHS + 1)]}),
        ("network", {"network": "all"}),
        ("network", {"network": ["http://x.org"]}),
        ("network", {"network": ["*"]}),
        ("caller", {"caller": "x" * 300}),
        ("labels", {"labels": {str(i): "" for i in range(limits.LABELS + 1)}}),
        ("labels.a", {"labels": {"a": "x" * (limits.LABEL_CHARS + 1)}}),
        ("context.a", {"context": {"a": "\ud800"}}),
    ],
)
def test_what_cannot_be_asked_for_is_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as refused:
        ask(**given)
    assert refused.value.field == field
    assert refused.value.remedy


def test_a_bound_may_say_any() -> None:
    assert bound(resources={"tool": ["*"]}).resources == {"tool": {"*": ("call", "detail")}}


def test_too_many_operations_are_too_large() -> None:
    with pytest.raises(TooLargeError):
        rights(resources={"tool": {"a": [str(i) for i in range(65)]}})


def test_what_was_handed_out_cannot_change_what_is_frozen() -> None:
    from alcove.runs.grants import Grant

    body, digest = freeze(Grant(agent="a", resources={"tool": {"x": ("call",)}}))
    thaw(body).resources["tool"]["y"] = ("call",)
    assert freeze(thaw(body)) == (body, digest)
    assert Asked().rights == rights()
