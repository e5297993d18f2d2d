"""Errors as they go over the wire: RFC 9457 problems, and the one table from error to status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Final

import msgspec

from alcove import errors
from alcove.errors import AlcoveError, Detail

_RETRY_AFTER_S: Final = b"1"
_ARGUMENT: Final = re.compile(r"\b(\w+)=True\b")


class ForbiddenError(AlcoveError):
    """A page of another origin may not call this server."""

    code = "forbidden"


class MethodNotAllowedError(AlcoveError):
    """There is such a thing, but not this method on it."""

    code = "method_not_allowed"


class TimedOutError(AlcoveError):
    """The request took too long to arrive."""

    code = "request_timeout"
    retryable = True


class MediaTypeError(AlcoveError):
    """The body is in a form that is not taken here."""

    code = "unsupported_media_type"


class MisdirectedError(AlcoveError):
    """The request is meant for another host."""

    code = "misdirected"


class RangeError(AlcoveError):
    """The part that was asked for lies behind the end."""

    code = "range_not_satisfiable"


class HeadersTooLargeError(AlcoveError):
    """The head of the request is too long."""

    code = "headers_too_large"


class NotReadyError(AlcoveError):
    """The server cannot serve now."""

    code = "not_ready"
    retryable = True


# A class that is not here has the status of the nearest one above it.
STATUSES: Final[dict[type[AlcoveError], int]] = {
    AlcoveError: 500,
    errors.InvalidError: 400,
    errors.TooLargeError: 413,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.VersionMismatchError: 412,
    errors.IdempotencyError: 422,
    errors.DatabaseBusyError: 503,
    errors.DatabaseFullError: 507,
    errors.DatabaseFailedError: 503,
    errors.StorageError: 507,
    errors.GuaranteeError: 503,
    errors.AgentUnavailableError: 503,
    errors.ClosedError: 503,
    errors.UnauthorizedError: 401,
    errors.NotPermittedError: 403,
    errors.RateLimitedError: 429,
    ForbiddenError: 403,
    MethodNotAllowedError: 405,
    TimedOutError: 408,
    MediaTypeError: 415,
    RangeError: 416,
    MisdirectedError: 421,
    HeadersTooLargeError: 431,
    NotReadyError: 503,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong.

    Attributes:
        type: `urn:alcove:problem:` and the code.
        title: The kind of problem, as a sentence.
        status: The status of the answer.
        detail: What happened this time.
        code: A stable word for programs.
        retryable: Whether the same request may succeed later.
        request_id: Finds the request in the server's log.
        field: Which input is at fault.
        limit: The bound that was passed.
        remedy: What to do about it.
        details: Further facts, such as the run that holds a session.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    request_id: str
    field: str = ""
    limit: str | int | None = None
    remedy: str = ""
    details: dict[str, Detail] = {}


def problem(error: AlcoveError, request_id: str, *, frank: bool = True) -> Problem:
    """Return what a caller is told about an error.

    Args:
        error: What happened.
        request_id: Of the request.
        frank: Whether the caller may read about the server itself; otherwise its failures are told by title only.
    """
    kind = type(error)
    status, title = _facts(kind)
    reticent = status >= HTTPStatus.INTERNAL_SERVER_ERROR and not frank
    return Problem(
        type=f"urn:alcove:problem:{error.code}",
        title=title,
        status=status,
        # JSON cannot carry what stands for a byte that is not UTF-8.
        detail=title if reticent else error.message.encode(errors="backslashreplace").decode(),
        code=error.code,
        retryable=error.retryable,
        request_id=request_id,
        field=error.field,
        limit=error.limit,
        # What a program sets with an argument, a caller sets with a parameter.
        remedy="" if reticent else _ARGUMENT.sub(r"?\1=true", error.remedy),
        details={} if reticent else error.details,
    )


def internal(request_id: str) -> Problem:
    """Return what a caller is told about an error of Alcove's own: nothing but where to look."""
    return problem(
        AlcoveError("something went wrong in Alcove", remedy="the server's log has it, by the request id"), request_id
    )


def no_path() -> errors.NotFoundError:
    """Return the error for a path that leads nowhere, or nowhere for this caller."""
    return errors.NotFoundError("there is nothing at this path", remedy="/docs lists what there is")


def headers(told: Problem) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers that a problem's answer has besides those of every answer."""
    if told.retryable or told.status == HTTPStatus.SERVICE_UNAVAILABLE:
        yield b"retry-after", _RETRY_AFTER_S
    if told.status == HTTPStatus.UNAUTHORIZED:
        yield b"www-authenticate", b"Bearer"
    if "size" in told.details:
        yield b"content-range", b"bytes */%d" % int(told.details["size"] or 0)


def status_of(kind: type[AlcoveError]) -> int:
    """Return the status for a class of errors."""
    return next(STATUSES[above] for above in kind.__mro__ if above in STATUSES)


@cache
def _facts(kind: type[AlcoveError]) -> tuple[int, str]:
    return status_of(kind), (kind.__doc__ or "").strip().splitlines()[0]
