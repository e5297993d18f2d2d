"""What a run asks a person, bound to every parameter of what it is about to do, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from math import isfinite
from typing import cast

import msgspec

from alcove import ids, limits
from alcove.clock import SECOND, Micros
from alcove.errors import InvalidError, TooLargeError
from alcove.values import Json

_encode = msgspec.json.Encoder(order="sorted").encode


class ApprovalStatus(StrEnum):
    """Where a request is. Everything but `waiting` is an end."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"  # nobody answered in time, which is a no
    CANCELLED = "cancelled"  # its run ended, or is to end


class Approval(msgspec.Struct, frozen=True):
    """What a run asked, and the answer; true when a person said yes. The fields are in the order of the columns.

    Attributes:
        run_id: Who asks.
        tenant: Whose run that is.
        user_id: Which user's.
        session_id: Where it works, `''` for nowhere.
        agent: Who works.
        kind: Type of resource.
        name: Id of the resource.
        operation: What is to be done with it.
        arguments_json: With which arguments, as canonical JSON.
        digest: SHA-256, in hex, of run, type, id, operation and arguments.
        message: What the run says to the person.
        status: `waiting`, `approved`, `denied`, `expired` or `cancelled`.
        reason: The person's.
        decided_by: Who answered, `''` for nobody.
        created_us: When it was asked.
        expires_us: From when on it is denied.
        decided_us: When it was answered, 0 while it waits.
        used_us: When a check was answered by it, 0 when none was: it serves once.
        replayed: Whether an earlier call did what this one was to do.
    """

    id: str
    run_id: str
    tenant: str
    user_id: str
    session_id: str
    agent: str
    kind: str
    name: str
    operation: str
    arguments_json: str
    digest: str
    message: str
    status: str
    reason: str
    decided_by: str
    created_us: Micros
    expires_us: Micros
    decided_us: Micros
    used_us: Micros = 0
    replayed: bool = False

    def __bool__(self) -> bool:
        return self.status == ApprovalStatus.APPROVED

    @property
    def waiting(self) -> bool:
        """Whether nobody has answered yet."""
        return self.status == ApprovalStatus.WAITING

    @property
    def arguments(self) -> Json:
        """The arguments: a new value each time, so that nobody shares what another may change."""
        return msgspec.json.decode(self.arguments_json)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request for approval before it is written.

    Attributes:
        id: Its id.
        run_id: Who asks.
        kind: Type of resource.
        name: Id of the resource.
        operation: What is to be done with it.
        arguments_json: With which arguments, as canonical JSON.
        message: What the run says to the person.
        lasts: Microseconds until it is denied.
    """

    id: str
    run_id: str
    kind: str
    name: str
    operation: str
    arguments_json: str
    message: str
    lasts: Micros

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of all that an answer is about."""
        return digest_of(self.run_id, self.kind, self.name, self.operation, self.arguments_json)


def digest_of(run_id: str, kind: str, name: str, operation: str, arguments_json: str) -> str:
    """Return SHA-256, in hex, of canonical JSON of all that an answer is about."""
    bound = {
        "arguments": msgspec.Raw(arguments_json.encode()),
        "id": name,
        "operation": operation,
        "run_id": run_id,
        "type": kind,
    }
    return hashlib.sha256(_encode(bound)).hexdigest()


def question(
    run_id: str, kind: str, name: str, operation: str, arguments: Json, *, message: str, expires_s: float
) -> Question:
    """Return a request for approval.

    Raises:
        InvalidError: Type, id, operation, arguments, message or expiry are not valid.
        TooLargeError: The arguments or the message are too long.
    """
    ids.name(kind, field="type")
    ids.name(operation, field="operation", empty=True)
    _check_text(name, "id", limits.PATH_BYTES)
    if not name:
        raise InvalidError("there is no id", field="id", remedy="say what it is about")
    _check_text(message, "message", limits.APPROVAL_MESSAGE_CHARS)
    if not 0 < expires_s <= limits.APPROVAL_S_MAX:
        raise InvalidError(
            f"expires_s is {expires_s}",
            field="expires_s",
            limit=limits.APPROVAL_S_MAX,
            remedy="use seconds above 0",
        )
    return Question(
        id=ids.new_id(),
        run_id=run_id,
        kind=kind,
        name=name,
        operation=operation,
        arguments_json=canonical(arguments),
        message=message,
        lasts=round(expires_s * SECOND),
    )


def cleaned(asked: Question, clean: Callable[[str], str]) -> Question:
    """Return a question with every text in it cleaned, of secrets as a rule: a person answers what is left."""
    return msgspec.structs.replace(
        asked,
        name=clean(asked.name),
        arguments_json=canonical(_each(msgspec.json.decode(asked.arguments_json), clean)),
        message=clean(asked.message),
    )


def _each(value: Json, clean: Callable[[str], str]) -> Json:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_each(one, clean) for one in value]
    if isinstance(value, dict):
        return {clean(name): _each(one, clean) for name, one in value.items()}
    return value


def canonical(arguments: Json) -> str:
    """Return arguments as canonical JSON: sorted names, no spaces.

    Raises:
        InvalidError: They are no JSON, or have a number that JSON has no word for.
        TooLargeError: They take more than `limits.APPROVAL_BYTES`.
    """
    try:
        if not _plain(arguments):
            raise ValueError("a value has no word in it")
        encoded = _encode(arguments)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidError(
            f"arguments are not JSON: {error}", field="arguments", remedy="use JSON values only"
        ) from error
    if len(encoded) > limits.APPROVAL_BYTES:
        raise TooLargeError(
            f"the arguments take {len(encoded)} bytes",
            field="arguments",
            limit=limits.APPROVAL_BYTES,
            remedy="name a file by its digest instead",
        )
    return encoded.decode()


def _plain(value: object) -> bool:
    """Return whether a value is JSON and nothing that only looks like it once it is written, such as a set or NaN."""
    if isinstance(value, dict):
        names = cast("dict[object, object]", value)
        return all(isinstance(name, str) and _plain(one) for name, one in names.items())
    if isinstance(value, list):
        return all(map(_plain, cast("list[object]", value)))
    return isfinite(value) if isinstance(value, float) else value is None or isinstance(value, str | int)


def _check_text(value: str, field: str, most: int) -> None:
    if len(value) > most:
        raise TooLargeError(f"{field} has {len(value)} characters", field=field, limit=most, remedy="shorten it")
    if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidError(f"{field} has a NUL or a lone surrogate", field=field, remedy="remove the character")
