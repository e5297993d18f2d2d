"""The inspection bot of the examples, as somebody at a terminal has it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from alcove.dialogs.loading import examine
from docs.pages import ROOT

BOT = ROOT / "examples" / "inspection_bot"


def _chat(folder: Path, *said: str, flags: Sequence[str] = ()) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(BOT / "chat.py"), *flags],
        cwd=folder,
        input="".join(f"{line}\n" for line in said),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_an_order_is_opened_and_closed_across_restarts(tmp_path: Path) -> None:
    assert _chat(tmp_path, "hello", "photo water.jpg", "x") == [
        "bot: Send a photo of what you see.",
        "bot: I see a water alarm. Where is that?",
        (
            "bot: I cannot use that: slot 'place' takes at least 2 characters, not 1 "
            "(say where it is, e.g. building 2, room 14)"
        ),
    ]
    asked = "bot: water at room 14: shall I open an order? (yes, no)"
    assert _chat(tmp_path, "room 14", "photo other.jpg", "maybe") == [
        asked,
        asked.replace("bot: ", "bot: Not now. "),
        asked,
    ]
    opened, closed, *rest = _chat(tmp_path, "yes", "photo done.jpg", "photo cat.jpg", "forget me")
    assert opened.endswith("is open. Send a photo when the work is done.")
    assert closed.startswith("bot: Thank you, order WO-")
    assert rest == ["bot: I see nothing unusual. Nothing to do.", "bot: Everything is forgotten."]
    assert _chat(tmp_path, "photo smoke.jpg", flags=["--user", "bo"]) == ["bot: I see a smoke alarm. Where is that?"]


def test_a_user_who_says_nothing_more_is_told(tmp_path: Path) -> None:
    chat = subprocess.Popen(
        [sys.executable, str(BOT / "chat.py"), "--wait", "1s"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with chat:
        assert chat.stdin
        assert chat.stdout
        chat.stdin.write("photo smoke.jpg\n")
        chat.stdin.flush()
        assert chat.stdout.readline() == "bot: I see a smoke alarm. Where is that?\n"
        assert chat.stdout.readline().startswith("bot to ana: No place came in time")
        chat.stdin.write("room 1\n")
        chat.stdin.close()
        assert chat.stdout.readline() == "bot: Send a photo of what you see.\n"
    assert chat.returncode == 0


def test_its_dialog_has_no_fault() -> None:
    assert examine(BOT / "inspection.toml")[1] == []
