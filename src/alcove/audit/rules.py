"""How rows are made and judged: plain functions of records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from alcove import limits
from alcove.audit.model import Act, AuditFilters, Chain, Chained, Finding, Recorded, Words
from alcove.audit.seals import Seals, genesis
from alcove.clock import Micros
from alcove.values import Json

_encode = msgspec.json.Encoder(order="deterministic").encode


def clean(text: str, most: int = limits.ID_CHARS) -> str:
    """Return a text that every database keeps as it is: no lone surrogate, and no longer than `most`."""
    if len(text) > most:
        text = f"{text[: most - 1]}…"
    return text if text.isascii() else text.encode(errors="replace").decode()


def words_of(act: Act) -> Words:
    """Return the words of what is to be audited, within their limits."""
    told = {name: value for name, value in act.words.items() if value not in (None, "", [], {})}
    text = _encode(_cleaned(told, limits.AUDIT_WORD_CHARS)).decode()
    if len(text) > limits.AUDIT_WORDS_CHARS:
        text = _encode(_cleaned(told, limits.AUDIT_WORD_CHARS // 16)).decode()
    if len(text) > limits.AUDIT_WORDS_CHARS:
        text = _encode({"cut": len(text)}).decode()
    return Words(clean(act.tenant), clean(act.user_id), clean(act.session_id), clean(act.subject), clean(act.who), text)


def _cleaned(told: Mapping[str, Json], most: int) -> Mapping[str, Json]:
    return {clean(name): clean(value, most) if isinstance(value, str) else value for name, value in told.items()}


def chained(seals: Seals, act: Act, words: Words, n: int, prev: str, now: Micros) -> Chained:
    """Return the row of an act at its place in the chain of this node."""
    last = act.last_us or now
    bare = Chained(
        seals.node,
        n,
        last,
        act.first_us or last,
        clean(act.act),
        clean(act.code),
        act.times,
        seals.digest(words.subject),
        seals.digest(words.who),
        seals.seal("words", spoken(words)),
        prev,
        "",
        "",
    )
    hashed = hash_of(bare)
    return msgspec.structs.replace(bare, hash=hashed, seal=seals.seal("row", hashed))


def hash_of(row: Chained) -> str:
    """Return the hash of a row, made of the one before it and of every field."""
    content = (row.node, row.n, row.created_us, row.first_us, row.act, row.code, row.times)
    digests = (row.subject, row.who, row.words)
    return hashlib.sha256(row.prev.encode() + b"\n" + _encode((*content, *digests))).hexdigest()


def spoken(words: Words) -> str:
    """Return what the digest of words is made of."""
    return _encode((words.tenant, words.user_id, words.session_id, words.subject, words.who, words.words)).decode()


def erased(seals: Seals, row: Chained) -> Words:
    """Return what is left of a row's words once they are erased."""
    proof = f"{seals.node} {seals.seal('erased', f'{row.node} {row.n} {row.hash}')}"
    return Words("", "", "", row.subject, row.who, "", proof)


def sealed(seals: Seals, n: int, hashed: str, removed: int, removed_hash: str) -> Chain:
    """Return the checkpoint of this node."""
    chain = Chain(seals.node, n, hashed, removed, removed_hash, "")
    return msgspec.structs.replace(chain, seal=seals.seal("chain", _checkpoint(chain)))


def _checkpoint(chain: Chain) -> str:
    return f"{chain.node} {chain.n} {chain.hash} {chain.removed} {chain.removed_hash}"


def matches(row: Recorded, filters: AuditFilters, digests: Mapping[str, str]) -> bool:
    """Return whether a row fits every filter.

    Args:
        row: The row.
        filters: What is looked for.
        digests: The keyed digests of the subject and the principal that are looked for, where the key is here.
    """
    one, words = row.chained, row.words or Words("", "", "", row.chained.subject, row.chained.who, "")
    exact = {"act": one.act, "code": one.code, "node": one.node}
    exact |= {"tenant": words.tenant, "user_id": words.user_id, "session_id": words.session_id}
    for name, value in exact.items():
        if getattr(filters, name) not in {None, value}:
            return False
    for name, value in (("subject", words.subject), ("who", words.who)):
        asked = getattr(filters, name)
        if asked is not None and value not in {asked, digests.get(name, asked)}:
            return False
    if filters.denied is not None and filters.denied is (one.code == "done"):
        return False
    return (filters.after_us or 0) <= one.created_us and one.created_us < (filters.before_us or one.created_us + 1)


