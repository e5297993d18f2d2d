"""What a word is, what fits a query, and how well: plain functions.

Letters are folded: case, width and accents do not count. Words of scripts that are written without spaces are found by
any two characters of theirs: the index has their overlapping pairs, and the last character by itself.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from alcove import limits
from alcove.errors import InvalidError

# Han, kana, bopomofo, Hangul; Thai, Lao, Tibetan, Myanmar, Khmer; the supplementary ideographs.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3040-\u30ff\u3100-\u318f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN: Final = re.compile(f"[{_UNSPACED}]+")
_QUERY: Final = re.compile(r'"([^"]*)"?|(\S+)')
_MARK: Final = "\u00a4"  # begins what is no word of any text: a mark to filter by


class _Folding(dict[int, str]):
    """The table for `str.translate`: what each character is to the index; filled as characters come."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        plain = unicodedata.normalize("NFKD", character)
        plain = "".join(one for one in plain if not "\u0300" <= one <= "\u036f")
        folded = unicodedata.normalize("NFKC", plain).casefold()
        kept = "".join(one if _is_letter(one) else " " for one in folded)
        self[code] = kept
        return kept


def _is_letter(character: str) -> bool:
    # Marks belong to the letters of Indic and South-East Asian scripts.
    return unicodedata.category(character)[0] in "LN" or unicodedata.category(character) in {"Mn", "Mc"}


_FOLDING: Final = _Folding()


def fold(text: str) -> str:
    """Return a text as it is compared: folded words with one space between them, runs without spaces apart."""
    folded = text.translate(_FOLDING)
    if not folded.isascii():
        folded = _RUN.sub(r" \g<0> ", folded)
    return " ".join(folded.split())


def tokens(texts: Iterable[str], marks: Iterable[str] = ()) -> str:
    """Return what the index holds of texts: each word once, pairs of characters for runs, and the marks."""
    # As one text, as this is most of what indexing costs.
    folded = "\n".join([text[: limits.SEARCH_TEXT_CHARS] for text in texts]).translate(_FOLDING)
    if not folded.isascii():
        folded = _RUN.sub(_pairs, folded)
    words = {*marks, *folded.split()}
    if max(map(len, words), default=0) > limits.SEARCH_TOKEN_CHARS:
        words = {word[: limits.SEARCH_TOKEN_CHARS] for word in words}
    return " ".join(words)


def _pairs(run: re.Match[str]) -> str:
    text = run[0]
    return " ".join(("", *map("".join, pairwise(text)), text[-1], ""))


def mark(kind: str, *values: str) -> str:
    """Return what a place is filtered by, as a word of the index: e.g. its tenant."""
    return _MARK + kind + hashlib.sha256("\0".join(values).encode()).hexdigest()[:16]


def marks_of(tenant: str, user_id: str, app: str, session_id: str) -> tuple[str, ...]:
    """Return every mark of a session's places."""
    return (
        mark("t", tenant),
        mark("u", tenant, user_id),
        mark("a", tenant, app),
        mark("s", tenant, session_id),
    )


class Wanted(NamedTuple):
    """One thing that has to be in a text.

    Attributes:
        text: Folded.
        open_start: Whether it may begin within a word; so may what begins with a character of an unspaced script.
        open_end: Whether it may end within one: `word*`.
        words: What the index is asked for; the last one is a beginning only when `open_end`.
    """

    text: str
    open_start: bool
    open_end: bool
    words: tuple[str, ...]


def parse(query: str) -> list[Wanted]:
    """Return what a query asks for: every word, and what stands in quotation marks as it stands there.

    `word*` finds words that begin so.

    Raises:
        InvalidError: Nothing to look for, or too much.
    """
    if len(query) > limits.SEARCH_QUERY_CHARS:
        raise InvalidError(
            f"the query has {len(query)} characters",
            field="q",
            limit=limits.SEARCH_QUERY_CHARS,
            remedy="look for fewer words",
        )
    found: list[Wanted] = []
    for quoted, bare in _QUERY.findall(query):
        phrase: str = quoted or bare
        folded = fold(phrase)
        if not folded:
            continue
        # What a person types without a space may be several words to the index: "e-mail", "使用Python".
        found.append(_wanted(folded, phrase.endswith("*")))
    if not 0 < len(found) <= limits.SEARCH_TERMS:
        raise InvalidError(
            f"the query has {len(found)} words",
            field="q",
            limit=limits.SEARCH_TERMS,
            remedy=f"look for 1 to {limits.SEARCH_TERMS} words of letters or digits",
        )
    return found


