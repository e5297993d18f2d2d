"""Messages on their way into a transaction: their large parts are objects before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from alcove import limits
from alcove.errors import ObjectGoneError
from alcove.messages import content as contents
from alcove.messages.model import Draft, Stored
from alcove.messages.rules import check_count, packed, stored
from alcove.objects.service import Objects

T = TypeVar("T")


class Said(NamedTuple):
    """Messages as a transaction writes them.

    Attributes:
        messages: In order.
        files: Where their objects are, by hash: what `queries.claim` makes sure of.
    """

    messages: Sequence[Stored]
    files: Mapping[str, str]


NOTHING = Said((), {})


async def written(objects: Objects | None, drafts: Sequence[Draft], write: Callable[[Said], Awaitable[T]]) -> T:
    """Return what `write` returns for drafts; their objects are written first, and again when a sweep was faster.

    Args:
        objects: Keeps parts over `limits.PART_BYTES`; without it they stay in their rows.
        drafts: Up to `limits.APPEND_MESSAGES`; an append has at least one.
        write: A transaction that claims the objects; it may be called again when that fails.

    Raises:
        InvalidError, TooLargeError: A draft that may not be stored.
        StorageError: The disk of the objects is full or fails.
    """
    check_count(drafts)
    if objects is None or not any(contents.heavy(draft.content) for draft in drafts):
        return await write(Said([stored(draft) for draft in drafts], {}))
    done = [await asyncio.to_thread(packed, draft) for draft in drafts]
    data = {digest: one for _, found in done for digest, one in found.items()}
    return await with_objects(objects, [message for message, _ in done], data, write)


async def with_objects(
    objects: Objects, messages: Sequence[Stored], data: Mapping[str, bytes], write: Callable[[Said], Awaitable[T]]
) -> T:
    """Return what `write` returns for messages whose objects are at hand: see `written`."""
    for attempt in range(limits.OBJECT_ATTEMPTS):
        try:
            return await write(Said(messages, await objects.keep(data.values()) if data else {}))
        except ObjectGoneError:
            if attempt == limits.OBJECT_ATTEMPTS - 1:
                raise
    raise AssertionError
