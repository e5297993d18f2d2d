"""What messages are made of: parts, and the large ones that are kept as objects. Plain functions.

A part is an object with a `type`. Those that Alcove knows:

    text         text
    image        data (base64) or url, media_type
    audio, file  the same, and name
    tool_call    id, name, arguments (JSON)
    tool_result  tool_call_id, content (text or parts), is_error
    reasoning    text, signature or encrypted: what a provider wants back
    data         value: any JSON, for programs

Any other type is kept, and passed through as it came.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from alcove import limits
from alcove.errors import InvalidError
from alcove.values import Json

Part: TypeAlias = dict[str, Json]
Content: TypeAlias = "str | list[Part]"
Path: TypeAlias = list[str | int]

TEXT: Final = 0
PARTS: Final = 1
PACKED: Final = 2
"""Formats of a stored content: text; JSON list of parts; JSON of `Packed`."""

MEDIA: Final = frozenset({"image", "audio", "file"})
_DATA_URL = re.compile(r"data:([^,;]{0,200})[^,]{0,200};base64,")
_LEAF_CHARS: Final = 4 * limits.KIB  # of a part that is too large: shorter texts of it stay in the row
_PLAIN: Final = frozenset({"text", "arguments", "content"})  # never bytes in disguise
_encode = msgspec.json.Encoder().encode


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where something was taken out of a content, and the object that it is now.

    Attributes:
        path: From the list of parts to the place; empty for a content that is text.
        hash: SHA-256 of the object, in hex.
        size_bytes: Of the object.
        form: `text` (UTF-8), `base64`, or `json` for a whole part.
        prefix: Of a base64 text, e.g. of a data URL.
        kind: The type of the part.
    """

    path: Path
    hash: str
    size_bytes: int
    form: str
    prefix: str = ""
    kind: str = "text"


class Packed(msgspec.Struct, frozen=True):
    """A content some of which is objects.

    Attributes:
        size_bytes: Of the content with its objects.
        kept: What was taken out.
        parts: The rest; null where something was taken out.
    """

    size_bytes: int
    kept: list[Kept]
    parts: list[Part] | None


class Size(msgspec.Struct, frozen=True):
    """The beginning of a `Packed`, which is all that is read of it to know how large it is."""

    size_bytes: int


class Bundle(NamedTuple):
    """A content ready to be stored.

    Attributes:
        format: `TEXT`, `PARTS` or `PACKED`.
        content: As it stands in the row.
        objects: What is kept beside it, by hash.
    """

    format: int
    content: str
    objects: Mapping[str, bytes]


def size_of(form: int, raw: str) -> int:
    """Return about how many bytes a stored content has, its objects included."""
    return msgspec.json.decode(raw, type=Size).size_bytes if form == PACKED else len(raw)


def check(parts: Iterable[Part]) -> None:
    """Refuse parts that no reader could use; types that Alcove does not know are not looked at.

    Raises:
        InvalidError: Names the part, what is wrong and what to do.
    """
    for number, part in enumerate(parts):
        looked_for = _NEEDED.get(cast("str", part["type"]))
        if looked_for is None:
            continue
        field = f"content[{number}]"
        if not any(name in part for name in looked_for):
            raise InvalidError(
                f"a part of type {part['type']!r} has no {' or '.join(looked_for)}",
                field=field,
                remedy=f"give {looked_for[0]}; a type of your own is kept as it is",
            )
        if part["type"] in MEDIA and isinstance(data := part.get("data"), str):
            _check_base64(data, f"{field}.data")
        if part["type"] == "text" and not isinstance(part["text"], str):
            raise InvalidError("the text of a part is not text", field=f"{field}.text", remedy="give a string")


_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("text",),
    # The later names are the providers' own spellings, which are kept as they come.
    "image": ("data", "url", "source", "file_id", "object"),
    "audio": ("data", "url", "source", "file_id", "object"),
    "file": ("data", "url", "source", "file_id", "object", "file", "path"),
    "tool_call": ("id",),
    "tool_result": ("tool_call_id",),
    "data": ("value", "data"),
}


def _check_base64(data: str, field: str) -> None:
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidError(
            f"{field} is not base64: {str(error)[:200]}",
            field=field,
            remedy="encode the bytes with the standard alphabet and padding, without line breaks",
        ) from None


