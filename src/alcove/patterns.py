"""Regular expressions that others wrote: whether one may take for ever on a text that a stranger wrote."""

from __future__ import annotations

import re

_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:P<\w+>|[a-zA-Z-]*:|<?[=!]|>))?([^()]*)\)(?:([*+?]|\{[\d,]*\})(\+?))?")
_CHOICE = re.compile(r"[*+?{|]")


def may_explode(pattern: str) -> bool:
    """Return whether a repeated group of `pattern` has a repeat or a choice in it, as in `(a+)+` and `(a|a)*`.

    Such a group may try exponentially many ways on a line of thirty characters. A possessive repeat, `(a+)++`, may not.
    """
    flat = _ATOM.sub("x", pattern)
    while found := _GROUP.search(flat):
        body, repeat, possessive = found.groups()
        ambiguous = bool(_CHOICE.search(body))
        if ambiguous and repeat not in {None, "?"} and not possessive:
            return True
        flat = f"{flat[: found.start()]}{'x*' if ambiguous else 'x'}{repeat or ''}{flat[found.end() :]}"
    return False
