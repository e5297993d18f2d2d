"""Where every setting comes from: defaults, under `alcove.toml`, under the environment, under flags.

Here are the names, the types and the origins. What a setting means is the business of the folder that uses it: the
names of guarantees are checked by `sandbox`, the tables of agents by `agents`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast, get_args

from alcove import limits
from alcove.durations import duration_text
from alcove.errors import ConfigurationError, InvalidError
from alcove.settings.model import Origin, Rung, Settings, Shown, Table
from alcove.settings.parsing import (
    FROM_TEXT,
    KIND_NAMES,
    Place,
    as_database,
    as_duration,
    as_given,
    as_idle,
    as_limits,
    as_minimum,
    as_path,
    as_paths,
    as_port,
    as_text,
    as_url_or_path,
    as_words,
    masked,
    nearest,
    one_of,
)

FILE_NAME: Final = "alcove.toml"
_NAMED: Final = ("agents", "secrets")  # tables of tables
_INNER: Final = ("sandbox", "oidc")  # tables of settings

# Set by Alcove inside a run, so that `alcove` may be called there without a warning.
_RUN_VARIABLES: Final = frozenset({"ALCOVE_SESSION_ID", "ALCOVE_RUN_ID", "ALCOVE_RUN_TOKEN", "ALCOVE_SOCKET"})


def load(
    folder: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read the configuration of the installation in `folder`; nothing is made.

    One file counts: `alcove.toml` in `folder`, else the one in `$XDG_CONFIG_HOME/alcove`. A path in it is relative
    to the file's own folder, a default to `folder`, one in a variable or a flag to the working directory. An empty
    variable counts as unset.

    Args:
        folder: Where the installation is; the working directory when None.
        environ: Variables; the process's own when None.
        overrides: Flags, by the name that a setting has in `alcove.toml` (`sandbox.rung`); None means not given.

    Raises:
        ConfigurationError: A file cannot be read or parsed, a key is unknown, or a value is not valid.
    """
    environ = os.environ if environ is None else environ
    overrides = overrides or {}
    here = Path.cwd()
    folder = Path(os.path.abspath(folder or here))
    file, written, tables = _read_file(folder, environ)
    _refuse_unknown(overrides, _BY_NAME, "the flags")

    values: dict[str, Any] = {**tables}
    origins: dict[str, str] = {}
    for setting in _SETTINGS:
        if overrides.get(setting.name) is not None:
            raw, origin, beside = overrides[setting.name], "flag", here
        elif environ.get(setting.variable):
            raw, origin, beside = environ[setting.variable], setting.variable, here
        elif file and setting.name in written:
            raw, origin, beside = written[setting.name], str(file), file.parent
        else:
            raw, origin, beside = setting.default, "default", folder
        textual = origin not in {"default", str(file)}
        values[setting.field] = None if raw is None else _parsed(setting, raw, textual, origin, Place(beside, environ))
        origins[setting.name] = origin

    values["home"] = values["home"] or values["base"].parent / ".alcove"
    values["database"] = values["database"] or f"sqlite:///{values['home']}/database/alcove.db"
    _refuse_inside_base(values["base"], values["home"], values["database"])
    sources = [Origin(s.name, s.show(values[s.field]), origins[s.name]) for s in _SETTINGS]
    sources += [Origin(f"agents.{name}", _command(table), str(file)) for name, table in tables["agents"].items()]
    return Settings(**values, file=file, warnings=_warnings(environ), sources=tuple(sources))