# -- verification ------------------------------------------------------------------------------------------------------


def judge_chain(chain: Chain, installation: str, seals: Seals | None) -> Iterator[Finding]:
    """Yield what is wrong with a checkpoint itself; `seals` only when it is that node's."""
    if seals and not seals.holds("chain", _checkpoint(chain), chain.seal):
        yield Finding(
            chain.node,
            chain.n,
            "checkpoint_altered",
            f"the checkpoint of node {chain.node} (row {chain.n}) was written without the key",
        )
    if not chain.removed and chain.removed_hash != genesis(installation, chain.node):
        yield Finding(
            chain.node, 1, "checkpoint_altered", f"the chain of node {chain.node} begins as another installation's"
        )


def judge(
    rows: Sequence[Recorded], after: tuple[int, str], seals: Seals | None, proofs: Mapping[str, Seals]
) -> Iterator[Finding]:
    """Yield what is wrong with the next rows of a chain.

    Args:
        rows: In order, of one node.
        after: The number and the hash of the row before the first of them.
        seals: The node's own, None when its key is not here.
        proofs: Those that are here, by node: an erasure may be another node's work.
    """
    before, prev = after
    for row in rows:
        one = row.chained
        if one.n != before + 1:
            yield _gap(one.node, before + 1, one.n - 1)
        elif one.prev != prev:
            yield Finding(
                one.node, one.n, "misplaced", f"row {one.n} of node {one.node} does not follow the one before"
            )
        if hash_of(one) != one.hash:
            yield Finding(one.node, one.n, "altered", f"row {one.n} of node {one.node} was altered")
        elif seals and not seals.holds("row", one.hash, one.seal):
            yield Finding(one.node, one.n, "unsealed", f"row {one.n} of node {one.node} was written without the key")
        yield from _judge_words(row, seals, proofs)
        before, prev = one.n, one.hash


def _judge_words(row: Recorded, seals: Seals | None, proofs: Mapping[str, Seals]) -> Iterator[Finding]:
    one, words = row.chained, row.words
    if words is None:
        yield Finding(
            one.node, one.n, "words_missing", f"the words of row {one.n} of node {one.node} are gone without an erasure"
        )
    elif words.erased:
        node, _, proof = words.erased.partition(" ")
        eraser = proofs.get(node)
        left = (words.subject, words.who) == (one.subject, one.who)
        if not left or (eraser and not eraser.holds("erased", f"{one.node} {one.n} {one.hash}", proof)):
            yield Finding(
                one.node,
                one.n,
                "words_altered",
                f"the words of row {one.n} of node {one.node} were erased without the key",
            )
    elif seals and not seals.holds("words", spoken(words), one.words):
        yield Finding(one.node, one.n, "words_altered", f"the words of row {one.n} of node {one.node} were altered")


def judge_end(chain: Chain, last: tuple[int, str]) -> Iterator[Finding]:
    """Yield what is wrong between the last row that is there and the checkpoint."""
    n, hashed = last
    if n < chain.n:
        yield _gap(chain.node, n + 1, chain.n)
    elif hashed != chain.hash:
        yield Finding(chain.node, n, "altered", f"row {n} of node {chain.node} is not the one of its checkpoint")


def _gap(node: str, first: int, last: int) -> Finding:
    which = f"row {first} of node {node} is" if first == last else f"rows {first} to {last} of node {node} are"
    return Finding(node, first, "missing", f"{which} missing")


def some(findings: Iterable[Finding], room: int) -> list[Finding]:
    """Return the first findings, as many as there is room for."""
    return [one for _, one in zip(range(room), findings, strict=False)]
