"""What a run may do: one frozen record with one digest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec
from msgspec import UNSET, UnsetType

from alcove import ids, limits
from alcove.agents.base import Invocation
from alcove.clock import Micros
from alcove.errors import InvalidError, TooLargeError
from alcove.rights.model import Network, Resources, Rights
from alcove.rights.writing import Written, rights


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A grant as it is asked for.

    Attributes:
        rights: What; a part that is not set is as much as the agent declares.
        caller: Who may use it, such as a plug-in's identity; `''` for whoever knows the run.
        labels: The caller's own facts, such as a query id.
        context: Whose state: who `actor`, `subject`, `binding` are.
        ttl_s: Seconds after which it ends; None for with the run.
        exact: Refuse when anything would be cut off, instead of granting what is left.
    """

    rights: Rights = Rights()
    caller: str = ""
    labels: dict[str, str] = {}
    context: dict[str, str] = {}
    ttl_s: float | None = None
    exact: bool = False


def ask(
    *,
    resources: Written | UnsetType = UNSET,
    storage: Collection[str] | UnsetType = UNSET,
    read: Collection[str] | UnsetType = UNSET,
    write: Collection[str] | UnsetType = UNSET,
    network: str | Collection[str] | UnsetType = UNSET,
    state: Collection[str] | UnsetType = UNSET,
    caller: str = "",
    labels: dict[str, str] | None = None,
    context: dict[str, str] | None = None,
    ttl_s: float | None = None,
    exact: bool = False,
) -> Asked:
    """Return a grant to be asked for; a part that is left out is as much as the agent declares.

    Args:
        resources: Per type a list of ids, which get the type's usual operations, or ids with operations:
            `{"tool": ["search"], "model": {"gpt": ["invoke"]}}`.
        storage: `plugin`, `workspace`.
        read: Absolute paths.
        write: Absolute paths.
        network: `none`, `host`, or hosts.
        state: Scopes of state.
        caller: Who may use it, such as a plug-in's identity.
        labels: The caller's own facts, such as a query id.
        context: Whose state: `actor`, `subject`, `binding`.
        ttl_s: Seconds after which it ends; None for with the run.
        exact: Refuse when anything would be cut off, instead of granting what is left.

    Raises:
        InvalidError: Names the field and the remedy.
    """
    asked = Asked(
        rights=rights(resources=resources, storage=storage, read=read, write=write, network=network, state=state),
        caller=caller,
        labels=labels or {},
        context=context or {},
        ttl_s=ttl_s,
        exact=exact,
    )
    check_asked(asked)
    return asked


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The authorization snapshot of a run.

    Attributes:
        agent: Who works.
        caller: Who may use it, `''` for whoever knows the run.
        parent: The run that handed it on, `''` for none.
        labels: The caller's own facts.
        context: Whose state.
        resources: Per type, per id: operations.
        storage: `plugin`, `workspace`.
        read: Paths that may be read, each with all below it.
        write: Paths that may be written.
        network: `none`, `host`, or the hosts.
        state: Scopes of state.
        expires_us: From when on everything is denied; 0 for with the run.
        own: Trees that belong to the run itself: workspace, home, run folder.
        program: What its program needs to be read in order to start.
        nest: Whether it may put a sandbox of its own inside.
        variables: Names of the environment variables that the agent adds; the values are not kept.
        secrets: Names of the secrets that it is given; never the values.
        timeout_s: Wall time after which it is ended; 0 where nobody ends it.
    """

    agent: str
    caller: str = ""
    parent: str = ""
    labels: dict[str, str] = {}
    context: dict[str, str] = {}
    resources: Resources = {}
    storage: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: Network = "none"
    state: tuple[str, ...] = ()
    expires_us: Micros = 0
    own: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    nest: bool = False
    variables: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    timeout_s: float = 0

    @property
    def rights(self) -> Rights:
        """What it allows, as what bounds a child's."""
        return Rights(
            resources=self.resources,
            storage=self.storage,
            read=self.read,
            write=self.write,
            network=self.network,
            state=self.state,
        )


_encode = msgspec.json.Encoder(order="sorted").encode


def freeze(grant: Grant) -> tuple[str, str]:
    """Return canonical JSON (sorted names, no spaces, UTF-8) and its SHA-256 in hex.

    Raises:
        TooLargeError: It is longer than `limits.GRANT_BYTES`.
    """
    # 600 and 600.0 are one number, and have to have one digest.
    encoded = _encode(msgspec.structs.replace(grant, timeout_s=float(grant.timeout_s)))
    if len(encoded) > limits.GRANT_BYTES:
        raise TooLargeError(
            f"the grant takes {len(encoded)} bytes",
            field="grant",
            limit=limits.GRANT_BYTES,
            remedy="grant fewer resources",
        )
    return encoded.decode(), hashlib.sha256(encoded).hexdigest()


def thaw(body: str) -> Grant:
    """Return the grant of a canonical JSON: a new one each time, so that nobody shares what another may change."""
    return msgspec.json.decode(body, type=Grant)


def for_program(grant: Grant, invocation: Invocation, own: tuple[str, ...], timeout_s: float) -> Grant:
    """Return a grant with how its program is confined."""
    return msgspec.structs.replace(
        grant,
        own=own,
        program=invocation.needs,
        nest=invocation.nest,
        variables=tuple(sorted(invocation.env)),
        secrets=tuple(sorted(invocation.secrets)),
        timeout_s=timeout_s,
    )


def check_asked(asked: Asked) -> None:
    """Let pass what a grant is asked for with.

    Raises:
        InvalidError: The caller, a label or a part of the context is not valid.
    """
    ids.name(asked.caller, field="caller", empty=True)
    for field, facts in (("labels", asked.labels), ("context", asked.context)):
        if len(facts) > limits.LABELS:
            raise TooLargeError(f"{len(facts)} {field}", field=field, limit=limits.LABELS, remedy="give fewer")
        ids.names(facts, field=field)
        for name, value in facts.items():
            if len(value) > limits.LABEL_CHARS or any("\ud800" <= letter <= "\udfff" for letter in value):
                raise InvalidError(
                    f"{field}.{name} is too long, or has a lone surrogate",
                    field=f"{field}.{name}",
                    limit=limits.LABEL_CHARS,
                    remedy="give a short text",
                )
