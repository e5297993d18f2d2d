"""Exactly once: a request's answer is stored under its idempotency key, in the transaction of its effect."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec

from alcove import ids, limits
from alcove.clock import Micros
from alcove.database.op import Database, Operation, P, Statement, Steps
from alcove.errors import AlcoveError, IdempotencyError, InvalidError

R = TypeVar("R", bound=msgspec.Struct)

_encode = msgspec.json.Encoder().encode


class Once(msgspec.Struct, frozen=True):
    """One request that must take effect once.

    Attributes:
        scope: What the key is unique within, e.g. `append:<session id>`.
        key: The caller's key.
        digest: SHA-256 of the request's body, in hex: the same key with another body is an error.
    """

    scope: str
    key: str
    digest: str


def once(scope: str, key: str | None, body: bytes) -> Once | None:
    """Return what identifies a request, or None when it carries no key.

    Raises:
        InvalidError: The key is empty, too long or has control characters.
    """
    if key is None:
        return None
    if len(key) > limits.IDEMPOTENCY_KEY_CHARS:
        raise InvalidError(
            f"the idempotency key has {len(key)} characters",
            field="idempotency_key",
            limit=limits.IDEMPOTENCY_KEY_CHARS,
            remedy="use a UUID",
        )
    return Once(scope, ids.name(key, field="idempotency_key"), hashlib.sha256(body).hexdigest())


def remember(now: Micros, request: Once, answer: msgspec.Struct) -> Statement:
    """Return the statement that stores the answer: the last of an operation that takes effect once.

    It fails when the key has been used, and the whole operation with it; `write_once` then finds the stored answer.
    """
    return Statement(
        "INSERT INTO idempotency (scope, key, digest, answer, created_at) VALUES (?, ?, ?, ?, ?)",
        (request.scope, request.key, request.digest, _encode(answer).decode(), now),
    )


def _recall(now: Micros, request: Once) -> Steps[tuple[str, str] | None]:
    rows = yield Statement(
        "SELECT digest, answer FROM idempotency WHERE scope = ? AND key = ?", (request.scope, request.key)
    )
    return rows[0][:2] if rows else None


async def recall(database: Database, request: Once, kind: type[R]) -> R | None:
    """Return the answer that was given to this request before, if any.

    Raises:
        IdempotencyError: The key was used with another body.
    """
    found = await database.read(_recall, request)
    if found is None:
        return None
    digest, answer = found
    if digest != request.digest:
        raise IdempotencyError(field="idempotency_key")
    return msgspec.json.decode(answer, type=kind)


async def write_once(
    database: Database,
    request: Once | None,
    kind: type[R],
    operation: Operation[P, R],
    /,
    *args: P.args,
    **kw: P.kwargs,
) -> tuple[R, bool]:
    """Run an operation that ends with `remember`; return its answer and whether it is a replayed one.

    Raises:
        IdempotencyError: The key was used with another body.
    """
    try:
        return await database.write(operation, *args, **kw), False
    except AlcoveError:
        # Also when it was refused: a repetition finds what the first request has changed (the seq moved, the id taken).
        answer = await recall(database, request, kind) if request else None
        if answer is None:
            raise
        return answer, True
