"""Who a token of an OpenID Connect provider is for: signed by a key of that provider, for this server, and not too old.

The extra `oidc` brings joserfc, which knows signatures; what is taken and what not is decided here (RFC 8725).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import threading
import warnings
from collections.abc import Callable
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import msgspec

from alcove import ids, limits
from alcove.audit.service import Audit
from alcove.clock import SECOND, Clock, SystemClock
from alcove.errors import ConfigurationError, InvalidError, RateLimitedError, UnauthorizedError
from alcove.principals.allowance import Allowance
from alcove.principals.model import Principal, Role
from alcove.settings.model import Settings

_log = logging.getLogger("alcove.oidc")
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
"""What may be pinned: signatures that only the provider can make; not `none`, and no secret that is shared."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ROLES: Final = {role.value: role for role in (Role.ADMIN, Role.SERVICE, Role.USER)}


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says of a provider.

    Attributes:
        issuer: Has to be the token's `iss`, to the letter.
        audience: Has to be the token's `aud`, or one of them.
        jwks: Where its keys are: an `https` URL, an `http` one of this machine, or a file.
        algorithms: With which it signs; no other is taken, whatever a token says.
        user_claim: The claim that names the user.
        tenant_claim: The one that names the tenant; `''` for the tenant `default`.
        role_claim: The one that says `admin`, `service` or `user`; `''` for users only.
    """

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...] = ("RS256",)
    user_claim: str = "sub"
    tenant_claim: str = ""
    role_claim: str = ""


def check_provider(provider: Provider) -> Provider:
    """Return what the configuration says, when that can be.

    Raises:
        ConfigurationError: Names the setting and the remedy.
    """
    for name in ("issuer", "audience", "jwks", "user_claim"):
        if not getattr(provider, name):
            raise ConfigurationError(
                f"oidc.{name} is missing", field=f"oidc.{name}", remedy="give issuer, audience and jwks together"
            )
    unknown = [name for name in provider.algorithms if name not in ALGORITHMS]
    if unknown or not provider.algorithms:
        raise ConfigurationError(
            f"oidc.algorithms: {unknown[0]!r} is not taken" if unknown else "oidc.algorithms is empty",
            field="oidc.algorithms",
            remedy=f"use some of {', '.join(ALGORITHMS)}",
        )
    parts = urlsplit(provider.jwks)
    if parts.scheme and not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise ConfigurationError(
            f"oidc.jwks: keys are not fetched from {provider.jwks!r}",
            field="oidc.jwks",
            remedy="use https, or the path of a file",
        )
    return provider


@final
class Tokens:
    """Tells who a provider's tokens are for.

    Args:
        provider: What is pinned.
        clock: Says whether a token has expired, and how long keys are known.
        audit: Is told of tokens that are refused.

    Raises:
        ConfigurationError: joserfc is not installed, or the provider cannot be one.
    """

    def __init__(self, provider: Provider, clock: Clock | None = None, *, audit: Audit | None = None) -> None:
        self._provider = check_provider(provider)
        self._clock = clock or SystemClock()
        self._audit = audit
        self._keys: Any = None
        self._fetched_at = self._heard_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._allowances: dict[tuple[str, str], Allowance] = {}
        if find_spec("joserfc") is None:  # missed at the start, and not at the first token
            raise ConfigurationError(
                "tokens of a provider need joserfc", field="oidc", remedy="pip install 'alcove[oidc]'"
            )

    async def check(self) -> int:
        """Fetch the provider's keys and return how many there are.

        Raises:
            UnauthorizedError: They cannot be read.
        """
        await self._fetch()
        return len(self._keys.keys)

    async def authenticate(self, token: str) -> Principal:
        """Return who a token is for, and count one request.

        Raises:
            UnauthorizedError: It is not one of the provider's for this server, or not of now.
            RateLimitedError: Its user asks too often.
        """
        digest, now = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest(), self._clock.monotonic()
        found = self._known.get(digest)
        if found is None or found[1] <= now:
            self._known.pop(digest, None)
            found = await self._examined(token, now)
            while len(self._known) >= limits.KEYS_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[digest] = found
        principal = found[0]
        self._spend(principal, now)
        return principal

    def _spend(self, principal: Principal, now: float) -> None:
        rate = limits.USER_KEY_RATE if principal.role is Role.USER else 0
        if not rate:
            return
        whose = (principal.tenant, principal.user_id)
        allowance = self._allowances.get(whose)
        if allowance is None:
            while len(self._allowances) >= limits.KEYS_KNOWN:
                del self._allowances[next(iter(self._allowances))]
            allowance = self._allowances[whose] = Allowance(rate, now)
        if not allowance.spend(now):
            raise RateLimitedError(f"this user may make {rate} requests a second", limit=rate, remedy="send fewer")

    async def _examined(self, token: str, now: float) -> tuple[Principal, float]:
        from joserfc.errors import JoseError

        if len(token) > limits.OIDC_TOKEN_BYTES:
            raise self._refusal("too_long")
        try:
            claims = await self._verified(token, now)
            principal = self._principal(claims)
        except (
            JoseError,
            msgspec.MsgspecError,
            ValueError,
            TypeError,
            KeyError,
            InvalidError,
            RecursionError,
        ) as error:
            raise self._refusal(getattr(error, "error", "") or "malformed", error) from None
        left = claims["exp"] + limits.OIDC_LEEWAY_S - self._clock.now() / SECOND
        return principal, now + min(left, limits.OIDC_KNOWN_S)

    async def _verified(self, token: str, now: float) -> dict[str, Any]:
        """Return the claims of a token that is right; a key that is unknown is looked for once."""
        from joserfc import jwt

        header = msgspec.json.decode(_decoded(token.partition(".")[0]), type=_Header)
        if header.alg not in self._provider.algorithms:
            raise ValueError("the algorithm is not one of the provider's")
        kid = header.kid
        if self._keys is None or now - self._fetched_at >= limits.OIDC_KEYS_S or not self._has(kid):
            await self._refresh(now)
        if not self._has(kid):
            raise ValueError("no key of that name")
        keys: Any = self._keys
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of EdDSA, an older name of Ed25519 that providers still use
            verified = jwt.decode(token, keys, algorithms=list(self._provider.algorithms))
        at_s = self._clock.now() // SECOND
        jwt.JWTClaimsRegistry(
            now=at_s,
            leeway=limits.OIDC_LEEWAY_S,
            iss={"essential": True, "value": self._provider.issuer},
            aud={"essential": True, "value": self._provider.audience},
            exp={"essential": True},
        ).validate(verified.claims)
        return verified.claims

    def _has(self, kid: object) -> bool:
        if self._keys is None:
            return False
        if kid is None:
            return len(self._keys.keys) == 1
        return any(key.kid == kid for key in self._keys.keys)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        provider = self._provider
        role = Role.USER
        if provider.role_claim and provider.role_claim in claims:
            role = _ROLES[claims[provider.role_claim]]
        subject = ids.name(_text(claims, "sub"), field="sub")
        user_id = ids.name(_text(claims, provider.user_claim), field=provider.user_claim) if role is Role.USER else ""
        tenant = "default"
        if provider.tenant_claim:
            tenant = ids.name(_text(claims, provider.tenant_claim), field=provider.tenant_claim)
        return Principal(role=role, tenant=tenant, user_id=user_id, subject=subject)

    async def _refresh(self, now: float) -> None:
        """Fetch the keys anew, at most once in a while; those that are known go on being known when that fails."""
        async with self._fetching:
            if now - self._fetched_at < limits.OIDC_REFETCH_S:
                return
            try:
                await self._fetch()
            except UnauthorizedError:
                if self._keys is None or now - self._heard_at >= limits.OIDC_AWAY_S:
                    self._keys = None  # one of them may have been withdrawn since
                    raise
                _log.warning("the keys of the provider cannot be read; those that are known stay", exc_info=True)

    async def _fetch(self) -> None:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        self._fetched_at = self._clock.monotonic()
        try:
            data = await _fetched(self._provider.jwks)
            found = json.loads(data)
            # Secrets that are shared verify what anybody with them can sign.
            found["keys"] = [key for key in found["keys"] if key.get("kty") in {"RSA", "EC", "OKP"}]
            self._keys = KeySet.import_key_set(found)
            self._heard_at = self._fetched_at
        # HTTPException is no OSError: an answer that is no HTTP would be an error of ours.
        except (
            OSError,
            HTTPException,
            JoseError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:
            _log.warning("the keys of the provider cannot be read", exc_info=True)
            raise UnauthorizedError(
                "whether this token is the provider's cannot be told now", remedy="try again"
            ) from error

    def _refusal(self, code: str, error: Exception | None = None) -> UnauthorizedError:
        if self._audit is not None:
            self._audit.denied("token.denied", code[:64], subject="oidc")
        if error is not None:
            _log.info("a token was refused", extra={"reason": str(error)[:200]})
        return UnauthorizedError("this token is not taken", remedy="sign in again")


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str | None = None


def configured(settings: Settings, clock: Clock | None = None, *, audit: Audit | None = None) -> Tokens | None:
    """Return who tells whom a provider's tokens are for, None where the configuration names no provider.

    Raises:
        ConfigurationError: As `Tokens`.
    """
    if not (settings.oidc_issuer or settings.oidc_audience or settings.oidc_jwks):
        return None
    provider = Provider(
        issuer=settings.oidc_issuer or "",
        audience=settings.oidc_audience or "",
        jwks=settings.oidc_jwks or "",
        algorithms=settings.oidc_algorithms,
        user_claim=settings.oidc_user_claim,
        tenant_claim=settings.oidc_tenant_claim or "",
        role_claim=settings.oidc_role_claim or "",
    )
    return Tokens(provider, clock, audit=audit)


def looks_like_one(secret: str) -> bool:
    """Return whether a credential has the form of a signed token: three parts, the first of which is an object."""
    return secret.startswith("eyJ") and secret.count(".") == 2


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidError(f"the claim {name} is no text", field=name)
    return value


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


class _Stay(HTTPRedirectHandler):
    """Follows no redirect: keys come from where the configuration says, and from nowhere else."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Go nowhere."""
        return


_open: Callable[..., Any] = build_opener(_Stay).open


async def _fetched(jwks: str) -> bytes:
    """Return the provider's keys, in time: one that sends a byte now and then is away."""
    over = threading.Event()
    try:
        async with asyncio.timeout(limits.OIDC_FETCH_S):
            return await asyncio.to_thread(_read, jwks, over)
    finally:
        over.set()


def _read(jwks: str, over: threading.Event) -> bytes:
    """Read the provider's keys, until nobody waits for them any more. Blocks."""
    if not urlsplit(jwks).scheme:
        with Path(jwks).open("rb") as file:
            data = file.read(limits.OIDC_KEYS_BYTES + 1)
    else:
        with _open(Request(jwks, headers={"Accept": "application/json"}), timeout=limits.CONNECT_TIMEOUT_S) as answer:
            data = b""
            while len(data) <= limits.OIDC_KEYS_BYTES and not over.is_set() and (piece := answer.read1(limits.KIB)):
                data += piece
    if len(data) > limits.OIDC_KEYS_BYTES:
        raise ValueError(f"more than {limits.OIDC_KEYS_BYTES} bytes of keys")
    return data
