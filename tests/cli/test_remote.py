"""A server by --url or ALCOVE_URL: what goes wrong on the way there, and who is calling."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

from alcove.cli import remote_runs
from alcove.cli.wire import UnreachableError, Wire
from alcove.events.model import Event
from alcove.server.auth import RunGate
from cli.conftest import Run
from cli.served import Served


@pytest.fixture
def peer() -> Iterator[Callable[[bytes], str]]:
    """Something at an address that gives one answer, whatever it is asked, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def answering(answer: bytes) -> str:
        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield answering
    listener.close()
    for thread in threads:
        thread.join(10)


def test_an_option_names_the_server_before_the_environment_does(
    run: Run, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("create", "--id", "a", "--url", server)
    monkeypatch.setenv("ALCOVE_URL", "http://127.0.0.1:1")
    assert run("list", "--url", server + "/").stdout.startswith("a\t")
    assert run("--url", server, "list").stdout.startswith("a\t")
    assert "127.0.0.1:1 does not answer" in run("list", exit_code=1).stderr


def test_an_empty_address_is_the_installation_here(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCOVE_URL", "")
    assert "there is no installation here" in run("list", exit_code=5).stderr


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("ftp://127.0.0.1", "", "is not the address of a server"),
        ("http://", "", "is not the address of a server"),
        ("http://me:secret@127.0.0.1", "", "is not the address of a server"),
        ("http://127.0.0.1:port", "", "is not the address of a server"),
        ("http://127.0.0.1/?q=1", "", "is not the address of a server"),
        ("http://alcove.example.org", "k", "in the clear"),
        ("http://127.0.0.1:1", "k\n", "a character that no key has"),
    ],
)
def test_what_is_no_address_or_no_key_is_refused(run: Run, url: str, key: str, said: str) -> None:
    assert said in run("list", "--url", url, "--api-key", key, exit_code=2).stderr


def test_the_key_says_who_is_calling(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("create", "--id", "a")
    run("create", "--id", "b")
    with Served(place, RunGate("a", "run-1", "s3cret")) as served:
        monkeypatch.setenv("ALCOVE_URL", served.url)
        assert "error:" in run("detail", "a", exit_code=4).stderr
        monkeypatch.setenv("ALCOVE_KEY", "wrong")
        assert "error:" in run("list", exit_code=4).stderr
        monkeypatch.setenv("ALCOVE_KEY", "s3cret")
        # A run may read its own session only, so the listing is none of its business.
        assert "there is nothing at this path" in run("list", exit_code=5).stderr


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "no Alcove of this version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no Alcove of this version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "does not answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", "answers 302"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nnginx", "answers 502"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer"),
        (b"", "does not answer"),
    ],
)
def test_what_answers_otherwise_than_alcove_is_an_error(
    run: Run, peer: Callable[[bytes], str], answer: bytes, said: str
) -> None:
    result = run("list", "--url", peer(answer), exit_code=1)
    assert said in result.stderr
    assert "hint:" in result.stderr


def test_a_key_is_sent_to_nobody_but_the_server_that_was_named(run: Run, peer: Callable[[bytes], str]) -> None:
    there = peer(b"HTTP/1.1 307 Temporary\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    assert "answers 307" in run("list", "--url", there, "--api-key", "k", exit_code=1).stderr


def test_a_problem_is_the_error_that_it_was(run: Run, peer: Callable[[bytes], str]) -> None:
    body = b'{"detail":"it is busy","code":"session_busy","remedy":"wait","status":409,"details":{"run_id":"r"}}'
    answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    assert run("list", "--url", peer(answer), exit_code=3).stderr.splitlines() == ["error: it is busy", "hint: wait"]


def test_a_stream_that_breaks_goes_on_where_it_broke(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is cut after every event; nothing is shown twice and nothing is left out."""
    whole = remote_runs.stream_events
    cuts: list[int] = []

    async def cut(wire: Wire, run_id: str, after: int) -> AsyncGenerator[Event]:
        async for event in whole(wire, run_id, after):
            yield event
            cuts.append(event.n)
            raise UnreachableError("it broke")

    monkeypatch.setattr(remote_runs, "_PAUSE_S", 0)
    monkeypatch.setattr(remote_runs, "stream_events", cut)
    assert run("chat", "--url", server, "for i in 1 2 3; do echo $i; sleep 0.2; done").stdout == "1\n2\n3\n"
    assert cuts == sorted(set(cuts))
    assert len(cuts) > 5