def _read_file(folder: Path, environ: Mapping[str, str]) -> tuple[Path | None, Table, dict[str, Mapping[str, Table]]]:
    """Return the file that counts, its settings by dotted name, and its tables of agents and of secrets."""
    import tomllib

    for file in (folder / FILE_NAME, _user_folder(environ) / FILE_NAME):
        try:
            with file.open("rb") as stream:
                content = stream.read(limits.CONFIG_BYTES + 1)
            if len(content) > limits.CONFIG_BYTES:
                raise ConfigurationError(
                    f"{file} is larger than {limits.CONFIG_BYTES} bytes", limit=limits.CONFIG_BYTES, remedy="shorten it"
                )
            tables: dict[str, object] = tomllib.loads(content.decode())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigurationError(
                f"{file} cannot be read: {error.strerror}",
                remedy="make it a file that this user may read, or remove it",
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} is not TOML: {error}", remedy="correct that line") from error
        return file, _flat(tables, file), {kind: _named_tables(tables, kind, file) for kind in _NAMED}
    return None, {}, {kind: {} for kind in _NAMED}


def _user_folder(environ: Mapping[str, str]) -> Path:
    # XDG base directory specification: a relative path is to be ignored.
    named = environ.get("XDG_CONFIG_HOME", "")
    return Path(named if os.path.isabs(named) else os.path.join(environ.get("HOME", "/"), ".config"), "alcove")


def _flat(tables: Table, file: Path) -> Table:
    flat = {name: value for name, value in tables.items() if name not in {*_NAMED, *_INNER}}
    _refuse_unknown(flat, [*(name for name in _BY_NAME if "." not in name), *_NAMED, *_INNER], str(file))
    inner = {f"{table}.{name}": value for table in _INNER for name, value in _table(tables, table, file).items()}
    _refuse_unknown(inner, _BY_NAME, str(file))
    return {**flat, **inner}


def _named_tables(tables: Table, kind: str, file: Path) -> Mapping[str, Table]:
    named = _table(tables, kind, file)
    return {name: _table(named, name, file, f"{kind}.") for name in named}


def _table(tables: Table, name: str, file: Path, prefix: str = "") -> Table:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        # A value that somebody wrote here by mistake is not repeated.
        remedy = (
            'write { env = "NAME" } or { file = "path" }, never the value'
            if prefix == "secrets."
            else f"begin it with [{prefix}{name}]"
        )
        raise ConfigurationError(f"{file}: {prefix}{name} is not a table", field=f"{prefix}{name}", remedy=remedy)
    return cast("Table", table)


def _refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{where}: unknown key {name!r}", field=name, remedy=nearest(name, known))


def _refuse_inside_base(base: Path, home: Path, database: str) -> None:
    """Keep what is of value out of the folder that holds workspaces and nothing else."""
    root = os.path.realpath(base)
    paths = {"home": str(home), "database": database.removeprefix("sqlite:///")}
    for field, path in paths.items():
        if path != database and os.path.commonpath([root, os.path.realpath(path)]) == root:
            raise ConfigurationError(
                f"{field} {path} lies inside base {base}",
                field=field,
                remedy="base holds workspaces only; put the other beside it",
            )


def _warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = {setting.variable for setting in _SETTINGS}
    unknown = sorted(name for name in environ if name.startswith("ALCOVE_") and name not in known | _RUN_VARIABLES)
    return tuple(f"{name} is not a setting of Alcove and is ignored; {nearest(name, known)}" for name in unknown)


def _parsed(setting: _Setting, raw: object, textual: bool, origin: str, place: Place) -> object:
    if textual and isinstance(raw, str):
        raw = FROM_TEXT.get(setting.kind, str)(raw.strip())
    try:
        if isinstance(raw, bool) != (setting.kind is bool) or not isinstance(raw, setting.kind):
            raise InvalidError(f"{raw!r} is not {KIND_NAMES[setting.kind]}", remedy=f"such as {setting.example}")
        return setting.parse(raw, place)
    except InvalidError as error:
        raise ConfigurationError(
            f"{setting.name} (from {origin}): {error.message}",
            field=setting.name,
            limit=error.limit,
            remedy=error.remedy,
        ) from None


def _command(table: Table) -> str:
    command = table.get("command", "")
    return " ".join(map(str, cast("list[object]", command))) if isinstance(command, list) else str(command)


def _pairs(value: Mapping[str, str | int]) -> Shown:
    return [f"{name}={limit}" for name, limit in value.items()]


