"""Rows as lines of JSON, as they are exported, and their verification where there is no database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from alcove import limits
from alcove.audit import rules
from alcove.audit.model import Chained, Finding, Recorded, Verified, Words
from alcove.errors import InvalidError
from alcove.values import Json


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One exported row: what is chained under the names of the table, what it stands for beside it.

    Attributes:
        node: Whose chain; with `n`, and so on to `seal`, see `Chained`.
        subject_told: What it was about.
        who_told: Who did it.
        words_told: What else is known, as it was hashed: JSON in a text.
        erased: Proof of an erasure.
    """

    node: str
    n: int
    created_us: int
    first_us: int
    act: str
    code: str
    times: int
    subject: str
    who: str
    words: str
    prev: str
    hash: str
    seal: str
    tenant: str = ""
    user_id: str = ""
    session_id: str = ""
    subject_told: str = ""
    who_told: str = ""
    words_told: dict[str, Json] = {}
    erased: str = ""


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Line).decode


def line(row: Recorded) -> bytes:
    """Return a row as a line, with all that `hash` is made of."""
    words = row.words or Words("", "", "", "", "", "")
    beside = {"tenant": words.tenant, "user_id": words.user_id, "session_id": words.session_id, "erased": words.erased}
    told = {"subject_told": words.subject, "who_told": words.who, "words_told": row.told}
    return msgspec.json.encode({**msgspec.structs.asdict(row.chained), **beside, **told}) + b"\n"


def recorded(raw: bytes, number: int) -> Recorded:
    """Return the row in a line.

    Raises:
        InvalidError: It is none; `number` says which line that was.
    """
    try:
        one = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(
            f"line {number} is no row of an audit: {error}", field="file", remedy="`alcove audit export` writes them"
        ) from None
    chained = Chained(*(getattr(one, name) for name in Chained.__struct_fields__))
    told = "" if one.erased else _encode(one.words_told).decode()
    names = (one.tenant, one.user_id, one.session_id, one.subject_told, one.who_told)
    return Recorded(chained, Words(*names, told, one.erased))


def verify(lines: Iterable[bytes]) -> Verified:
    """Look through exported rows, without a key: was one altered, lost or moved since they were chained?

    What was before the first of a node and after its last cannot be told. Words and seals need the key.

    Raises:
        InvalidError: A line is no row.
    """
    nodes = count = erased = 0
    findings: list[Finding] = []
    before: Chained | None = None
    for row in _rows(lines):
        one = row.chained
        if before is None or before.node != one.node:
            nodes += 1
            after = (one.n - 1, one.prev)
        else:
            after = (before.n, before.hash)
        findings += rules.some(rules.judge([row], after, None, {}), limits.AUDIT_FINDINGS - len(findings))
        before = one
        count += 1
        erased += bool(row.words and row.words.erased)
    return Verified(nodes=nodes, rows=count, erased=erased, foreign=count, findings=tuple(findings))


def _rows(lines: Iterable[bytes]) -> Iterator[Recorded]:
    for number, raw in enumerate(lines, 1):
        if raw.strip():
            yield recorded(raw, number)
