"""Tokens of an OpenID Connect provider: what is taken, and everything that must not be."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from alcove import limits
from alcove.clock import SECOND
from alcove.errors import ConfigurationError, RateLimitedError, UnauthorizedError
from alcove.principals.model import Role
from alcove.principals.oidc import ALGORITHMS, Provider, Tokens, check_provider
from alcove.testing.clock import FrozenClock

ISSUER, AUDIENCE = "https://id.example.org", "alcove"
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"})


class Keys:
    """A server of the provider's keys on this machine."""

    def __init__(self) -> None:
        self.keys: list[Any] = [RSA]
        self.asked = 0
        self.status = 200
        self.body: bytes | None = None
        self.raw: bytes | None = None
        self.drip: Callable[[Callable[[bytes], object]], None] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                if outer.drip is not None:
                    outer.drip(self.wfile.write)
                    return
                if outer.raw is not None:
                    self.wfile.write(outer.raw)
                    return
                self.send_response(outer.status)
                if outer.status in {301, 302}:
                    self.send_header("Location", outer.url)
                self.end_headers()
                public = [key.as_dict(private=False) for key in outer.keys]
                self.wfile.write(outer.body if outer.body is not None else json.dumps({"keys": public}).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()


@pytest.fixture
def keys() -> Iterator[Keys]:
    keys = Keys()
    yield keys
    keys.server.shutdown()
    keys.server.server_close()
    keys.thread.join()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


def provider(jwks: str, **changes: Any) -> Provider:
    arguments: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks, "algorithms": ALGORITHMS}
    return Provider(**arguments | changes)


def claims(clock: FrozenClock, **changes: Any) -> dict[str, Any]:
    now = clock.now() // SECOND
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + 300, **changes}
    return {name: value for name, value in made.items() if value is not None}


