from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from alcove.durations import duration_s, duration_text
from alcove.errors import ConfigurationError, InvalidError
from alcove.settings.loading import load
from alcove.settings.model import Settings


def read(folder: Path, text: str, environ: dict[str, str] | None = None, **overrides: object) -> Settings:
    (folder / "alcove.toml").write_text(text)
    return load(folder, environ or {}, overrides)


def refusal(folder: Path, text: str = "", environ: dict[str, str] | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text, environ)
    assert caught.value.remedy
    return caught.value


def test_an_empty_folder_has_the_documented_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, {}, {})
    assert (settings.host, settings.port, settings.base) == ("127.0.0.1", 8080, tmp_path / "sessions")
    assert settings.home == tmp_path / ".alcove"
    assert settings.database == f"sqlite:///{tmp_path}/.alcove/database/alcove.db"
    assert (settings.auto_cleanup, settings.session_ttl_s, settings.trash_grace_s) == (True, 86400, 7 * 86400)
    assert settings.limits == {}
    assert (settings.rung, settings.minimum, settings.agent, settings.log) == ("auto", None, "shell", "text")
    assert (settings.allowed_hosts, settings.read, settings.agents, settings.file) == ((), (), {}, None)
    assert {origin for _, _, origin in settings.origins()} == {"default"}
    assert list(tmp_path.iterdir()) == []


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        'host = "file"\nport = 1\nlog = "json"\n[sandbox]\nrung = "none"',
        {"ALCOVE_HOST": "environ", "ALCOVE_PORT": "2", "ALCOVE_LOG": ""},
        host="flag",
    )
    assert (settings.host, settings.port, settings.log, settings.rung) == ("flag", 2, "json", "none")
    origins = {name: origin for name, _, origin in settings.origins()}
    assert origins["host"] == "flag"
    assert origins["port"] == "ALCOVE_PORT"
    assert origins["log"] == origins["sandbox.rung"] == str(tmp_path / "alcove.toml")
    assert settings.origin("agent") == "default"


def test_every_variable_is_read(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        {
            "SESSIONS_BASE_DIR": "/b/sessions",
            "ALCOVE_HOME": "/h",
            "ALCOVE_DATABASE": "memory://",
            "AUTO_CLEANUP_SESSIONS": "False",
            "ALCOVE_SESSION_TTL": "never",
            "ALCOVE_TRASH_GRACE": "0s",
            "ALCOVE_ALLOWED_HOSTS": "a.example, b.example",
            "ALCOVE_SANDBOX": "landlock",
            "ALCOVE_SANDBOX_MINIMUM": "none",
            "ALCOVE_SANDBOX_LIMITS": "memory=2GiB, processes = 64",
            "ALCOVE_AGENT": "q",
            "ALCOVE_LOG": "json",
        },
    )
    assert (settings.base, settings.home, settings.database) == (Path("/b/sessions"), Path("/h"), "memory://")
    assert (settings.auto_cleanup, settings.session_ttl_s, settings.trash_grace_s) == (False, None, 0)
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert (settings.rung, settings.minimum, settings.agent, settings.log) == ("landlock", (), "q", "json")
    assert settings.limits == {"memory": "2GiB", "processes": "64"}
    assert settings.warnings == ()


def test_the_file_of_the_user_counts_only_where_the_folder_has_none(tmp_path: Path) -> None:
    user, folder = tmp_path / "config" / "alcove", tmp_path / "here"
    user.mkdir(parents=True)
    folder.mkdir()
    (user / "alcove.toml").write_text('port = 1\nhost = "user"\nhome = "data"')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    settings = load(folder, environ)
    assert (settings.port, settings.file) == (1, user / "alcove.toml")
    assert (settings.home, settings.base) == (user / "data", folder / "sessions")
    assert read(folder, "port = 2", environ).host == "127.0.0.1"


