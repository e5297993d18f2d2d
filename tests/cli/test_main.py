"""The command line itself: what it loads, how it fails, which exit codes it has."""

from __future__ import annotations

import ast
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import alcove
from alcove import errors
from alcove.cli import main, output
from alcove.errors import AlcoveError
from alcove.settings.model import Settings
from cli.conftest import Run, loaded

ALCOVE = [sys.executable, "-m", "alcove"]
HEAVY = (
    "alcove.server",
    "alcove.hub",
    "alcove.settings",
    "apsw",
    "psycopg",
    "starlette",
    "uvicorn",
    "msgspec",
    "asyncio",
)


def _loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stderr.split())


def _run(*arguments: str) -> str:
    return f"from alcove.cli.main import cli\ntry: cli.main({list(arguments)!r}, 'alcove')\nexcept SystemExit: pass"


class TestLoading:
    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["lst"]])
    def test_help_loads_no_command(self, arguments: list[str]) -> None:
        assert _loaded(_run(*arguments)) & {*HEAVY, "alcove.cli.sessions", "alcove.cli.installation"} == set()

    @pytest.mark.parametrize("arguments", [["config"], ["list"], ["serve", "--help"]])
    def test_a_command_without_server_loads_no_server(self, arguments: list[str], place: Path) -> None:
        assert (
            _loaded(_run(*arguments)) & {"alcove.server", "starlette", "uvicorn", "psycopg", "prometheus_client"}
            == set()
        )

    def test_every_command_is_there_and_says_what_its_listing_says(self) -> None:
        context = main.cli.make_context("alcove", [], resilient_parsing=True)
        for name in main.cli.list_commands(context):
            command = main.cli.get_command(context, name)
            assert command is not None
            assert command.name == name
            assert f"{name}  " in main.cli.get_help(context)
            assert command.short_help
            assert command.short_help in main.cli.get_help(context)
            assert command.callback is not None
            assert command.callback.__doc__, name


class TestPublicNames:
    def test_they_are_sorted_complete_and_there(self) -> None:
        assert alcove.__all__ == sorted(alcove.__all__)
        assert {name for name, kind in vars(errors).items() if isinstance(kind, type)} - {"Any"} <= {*alcove.__all__}
        for name in alcove.__all__:
            assert getattr(alcove, name).__module__ != "" if name != "__version__" else alcove.__version__
        assert dir(alcove) == alcove.__all__

    def test_type_checkers_see_the_same_names(self) -> None:
        tree = ast.parse(Path(str(alcove.__file__)).read_text())
        block = next(node for node in tree.body if isinstance(node, ast.If))
        seen = {
            alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        assert seen.keys() == {*alcove.__all__} - {"__version__"}
        for name, module in seen.items():
            assert getattr(import_module(str(module)), str(name)) is getattr(alcove, str(name))

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="'alcove' has no attribute 'Sesion'"):
            _ = getattr(alcove, "Sesion")  # noqa: B009 - a checker would know


