"""What is audited, as records. Instants are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from alcove.audit.seals import Seals
from alcove.clock import Micros
from alcove.values import Json

DONE: Final = "done"
"""The code of what was done; every other code says why something was denied."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is to be audited.

    Attributes:
        act: What, as `noun.verb`: `grant.revoked`, `check.denied`.
        code: `done`, or why it was denied.
        subject: What it was about: `run:…`, `session:…`, `key:…`.
        tenant: Whose.
        user_id: Which user's.
        session_id: In which session; its words go when that session is purged.
        who: Who did it or was denied: the name of a principal.
        words: What else a person may want to know; can be erased.
        times: How often, in the same way.
        first_us: When the first of these was, 0 for now.
        last_us: When the last was, 0 for now.
    """

    act: str
    code: str = DONE
    subject: str = ""
    tenant: str = ""
    user_id: str = ""
    session_id: str = ""
    who: str = ""
    words: Mapping[str, Json] = {}
    times: int = 1
    first_us: Micros = 0
    last_us: Micros = 0


class Witness(NamedTuple):
    """Who does something that is audited, and what seals the row: for operations, which write it in their transaction.

    Attributes:
        seals: The chain of this node.
        who: The name of the principal: `key:…`, `run:…`, `local`, `library`, `janitor`.
    """

    seals: Seals
    who: str


class Place(NamedTuple):
    """Where a row is: a node, and the row's number there."""

    node: str
    n: int


class Chained(msgspec.Struct, frozen=True):
    """A row as it is chained: codes, numbers and digests only. The fields are in the order of `queries.CHAINED`.

    Attributes:
        node: Whose chain.
        n: Its number there, dense from 1.
        created_us: When it was, or the last of `times`.
        first_us: When the first of them was.
        act: What.
        code: `done`, or why not.
        times: How often.
        subject: Keyed digest of what it was about.
        who: Keyed digest of who did it.
        words: Keyed digest of everything that stands beside.
        prev: The hash of the row before.
        hash: SHA-256 of `prev` and the fields above, in hex.
        seal: HMAC of `hash` under the node's key.
    """

    node: str
    n: int
    created_us: Micros
    first_us: Micros
    act: str
    code: str
    times: int
    subject: str
    who: str
    words: str
    prev: str
    hash: str
    seal: str

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.node, self.n)


class Words(msgspec.Struct, frozen=True):
    """What a person reads of a row. The fields are in the order of `queries.WORDS`.

    Attributes:
        tenant: Whose.
        user_id: Which user's.
        session_id: In which session.
        subject: What it was about; the digest of it once erased.
        who: Who did it; the digest once erased.
        words: The rest, as JSON; `''` once erased.
        erased: Proof that they were erased by somebody with the key, `''` while they stand.
    """

    tenant: str
    user_id: str
    session_id: str
    subject: str
    who: str
    words: str
    erased: str = ""


class Recorded(msgspec.Struct, frozen=True):
    """A row with its words.

    Attributes:
        chained: What is chained.
        words: What stands beside; None when that is missing, which `verify` reports.
    """

    chained: Chained
    words: Words | None

    @property
    def told(self) -> dict[str, Json]:
        """The words beyond the names, empty once erased."""
        return msgspec.json.decode(self.words.words) if self.words and self.words.words else {}


class RecordedPage(msgspec.Struct, frozen=True):
    """Rows, newest first, and the cursor of the next page (None on the last).

    A page may have fewer rows than asked for, even none, and yet a cursor: so many were looked at.
    """

    rows: list[Recorded]
    next_cursor: str | None


class Chain(msgspec.Struct, frozen=True):
    """Where a node's chain begins and ends: its checkpoint. The fields are in the order of `queries.CHAIN`.

    Attributes:
        node: Whose.
        n: The number of the last row.
        hash: Its hash.
        removed: The number of the last row that was removed by age or number, 0 for none.
        removed_hash: Its hash.
        seal: HMAC of all this under the node's key.
    """

    node: str
    n: int
    hash: str
    removed: int
    removed_hash: str
    seal: str


class AuditFilters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows; every one that is given must hold.

    Attributes:
        act: What: `check.denied`.
        code: `done`, or why not.
        subject: About this: `run:…`, `session:…`, `key:…`; found after its words were erased, too.
        tenant: Of this tenant.
        user_id: Of this user.
        session_id: In this session.
        who: By this principal; found after the words were erased, too.
        node: In the chain of this node.
        after_us: Not before this instant.
        before_us: Before this instant.
        denied: Only what was denied, or only what was done.
    """

    act: str | None = None
    code: str | None = None
    subject: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    who: str | None = None
    node: str | None = None
    after_us: Micros | None = None
    before_us: Micros | None = None
    denied: bool | None = None


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong with the audit.

    Attributes:
        node: In whose chain.
        n: Which row, or the first of those that are missing.
        what: `altered`, `missing`, `misplaced`, `unsealed`, `words_altered`, `words_missing`, `checkpoint_altered` or
            `rewound`.
        message: The same for a person.
    """

    node: str
    n: int
    what: str
    message: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a look through the whole audit found.

    Attributes:
        nodes: How many chains there are.
        rows: How many rows.
        erased: Of how many the words were erased.
        foreign: How many rows are of nodes whose key is not here: their hashes are checked, their seals cannot be.
        findings: What is wrong, at most `limits.AUDIT_FINDINGS`; empty when nothing is.
    """

    nodes: int
    rows: int
    erased: int
    foreign: int
    findings: tuple[Finding, ...]


class Erased(msgspec.Struct, frozen=True):
    """What an erasure did: of how many rows the words are gone."""

    rows: int
