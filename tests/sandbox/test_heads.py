"""What a run says to its proxy, read strictly: heads of requests, and whom a TLS client greets."""

from __future__ import annotations

import functools
import ssl

import pytest
from hypothesis import given, strategies as st

from alcove.rights.hosts import Host
from alcove.sandbox.destinations import RefusalError
from alcove.sandbox.heads import request, server_names

GET = b"GET http://x.org/ HTTP/1.1\r\n"


def test_a_tunnel_is_asked_for_with_a_name_and_a_port() -> None:
    found = request(b"CONNECT X.org:443 HTTP/1.1\r\nHost: other.org\r\nProxy-Authorization: Basic eA==\r\n\r\n")
    assert found == (Host("x.org", 443), True, b"", 0), "what Host says is nobody's business: nothing goes by it"


def test_a_plain_request_is_passed_on_without_what_was_for_the_proxy_and_to_the_host_of_its_url() -> None:
    found = request(
        b"POST http://x.org:8080/a?b=c HTTP/1.1\r\nHost: evil.org\r\nProxy-Authorization: secret\r\nUser-Agent: me\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\nContent-Length: 3\r\n"
        b"Keep-Alive: 5\r\nUpgrade: h2c\r\nTE: trailers\r\nHTTP2-Settings: x\r\n\r\n"
    )
    assert found.host == Host("x.org", 8080)
    assert (found.tunnel, found.length) == (False, 3)
    assert found.head == (
        b"POST /a?b=c HTTP/1.1\r\nHost: x.org:8080\r\nUser-Agent: me\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        (b"http://x.org", b"GET / HTTP/1.1", b"x.org"),
        (b"HTTP://X.ORG/", b"GET / HTTP/1.1", b"x.org"),
        (b"http://x.org?q", b"GET /?q HTTP/1.1", b"x.org"),
        (b"http://x.org:80//evil.org/", b"GET //evil.org/ HTTP/1.1", b"x.org"),
        (b"http://1.2.3.4/@evil", b"GET /@evil HTTP/1.1", b"1.2.3.4"),
    ],
)
def test_a_url_has_one_reading(url: bytes, line: bytes, host: bytes) -> None:
    assert request(b"GET " + url + b" HTTP/1.1\r\n\r\n").head.split(b"\r\n")[:2] == [line, b"Host: " + host]


MALFORMED = [
    *(
        b"GET / HTTP/1.1\r\n",
        b"GET x.org/ HTTP/1.1\r\n",
        b"GET https://x.org/ HTTP/1.1\r\n",
        b"CONNECT x.org HTTP/1.1\r\n",
    ),
    *(b"GET http://x.org/#y HTTP/1.1\r\n", b"GET http://evil@x.org/ HTTP/1.1\r\n", b"GET http:///x HTTP/1.1\r\n"),
    *(
        b"GET http://x.org\\@evil.org/ HTTP/1.1\r\n",
        b"GET ftp://x.org/ HTTP/1.1\r\n",
        b"GET http://127.1/ HTTP/1.1\r\n",
    ),
    *(
        b"GET  http://x.org/ HTTP/1.1\r\n",
        b"GET http://x.org/ HTTP/2\r\n",
        b"GET http://x.org/\r\n",
        b"\r\n",
        b"\x16\x03\r\n",
    ),
    *(b"GET http://x.org/ HTTP/1.1 \r\n", b"GET\thttp://x.org/ HTTP/1.1\r\n", b"G@T http://x.org/ HTTP/1.1\r\n"),
    *(b"CONNECT http://x.org:80 HTTP/1.1\r\n", b"CONNECT x.org:80/ HTTP/1.1\r\n", b"CONNECT *.x.org:80 HTTP/1.1\r\n"),
    *(GET + b"A : b\r\n", GET + b" folded: b\r\n", GET + b"A\r\n", GET + b": b\r\n", GET + b"A: b\rC: d\r\n"),
    *(GET + b"A: b\nContent-Length: 5\r\n", GET + b"A: b\x00\r\n", GET + b"A\x00: b\r\n", GET + b"A: b\r\n\tc\r\n"),
    *(
        GET + b"Content-Length: 1\r\nContent-Length: 1\r\n",
        GET + b"Content-Length: +1\r\n",
        GET + b"Content-Length: 1, 1\r\n",
    ),
    *(GET + b"Content-Length: -1\r\n", GET + b"Content-Length: 0x1\r\n", GET + b"Content-Length:\r\n"),
]


@pytest.mark.parametrize("head", MALFORMED)
def test_a_head_that_two_programs_could_read_differently_is_refused(head: bytes) -> None:
    with pytest.raises(RefusalError) as refused:
        request(head + b"\r\n")
    assert (refused.value.status, refused.value.code) == (400, "malformed")


@pytest.mark.parametrize("value", [b"chunked", b"identity", b"\tchunked", b"x, chunked", b""])
def test_a_body_without_a_length_is_refused(value: bytes) -> None:
    with pytest.raises(RefusalError) as refused:
        request(GET + b"Content-Length: 3\r\nTransfer-Encoding: " + value + b"\r\n\r\n")
    assert (refused.value.status, refused.value.code) == (411, "length")


@given(st.binary(max_size=200))
def test_any_head_is_understood_or_refused(noise: bytes) -> None:
    for head in (noise + b"\r\n\r\n", GET + noise + b"\r\n\r\n"):
        try:
            found = request(head)
        except RefusalError:
            continue
        assert found.head.count(b"\r\n\r\n") <= 1
        assert b"\x00" not in found.head


@functools.cache
def greeting(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same greeting in more records: what some use to hide the name."""
    body = hello[5:]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def test_the_name_in_a_greeting_is_found() -> None:
    said = greeting("x.org")
    assert server_names(said) == ["x.org"]
    assert server_names(in_records(said, 7)) == ["x.org"]
    assert server_names(said + b"and more") == ["x.org"]
    assert server_names(greeting(None)) == []


@given(st.integers(1, 200))
def test_a_greeting_in_pieces_is_waited_for(size: int) -> None:
    said = greeting("x.org")
    assert server_names(said[:size]) is None


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1", b"SSH-2.0-x", b"\x16\x04", b"\x00", b"\xff\xff"])
def test_what_is_no_tls_greets_nobody(said: bytes) -> None:
    assert server_names(said) == []


@given(st.binary(max_size=120))
def test_a_greeting_that_is_broken_is_refused_or_waited_for(noise: bytes) -> None:
    hello = b"\x01" + len(noise).to_bytes(3, "big") + noise
    for said in (b"\x16\x03\x01" + noise, b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello):
        try:
            names = server_names(said)
        except RefusalError:
            continue
        assert names is None or all(name.isascii() for name in names)
