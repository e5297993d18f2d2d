"""What an import or an export did, as records."""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """Something that could not be read or taken over, or was taken over otherwise than it stood.

    Attributes:
        path: Which file or folder, relative to the folder that was imported.
        reason: Why, and what became of it.
    """

    path: str
    reason: str


class Imported(msgspec.Struct, kw_only=True):
    """The report of an import; it grows while that goes on.

    Attributes:
        dry_run: Whether nothing was written: then the rest says what would have been.
        created: Sessions made.
        continued: Sessions of an earlier import that got what was missing of them.
        present: Sessions of an earlier import of which nothing was missing.
        messages: Messages written.
        files: Files written.
        size_bytes: Their length.
        failed: What is not imported; everything else is.
        notes: What was imported otherwise than it stood.
    """

    dry_run: bool
    created: list[str] = []
    continued: list[str] = []
    present: list[str] = []
    messages: int = 0
    files: int = 0
    size_bytes: int = 0
    failed: list[Problem] = []
    notes: list[Problem] = []


class Exported(msgspec.Struct, kw_only=True):
    """The report of an export.

    Attributes:
        sessions: Those in the archive, parents first.
        messages: Messages in it, hidden ones included.
        workspaces: How many of the sessions had files.
        size_bytes: Length of the archive.
    """

    sessions: list[str] = []
    messages: int = 0
    workspaces: int = 0
    size_bytes: int = 0
