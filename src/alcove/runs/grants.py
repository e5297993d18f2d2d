"""What a run may touch: written down before it starts, in one canonical form, and never changed.

This slice grants files and network, which the sandbox enforces; the form is open for further resource types.
"""

from __future__ import annotations

import hashlib

import msgspec

from alcove.agents.base import Invocation


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """The authorization snapshot of a run.

    Attributes:
        agent: Which agent.
        network: `none`, `host`, or `process` for a function, which may reach what the server may.
        write: Paths of the run's own trees.
        read: Further paths that it may read and execute.
        nest: Whether it may put a sandbox of its own inside.
        variables: Names of the environment variables that the agent adds; the values are not kept.
        timeout_s: Wall time after which it is ended.
    """

    agent: str
    network: str
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    nest: bool = False
    variables: tuple[str, ...] = ()
    timeout_s: float = 0


_canonical = msgspec.json.Encoder(order="sorted").encode


def freeze(authority: Authority) -> tuple[str, str]:
    """Return canonical JSON (sorted names, no spaces, UTF-8) and its SHA-256 in hex."""
    encoded = _canonical(authority)
    return encoded.decode(), hashlib.sha256(encoded).hexdigest()


def for_program(agent: str, invocation: Invocation, write: tuple[str, ...], timeout_s: float) -> Authority:
    """Return what a program's run may touch."""
    return Authority(
        agent=agent,
        network=invocation.network,
        write=write,
        read=invocation.read,
        nest=invocation.nest,
        variables=tuple(sorted(invocation.env)),
        timeout_s=timeout_s,
    )
