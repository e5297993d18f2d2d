"""Every error that Alcove raises.

AlcoveError
├── InvalidError                 bad input: names the field, the limit and the remedy
│   ├── TooLargeError            past a limit in size
│   └── DefinitionError          a dialog's definition has faults: file, line and name of each
├── NotFoundError
│   ├── SessionNotFoundError  RunNotFoundError  AgentNotFoundError  FileMissingError  KeyMissingError
│   ├── DialogNotFoundError  ApprovalNotFoundError  ValueNotFoundError
├── ConflictError
│   ├── AlreadyExistsError       an id or key is taken
│   ├── SessionBusyError         a live run holds the session
│   ├── QueueFullError           as many messages as may wait do so already
│   ├── StaleSequenceError       expected_seq is not the last one
│   ├── StaleEpochError          a writer that lost its lease
│   ├── VersionMismatchError     If-Match does not match
│   ├── IdempotencyError         the same key with another body
│   ├── EventRefusedError        the dialog's state does not take that event; names what it takes
│   ├── RunEndedError            nothing of the run takes effect any more
│   ├── ApprovalDecidedError     somebody answered before, otherwise, or nobody did in time
│   ├── SessionExpiredError      readable, but takes no more activity
│   └── ObjectGoneError          an object was swept before its message came
├── UnauthorizedError            nobody knows who is calling
├── NotPermittedError            it is known, and may not
├── RateLimitedError             too many requests for its key
├── DatabaseError
│   ├── DatabaseBusyError  DatabaseFullError  DatabaseFailedError  SchemaError
├── StorageError                 the disk of the workspaces could not do it
├── SandboxError
│   ├── GuaranteeError           what this machine cannot promise
│   ├── LaunchError              a confined start failed, and at which step
│   └── LimitError               a run took more than it was given, and was ended
├── AgentUnavailableError        the agent's program is missing or failed its check
├── ConfigurationError
└── ClosedError                  used after close
"""

from __future__ import annotations

from typing import Any, ClassVar

Detail = str | int | float | bool | None


