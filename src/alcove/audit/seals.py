"""Hashes, digests and seals of one node: plain functions of its key."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import final

_DIGEST_CHARS = 32  # 128 bits: of a keyed digest nobody finds another text, and two do not meet by chance


@final
class Seals:
    """What seals the rows of one node. The key is in no row, and is shown nowhere.

    Attributes:
        node: Names the node: follows from the key, so that a chain and its key belong together.

    Args:
        key: 256 random bits.
        installation: The installation whose rows these are: rows of another one do not fit into its chains.
    """

    def __init__(self, key: bytes, installation: str) -> None:
        self._key = key
        self.node = hashlib.sha256(b"alcove audit node\n" + key).hexdigest()[:16]
        self.genesis = genesis(installation, self.node)
        # Names of tenants and principals come again and again.
        self.digest = lru_cache(maxsize=1024)(self._digest)

    def __repr__(self) -> str:
        return f"Seals({self.node})"

    def _digest(self, text: str) -> str:
        """Return the keyed digest of a text, `''` of none."""
        return self._mac("digest", text) if text else ""

    def seal(self, kind: str, text: str) -> str:
        """Return the seal of a text of some kind."""
        return self._mac(f"seal {kind}", text)

    def holds(self, kind: str, text: str, seal: str) -> bool:
        """Return whether a seal is this key's for that text."""
        return hmac.compare_digest(self.seal(kind, text).encode(), seal.encode())

    def _mac(self, kind: str, text: str) -> str:
        return hmac.digest(self._key, f"{kind}\n{text}".encode(), "sha256").hex()[:_DIGEST_CHARS]


def genesis(installation: str, node: str) -> str:
    """Return what stands for the hash before a node's first row."""
    return hashlib.sha256(f"alcove audit 1\n{installation}\n{node}".encode()).hexdigest()