def sign(said: dict[str, Any], key: Any = RSA, alg: str = "RS256", **header: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older name of Ed25519
        return jwt.encode({"alg": alg, "kid": key.kid, **header}, said, key, algorithms=[alg])


async def test_a_token_of_the_provider_tells_the_user(keys: Keys, clock: FrozenClock) -> None:
    keys.keys = [RSA, EC, ED]
    tokens = Tokens(provider(keys.url), clock)
    for key, alg in ((RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")):
        found = await tokens.authenticate(sign(claims(clock), key, alg))
        assert (found.role, found.tenant, found.user_id, found.name) == (Role.USER, "default", "ana", "oidc:ana")
    found = await tokens.authenticate(sign(claims(clock, aud=["other", AUDIENCE])))
    assert found.user_id == "ana"
    assert keys.asked == 1
    assert await tokens.check() == 3


async def test_claims_tell_tenant_and_role_where_that_is_configured(keys: Keys, clock: FrozenClock) -> None:
    told = {"org": "acme", "level": "service", "email": "ana@example.org"}
    plain = await Tokens(provider(keys.url), clock).authenticate(sign(claims(clock, **told)))
    assert (plain.role, plain.tenant, plain.user_id) == (Role.USER, "default", "ana"), (
        "a token chooses nothing by itself"
    )
    named = provider(keys.url, tenant_claim="org", role_claim="level", user_claim="email")
    tokens = Tokens(named, clock)
    found = await tokens.authenticate(sign(claims(clock, **told)))
    assert (found.role, found.tenant, found.user_id) == (Role.SERVICE, "acme", "")
    found = await tokens.authenticate(sign(claims(clock, **{**told, "level": None})))
    assert (found.role, found.user_id) == (Role.USER, "ana@example.org")
    for wrong in ({"level": "root"}, {"level": ["admin"]}, {"level": "run"}, {"org": None}, {"org": 5}, {"org": "a\n"}):
        with pytest.raises(UnauthorizedError):
            await tokens.authenticate(sign(claims(clock, **{**told, **wrong})))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example.org/"},
        {"iss": "https://evil.example.org"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\x00"},
        {"nbf": 9_999_999_999},
    ],
)
async def test_a_token_with_another_claim_is_refused(keys: Keys, clock: FrozenClock, changes: dict[str, Any]) -> None:
    tokens = Tokens(provider(keys.url), clock)
    await tokens.authenticate(sign(claims(clock)))
    with pytest.raises(UnauthorizedError, match="not taken"):
        await tokens.authenticate(sign(claims(clock, **changes)))


async def test_a_token_ends_when_it_says_also_where_it_is_known(keys: Keys, clock: FrozenClock) -> None:
    tokens = Tokens(provider(keys.url), clock)
    token = sign(claims(clock, exp=clock.now() // SECOND + 20))
    await tokens.authenticate(token)
    clock.move(20 + limits.OIDC_LEEWAY_S - 1)
    await tokens.authenticate(token)
    clock.move(2)
    with pytest.raises(UnauthorizedError):
        await tokens.authenticate(token)


def _unsigned(said: dict[str, Any], **header: Any) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (header, said)]
    return b".".join([*parts, b""]).decode()


async def test_a_token_that_signs_itself_is_refused(keys: Keys, clock: FrozenClock) -> None:
    """No signature; the public key as a shared secret; a key that it brings along; a key of the same name."""
    tokens = Tokens(provider(keys.url), clock)
    said = claims(clock)
    public = RSA.as_pem(private=False)
    head, body, _ = _unsigned(said, alg="HS256", kid="rsa").split(".")
    mac = base64.urlsafe_b64encode(hmac.digest(public, f"{head}.{body}".encode(), sha256)).rstrip(b"=").decode()
    good_head, good_body, good_mac = sign(said).split(".")
    forged = [
        _unsigned(said, alg="none", kid="rsa"),
        _unsigned(said, alg="None", kid="rsa"),
        f"{head}.{body}.{mac}",
        sign(said, OTHER),
        sign(said, OTHER, jwk=OTHER.as_dict(private=False)),
        sign(said, OTHER, jku="http://127.0.0.1:1/keys"),
        sign(said, EC, "ES256"),
        f"{good_head}.{good_body}.",
        f"{good_head}.{base64.urlsafe_b64encode(json.dumps({**said, 'sub': 'ben'}).encode()).decode()}.{good_mac}",
    ]
    for token in forged:
        with pytest.raises(UnauthorizedError, match="not taken"):
            await tokens.authenticate(token)
    assert (await tokens.authenticate(sign(said))).user_id == "ana", "the control"


async def test_shared_secrets_among_the_keys_sign_nothing(keys: Keys, clock: FrozenClock) -> None:
    secret = OctKey.generate_key(256, {"kid": "oct"})
    keys.body = json.dumps({"keys": [secret.as_dict(private=True), RSA.as_dict(private=False)]}).encode()
    tokens = Tokens(provider(keys.url), clock)
    with pytest.raises(UnauthorizedError):
        await tokens.authenticate(jwt.encode({"alg": "HS256", "kid": "oct"}, claims(clock), secret))
    assert await tokens.check() == 1


async def test_an_algorithm_that_is_not_pinned_is_refused(keys: Keys, clock: FrozenClock) -> None:
    tokens = Tokens(provider(keys.url, algorithms=("RS256",)), clock)
    with pytest.raises(UnauthorizedError):
        await tokens.authenticate(sign(claims(clock), RSA, "PS256"))


async def test_keys_that_change_are_found_and_asked_for_seldom(keys: Keys, clock: FrozenClock) -> None:
    tokens = Tokens(provider(keys.url), clock)
    await tokens.authenticate(sign(claims(clock)))
    keys.keys = [EC]
    clock.move(limits.OIDC_REFETCH_S)
    await tokens.authenticate(sign(claims(clock), EC, "ES256"))
    assert keys.asked == 2
    for number in range(20):
        with pytest.raises(UnauthorizedError):
            await tokens.authenticate(sign(claims(clock, sub=f"u{number}")))
    assert keys.asked == 2, "a key that is gone is not looked for at each token"


async def test_a_provider_that_is_away_leaves_the_keys_that_are_known(keys: Keys, clock: FrozenClock) -> None:
    tokens = Tokens(provider(keys.url), clock)
    keys.status = 500
    with pytest.raises(UnauthorizedError):
        await tokens.authenticate(sign(claims(clock)))
    keys.status = 200
    clock.move(limits.OIDC_REFETCH_S)
    await tokens.authenticate(sign(claims(clock)))
    for status, body in ((500, None), (302, None), (200, b"[]"), (200, b"x" * (limits.OIDC_KEYS_BYTES + 1))):
        keys.status, keys.body = status, body
        clock.move(limits.OIDC_KEYS_S)
        assert (await tokens.authenticate(sign(claims(clock)))).user_id == "ana"


@pytest.mark.parametrize(
    "raw", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc", b""]
)
async def test_an_answer_that_is_no_http_is_a_provider_that_is_away(keys: Keys, clock: FrozenClock, raw: bytes) -> None:
    """Such an answer was an error of the server, though the keys were known."""
    tokens = Tokens(provider(keys.url), clock)
    keys.raw = raw
    with pytest.raises(UnauthorizedError):
        await tokens.authenticate(sign(claims(clock)))
    keys.raw = None
    clock.move(limits.OIDC_REFETCH_S)
    await tokens.authenticate(sign(claims(clock)))
    keys.raw = raw
    clock.move(limits.OIDC_KEYS_S)
    assert (await tokens.authenticate(sign(claims(clock)))).user_id == "ana"
    assert keys.asked == 3


async def test_keys_are_known_for_a_day_without_word_from_the_provider(keys: Keys, clock: FrozenClock) -> None:
    tokens = Tokens(provider(keys.url), clock)
    await tokens.authenticate(sign(claims(clock)))
    keys.status = 500
    for _ in range(limits.OIDC_AWAY_S // limits.OIDC_KEYS_S - 1):
        clock.move(limits.OIDC_KEYS_S)
        await tokens.authenticate(sign(claims(clock)))
    clock.move(limits.OIDC_KEYS_S)
    with pytest.raises(UnauthorizedError):
        await tokens.authenticate(sign(claims(clock)))
    keys.status = 200
    clock.move(limits.OIDC_REFETCH_S)
    await tokens.authenticate(sign(claims(clock)))


async def test_a_provider_that_sends_a_byte_now_and_then_is_away(
    keys: Keys, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read is in time, and the whole would take for ever."""
    monkeypatch.setattr(limits, "OIDC_FETCH_S", 0.2)
    dripping, over, done = threading.Event(), threading.Event(), threading.Event()
    tokens = Tokens(provider(keys.url), clock)
    await tokens.authenticate(sign(claims(clock)))

    def drip(write: Callable[[bytes], object]) -> None:
        dripping.set()
        with contextlib.suppress(OSError):
            write(b"HTTP/1.0 200 OK\r\n\r\n")
            while not done.wait(0.01):
                write(b" ")
        over.set()

    keys.drip = drip
    clock.move(limits.OIDC_KEYS_S)
    try:
        assert (await tokens.authenticate(sign(claims(clock)))).user_id == "ana", "the keys that are known"
        assert await asyncio.to_thread(dripping.wait, 20)
        assert await asyncio.to_thread(over.wait, 20), "nobody waits for it any more, and the connection is still open"
    finally:
        done.set()


async def test_keys_may_be_a_file(tmp_path: Path, clock: FrozenClock) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(KeySet([RSA]).as_dict(private=False)))
    assert (await Tokens(provider(str(file)), clock).authenticate(sign(claims(clock)))).user_id == "ana"
    with pytest.raises(UnauthorizedError):
        await Tokens(provider(str(tmp_path / "none")), clock).authenticate(sign(claims(clock)))


async def test_a_user_asks_only_so_often_whatever_tokens_it_has(
    keys: Keys, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: 0.0)  # it goes on by itself, and with it the allowance
    tokens = Tokens(provider(keys.url), clock)
    burst = limits.USER_KEY_RATE * limits.KEY_BURST_S
    mine = [sign(claims(clock, jti=str(number))) for number in range(2)]
    for number in range(burst):
        await tokens.authenticate(mine[number % 2])
    with pytest.raises(RateLimitedError):
        await tokens.authenticate(mine[0])
    await tokens.authenticate(sign(claims(clock, sub="ben")))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_token_that_was_changed_is_taken(data: st.DataObject, tmp_path: Path) -> None:
    clock = FrozenClock()
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(KeySet([RSA]).as_dict(private=False)))
    token = sign(claims(clock))
    at = data.draw(st.integers(0, len(token) - 1))
    change = data.draw(st.sampled_from("AZaz09-_.=\x00é"))
    changed = token[:at] + change + token[at + 1 :]
    # The last digits of base64 may stand for the same bytes.
    parts = [part.rstrip("=") for part in changed.split(".")]
    same = len(parts) == 3 and _bytes(parts) == _bytes(token.split("."))
    tokens = Tokens(provider(str(file)), clock)
    if same:
        return
    with pytest.raises(UnauthorizedError):
        asyncio.run(tokens.authenticate(changed))


def _bytes(parts: list[str]) -> list[bytes]:
    try:
        return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
    except ValueError:
        return []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"issuer": ""}, "oidc.issuer"),
        ({"audience": ""}, "oidc.audience"),
        ({"jwks": ""}, "oidc.jwks"),
        ({"jwks": "http://id.example.org/keys"}, "oidc.jwks"),
        ({"jwks": "file:///etc/passwd"}, "oidc.jwks"),
        ({"algorithms": ("none",)}, "oidc.algorithms"),
        ({"algorithms": ("HS256", "RS256")}, "oidc.algorithms"),
        ({"algorithms": ()}, "oidc.algorithms"),
    ],
)
def test_a_configuration_that_would_be_open_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_provider(provider(**{"jwks": "https://id.example.org/keys", **changes}))
    assert caught.value.field == field
    assert caught.value.remedy


def test_what_is_not_installed_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        del name

    monkeypatch.setattr("alcove.principals.oidc.find_spec", none)
    with pytest.raises(ConfigurationError) as caught:
        Tokens(provider("https://id.example.org/keys"))
    assert "alcove[oidc]" in caught.value.remedy
