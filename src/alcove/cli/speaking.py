"""What a run says, as it comes."""

from __future__ import annotations

import click

from alcove import limits
from alcove.cli import output
from alcove.cli.installation import Hub
from alcove.events.model import Event
from alcove.runs.model import Run


class Speaker:
    """Writes what a run says, each stream to our own.

    Attributes:
        said: The end of what was written.
    """

    def __init__(self, *, raw: bool, files: bool = False) -> None:
        """Begin with nothing said.

        Args:
            raw: Leave what steers a terminal in.
            files: Say which files changed.
        """
        self.said = ""
        self._raw = raw
        self._files = files

    async def follow(self, hub: Hub, run: Run) -> None:
        """Write all that a run says, to its end."""
        async for event in hub.runs.events(run.id):
            self.hear(event)
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
        elif event.type == "gap":
            output.note("… output left out …")
        elif event.type == "files" and self._files and isinstance(changed := data["changed"], list):
            self.end()
            for path in changed:
                output.note(f"  changed: {path}")

    def end(self) -> None:
        """End the line that the output left open, on a terminal."""
        if self.said and not self.said.endswith("\n") and output.terminal_columns():
            click.echo()
            self.said += "\n"