def test_paths_are_absolute_from_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, here = tmp_path / "installation", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    settings = read(
        folder,
        'base = "w"\ndatabase = "sqlite:///d/a.db"\n[sandbox]\nread = ["tools", "~/bin", "/usr/../opt"]',
        {"ALCOVE_HOME": "./state", "HOME": "/person"},
    )
    assert settings.base == folder / "w"
    assert settings.database == f"sqlite:///{folder}/d/a.db"
    assert settings.read == (folder / "tools", Path("/person/bin"), Path("/opt"))
    assert settings.home == here / "state"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('hots = "x"', "hots", "did you mean 'host'"),
        ("[sandbox]\nrug = 1", "sandbox.rug", "did you mean 'sandbox.rung'"),
        ("zzz = 1", "zzz", "known: "),
        ('port = "8080"', "port", "such as 8080"),
        ("port = true", "port", "such as 8080"),
        ("port = 65536", "port", "0 for any free port"),
        ("port = -1", "port", "0 for any free port"),
        ("auto_cleanup = 1", "auto_cleanup", "such as true"),
        ("host = 2024-01-01", "host", "such as"),
        ('host = ""', "host", "give a word"),
        ("session_ttl = 3600", "session_ttl", 'such as "24h"'),
        ('session_ttl = "3 days"', "session_ttl", "30s, 15m, 24h, 7d; or never"),
        ('session_ttl = "0s"', "session_ttl", "never"),
        ('trash_grace = "9999999d"', "trash_grace", "never"),
        ('allowed_hosts = "a,b"', "allowed_hosts", "such as"),
        ("allowed_hosts = [1]", "allowed_hosts", "in quotes"),
        ('log = "jsn"', "log", "did you mean 'json'"),
        ('database = "mysql://u:secret@h/d"', "database", "postgresql://"),
        ('sandbox = "none"', "sandbox", "begin it with [sandbox]"),
        ('[sandbox]\nrung = "chroot"', "sandbox.rung", "known: auto, bwrap, landlock, none, userns"),
        ("[sandbox]\nminimum = []", "sandbox.minimum", "'none' alone"),
        ('[sandbox]\nminimum = ["none", "x"]', "sandbox.minimum", "'none' alone"),
        ("[sandbox]\nlimits = 1", "sandbox.limits", 'such as { memory = "2GiB" }'),
        ("[sandbox.limits]\nmemory = true", "sandbox.limits", "write a whole number"),
        ("agents = 1", "agents", "begin it with [agents]"),
        ("[agents]\nq = 1", "agents.q", "begin it with [agents.q]"),
        ('home = "sessions/.alcove"', "home", "beside it"),
        ('database = "sqlite:///sessions/a.db"', "database", "beside it"),
        ('base = "."', "home", "beside it"),
    ],
)
def test_a_bad_value_names_its_key_and_what_to_write(tmp_path: Path, text: str, field: str, words: str) -> None:
    error = refusal(tmp_path, text + ('\nhome = ".alcove"' if text.startswith("base") else ""))
    assert error.field == field
    assert words in error.remedy
    assert field.rsplit(".", maxsplit=1)[-1] in error.message


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    assert "ALCOVE_PORT" in refusal(tmp_path, "", {"ALCOVE_PORT": "http"}).message
    assert "AUTO_CLEANUP_SESSIONS" in refusal(tmp_path, "", {"AUTO_CLEANUP_SESSIONS": "perhaps"}).message


def test_a_broken_file_names_itself_and_the_line(tmp_path: Path) -> None:
    error = refusal(tmp_path, "port = 1\nhost = oops\n")
    assert str(tmp_path / "alcove.toml") in error.message
    assert "line 2" in error.message


def test_what_is_not_a_readable_text_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "alcove.toml"
    file.write_bytes(b"host = '\xff'")
    with pytest.raises(ConfigurationError, match="not TOML"):
        load(tmp_path, {})
    file.write_bytes(b"#" * 1_100_000)
    with pytest.raises(ConfigurationError, match="larger than"):
        load(tmp_path, {})
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path, {})


def test_an_unknown_flag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="hots"):
        load(tmp_path, {}, {"hots": "x"})


def test_an_unknown_variable_is_a_warning_without_its_value(tmp_path: Path) -> None:
    settings = load(tmp_path, {"ALCOVE_PROT": "s3cret", "ALCOVE_RUN_TOKEN": "t", "OTHER": "x"})
    assert len(settings.warnings) == 1
    assert "ALCOVE_PROT" in settings.warnings[0]
    assert "did you mean 'ALCOVE_PORT'" in settings.warnings[0]
    assert "s3cret" not in settings.warnings[0]


def test_origins_show_no_password(tmp_path: Path) -> None:
    for url in ("postgresql://ana:s3cret@db:5432/alcove", "postgresql://db/alcove?user=ana&password=s3cret&x=1"):
        settings = load(tmp_path, {"ALCOVE_DATABASE": url})
        assert settings.database == url
        assert "s3cret" not in str(settings.origins())
        assert "db" in str(settings.origins())
    assert "secret" not in str(refusal(tmp_path, 'database = "mysql://u:secret@h/d"'))


def test_tables_of_agents_are_kept_as_written(tmp_path: Path) -> None:
    settings = read(tmp_path, '[agents.q]\ncommand = ["q", "chat"]\nhistory = 3')
    assert settings.agents == {"q": {"command": ["q", "chat"], "history": 3}}
    assert settings.origins()[-1] == ("agents.q", "q chat", str(tmp_path / "alcove.toml"))


def test_durations_refuse_what_is_ambiguous() -> None:
    assert duration_s("never") is None
    for text in ("", "10", "1.5h", "-1s", "1h30m", "10 s", "1w", "٣s"):
        with pytest.raises(InvalidError, match="duration"):
            duration_s(text)


@given(st.none() | st.integers(0, 315_360_000))
def test_a_duration_survives_being_written(seconds: int | None) -> None:
    assert duration_s(duration_text(seconds)) == seconds


def test_importing_alcove_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "alcove.toml").write_text("broken")
    code = "import alcove, alcove.settings, sys; sys.exit('tomllib' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ).returncode == 0


def test_secrets_are_tables_that_say_where_values_are(tmp_path: Path) -> None:
    settings = read(tmp_path, '[secrets]\nKEY = { env = "OTHER" }\n[secrets.TOKEN]\nfile = "token"\n')
    assert settings.secrets == {"KEY": {"env": "OTHER"}, "TOKEN": {"file": "token"}}
    assert load(tmp_path / "empty", {}, {}).secrets == {}


def test_a_value_in_the_place_of_its_source_is_refused_and_not_repeated(tmp_path: Path) -> None:
    error = refusal(tmp_path, '[secrets]\nKEY = "sk-canary"\n')
    assert error.field == "secrets.KEY"
    assert "never the value" in error.remedy
    assert "canary" not in str(error)