class AlcoveError(Exception):
    """Something went wrong in Alcove.

    Attributes:
        code: Stable word for programs; on the wire it is the last segment of a problem's `type`.
        retryable: Whether the same call may succeed later without a change.
        message: One sentence for a person.
        field: Which input is at fault, `''` when none is.
        limit: The bound that was passed, if any.
        remedy: What to do about it, `''` when there is nothing to do.
        details: Further facts, JSON values only.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        field: str = "",
        limit: str | int | None = None,
        remedy: str = "",
        **details: Detail,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.field = field
        self.limit = limit
        self.remedy = remedy
        self.details = details
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.field, self.limit, self.remedy, self.details))


def _rebuild(
    kind: type[AlcoveError],
    message: str,
    field: str,
    limit: str | int | None,
    remedy: str,
    details: dict[str, Detail],
) -> AlcoveError:
    return kind(message, field=field, limit=limit, remedy=remedy, **details)


class InvalidError(AlcoveError):
    """The input is not valid."""

    code = "invalid"


class TooLargeError(InvalidError):
    """The input is larger than the limit."""

    code = "too_large"


class DefinitionError(InvalidError):
    """The definition of a dialog has faults."""

    code = "definition_invalid"


class NotFoundError(AlcoveError):
    """There is no such thing."""

    code = "not_found"


class SessionNotFoundError(NotFoundError):
    """There is no such session; it may be in the trash."""

    code = "session_not_found"


class RunNotFoundError(NotFoundError):
    """There is no such run."""

    code = "run_not_found"


class AgentNotFoundError(NotFoundError):
    """There is no agent of that name; `alcove doctor` lists them."""

    code = "agent_not_found"


class FileMissingError(NotFoundError):
    """There is no such file in the workspace."""

    code = "file_not_found"


class KeyMissingError(NotFoundError):
    """There is no such key."""

    code = "key_not_found"


class UnauthorizedError(AlcoveError):
    """The caller did not say who it is, or is not believed."""

    code = "unauthorized"


class NotPermittedError(AlcoveError):
    """The caller is known, and may not do this."""

    code = "not_permitted"


class RateLimitedError(AlcoveError):
    """Too many requests came with this key; wait and try again."""

    code = "rate_limited"
    retryable = True


class DialogNotFoundError(NotFoundError):
    """This session has no dialog, or there is no definition of that name."""

    code = "dialog_not_found"


class ApprovalNotFoundError(NotFoundError):
    """There is no such request for approval."""

    code = "approval_not_found"


class ValueNotFoundError(NotFoundError):
    """There is no value under that key."""

    code = "value_not_found"


class ConflictError(AlcoveError):
    """The request does not fit the present state."""

    code = "conflict"


class AlreadyExistsError(ConflictError):
    """That id, key or path is taken."""

    code = "already_exists"


class SessionBusyError(ConflictError):
    """A run holds this session; wait for it or cancel it."""

    code = "session_busy"
    retryable = True


class QueueFullError(ConflictError):
    """As many messages wait already as may."""

    code = "queue_full"
    retryable = True


class StaleSequenceError(ConflictError):
    """The session has moved on: expected_seq is not its last seq; read again and decide."""

    code = "stale_sequence"


class StaleEpochError(ConflictError):
    """This writer lost its lease; another writer may hold the session now, so nothing was written."""

    code = "stale_epoch"


class VersionMismatchError(ConflictError):
    """The thing was changed by somebody else; read it again and repeat the change."""

    code = "version_mismatch"


class IdempotencyError(ConflictError):
    """That idempotency key was used with another body; use a new key for a new request."""

    code = "idempotency_mismatch"


class EventRefusedError(ConflictError):
    """The dialog does not take that event where it stands."""

    code = "event_refused"


class RunEndedError(ConflictError):
    """The run has ended, or is lost; nothing of it takes effect any more."""

    code = "run_ended"


class ApprovalDecidedError(ConflictError):
    """The request for approval has an answer already."""

    code = "approval_decided"


class SessionExpiredError(ConflictError):
    """The session has expired: it can be read, but takes no more activity; touch it, or give it more time."""

    code = "session_expired"


class ObjectGoneError(ConflictError):
    """An object was swept before the message that refers to it was written; write it again."""

    code = "object_gone"
    retryable = True


class DatabaseError(AlcoveError):
    """The database could not do it."""

    code = "database"


class DatabaseBusyError(DatabaseError):
    """Another program holds the database; try again."""

    code = "database_busy"
    retryable = True


class DatabaseFullError(DatabaseError):
    """The disk of the database is full; nothing was written. Free some space and try again."""

    code = "database_full"
    retryable = True


class DatabaseFailedError(DatabaseError):
    """The database failed to make data durable; nothing is acknowledged any more until a restart."""

    code = "database_failed"


class SchemaError(DatabaseError):
    """The database was written by a newer Alcove, or its migrations were altered."""

    code = "schema"


class StorageError(AlcoveError):
    """The disk of the workspaces could not do it."""

    code = "storage"


class SandboxError(AlcoveError):
    """The sandbox could not do it."""

    code = "sandbox"


class GuaranteeError(SandboxError):
    """This machine cannot give a guarantee that a run requires."""

    code = "guarantee_missing"


class LaunchError(SandboxError):
    """A confined program could not be started."""

    code = "launch_failed"


class LimitError(SandboxError):
    """A run took more than it was given, and was ended."""

    code = "limit_exceeded"


class AgentUnavailableError(AlcoveError):
    """The agent's program is not available."""

    code = "agent_unavailable"


class ConfigurationError(AlcoveError):
    """The configuration cannot be used."""

    code = "configuration"


class ClosedError(AlcoveError):
    """It has been closed."""

    code = "closed"
