"""Where every setting comes from: defaults, under `alcove.toml`, under the environment, under flags.

Here are the names, the types and the origins. What a setting means is the business of the folder that uses it: the
names of guarantees are checked by `sandbox`, the tables of agents by `agents`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, get_args

import msgspec

from alcove import limits
from alcove.durations import duration_s, duration_text
from alcove.errors import ConfigurationError, InvalidError

FILE_NAME: Final = "alcove.toml"
_NAMED: Final = ("agents", "secrets")  # tables of tables
Rung: TypeAlias = Literal["auto", "userns", "bwrap", "landlock", "none"]
LogFormat: TypeAlias = Literal["text", "json"]
Shown: TypeAlias = str | int | bool | list[str] | None
Table: TypeAlias = Mapping[str, object]

_PASSWORD = re.compile(r"(?<=:)[^:/@]+(?=@)|(?<=password=)[^&]*")
# Set by Alcove inside a run, so that `alcove` may be called there without a warning.
_RUN_VARIABLES: Final = frozenset({"ALCOVE_SESSION_ID", "ALCOVE_RUN_ID", "ALCOVE_RUN_TOKEN", "ALCOVE_SOCKET"})


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
        read: Further paths that every run may read.
        agent: Name of the agent that answers when none is named.
        trust_host_agents: Whether the server starts although an agent that may reach the host's network can reach it.
        search: Whether histories are indexed as they grow.
        log: Form of log lines.
        agents: The tables `[agents.NAME]` as written.
        secrets: The tables `[secrets]` as written: where values are, and no values.
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
    read: tuple[Path, ...]
    agent: str
    trust_host_agents: bool
    search: bool
    log: LogFormat
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


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a remedy for an unknown word: the known one that looks like it, else all of them."""
    names = sorted(known)
    close = get_close_matches(word, names, 1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(names)


def absolute(path: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return `path` without `~`, `.` and `..`, relative ones under `folder`; symbolic links are not followed."""
    if path == "~" or path.startswith("~/"):
        path = environ.get("HOME", "~") + path[1:]
    return Path(os.path.abspath(folder / path))


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
        values[setting.field] = None if raw is None else _parsed(setting, raw, textual, origin, _Place(beside, environ))
        origins[setting.name] = origin

    values["home"] = values["home"] or values["base"].parent / ".alcove"
    values["database"] = values["database"] or f"sqlite:///{values['home']}/database/alcove.db"
    _refuse_inside_base(values["base"], values["home"], values["database"])
    sources = [Origin(s.name, s.show(values[s.field]), origins[s.name]) for s in _SETTINGS]
    sources += [Origin(f"agents.{name}", _command(table), str(file)) for name, table in tables["agents"].items()]
    return Settings(**values, file=file, warnings=_warnings(environ), sources=tuple(sources))


class _Place(NamedTuple):
    folder: Path
    environ: Mapping[str, str]


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
    flat = {name: value for name, value in tables.items() if name not in {*_NAMED, "sandbox"}}
    _refuse_unknown(flat, [*(name for name in _BY_NAME if "." not in name), *_NAMED, "sandbox"], str(file))
    inner = {f"sandbox.{name}": value for name, value in _table(tables, "sandbox", file).items()}
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


# Parsers: each takes what TOML gives and refuses every other type.


def _parsed(setting: _Setting, raw: object, textual: bool, origin: str, place: _Place) -> object:
    if textual and isinstance(raw, str):
        raw = _FROM_TEXT.get(setting.kind, str)(raw.strip())
    try:
        if isinstance(raw, bool) != (setting.kind is bool) or not isinstance(raw, setting.kind):
            raise InvalidError(f"{raw!r} is not {_KIND_NAMES[setting.kind]}", remedy=f"such as {setting.example}")
        return setting.parse(raw, place)
    except InvalidError as error:
        raise ConfigurationError(
            f"{setting.name} (from {origin}): {error.message}",
            field=setting.name,
            limit=error.limit,
            remedy=error.remedy,
        ) from None


def _text(raw: str, place: _Place) -> str:
    del place
    if not raw.strip() or not raw.isprintable():
        raise InvalidError(f"{raw!r} is empty or has a control character", remedy="give a word")
    return raw


def _as_is(raw: bool, place: _Place) -> bool:
    del place
    return raw


def _port(raw: int, place: _Place) -> int:
    del place
    if not 0 <= raw <= 65535:
        raise InvalidError(f"{raw} is not a port", limit=65535, remedy="use 1 to 65535, or 0 for any free port")
    return raw


def _path(raw: str, place: _Place) -> Path:
    return absolute(_text(raw, place), place.folder, place.environ)


def _paths(raw: list[object], place: _Place) -> tuple[Path, ...]:
    return tuple(_path(path, place) for path in _words(raw, place))


def _words(raw: list[object], place: _Place) -> tuple[str, ...]:
    words = [word for word in raw if isinstance(word, str)]
    if len(words) != len(raw):
        raise InvalidError(f"{raw!r} has something other than text in it", remedy="put each word in quotes")
    return tuple(_text(word, place) for word in words)


def _minimum(raw: list[object], place: _Place) -> tuple[str, ...]:
    words = _words(raw, place)
    if not words or ("none" in words and len(words) > 1):
        raise InvalidError(f"{raw!r} does not say what is the least", remedy="name guarantees, or 'none' alone")
    return () if words == ("none",) else words


def _database(raw: str, place: _Place) -> str:
    if raw.startswith("sqlite:///"):
        return f"sqlite:///{_path(raw.removeprefix('sqlite:///'), place)}"
    if raw.startswith(("memory://", "postgresql://", "postgres://")):
        return raw
    raise InvalidError(
        f"{_masked(raw)!r} is not a database URL",
        remedy="use sqlite:///path/to/file.db, memory:// or postgresql://user@host/name",
    )


def _idle(raw: str, place: _Place) -> int | None:
    seconds = _duration(raw, place)
    if seconds == 0:
        raise InvalidError("a session of no life at all", remedy="use at least 1s, or never")
    return seconds


def _duration(raw: str, place: _Place) -> int | None:
    del place
    return duration_s(raw)


def _one_of(*words: str) -> Callable[[str, _Place], str]:
    def parse(raw: str, place: _Place) -> str:
        del place
        if raw not in words:
            raise InvalidError(f"{raw!r} is not one of {', '.join(words)}", remedy=nearest(raw, words))
        return raw

    return parse


def _masked(url: object) -> str:
    return _PASSWORD.sub("***", str(url))


def _command(table: Table) -> str:
    command = table.get("command", "")
    return " ".join(map(str, cast("list[object]", command))) if isinstance(command, list) else str(command)


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
    parse: Callable[[Any, _Place], object]
    example: str
    show: Callable[[Any], Shown] = _shown


_FROM_TEXT: Final[Mapping[type, Callable[[str], object]]] = {
    int: lambda text: int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text,
    bool: lambda text: {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text),
    list: lambda text: [word.strip() for word in text.split(",")],
}
_KIND_NAMES: Final = {str: "text", int: "a whole number", bool: "true or false", list: "a list of words"}

_SETTINGS: Final = (
    _Setting("host", "ALCOVE_HOST", "host", str, "127.0.0.1", _text, '"127.0.0.1"'),
    _Setting("port", "ALCOVE_PORT", "port", int, 8080, _port, "8080"),
    _Setting("base", "SESSIONS_BASE_DIR", "base", str, "sessions", _path, '"sessions"'),
    _Setting("home", "ALCOVE_HOME", "home", str, None, _path, '".alcove"'),
    _Setting("database", "ALCOVE_DATABASE", "database", str, None, _database, '"sqlite:///alcove.db"', _masked),
    _Setting("auto_cleanup", "AUTO_CLEANUP_SESSIONS", "auto_cleanup", bool, True, _as_is, "true"),
    _Setting("session_ttl", "ALCOVE_SESSION_TTL", "session_ttl_s", str, "24h", _idle, '"24h"', duration_text),
    _Setting("trash_grace", "ALCOVE_TRASH_GRACE", "trash_grace_s", str, "7d", _duration, '"7d"', duration_text),
    _Setting("allowed_hosts", "ALCOVE_ALLOWED_HOSTS", "allowed_hosts", list, [], _words, '["alcove.example.org"]'),
    _Setting("agent", "ALCOVE_AGENT", "agent", str, "shell", _text, '"shell"'),
    _Setting("trust_host_agents", "ALCOVE_TRUST_HOST_AGENTS", "trust_host_agents", bool, False, _as_is, "true"),
    _Setting("search", "ALCOVE_SEARCH", "search", bool, True, _as_is, "true"),
    _Setting("log", "ALCOVE_LOG", "log", str, "text", _one_of("text", "json"), '"text"'),
    _Setting("sandbox.rung", "ALCOVE_SANDBOX", "rung", str, "auto", _one_of(*get_args(Rung)), '"auto"'),
    _Setting("sandbox.minimum", "ALCOVE_SANDBOX_MINIMUM", "minimum", list, None, _minimum, '["none"]'),
    _Setting("sandbox.read", "ALCOVE_SANDBOX_READ", "read", list, [], _paths, '["/opt/tools"]'),
)
_BY_NAME: Final = {setting.name: setting for setting in _SETTINGS}
