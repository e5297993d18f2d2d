"""Where the value of a secret comes from, and what is refused without repeating it."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from alcove import limits
from alcove.agents.catalog import Catalog
from alcove.agents.secrets import Secrets
from alcove.errors import AgentUnavailableError, ConfigurationError

VALUE = "sk-canary-0123456789"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(VALUE + "\n")
    path.chmod(0o600)
    return path


def from_file(key: Path) -> Secrets:
    return Secrets({"KEY": {"file": key.name}}, folder=key.parent, environ={})


def test_a_value_comes_from_a_variable_a_file_or_the_variable_of_its_own_name(key: Path) -> None:
    environ = {"OTHER": VALUE + "1", "PLAIN": VALUE + "2"}
    secrets = Secrets(
        {"KEY": {"file": "key"}, "RENAMED": {"env": "OTHER"}, "UNUSED": {"env": "UNSET"}},
        folder=key.parent,
        environ=environ,
    )
    assert secrets.give(["KEY", "RENAMED", "PLAIN"]) == {"KEY": VALUE, "RENAMED": VALUE + "1", "PLAIN": VALUE + "2"}
    assert secrets.files == (str(key),)
    key.write_text("another-value")
    assert secrets.give(["KEY"]) == {"KEY": "another-value"}
    # What was given before may still be said.
    assert secrets.redact(f"{VALUE}, another-value") == "[secret KEY], [secret KEY]"


def test_names_and_sources_are_shown_and_no_value(key: Path) -> None:
    catalog = Catalog(
        {"it": {"command": ["cat"], "secrets": ["KEY", "PLAIN"]}},
        secrets={"KEY": {"file": "key"}, "UNUSED": {"env": "OTHER"}},
        file=key.parent / "alcove.toml",
        environ={"PATH": "/usr/bin:/bin", "PLAIN": VALUE},
    )
    found = catalog.describe_secrets()
    assert [(one.name, one.source, one.declared, one.available) for one in found] == [
        ("KEY", f"file {key}", True, True),
        ("PLAIN", "variable PLAIN", False, True),
        ("UNUSED", "variable OTHER", True, False),
    ]
    assert VALUE not in repr(found) + repr(catalog.describe())


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601])
def test_a_file_that_is_open_to_others_is_refused(key: Path, mode: int) -> None:
    if os.geteuid() == 0:
        os.chown(key, 0, 12345)  # the group of root is nobody else
    assert from_file(key).give(["KEY"]) == {"KEY": VALUE}
    key.chmod(mode)
    with pytest.raises(AgentUnavailableError, match="secret KEY: its file is open to others") as caught:
        from_file(key).give(["KEY"])
    assert "chmod 600" in caught.value.remedy
    assert str(key) not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(key: Path) -> None:
    os.chown(key, 12345, 12345)
    with pytest.raises(AgentUnavailableError, match="belongs to another user"):
        from_file(key).give(["KEY"])


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name, problem in (("fifo", "no regular file"), ("folder", "no regular file"), ("gone", "cannot be read")):
        with pytest.raises(AgentUnavailableError, match=f"secret KEY: .*{problem}"):
            from_file(tmp_path / name).give(["KEY"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "fewer than 8"),
        (b"seven77\n", "fewer than 8"),
        (b"two lines\nof a key", "one line"),
        (b"nul\0nul\0nul", "one line"),
        (b"\xff-canary-latin", "UTF-8"),
        (b"canary-x" * 1024 + b"x", f"{limits.SECRET_BYTES} bytes"),
    ],
)
def test_a_value_that_could_not_be_hidden_is_refused_and_not_repeated(key: Path, content: bytes, problem: str) -> None:
    key.write_bytes(content)
    with pytest.raises(AgentUnavailableError, match=f"secret KEY: .*{problem}") as caught:
        from_file(key).give(["KEY"])
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.remedy


def test_eight_characters_are_enough_and_so_is_the_limit(key: Path) -> None:
    for value in ("eight888", "x" * limits.SECRET_BYTES):
        key.write_text(value)
        assert from_file(key).give(["KEY"]) == {"KEY": value}


@pytest.mark.parametrize("environ", [{}, {"OTHER": ""}])
def test_a_missing_variable_names_the_secret_and_the_remedy(environ: dict[str, str]) -> None:
    secrets = Secrets({"KEY": {"env": "OTHER"}}, folder=Path("/"), environ=environ)
    with pytest.raises(AgentUnavailableError, match="secret KEY: its variable is not set in the server's") as caught:
        secrets.give(["KEY"])
    assert caught.value.remedy.startswith("set the variable that `alcove config` shows there")
    with pytest.raises(AgentUnavailableError) as caught:
        secrets.give(["PLAIN"])
    assert caught.value.remedy.startswith("set PLAIN there")


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("KEY", {}, "exactly one source"),
        ("KEY", {"env": "A", "file": "b"}, "exactly one source"),
        ("KEY", {"value": VALUE}, "unknown key 'value'"),
        ("KEY", {"env": VALUE}, "not the name of a variable"),
        ("KEY", {"env": ["A"]}, "no text of one line"),
        ("KEY", {"file": " "}, "no text of one line"),
        ("NO-NAME", {"env": "A"}, "not the name of a variable"),
    ],
)
def test_a_table_that_names_no_source_is_refused_and_not_repeated(
    name: str, table: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Catalog(secrets={name: table}, file=Path("/x/alcove.toml"))
    assert caught.value.message.startswith(f"/x/alcove.toml: [secrets.{name}]")
    assert caught.value.field == f"secrets.{name}"
    assert VALUE not in str(caught.value)
