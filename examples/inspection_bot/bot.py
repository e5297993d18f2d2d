"""An inspection bot: a photo comes in and is analysed, the place is asked for, an order is confirmed and then closed.

What it knows of a user is in the dialog and the history of their live session. It keeps nothing itself, so it can be
restarted at any time, and any number of workers can answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from alcove import Alcove, Dialog, Draft, EventRefusedError, InvalidError, Message, VersionMismatchError
from alcove.dialogs.loading import load
from alcove.dialogs.model import Definition

APP = "inspection"
DIALOG_FILE = Path(__file__).with_name("inspection.toml")
DIALOG = load(DIALOG_FILE)
IDLE_S = 600.0  # a user who was away for longer begins a new session; the old one stays readable


class Finding(NamedTuple):
    """What a photo shows: in words, and as an alarm of `inspection.toml`."""

    analysis: str
    alarm: str


Analyse = Callable[[str, Sequence[Message]], Awaitable[Finding]]
"""Looks at a photo, given the last rounds: here goes the call of a vision model."""
OpenOrder = Callable[[str, str], Awaitable[str]]
"""Opens an order for an alarm at a place and returns its number: here goes the call of a ticket system. Asked again for
the same one (a user who confirms twice at once) it returns the same number."""


class Bot:
    """Answers users.

    Args:
        hub: Where sessions are.
        analyse: Looks at photos.
        open_order: Makes orders.
        definition: The dialog.
    """

    def __init__(
        self, hub: Alcove, *, analyse: Analyse, open_order: OpenOrder, definition: Definition = DIALOG
    ) -> None:
        self.hub = hub
        self.analyse = analyse
        self.open_order = open_order
        self.definition = definition

    async def hear(self, user: str, said: str, *, photo: str | None = None) -> str:
        """Return the reply to what a user said or, with `photo`, sent. It is stored together with what it changes."""
        session, _ = await self.hub.sessions.live(user, self.definition.name, app=APP, ttl_s=IDLE_S)
        await self.hub.dialogs.start(session.id, self.definition)
        if said == "forget me":
            await session.clear()
            return "Everything is forgotten."
        while True:
            dialog = await session.dialog()
            try:
                history = (await session.window(rounds=10)).messages
                event, slots = await self._understood(dialog, said, photo, history)
                if not event:
                    reply = _asks(dialog)
                    await session.append_turn(said, reply)
                    return reply
                after = await self.hub.dialogs.preview(session.id, event, dict(slots))
                reply = _reply(event, {**dialog.slots, **slots}, after)
                messages = [Draft("user", said), Draft("assistant", reply)]
                await self.hub.dialogs.step(
                    session.id, event, dict(slots), messages=messages, expected_version=after.version
                )
            except VersionMismatchError:
                continue  # the user wrote twice at once, or a wait ended: look again where the dialog is
            except EventRefusedError:
                reply = f"Not now. {_asks(dialog)}"
            except InvalidError as error:
                reply = f"I cannot use that: {error}"
            else:
                return reply
            await session.append_turn(said, reply)
            return reply

    async def _understood(
        self, dialog: Dialog, said: str, photo: str | None, history: Sequence[Message]
    ) -> tuple[str, dict[str, str]]:
        """Return the event in what was said, and what it brings; no event for small talk."""
        word = said.strip().lower()
        if photo and dialog.state == "waiting_close_photo":
            return "closing_photo", {"closing_image": photo}
        if photo:
            finding = await self.analyse(photo, history)
            return "photo", {"image": photo, "analysis": finding.analysis, "alarm": finding.alarm}
        if word == "cancel":
            return "cancel", {}
        if dialog.state == "waiting_location":
            return "place", {"place": said.strip()}
        if dialog.state == "waiting_confirm" and word == "yes":
            return "yes", {"order": await self.open_order(str(dialog.slots["alarm"]), str(dialog.slots["place"]))}
        if dialog.state == "waiting_confirm" and word == "no":
            return "no", {}
        return "", {}

    async def tell(self, say: Callable[[str, str], None]) -> None:
        """Call `say` with user and text when a wait has ended, until cancelled; of many workers, one tells each."""
        async for step in self.hub.dialogs.timeouts(app=APP):
            if step.message:
                say((await self.hub.sessions.get(step.session_id)).user_id, step.message)

    async def watch(self) -> None:
        """Let waits end on time, also of users who say nothing more, until cancelled."""
        await self.hub.dialogs.keep_time()


def _reply(event: str, slots: dict[str, object], after: Dialog) -> str:
    match event, after.state:
        case "photo", "idle":
            return f"{slots['analysis']} Nothing to do."
        case "yes", _:
            return f"Order {slots['order']} is open. {_asks(after)}"
        case "closing_photo", _:
            return f"Thank you, order {slots['order']} is closed."
        case "cancel", _:
            return "I let it go."
        case "photo", _:
            return f"{slots['analysis']} {_asks(after)}"
        case _:
            return _asks(after)


def _asks(dialog: Dialog) -> str:
    match dialog.state:
        case "waiting_location":
            return "Where is that?"
        case "waiting_confirm":
            return f"{dialog.slots['alarm']} at {dialog.slots['place']}: shall I open an order? (yes, no)"
        case "waiting_close_photo":
            return "Send a photo when the work is done."
        case _:
            return "Send a photo of what you see."
