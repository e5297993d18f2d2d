"""What a run says, as it comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing, suppress

import click

from alcove import limits
from alcove.cli import output
from alcove.cli.answering import Answering
from alcove.cli.installation import Hub, workspaces
from alcove.errors import AlcoveError
from alcove.events.model import Event
from alcove.runs.model import Run
from alcove.values import Json


class Speaker:
    """Writes what a run says, each stream to our own.

    Attributes:
        said: The end of what was written.
    """

    def __init__(self, *, raw: bool, files: bool = False, answering: Answering | None = None) -> None:
        """Begin with nothing said.

        Args:
            raw: Leave what steers a terminal in.
            files: Say which files changed, while they do so far as `watch` is told to look, the rest at the end.
            answering: Puts to somebody what the run asks; None says how to answer.
        """
        self.said = ""
        self._raw = raw
        self._files = files
        self._answering = answering
        self._told: set[str] = set()

    async def follow(self, hub: Hub, run: Run) -> None:
        """Write all that a run says, to its end."""
        async for event in hub.runs.events(run.id):
            self.hear(event)
            if self._answering:
                self._answering.hear(event)
        self.end()

    def hear(self, event: Event) -> None:
        """Write what one event says."""
        data = event.data
        if event.type == "output":
            text = str(data["text"])
            # A program may say what it likes; it shall not steer the terminal of whoever reads it.
            output.write_text(text, raw=self._raw, err=data["stream"] == "stderr")
            self.said = (self.said + text)[-limits.EVENT_BYTES :]
        elif event.type == "message" and data["role"] == "assistant" and not self.said and data.get("text"):
            # A function that returned its answer said it nowhere else.
            self.said = f"{data['text']}\n"
            output.write_text(self.said, raw=self._raw)
        elif event.type == "approval.requested":
            self.end()
            output.note(f"asks: {asked(data)}")
            if not self._answering:
                output.note(f"`alcove runs approve {data['approval_id']}` or `deny` answers")
        elif event.type == "approval.decided":
            output.note(" ".join(filter(None, (str(data["status"]), str(data["reason"])))))
        elif event.type == "run.queued" and "position" in data:
            output.note(f"queued: {data['position']} to go, until the session is free")
        elif event.type == "message" and data["role"] == "user" and data.get("text"):
            self.end()
            output.note(f"takes: {data['text']}")
        elif event.type == "steering.returned":
            self.end()
            for text in unread(data):
                output.note(f"not taken: {text}")
        elif event.type == "gap":
            output.note("… output left out …")
        elif event.type == "files" and self._files:
            self._tell(data)

    async def watch(self, hub: Hub, session_id: str) -> None:
        """Tell which files of a session change, until this is cancelled; what it cannot see is told at the end."""
        with suppress(AlcoveError):
            async with aclosing(workspaces(hub).watch(session_id)) as events:
                async for event in events:
                    self.hear(event)

    def _tell(self, data: Mapping[str, Json]) -> None:
        """Tell which files changed: what the run says of itself at its end leaves out what was seen before."""
        seen = "removed" in data
        for word in ("changed", "removed"):
            paths = data.get(word)
            for path in paths if isinstance(paths, list) else ():
                if seen or path not in self._told:
                    self.end()
                    output.note(f"  {word}: {path}")
                self._told.add(str(path))

    def end(self) -> None:
        """End the line that the output left open, on a terminal."""
        if self.said and not self.said.endswith("\n") and output.terminal_columns():
            click.echo()
            self.said += "\n"


def unread(data: Mapping[str, Json]) -> list[str]:
    """Return what the messages say that a run has returned, from its event."""
    messages = data["messages"]
    found = [one["text"] for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    return [str(text) if text is not None else "a message that is too long to be shown" for text in found]


def asked(data: Mapping[str, Json]) -> str:
    """Return in a line what a run asks, from its event."""
    words = [str(data[name]) for name in ("type", "id", "operation") if data[name]]
    if data["arguments"] is not None:
        words.append(json.dumps(data["arguments"], ensure_ascii=False))
    return " ".join(words) + (f": {data['message']}" if data["message"] else "")