def heavy(content: Content) -> bool:
    """Return whether a content may have a part for the object store: a guess that costs little, never too low."""
    if isinstance(content, str):
        return len(content) > limits.PART_BYTES // 4
    # Any character may take six bytes of JSON; a bracket or a name count for something.
    return any(_weight(part, limits.PART_BYTES // 6) <= 0 for part in content)


def _weight(value: Json, left: int) -> int:
    """Return what is left of a budget of characters after a value; stops early when nothing is."""
    if isinstance(value, str):
        return left - len(value)
    left -= 24
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        if left <= 0:
            break
        left = _weight(one, left)
    return left - sum(map(len, value)) if isinstance(value, dict) else left


def pack(content: Content) -> Bundle:
    """Return a content as it will be stored, parts over `limits.PART_BYTES` taken out as objects."""
    kept: list[Kept] = []
    objects: dict[str, bytes] = {}
    if isinstance(content, str):
        data = content.encode()
        if len(data) <= limits.PART_BYTES:
            return Bundle(TEXT, content, objects)
        kept.append(_take(objects, [], data, "text"))
        return Bundle(PACKED, _encode(Packed(len(data), kept, None)).decode(), objects)
    parts: list[Part] = []
    size = 0
    for number, part in enumerate(content):
        encoded = _encode(part)
        size += len(encoded)
        parts.append(_lighter(number, part, kept, objects) if len(encoded) > limits.PART_BYTES else part)
    if not kept:
        return Bundle(PARTS, _encode(content).decode(), objects)
    return Bundle(PACKED, _encode(Packed(size, kept, parts)).decode(), objects)


def _lighter(number: int, part: Part, kept: list[Kept], objects: dict[str, bytes]) -> Part:
    """Return a part without its long texts, or without anything but its type when that is not enough."""
    kind = cast("str", part["type"])
    taken: list[Kept] = []
    lighter = cast("Part", _without_texts(part, [number], "", kind, taken, objects))
    if len(_encode(lighter)) <= limits.PART_BYTES:
        kept += taken
        return lighter
    for one in taken:
        objects.pop(one.hash, None)
    kept.append(_take(objects, [number], _encode(part), "json", kind=kind))
    return {"type": kind}


def _without_texts(value: Json, path: Path, name: str, kind: str, taken: list[Kept], objects: dict[str, bytes]) -> Json:
    if isinstance(value, str):
        if len(value) <= _LEAF_CHARS:
            return value
        taken.append(_take_text(value, path, name, kind, objects))
        return None
    if isinstance(value, dict):
        return {key: _without_texts(one, [*path, key], key, kind, taken, objects) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_texts(one, [*path, at], name, kind, taken, objects) for at, one in enumerate(value)]
    return value


def _take_text(text: str, path: Path, name: str, kind: str, objects: dict[str, bytes]) -> Kept:
    """Take a text out: as the bytes that it stands for, when it is base64 that encodes to the same again."""
    if name not in _PLAIN and text.isascii():
        url = _DATA_URL.match(text)
        prefix = url[0] if url else ""
        body = text[len(prefix) :]
        try:
            data = binascii.a2b_base64(body, strict_mode=True)
        except (binascii.Error, ValueError):
            data = b""
        if data and base64.b64encode(data).decode() == body:
            return _take(objects, path, data, "base64", prefix=prefix, kind=kind)
    return _take(objects, path, text.encode(), "text", kind=kind)


def _take(
    objects: dict[str, bytes], path: Path, data: bytes, form: str, *, prefix: str = "", kind: str = "text"
) -> Kept:
    digest = hashlib.sha256(data).hexdigest()
    objects[digest] = data
    return Kept(path, digest, len(data), form, prefix, kind)


def unpack(raw: str, loaded: Mapping[str, bytes] | None) -> Content:
    """Return the content of a `Packed`.

    Args:
        raw: As it stands in the row.
        loaded: The objects by hash. A part whose object is not among them gets `object` (the hash) and `size_bytes` in
            the place of what was taken out.
    """
    packed = msgspec.json.decode(raw, type=Packed)
    objects = loaded or {}
    if packed.parts is None:
        [one] = packed.kept
        data = objects.get(one.hash)
        return data.decode() if data is not None else [{"type": "text", "text": "", **_reference(one)}]
    parts = packed.parts
    for one in packed.kept:
        number = cast("int", one.path[0])
        data = objects.get(one.hash)
        if data is None:
            _refer(parts, one)
        elif one.form == "json":
            parts[number] = msgspec.json.decode(data)
        else:
            text = one.prefix + base64.b64encode(data).decode() if one.form == "base64" else data.decode()
            _put(parts, one.path, text)
    return parts


def _reference(one: Kept) -> Part:
    return {"object": one.hash, "size_bytes": one.size_bytes}


def _put(parts: list[Part], path: Path, text: str) -> None:
    place: Any = parts
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = text


def _refer(parts: list[Part], one: Kept) -> None:
    """Take the place of a text out, and say in the innermost part around it which object it is."""
    place: Any = parts
    part: Part = parts[cast("int", one.path[0])]
    for step in one.path[:-1]:
        place = place[step]
        inner: object = place
        if isinstance(inner, dict) and "type" in inner:
            part = cast("Part", inner)
    if isinstance(place, dict):
        cast("dict[object, object]", place).pop(one.path[-1], None)
    before = part.get("size_bytes") if "object" in part else 0
    part |= _reference(one)
    part["size_bytes"] = one.size_bytes + (before if isinstance(before, int) else 0)


def hashes(raw: str) -> Iterator[str]:
    """Yield the objects of a `Packed`."""
    return (one.hash for one in kept_of(raw))


def kept_of(raw: str) -> list[Kept]:
    """Return what was taken out of a `Packed`."""
    return msgspec.json.decode(raw, type=Packed).kept


def text_of(content: Content) -> str:
    """Return what a person reads of a content: its texts and those of its tool results, one after the other."""
    if isinstance(content, str):
        return content
    return "".join(_texts(content))


def _texts(parts: Iterable[Json]) -> Iterator[str]:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") == "reasoning":
            continue
        if isinstance(text := part.get("text"), str):
            yield text
        elif isinstance(inner := part.get("content"), str):
            yield inner
        elif isinstance(inner, list):
            yield from _texts(inner)


def media_of(part: Part) -> str:
    """Return `image`, `audio` or `file` for a part that is one, in our spelling or a provider's; `''` for others."""
    return _SPELLINGS.get(cast("str", part["type"]), "")


_SPELLINGS: Final = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "file": "file",
    "input_file": "file",
    "document": "file",
}


def media_bytes(part: Part) -> int:
    """Return about how many bytes an image, an audio or a file part has."""
    size = part.get("size_bytes")
    if isinstance(size, int) and "object" in part:
        return size
    return sum(len(text) * 3 // 4 for text in _leaves(part) if len(text) > limits.KIB)


def _leaves(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