def _wanted(folded: str, open_end: bool) -> Wanted:
    words: list[str] = []
    parts = folded.split()
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        if not _RUN.fullmatch(part):
            words.append(part[: limits.SEARCH_TOKEN_CHARS])
        elif len(part) > 1:
            words += map("".join, pairwise(part))
        elif last and len(parts) == 1:
            open_end = True  # one character: what begins with it, and what ends with it
            words.append(part)
    open_start, ends_open = bool(_RUN.match(folded)), bool(_RUN.match(folded[-1]))
    return Wanted(folded, open_start, open_end or ends_open, tuple(words))


def prefixed(wanted: Wanted) -> bool:
    """Return whether the last word that the index is asked for is only the beginning of one."""
    return wanted.open_end and (not _RUN.match(wanted.text[-1]) or len(wanted.text) == 1)


def occurrences(wanted: Wanted, folded: str) -> int:
    """Return how often something is in a folded text."""
    return len(_pattern(wanted).findall(folded)) if wanted.text in folded else 0


def _pattern(wanted: Wanted) -> re.Pattern[str]:
    start, end = "" if wanted.open_start else r"(?<!\S)", "" if wanted.open_end else r"(?!\S)"
    return re.compile(f"{start}{re.escape(wanted.text)}{end}")


class Candidate(NamedTuple):
    """A text that may fit, folded, and how often each thing is in it."""

    folded: str
    counts: tuple[int, ...]


def candidate(wanted: Sequence[Wanted], text: str) -> Candidate | None:
    """Return a text as a candidate, None when something is not in it."""
    folded = fold(text[: limits.SEARCH_TEXT_CHARS])
    counts: list[int] = []
    for one in wanted:
        count = occurrences(one, folded)
        if not count:
            return None
        counts.append(count)
    return Candidate(folded, tuple(counts))


def scores(wanted: Sequence[Wanted], found: Sequence[Candidate]) -> list[float]:
    """Return how well each candidate fits: how often it says each thing, for its length; more when all stand together.

    The measure of BM25, without its inverse frequencies: everything that is asked for is in every candidate.
    """
    if not found:
        return []
    mean = sum(len(one.folded) for one in found) / len(found)
    together = " ".join(one.text for one in wanted)
    result: list[float] = []
    for one in found:
        length = 0.25 + 0.75 * len(one.folded) / max(mean, 1.0)
        score = sum(count * 2.2 / (count + 1.2 * length) for count in one.counts) / len(wanted)
        if len(wanted) > 1 and together in one.folded:
            score += 1.0
        result.append(round(score, 6))
    return result


def snippet(wanted: Sequence[Wanted], text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the text around what was found first, shortened, and where in it everything that was found is."""
    text = text[: limits.SEARCH_TEXT_CHARS]
    spans = sorted(_spans(wanted, text))
    first = spans[0][0] if spans else 0
    room = limits.SEARCH_SNIPPET_CHARS
    start = max(0, min(first - room // 4, len(text) - room))
    end = min(len(text), start + room)
    before, after = "…" if start else "", "…" if end < len(text) else ""
    shift = len(before) - start
    marks = [(a + shift, min(b, end) + shift) for a, b in spans if start <= a < end]
    # One line for one hit: a line break is as wide as a space.
    return before + re.sub(r"\s", " ", text[start:end]) + after, marks[: limits.SEARCH_TERMS]


def _spans(wanted: Sequence[Wanted], text: str) -> Iterable[tuple[int, int]]:
    """Yield where in a text things are, in characters of the text itself."""
    folded: list[str] = []
    places: list[int] = []  # of each folded character
    for at, character in enumerate(text):
        kept = _FOLDING[ord(character)]
        if not kept:
            continue
        if kept.isspace():
            kept = " "
            if not folded or folded[-1] == " ":
                continue
        elif folded and folded[-1] != " " and bool(_RUN.match(kept)) != bool(_RUN.match(folded[-1])):
            folded.append(" ")
            places.append(at)
        folded += kept
        places += [at] * len(kept)
    whole = "".join(folded)
    for one in wanted:
        for match in _pattern(one).finditer(whole):
            yield places[match.start()], places[match.end() - 1] + 1
