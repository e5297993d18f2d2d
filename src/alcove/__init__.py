"""Alcove: the session layer for AI agents."""

# pyright: reportImportCycles=false
# (What is imported below is seen by type checkers only; nothing below needs it in order to load.)

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as type checkers take it; `typing` would be most of what this takes to load
if TYPE_CHECKING:
    from alcove.dialogs.model import Dialog as Dialog
    from alcove.errors import (
        AgentNotFoundError as AgentNotFoundError,
        AgentUnavailableError as AgentUnavailableError,
        AlcoveError as AlcoveError,
        AlreadyExistsError as AlreadyExistsError,
        ApprovalDecidedError as ApprovalDecidedError,
        ApprovalNotFoundError as ApprovalNotFoundError,
        ClosedError as ClosedError,
        ConfigurationError as ConfigurationError,
        ConflictError as ConflictError,
        DatabaseBusyError as DatabaseBusyError,
        DatabaseError as DatabaseError,
        DatabaseFailedError as DatabaseFailedError,
        DatabaseFullError as DatabaseFullError,
        DefinitionError as DefinitionError,
        DialogNotFoundError as DialogNotFoundError,
        EventRefusedError as EventRefusedError,
        FileMissingError as FileMissingError,
        GuaranteeError as GuaranteeError,
        IdempotencyError as IdempotencyError,
        InvalidError as InvalidError,
        KeyMissingError as KeyMissingError,
        LaunchError as LaunchError,
        LimitError as LimitError,
        NotFoundError as NotFoundError,
        NotPermittedError as NotPermittedError,
        ObjectGoneError as ObjectGoneError,
        QueueFullError as QueueFullError,
        RateLimitedError as RateLimitedError,
        RunEndedError as RunEndedError,
        RunNotFoundError as RunNotFoundError,
        SandboxError as SandboxError,
        SchemaError as SchemaError,
        SessionBusyError as SessionBusyError,
        SessionExpiredError as SessionExpiredError,
        SessionNotFoundError as SessionNotFoundError,
        StaleEpochError as StaleEpochError,
        StaleSequenceError as StaleSequenceError,
        StorageError as StorageError,
        TooLargeError as TooLargeError,
        UnauthorizedError as UnauthorizedError,
        ValueNotFoundError as ValueNotFoundError,
        VersionMismatchError as VersionMismatchError,
    )
    from alcove.events.model import Event as Event
    from alcove.hub import Alcove as Alcove, open as open  # noqa: A004 - `alcove.open` is the name that a newcomer guesses
    from alcove.messages.model import Draft as Draft, Message as Message
    from alcove.rights.approvals import Approval as Approval
    from alcove.rights.model import Rights as Rights
    from alcove.rights.writing import bound as bound
    from alcove.runs.grants import ask as ask
    from alcove.runs.model import Run as Run
    from alcove.sessions.model import Session as Session
    from alcove.workspaces.model import Condition as Condition, File as File

__version__ = "0.1.0"

__all__ = [
    "AgentNotFoundError",
    "AgentUnavailableError",
    "Alcove",
    "AlcoveError",
    "AlreadyExistsError",
    "Approval",
    "ApprovalDecidedError",
    "ApprovalNotFoundError",
    "ClosedError",
    "Condition",
    "ConfigurationError",
    "ConflictError",
    "DatabaseBusyError",
    "DatabaseError",
    "DatabaseFailedError",
    "DatabaseFullError",
    "DefinitionError",
    "Dialog",
    "DialogNotFoundError",
    "Draft",
    "Event",
    "EventRefusedError",
    "File",
    "FileMissingError",
    "GuaranteeError",
    "IdempotencyError",
    "InvalidError",
    "KeyMissingError",
    "LaunchError",
    "LimitError",
    "Message",
    "NotFoundError",
    "NotPermittedError",
    "ObjectGoneError",
    "QueueFullError",
    "RateLimitedError",
    "Rights",
    "Run",
    "RunEndedError",
    "RunNotFoundError",
    "SandboxError",
    "SchemaError",
    "Session",
    "SessionBusyError",
    "SessionExpiredError",
    "SessionNotFoundError",
    "StaleEpochError",
    "StaleSequenceError",
    "StorageError",
    "TooLargeError",
    "UnauthorizedError",
    "ValueNotFoundError",
    "VersionMismatchError",
    "__version__",
    "ask",
    "bound",
    "open",
]

_PLACES = {
    "Alcove": "alcove.hub",
    "Approval": "alcove.rights.approvals",
    "Condition": "alcove.workspaces.model",
    "Dialog": "alcove.dialogs.model",
    "Draft": "alcove.messages.model",
    "Event": "alcove.events.model",
    "File": "alcove.workspaces.model",
    "Message": "alcove.messages.model",
    "Rights": "alcove.rights.model",
    "Run": "alcove.runs.model",
    "Session": "alcove.sessions.model",
    "ask": "alcove.runs.grants",
    "bound": "alcove.rights.writing",
    "open": "alcove.hub",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562), so that `import alcove` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACES.get(name, "alcove.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
