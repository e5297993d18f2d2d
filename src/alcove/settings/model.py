"""What a configuration holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

Rung: TypeAlias = Literal["auto", "userns", "bwrap", "landlock", "none"]
LogFormat: TypeAlias = Literal["text", "json"]
Shown: TypeAlias = str | int | bool | list[str] | None
Table: TypeAlias = Mapping[str, object]


class Origin(NamedTuple):
    """One setting, its value as a person may see it (no password), and where that came from."""

    name: str
    value: Shown
    origin: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of one installation. Every path is absolute; none was looked at.

    Attributes:
        host: Address to listen on.
        port: TCP port, 0 for any free one.
        base: Folder of the workspaces.
        home: Folder of the database, objects, homes and keys.
        database: URL of the database.
        auto_cleanup: Whether the server sweeps by itself.
        session_ttl_s: Idle time after which a session expires, None for never.
        trash_grace_s: How long the trash keeps a session, None for ever.
        allowed_hosts: Names besides the address itself under which a proxy may call.
        rung: The sandbox rung to use.
        minimum: Guarantees below which no run starts; None for the sandbox's own minimum, empty for none at all.
        limits: What a run may take, by the names that `[sandbox.limits]` has, as written; the others have defaults.
        read: Further paths that every run may read.
        agent: Name of the agent that answers when none is named.
        trust_host_agents: Whether the server starts although an agent that may reach the host's network can reach it.
        search: Whether histories are indexed as they grow.
        log: Form of log lines.
        agents: The tables `[agents.NAME]` as written.
        secrets: The tables `[secrets]` as written: where values are, and no values.
        oidc_issuer: The OpenID Connect provider whose tokens are taken; None for none.
        oidc_audience: Whom its tokens have to be for.
        oidc_jwks: Where its keys are: a URL, or a path.
        oidc_algorithms: With which it signs.
        oidc_user_claim: The claim that names the user.
        oidc_tenant_claim: The one that names the tenant, None for the tenant `default`.
        oidc_role_claim: The one that names the role, None for users only.
        file: The configuration file that was read.
        warnings: Sentences about what was ignored.
        sources: Every setting with its origin; read it by `origins()`.
    """

    host: str
    port: int
    base: Path
    home: Path
    database: str
    auto_cleanup: bool
    session_ttl_s: int | None
    trash_grace_s: int | None
    allowed_hosts: tuple[str, ...]
    rung: Rung
    minimum: tuple[str, ...] | None
    limits: Mapping[str, str | int]
    read: tuple[Path, ...]
    agent: str
    trust_host_agents: bool
    search: bool
    log: LogFormat
    oidc_issuer: str | None
    oidc_audience: str | None
    oidc_jwks: str | None
    oidc_algorithms: tuple[str, ...]
    oidc_user_claim: str
    oidc_tenant_claim: str | None
    oidc_role_claim: str | None
    agents: Mapping[str, Table]
    secrets: Mapping[str, Table]
    file: Path | None
    warnings: tuple[str, ...]
    sources: tuple[Origin, ...]

    def origins(self) -> list[Origin]:
        """Return every setting as `(name, value, origin)`, in the order of the documentation.

        The origin is `default`, `flag`, the name of an environment variable or the path of a file.
        """
        return list(self.sources)

    def origin(self, name: str) -> str:
        """Return where the setting called `name` in `alcove.toml` came from."""
        return next(source.origin for source in self.sources if source.name == name)