class TestErrors:
    def test_a_typo_gets_a_suggestion(self, run: Run) -> None:
        assert run("lst", exit_code=2).stderr.splitlines() == [
            "error: there is no command 'lst'",
            "hint: did you mean `alcove list`?",
        ]
        assert "`alcove --help` lists the commands" in run("xyzzy", exit_code=2).stderr
        assert "--json" in run("list", "--jsn", exit_code=2).stderr

    def test_usage_errors_point_to_the_help(self, run: Run) -> None:
        assert run("detail", exit_code=2).stderr.splitlines() == [
            "error: Missing argument 'ID'.",
            "hint: `alcove detail --help` explains",
        ]

    def test_without_a_command_the_help_is_shown(self, run: Run) -> None:
        assert "Commands:" in run(exit_code=2).stderr
        assert "Commands:" in run("-h").stdout
        assert run("--version").stdout == f"alcove {alcove.__version__}\n"

    @pytest.mark.parametrize(
        ("error", "exit_code"),
        [
            (errors.InvalidError, 2),
            (errors.TooLargeError, 2),
            (errors.SessionNotFoundError, 5),
            (errors.AgentNotFoundError, 5),
            (errors.SessionBusyError, 3),
            (errors.AlreadyExistsError, 3),
            (errors.DatabaseBusyError, 1),
            (errors.GuaranteeError, 1),
            (errors.ConfigurationError, 1),
        ],
    )
    def test_an_error_has_its_exit_code(
        self, error: type[AlcoveError], exit_code: int, run: Run, broken: _Break
    ) -> None:
        broken(error("it broke\x1b[2J", remedy="mend it"))
        result = run("config", exit_code=exit_code)
        assert result.stderr.splitlines() == ["error: it broke\\x1b[2J", "hint: mend it"]

    def test_a_bug_is_one_line_and_a_traceback_only_on_demand(
        self, run: Run, broken: _Break, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        broken(ValueError("a bug"))
        assert run("config", exit_code=1).stderr.splitlines() == [
            "error: internal: ValueError: a bug",
            "hint: run it again with ALCOVE_DEBUG=1 and report what it shows",
        ]
        monkeypatch.setenv("ALCOVE_DEBUG", "1")
        with pytest.raises(AssertionError, match=r"Traceback \(most recent call last\)"):
            run("config")

    def test_an_interruption_has_the_exit_code_of_one(self, run: Run, broken: _Break) -> None:
        broken(KeyboardInterrupt())
        run("config", exit_code=130)

    def test_a_setting_that_is_none_is_warned_of(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALCOVE_PROT", "1")
        monkeypatch.setenv("ALCOVE_DEBUG", "1")
        warnings = run("config").stderr.splitlines()
        assert len(warnings) == 1
        assert warnings[0].startswith("warning: ALCOVE_PROT is not a setting")

    def test_a_configuration_that_cannot_be_used_is_refused(self, run: Run, place: Path) -> None:
        (place / "alcove.toml").write_text("prot = 1\n")
        for command in (["config"], ["list"], ["doctor"], ["chat", "x"], ["serve"]):
            assert "did you mean 'port'?" in run(*command, exit_code=1).stderr


_Break = Callable[[BaseException], None]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> _Break:
    """Makes `alcove config` raise something."""

    def broken(error: BaseException) -> None:
        def raising(**_: object) -> None:
            raise error

        monkeypatch.setattr("alcove.cli.installation.settings", raising)

    return broken


class TestConfig:
    def test_every_value_has_its_origin(self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = place / "alcove.toml"
        file.write_text('port = 9000\n[agents.q]\ncommand = ["q", "chat"]\n[sandbox]\nread = ["/opt/x"]\n')
        monkeypatch.setenv("ALCOVE_DATABASE", "postgresql://me:secret@db/alcove")
        rows = {tuple(line.split("\t")) for line in run("config").stdout.splitlines()}
        assert rows >= {
            ("host", "127.0.0.1", "default"),
            ("port", "9000", str(file)),
            ("base", str(place / "sessions"), "default"),
            ("database", "postgresql://me:***@db/alcove", "ALCOVE_DATABASE"),
            ("auto_cleanup", "true", "default"),
            ("sandbox.read", "/opt/x", str(file)),
            ("sandbox.minimum", "-", "default"),
            ("agents.q", "q chat", str(file)),
        }
        shown = loaded(run("config", "--json"))
        assert (shown["file"], shown["warnings"]) == (str(file), [])
        assert {(one["name"], one["origin"]) for one in shown["settings"]} == {
            (name, origin) for name, _, origin in rows
        }
        assert {"name": "port", "value": 9000, "origin": str(file)} in shown["settings"]
        assert "secret" not in run("config", "--json").output
        assert run("config", columns=80).stdout.splitlines()[0].split() == ["\x1b[1mSETTING", "VALUE", "ORIGIN\x1b[0m"]


class TestServe:
    def test_flags_stand_above_everything(self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        served: list[Settings] = []
        from alcove.server import serving

        monkeypatch.setattr(serving, "run", served.append)
        monkeypatch.setenv("ALCOVE_PORT", "1")
        run(
            "serve",
            "--port",
            "0",
            "--host",
            "::1",
            "--base",
            "b",
            "--home",
            "h",
            "--database",
            "memory://",
            "--rung",
            "none",
        )
        [settings] = served
        shown = [getattr(settings, name) for name in ("host", "port", "base", "home", "database", "rung")]
        assert shown == ["::1", 0, place / "b", place / "h", "memory://", "none"]
        assert settings.log == "text"

    def test_json_is_for_the_log_as_well(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from alcove.server import serving

        served: list[Settings] = []
        monkeypatch.setattr(serving, "run", served.append)
        run("serve", "--json")
        assert served[0].log == "json"
        line = json.loads(serving.announcement("::1", 8080, served[0].log))
        assert line == {"url": "http://[::1]:8080", "pid": os.getpid()}

    @pytest.mark.parametrize(
        ("flags", "exit_code", "said"),
        [
            (["--port", "x"], 2, "'--port'"),
            (["--port", "70000"], 1, "use 1 to 65535"),
            (["--rung", "loose"], 1, "loose"),
            (["--home", "sessions/h"], 1, "lies inside base"),
        ],
    )
    def test_flags_that_cannot_be_are_refused(self, run: Run, flags: list[str], exit_code: int, said: str) -> None:
        assert said in run("serve", *flags, exit_code=exit_code).stderr

    def test_missing_packages_are_named(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.startswith("alcove.server")]:
            monkeypatch.delitem(sys.modules, name)
        import alcove as package

        monkeypatch.delattr(package, "server", raising=False)
        monkeypatch.setitem(sys.modules, "starlette", None)
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        result = run("serve", exit_code=1)
        assert "pip install 'alcove[server]'" in result.stderr


class TestProcess:
    def test_a_real_terminal_gets_colour_and_a_table_of_its_width(self, place: Path) -> None:
        assert _in_terminal(place, "create", "--id", "a", "--title", "t" * 200)[1] == 0
        text, code = _in_terminal(place, "list")
        assert code == 0
        assert "\x1b[1mID" in text
        assert {len(line) for line in text.splitlines()[1:]} == {60}
        text, code = _in_terminal(place, "list", NO_COLOR="1")
        assert (code, "\x1b" in text) == (0, False)

    def test_a_reader_that_leaves_early_is_no_accident(self, place: Path) -> None:
        process = subprocess.Popen([*ALCOVE, "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait(30) in {0, 1, -signal.SIGPIPE}
        assert "Traceback" not in said

    def test_an_encoding_that_lacks_a_character_is_no_accident(self, place: Path, run: Run) -> None:
        run("create", "--id", "a", "--title", "報告")
        environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
        done = subprocess.run([*ALCOVE, "list"], capture_output=True, text=True, env=environ, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\\u5831\\u544a" in done.stdout

    def test_completion_knows_commands_and_options(self, place: Path) -> None:
        environ = {**os.environ, "_ALCOVE_COMPLETE": "bash_complete", "COMP_WORDS": "alcove de", "COMP_CWORD": "1"}
        code = "from alcove.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=30)
        assert done.stdout == "plain,demo\nplain,detail\n"


def _in_terminal(place: Path, *arguments: str, **environ: str) -> tuple[str, int]:
    """Run a command on a terminal of 60 columns; return what it wrote there, and its exit code."""
    above, below = pty.openpty()
    process = subprocess.Popen(
        [*ALCOVE, *arguments],
        stdin=below,
        stdout=below,
        stderr=below,
        cwd=place,
        env={**os.environ, "COLUMNS": "60", **environ},
    )
    os.close(below)
    written = b""
    while True:
        try:
            chunk = os.read(above, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            break
        written += chunk
    os.close(above)
    return written.decode().replace("\r\n", "\n"), process.wait(30)


class TestOutput:
    @pytest.mark.parametrize(
        ("us", "text"), [(-5, "0s"), (0, "0s"), (59_999_999, "59s"), (60_000_000, "1m"), (86_400_000_000, "1d")]
    )
    def test_durations_are_for_people(self, us: int, text: str) -> None:
        assert output.duration(us) == text

    @pytest.mark.parametrize(
        ("size_bytes", "text"),
        [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (2**50, "1024.0 TiB")],
    )
    def test_sizes_are_for_people(self, size_bytes: int, text: str) -> None:
        assert output.size(size_bytes) == text

    def test_text_is_shown_as_it_is_where_it_is_harmless(self) -> None:
        harmless = "Ünïcode ☃ 報告　👩‍🔬 é"
        assert output.visible(harmless) == harmless
        assert output.visible("a\x00\x1b\x9b\u2028\u202e\ud800") == "a\\x00\\x1b\\x9b\\u2028\\u202e\\ud800"
