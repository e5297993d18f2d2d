"""A definition as a picture: Mermaid's `stateDiagram-v2`, which code hosts and editors draw."""

from __future__ import annotations

from collections.abc import Iterator

from alcove.dialogs.model import Definition, State, Transition
from alcove.dialogs.rules import guard_text
from alcove.durations import duration_text

# What Mermaid would take for the end of a label, for an entity or for a comment.
_ESCAPES = {"#": "#35;", ";": "#59;", ":": "#58;", "%": "#37;", "<": "#60;", ">": "#62;", '"': "#34;", "\n": " "}


def mermaid(definition: Definition, here: str | None = None) -> str:
    """Return the diagram.

    Args:
        definition: What to draw.
        here: A state to stand out: where a session is.
    """
    names = {name: f"s{index}" for index, name in enumerate(definition.states)}
    lines = ["stateDiagram-v2", f"    %% {_label(definition.name)} version {definition.number}"]
    lines += [f'    state "{_label(name)}" as {short}' for name, short in names.items()]
    lines.append(f"    [*] --> {names[definition.start]}")
    for state in definition.states.values():
        lines += [f"    {line}" for line in _arrows(definition, state, names)]
    if here in names:
        lines += ["    classDef here stroke-width:4px", f"    class {names[here]} here"]
    return "\n".join(lines) + "\n"


def _arrows(definition: Definition, state: State, names: dict[str, str]) -> Iterator[str]:
    source = names[state.name]
    for ways in state.on.values():
        for way in ways:
            yield f"{source} --> {names[way.target]} : {_label(_way_text(way))}"
    if state.timeout:
        after = duration_text(state.timeout.after_us // 1_000_000)
        if state.timeout.event:
            yield f"note right of {source} : after {after} {_label(state.timeout.event)}"
        else:
            target = definition.start if state.timeout.reset else state.name
            does = "reset" if state.timeout.reset else "tells the user"
            yield f"{source} --> {names[target]} : after {after}, {does}"
    if state.final:
        yield f"{source} --> [*]"


def _way_text(way: Transition) -> str:
    guards = " and ".join(map(guard_text, way.when))
    return f"{way.event}{f' [{guards}]' if guards else ''}{' (reset)' if way.reset else ''}"


def _label(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)
