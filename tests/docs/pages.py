"""Runs a page of the documentation as its reader would: block after block, in one shell, in an empty folder.

Blocks of `sh` and `python` are run. Of `console` blocks, the lines with `$ ` are run and the others have to be what
came: `…` stands for anything, and `$NAME` for the shell's variable. What a page marks as `before` or `manual` is shown
only, as are other languages.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^( *)```(sh|python|console)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_MARK = "---- step {number} ----"


def steps(page: Path) -> list[tuple[str, list[str]]]:
    """Return what is typed, each with the lines that are to come, if the page says any."""
    found: list[tuple[str, list[str]]] = []
    for indent, language, body in _BLOCK.findall(page.read_text("utf-8")):
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        if language == "python":
            found.append(("python3 - <<'PAGE'\n" + "\n".join(lines) + "\nPAGE", []))
        elif language == "sh":
            found.append(("\n".join(lines), []))
        else:
            for line in lines:
                if line.startswith("$ "):
                    found.append((line[2:], []))
                elif found:
                    found[-1][1].append(line)
    return found


def run(page: Path, folder: Path) -> list[str]:
    """Run a page in a folder; return what is wrong: a step that failed, or one that said something else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    typed = steps(page)
    script = "set -uo pipefail; set -m\n"
    for number, (text, expected) in enumerate(typed):
        script += f"printf '\\n%s\\n' '{_MARK.format(number=number)}'\n{text}\ncode=$?; "
        # What a page shows of the shell's variables is what they are.
        shown = "\n".join(expected).replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`")
        script += f'[ $code = 0 ] || echo "[exit $code]"; printf "%s\\n" "{shown}" > .expected{number}\n'
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ALCOVE_PORT": port,
        "HOME": str(folder),
        "TRACE_ID": "4f1c2d3e",
    }
    done = subprocess.Popen(
        ["bash", "-c", script.replace("localhost:8080", f"localhost:{port}")],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = done.communicate(timeout=100)
    finally:
        _end(done.pid)
    parts = re.split(r"\n---- step \d+ ----\n", out)[1:]
    wrong = [] if len(parts) == len(typed) else [f"{len(parts)} of {len(typed)} steps were run"]
    for number, (said, (text, expected)) in enumerate(zip(parts, typed, strict=False)):
        shown = next(folder.rglob(f".expected{number}")).read_text() if expected else ""
        if "[exit " in said or (expected and not _fits(said, shown)):
            wrong.append(f"$ {text}\n--- expected\n{shown}--- came\n{said}")
    return [*wrong, err] if wrong else []


def _end(session: int) -> None:
    """End what a page has left running: the processes of its shell's session."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[3] == str(session):
                os.kill(int(stat.parent.name), signal.SIGKILL)


def _fits(said: str, shown: str) -> bool:
    lines = [".*".join(re.escape(part) for part in line.split("…")) for line in shown.splitlines()]
    return re.fullmatch("\n".join(lines) + "\n?", said.rstrip("\n") + "\n", re.DOTALL) is not None