def _shown(value: object) -> Shown:
    if isinstance(value, tuple):
        return [str(item) for item in cast("tuple[object, ...]", value)]
    return value if value is None or isinstance(value, str | int) else str(value)


class _Setting(NamedTuple):
    """One setting: its name in the file and in overrides, its variable, its attribute, and how it is read."""

    name: str
    variable: str
    field: str
    kind: type
    default: object
    parse: Callable[[Any, Place], object]
    example: str
    show: Callable[[Any], Shown] = _shown


_SETTINGS: Final = (
    _Setting("host", "ALCOVE_HOST", "host", str, "127.0.0.1", as_text, '"127.0.0.1"'),
    _Setting("port", "ALCOVE_PORT", "port", int, 8080, as_port, "8080"),
    _Setting("base", "SESSIONS_BASE_DIR", "base", str, "sessions", as_path, '"sessions"'),
    _Setting("home", "ALCOVE_HOME", "home", str, None, as_path, '".alcove"'),
    _Setting("database", "ALCOVE_DATABASE", "database", str, None, as_database, '"sqlite:///alcove.db"', masked),
    _Setting("auto_cleanup", "AUTO_CLEANUP_SESSIONS", "auto_cleanup", bool, True, as_given, "true"),
    _Setting("session_ttl", "ALCOVE_SESSION_TTL", "session_ttl_s", str, "24h", as_idle, '"24h"', duration_text),
    _Setting("trash_grace", "ALCOVE_TRASH_GRACE", "trash_grace_s", str, "7d", as_duration, '"7d"', duration_text),
    _Setting("allowed_hosts", "ALCOVE_ALLOWED_HOSTS", "allowed_hosts", list, [], as_words, '["alcove.example.org"]'),
    _Setting("agent", "ALCOVE_AGENT", "agent", str, "shell", as_text, '"shell"'),
    _Setting("trust_host_agents", "ALCOVE_TRUST_HOST_AGENTS", "trust_host_agents", bool, False, as_given, "true"),
    _Setting("search", "ALCOVE_SEARCH", "search", bool, True, as_given, "true"),
    _Setting("log", "ALCOVE_LOG", "log", str, "text", one_of("text", "json"), '"text"'),
    _Setting("sandbox.rung", "ALCOVE_SANDBOX", "rung", str, "auto", one_of(*get_args(Rung)), '"auto"'),
    _Setting("sandbox.minimum", "ALCOVE_SANDBOX_MINIMUM", "minimum", list, None, as_minimum, '["none"]'),
    _Setting("sandbox.limits", "ALCOVE_SANDBOX_LIMITS", "limits", dict, {}, as_limits, '{ memory = "2GiB" }', _pairs),
    _Setting("oidc.issuer", "ALCOVE_OIDC_ISSUER", "oidc_issuer", str, None, as_text, '"https://id.example.org"'),
    _Setting("oidc.audience", "ALCOVE_OIDC_AUDIENCE", "oidc_audience", str, None, as_text, '"alcove"'),
    _Setting("oidc.jwks", "ALCOVE_OIDC_JWKS", "oidc_jwks", str, None, as_url_or_path, '"https://id.example.org/keys"'),
    _Setting("oidc.algorithms", "ALCOVE_OIDC_ALGORITHMS", "oidc_algorithms", list, ["RS256"], as_words, '["ES256"]'),
    _Setting("oidc.user_claim", "ALCOVE_OIDC_USER_CLAIM", "oidc_user_claim", str, "sub", as_text, '"email"'),
    _Setting("oidc.tenant_claim", "ALCOVE_OIDC_TENANT_CLAIM", "oidc_tenant_claim", str, None, as_text, '"org"'),
    _Setting("oidc.role_claim", "ALCOVE_OIDC_ROLE_CLAIM", "oidc_role_claim", str, None, as_text, '"alcove_role"'),
    _Setting("sandbox.read", "ALCOVE_SANDBOX_READ", "read", list, [], as_paths, '["/opt/tools"]'),
)
_BY_NAME: Final = {setting.name: setting for setting in _SETTINGS}
