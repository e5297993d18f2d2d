from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from alcove import limits
from alcove.errors import InvalidError
from alcove.workspaces.base import Base
from alcove.workspaces.paths import check_path, decode
from alcove.workspaces.tree import Tree

NOT_PLAIN = [
    "",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    "../theirs/secret.txt",
    "a/../../theirs",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "../ours-evil/x",
]
OTHERS = [
    "a\0b",
    "\0",
    "lone \ud800",
    "lone \udc7f",
    "\udcc3\udca9",  # the bytes of 'é': a second spelling of one file
    "x" * 256,
    "x" * 300,
    "é" * 128,
    "a/" * 2048 + "a",
    "a/" * 50_000,
]


@pytest.mark.parametrize("path", NOT_PLAIN + OTHERS)
def test_what_is_not_a_plain_relative_path_is_refused_with_a_remedy(path: str):
    with pytest.raises(InvalidError) as caught:
        check_path(path)
    assert caught.value.field == "path"
    assert caught.value.remedy
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("path", NOT_PLAIN + OTHERS)
def test_every_door_refuses_them(tree: Tree, path: str):
    doors: list[Callable[[str], object]] = [
        tree.stat,
        tree.open_read,
        tree.read,
        tree.mkdir,
        tree.delete,
        lambda path: tree.write(path, b"x"),
    ]
    if path:
        doors.append(tree.list)
    for door in doors:
        with pytest.raises(InvalidError):
            door(path)


def test_a_name_of_300_characters_names_the_limit():
    with pytest.raises(InvalidError) as caught:
        check_path("x" * 300)
    assert caught.value.limit == limits.NAME_BYTES


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "...",
        "..a",
        ".hidden",
        "a b",
        "-rf",
        "a\nb",
        "\x1b[31m",
        "back\\slash",
        "C:\\x",
        "%2e%2e",
        "%2e%2e%2fsecret",
        "%252e%252e",
        "x" * 255,
        "é" * 127,
        "/".join(["x" * 255] * 15) + "/" + "x" * 254,
        "u\u0308 NFD",
        "ü NFC",
        "．．",  # noqa: RUF001 - full-width dots are no dots to Linux
        "․․/x",  # noqa: RUF001
        "\udcff\udc80",
    ],
)
def test_every_name_that_linux_allows_is_a_name_and_nothing_more(tree: Tree, path: str):
    tree.write(path, path.encode("utf-8", "surrogateescape"))
    assert tree.read(path) == path.encode("utf-8", "surrogateescape")
    assert [file.path for file in tree.list().files] == [path]
    tree.delete(path)


@given(st.binary(min_size=1, max_size=255).filter(lambda raw: not {0, 47} & set(raw) and raw not in {b".", b".."}))
def test_any_bytes_come_back_as_they_were(raw: bytes):
    assert check_path(decode(raw)) == raw


@given(st.text(st.characters(), max_size=300))
def test_what_passes_has_one_spelling_and_stays_below(path: str):
    try:
        raw = check_path(path)
    except InvalidError:
        return
    assert decode(raw) == path
    assert not {b"", b".", b".."} & set(raw.split(b"/"))


@pytest.mark.parametrize("session_id", ["../x", "a/b", ".", "..", ".alcove", "", "x" * 300, "a\0b", "．", "-x"])  # noqa: RUF001
def test_every_door_of_the_base_refuses_what_is_no_session_id(base: Base, session_id: str):
    doors: list[Callable[[str], object]] = [
        base.create,
        base.exists,
        base.tree,
        base.purge,
        lambda bad: base.trash(bad, "t"),
        lambda bad: base.trash("ours", bad),
        lambda bad: base.untrash(bad, "t"),
        lambda bad: base.untrash("ours", bad),
    ]
    for door in doors:
        with pytest.raises(InvalidError):
            door(session_id)
    assert base.exists("ours")
