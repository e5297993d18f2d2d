"""What happens in the demo, in order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from alcove import limits
from alcove.cli.demo.programs import FILES
from alcove.cli.demo.terminal import Behind, Terminal
from alcove.cli.remote import Remote
from alcove.cli.wire import Wire
from alcove.messages.model import Message
from alcove.sessions.model import Status

_SECRET: Final = "the gate opens at nine"
_LONG: Final = "import time; [time.sleep(.1) or print(n, flush=True) for n in range(600)]"
_STEP: Final = 5  # of the long run, before the server is killed
_CALL: Final = "import urllib.request as web; print(web.urlopen('{}/health').read())"
_LOOK: Final = (
    "import os, glob; print(sum(os.path.exists(p + '/notes.txt') for p in glob.glob('/proc/[0-9]*/cwd')), 'found')"
)


def tell(terminal: Terminal) -> None:
    """Tell all of it.

    Raises:
        StoryError: Something did not do what it says.
    """
    _bring(terminal.folder)
    _two_sessions(terminal)
    _neighbour(terminal)
    _child(terminal)
    _kill(terminal)
    _end(terminal)


def _bring(folder: Path) -> None:
    """Lay out what the person has at hand."""
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _two_sessions(terminal: Terminal) -> None:
    terminal.chapter(
        "Two sessions, and a program built in each",
        "A message goes to a session's agent. The default one, `shell`, runs it as a script; yours may be any",
        "command line, or a Python function. Each session has history, files, and a HOME of its own.",
    )
    click.echo(f"$ cd {terminal.folder}")
    click.echo("$ export AUTO_CLEANUP_SESSIONS=false     # a server does it by itself; here you see it done")
    terminal.serve()
    click.echo(f"$ export ALCOVE_URL={terminal.url}")
    terminal.type("alcove create --id ana --user ana --title 'A counter of words'", "ana")
    terminal.type("alcove create --id ben --user ben --title 'A small site'", "ben")
    terminal.type("alcove cp words ana:; alcove cp tests ana:; alcove cp site/. ben:", "1 file", "1 file", "3 files")
    terminal.type(
        "alcove chat --session ana '\n"
        "  git config --global user.name Ana; git config --global user.email ana@example.org\n"
        '  git init -q; git add .; git commit -qm "Count words"\n'
        "  python3 -m unittest tests/test_words.py 2>&1\n"
        '  python3 -m zipapp words -o words.pyz -p "/usr/bin/env python3"\n'
        '  echo "To be, or not to be: that is the question" | ./words.pyz; git log --oneline\'',
        "Ran 1 test",
        "OK",
        "2  to",
        "Count words",
    )
    terminal.type(
        "alcove chat --session ben '\n"
        '  git init -q; git add .; git -c user.name=Ben -c user.email=ben@example.org commit -qm "Two pages"\n'
        "  python3 build.py; cat public/alcove.html; git status --short'",
        "public/bay.html",
        "<h1>Alcove</h1>",
        "?? public/",
    )
    terminal.type("alcove list", "ben", "ana")


def _neighbour(terminal: Terminal) -> None:
    terminal.chapter(
        "A neighbour tries to get at it",
        "Each of ben's attempts is an ordinary program on the same machine; the kernel says no. To the link, which",
        "the server is to follow, Alcove says it itself. The last is for the network, of which ben's agent has none.",
    )
    terminal.type(f"alcove exec ana -- sh -c 'echo \"{_SECRET}\" > notes.txt'")
    secret = f"{terminal.folder}/sessions/ana/notes.txt"
    terminal.type(f"cat {secret}     # you may: it is your machine", _SECRET)
    hides = (_SECRET,)
    terminal.type("alcove exec ben -- cat ../ana/notes.txt", hides=hides, code=None)
    terminal.type(f"alcove exec ben -- cat {secret}", hides=hides, code=None)
    terminal.type(f"alcove exec ben -- stat {secret}", hides=("Size:",), code=None)
    terminal.type("alcove exec ben -- sh -c 'echo gone > ../ana/notes.txt'", code=None)
    terminal.type(f"alcove exec ben -- ln -s {secret} mine; alcove cat ben:mine", hides=hides, code=None)
    terminal.type(f'alcove exec ben -- python3 -c "{_LOOK}"', "0 found")
    terminal.type(f'python3 -c "{_CALL.format(terminal.url)}"     # you reach the server', "healthy")
    terminal.type(
        f'alcove exec ben -- python3 -c "{_CALL.format(terminal.url)}" 2>&1 | tail -n 1',
        "urlopen error",
        hides=("healthy",),
    )
    terminal.type("alcove cat ana:notes.txt", _SECRET)


def _child(terminal: Terminal) -> None:
    terminal.chapter(
        "A child", "A session may have children, for a part of the work: with a folder of their own, and the same user."
    )
    terminal.type("alcove create --id review --parent ana --title 'Does it count well?'", "review")
    terminal.type("alcove cp ana:words.pyz review:", "1 file")
    terminal.type("alcove chat --session review 'echo bay bay | python3 words.pyz | tee result.txt'", "2  bay")
    terminal.type("alcove children ana --tree", "ana", "review")


def _kill(terminal: Terminal) -> None:
    terminal.chapter(
        "The server is killed in the middle of a run",
        "What was acknowledged is on the disk: messages, files, and what the run had said so far.",
    )
    running = terminal.behind(f"alcove chat --session ana 'python3 -c \"{_LONG}\"'")
    terminal.until(lambda: f"{_STEP}\n" in running.said, "alcove chat")
    [victim, *_] = _processes() or [0]
    terminal.check(victim > 0, "the process of ana's run is not to be seen")
    terminal.type(f"alcove exec ben -- sh -c 'kill -9 {victim}'     # the process of ana's run", code=None)
    before = _messages(terminal, "ana")
    terminal.kill_server()
    terminal.type("alcove list", "does not answer", code=1)
    terminal.serve()
    terminal.until(lambda: running.ended, "the end of ana's run")
    _show_end(running)
    terminal.type("alcove runs ana", "lost")
    after = _messages(terminal, "ana")
    terminal.check(all(one in after for one in before), "messages were lost")
    terminal.check(not _processes(), "a process of the lost run is still there")
    terminal.type("alcove tail ana -n 3")
    terminal.type("alcove chat --session ana 'git fsck && git log --oneline && cat notes.txt'", "Count words", _SECRET)


def _show_end(running: Behind) -> None:
    """Show how the command ended that was left in the background."""
    *said, last = running.said.splitlines()[-4:]
    click.echo("\n".join(["…", *said, last]))


def _end(terminal: Terminal) -> None:
    terminal.chapter(
        "Clearing up, and back",
        "A session that nobody uses for as long as it may idle has expired: it can be read, and takes nothing more.",
        "What goes is shown before, goes with all that is below it, waits in the trash, and comes back as it was.",
    )
    terminal.type("alcove create --id visit --ttl 1s --title 'A short visit'", "visit")
    terminal.until(lambda: _expired(terminal, "visit"), "the end of a short visit")
    terminal.type("alcove list --status expired", "visit", hides=("ana",))
    terminal.type("alcove chat --session visit date", "expired", code=3)
    terminal.type("alcove cleanup-empty --older-than 1s --dry-run", "visit", "1 session would go to the trash")
    terminal.type("alcove cleanup-empty --older-than 1s", "visit")
    terminal.type("alcove rm --dry-run ana", "ana", "review")
    terminal.type("alcove rm ana", "ana", "review")
    terminal.type("alcove list --status trashed", "visit", "review", "ana")
    terminal.type("alcove list", "ben", hides=("ana",))
    terminal.type("alcove restore ana", "ana", "review")
    terminal.type("alcove cat ana:notes.txt; alcove children ana --tree", _SECRET, "review")
    terminal.type("alcove prune --all --force", "1 session removed for good")
    terminal.type("alcove list --status trashed", hides=("visit", "ana"))


def _messages(terminal: Terminal, session_id: str) -> list[Message]:
    return asyncio.run(Remote(Wire(terminal.url)).messages.last(session_id, limits.PAGE))


def _expired(terminal: Terminal, session_id: str) -> bool:
    [session] = asyncio.run(Remote(Wire(terminal.url)).sessions.find_prefix(session_id))
    return session.status == Status.EXPIRED


def _processes() -> list[int]:
    """Return the processes of the long run, as they are seen from outside."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        # One may end while it is looked at.
        with suppress(OSError):
            program, *words = (folder / "cmdline").read_bytes().split(b"\0")
            if program == b"python3" and _LONG.encode() in words:
                found.append(int(folder.name))
    return found
