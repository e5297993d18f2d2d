"""What each rung is expected to answer to each attack, and the table in docs/security/isolation.md made of it.

`python -m sandbox.verdicts`, run in `tests`, writes the table anew.
"""

from __future__ import annotations

from pathlib import Path

from sandbox.attacks import attempts

PAGE = Path(__file__).parents[2] / "docs" / "security" / "isolation.md"
BEGIN, END = "<!-- attacks: written by tests/sandbox/verdicts.py -->\n", "<!-- /attacks -->\n"
NOBODY = {"folder": "", "pid": 0, "server": 0, "tcp": 0, "tcp6": 0, "udp": 0, "shm": 0, "posix": "", "private": ""}
GROUPS = {group: tuple(tries) for group, tries in attempts(NOBODY).items()}

# In a pid namespace, everybody is the run itself; and processes 1 and 2 of it bear no other's number.
_OWN = frozenset({"signal everybody"})
# Where user namespaces are closed and no uid is leased, Landlock has no right against these; the vector says so.
_OPEN = frozenset(
    {
        *("stat", "access", "enter", "touch", "chmod", "setxattr", "list attributes", "watch for changes"),
        "connect to its socket",
    }
)
HELD: dict[str, frozenset[str]] = {
    "userns": _OWN,
    "bwrap": _OWN,
    "landlock, leased uid": frozenset(),
    "landlock, one user": _OPEN,
}
"""By column, what succeeds."""


def table() -> str:
    """Return the table."""
    lines = [f"| tried | {' | '.join(HELD)} | none |", f"|---|{'---|' * (len(HELD) + 1)}"]
    for group, names in GROUPS.items():
        lines.append(f"| **{group}** |{' |' * (len(HELD) + 1)}")
        for name in names:
            answers = [_word(name, column, done) for column, done in HELD.items()]
            lines.append(f"| {name} | {' | '.join(answers)} | works |")
    return "\n".join(lines) + "\n"


def _word(name: str, column: str, done: frozenset[str]) -> str:
    if name not in done:
        return "refused"
    return "itself only" if name in _OWN and column in {"userns", "bwrap"} else "**works**"


def page(text: str) -> str:
    """Return the page with the table in it."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
