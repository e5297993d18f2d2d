"""`alcove doctor`, and what every command says about an installation that cannot be used."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from alcove.sandbox.limits import NAMES
from cli.conftest import Run, loaded

GUARANTEES = {
    "file_read",
    "file_write",
    "metadata",
    "processes",
    "signals",
    "network",
    "hosts",
    "ipc",
    "limits",
    "quota",
}


@pytest.fixture
def made(run: Run, place: Path) -> Path:
    """The database file of an installation."""
    run("create", "--id", "a")
    return place / ".alcove" / "database" / "alcove.db"


def test_the_keys_of_a_provider_are_looked_at(run: Run, place: Path) -> None:
    table = '[sandbox]\nrung = "none"\n[oidc]\nissuer = "https://id.example.org"\naudience = "a"\njwks = "keys.json"\n'
    (place / "alcove.toml").write_text(table)
    (place / "keys.json").write_text(
        '{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "' + "A" * 43 + '"}]}'
    )
    assert "server\tsign-ins\t1 keys of https://id.example.org" in run("doctor").stdout
    (place / "keys.json").write_text("none")
    shown = run("doctor").stdout
    assert "cannot be read" in shown
    assert "server\tremedy" in shown


def test_with_a_key_the_server_starts_also_where_agents_could_call_it(run: Run, place: Path) -> None:
    (place / "alcove.toml").write_text('[sandbox]\nrung = "none"\n')
    run("create", "--id", "a")
    assert "would not start" in run("doctor").stdout
    run("key", "create")
    assert "server\tstate\tok" in run("doctor").stdout


def test_where_nothing_is_yet_the_machine_is_examined_and_nothing_made(run: Run, place: Path) -> None:
    found = loaded(run("doctor", "--json"))
    assert found["ok"]
    assert found["database"]["state"].startswith("none yet")
    assert found["folders"]["state"] == "none yet"
    assert found["folders"]["free_bytes"] > 0
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("made")
def test_it_says_what_there_is(run: Run, place: Path) -> None:
    found = loaded(run("doctor", "--json"))
    assert (found["ok"], found["problems"]) == (True, [])
    assert [one["rung"] for one in found["sandbox"]["rungs"]] == ["userns", "bwrap", "landlock", "none"]
    for one in found["sandbox"]["rungs"]:
        assert one["vector"].keys() == GUARANTEES
        assert one["available"] or (one["failure"] and one["remedy"])
        assert all(one["vector"].values()) or one["holes"] or one["failure"]
    assert found["sandbox"]["limits"].keys() == {*NAMES, "end"}
    assert all(found["sandbox"]["limits"].values()), "by what each is kept"
    assert found["database"]["integrity"] == found["database"]["state"] == "ok"
    assert "synchronous=FULL" in found["database"]["durability"]
    assert found["database"]["schema"] >= 1
    assert found["folders"]["installation"] == (place / "sessions/.alcove/installation").read_text().strip()
    assert [one["name"] for one in found["agents"] if one["available"]] == ["shell"]


@pytest.mark.usefixtures("made")
def test_people_and_pipes_get_the_same_facts(run: Run) -> None:
    piped = [line.split("\t") for line in run("doctor").stdout.splitlines()]
    assert {line[0] for line in piped} == {"alcove", "sandbox", "database", "folders", "agents", "server"}
    assert ["alcove", "runs", "can start"] in piped
    assert ["sandbox", "limit disk", "kept by watch"] in piped
    shown = run("doctor", columns=100).stdout
    assert all(value in shown for _, name, value in piped if "free" not in name)


def test_an_agent_that_cannot_run_is_shown_and_a_problem_only_by_default(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "alcove.toml").write_text('[agents.gone]\ncommand = "no-such-program"\n')
    assert "agents\tgone\tunavailable: no-such-program is not on the server's PATH" in run("doctor").stdout
    monkeypatch.setenv("ALCOVE_AGENT", "gone")
    result = run("doctor", exit_code=1)
    assert "agent 'gone', the default, cannot run" in result.stderr
    monkeypatch.setenv("ALCOVE_AGENT", "nobody")
    assert "there is no agent 'nobody'" in run("doctor", exit_code=1).stderr


def test_what_an_agent_may_reach_is_shown_and_a_list_that_nothing_holds_makes_it_unavailable(
    run: Run, place: Path
) -> None:
    listed = '[agents.listed]\ncommand = ["cat"]\nnetwork = ["X.org:443", "*.y.org"]\n'
    (place / "alcove.toml").write_text(listed + '[agents.open]\ncommand = ["cat"]\nnetwork = "host"\n')
    shown = run("doctor").stdout
    assert "/cat (network: the hosts *.y.org x.org:443)\n" in shown
    assert "/cat (network: the host's)\n" in shown
    agents = {one["name"]: one["network"] for one in loaded(run("doctor", "--json"))["agents"]}
    assert agents == {"listed": ["*.y.org", "x.org:443"], "open": "host", "shell": "none"}
    (place / "alcove.toml").write_text(listed + '[sandbox]\nrung = "none"\n')
    shown = run("doctor").stdout
    assert "agents\tlisted\tunavailable: the rung none does not guarantee here that a run with a list of hosts" in shown


def test_secrets_are_shown_by_name_and_source_and_never_by_value(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SET", "sk-canary-0123456789")
    (place / "key").write_text("sk-canary-9876543210")
    (place / "key").chmod(0o644)
    (place / "alcove.toml").write_text(
        '[secrets]\nA = { env = "SET" }\nB = { file = "key" }\n'
        '[agents.it]\ncommand = ["cat"]\nsecrets = ["A", "B", "GONE"]\n'
    )
    shown = run("doctor")
    assert "secrets\tA\tvariable SET: ok\n" in shown.stdout
    assert f"secrets\tB\tfile {place}/key: secret B: its file is open to others; give it to" in shown.stdout
    assert (
        "secrets\tGONE\tvariable GONE: secret GONE: its variable is not set in the server's environment; set GONE"
        in shown.stdout
    )
    assert "agents\tit\tunavailable: secret B: its file is open to others" in shown.stdout
    listed = run("config").stdout
    assert f"secrets.A\tvariable SET\t{place}/alcove.toml\nsecrets.B\tfile {place}/key\t" in listed
    assert "secrets.GONE\tvariable GONE\tdefault\n" in listed
    for text in (shown.stdout, listed, run("doctor", "--json").stdout, run("config", "--json").stdout):
        assert "secret" in text
        assert "canary" not in text


def test_a_guarantee_that_there_is_not_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCOVE_SANDBOX_MINIMUM", "everything")
    result = run("doctor", exit_code=1)
    assert "there is no guarantee 'everything'" in result.stderr


def test_a_damaged_database_is_found(run: Run, made: Path) -> None:
    for number in range(40):
        run("create", "--id", f"s{number}", "--title", "x" * 400)
    with sqlite3.connect(made) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [[root]] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sessions_by_user'")
        [[size]] = connection.execute("PRAGMA page_size")
    connection.close()
    with made.open("r+b") as file:
        file.seek((root - 1) * size + 8)
        file.write(b"\xff" * 200)
    found = loaded(run("doctor", "--json", exit_code=1))
    assert found["database"]["state"] == "failed"
    assert found["sandbox"]["rung"], "the rest is examined all the same"


class TestBadInstallations:
    def test_a_database_that_is_none(self, run: Run, made: Path) -> None:
        for file in made.parent.iterdir():
            file.unlink()
        made.write_text("this is no database, however long it may be" * 100)
        for command in (["list"], ["detail", "a"], ["rm", "a"], ["create"], ["chat", "true"], ["doctor"]):
            result = run(*command, exit_code=1)
            assert result.stderr.startswith("error: ")
            assert "is not a SQLite database" in result.stderr

    def test_a_database_that_another_program_holds(self, run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("alcove.limits.BUSY_TIMEOUT_S", 0.1)
        holding = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')"
        )
        # Another process, because locks of one process do not keep it out itself.
        with subprocess.Popen(
            [sys.executable, "-c", f"{holding}; print(); input()", str(made)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            for command in (["create"], ["chat", "true"], ["list"]):
                result = run(*command, exit_code=1)
                assert "another program holds" in result.stderr
                assert "hint: wait for it" in result.stderr
            holder.communicate("\n")

    def test_a_base_of_another_installation(self, run: Run, place: Path, made: Path) -> None:
        shutil.rmtree(place / ".alcove")
        for command in (["create"], ["chat", "true"], ["rm", "a"], ["doctor"]):
            result = run(*command, exit_code=1)
            assert "belongs to another installation" in result.stderr
            assert "SESSIONS_BASE_DIR" in result.stderr

    @pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
    def test_a_base_that_is_a_link(self, run: Run, place: Path, target: str) -> None:
        (place / "elsewhere").mkdir()
        (place / "sessions").symlink_to(target)
        for command in (["create"], ["chat", "true"], ["doctor"]):
            assert "is a link" in run(*command, exit_code=1).stderr
        assert list((place / "elsewhere").iterdir()) == []

    def test_a_base_that_is_a_file(self, run: Run, place: Path) -> None:
        (place / "sessions").touch()
        for command in (["create"], ["doctor"]):
            assert "is not a folder" in run(*command, exit_code=1).stderr

    def test_a_base_that_everybody_may_write_to(self, run: Run, place: Path, made: Path) -> None:
        (place / "sessions").chmod(0o777)
        for command in (["create"], ["doctor"]):
            assert "everybody may write" in run(*command, exit_code=1).stderr

    def test_a_home_that_only_somebody_else_may_enter(self, place: Path, made: Path) -> None:
        (place / ".alcove").chmod(0)
        for command in (["list"], ["create"], ["rm", "a"], ["doctor"]):
            said = _as_nobody(place, *command)
            assert "cannot be looked at" in said or "not writable" in said or "cannot be written" in said, command
            assert "hint: " in said
        (place / ".alcove").chmod(0o700)

    def test_a_folder_in_which_nothing_can_be_made(self, place: Path) -> None:
        place.chmod(0o555)
        for command in (["create"], ["chat", "true"], ["doctor"]):
            said = _as_nobody(place, *command)
            assert "cannot be made" in said or "not writable" in said, command
        assert list(place.iterdir()) == []

    def test_a_newer_database(self, run: Run, made: Path) -> None:
        with sqlite3.connect(made) as connection:
            connection.execute("INSERT INTO alcove_migrations VALUES (9999, 'future', 'x', 0)")
        connection.close()
        for command in (["list"], ["doctor"]):
            assert "the database has schema 9999" in run(*command, exit_code=1).stderr


def _as_nobody(place: Path, *arguments: str) -> str:
    """Run a command as a user who owns nothing here, expect it to fail, and return what it said."""
    dropped = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*dropped, sys.executable, "-m", "alcove", *arguments], cwd=place, capture_output=True, text=True, timeout=60
    )
    if dropped and "No module named alcove" in done.stderr:
        pytest.skip("this checkout lies where another user cannot read it")
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr
