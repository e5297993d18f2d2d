"""All routes, noun by noun. What is not in this table is not served, and what is in it is described at /docs."""

from __future__ import annotations

from typing import Final

from alcove.server.route import Route
from alcove.server.routes import (
    agents,
    approvals,
    archives,
    audit,
    busy,
    chat,
    cleanup,
    dialogs,
    files,
    grants,
    hosted,
    keys,
    messages,
    runs,
    search,
    sessions,
    state,
    system,
    trash,
    users,
)

ROUTES: Final[tuple[Route, ...]] = (
    *chat.ROUTES,
    *sessions.ROUTES,
    *trash.ROUTES,
    *cleanup.ROUTES,
    *messages.ROUTES,
    *dialogs.ROUTES,
    *state.ROUTES,
    *search.ROUTES,
    *files.ROUTES,
    *archives.ROUTES,
    *runs.ROUTES,
    *busy.ROUTES,
    *hosted.ROUTES,
    *grants.ROUTES,
    *approvals.ROUTES,
    *users.ROUTES,
    *agents.ROUTES,
    *keys.ROUTES,
    *audit.ROUTES,
    *system.ROUTES,
)
