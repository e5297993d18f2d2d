"""Attacks by path over HTTP: names of sessions, links, kinds and races, beside what they do to a naive server."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zlib
from pathlib import Path

import pytest

from server.asgi import Client
from workspaces.probes import exchange, meanwhile, naive_read, picture, tries

SECRET = b"a neighbour's secret"


@pytest.fixture
async def theirs(call: Client, tmp_path: Path) -> str:
    """Another session, with a secret."""
    theirs = (await call("POST", "/api/v1/sessions", {"session_id": "Theirs"})).json()["session_id"]
    await call("PUT", f"/api/v1/sessions/{theirs}/files/secret.txt", body=SECRET)
    return theirs


@pytest.mark.parametrize(
    "session_id",
    ["theirs", "THEIRS", "..", "%2e%2e", "Theirs%2f..%2fTheirs", "Theirs%00", ".alcove", "Theirs.", "x" * 129],
)
async def test_an_id_that_is_no_session_reaches_no_folder(
    call: Client, theirs: str, tmp_path: Path, session_id: str
) -> None:
    before = picture(tmp_path / "sessions")
    for method, rest in (
        ("GET", "files"),
        ("GET", "files/secret.txt"),
        ("PUT", "files/new"),
        ("DELETE", "files/secret.txt"),
        ("GET", "archive"),
        ("POST", "archive"),
        ("GET", "watch"),
    ):
        answer = await call(method, f"/api/v1/sessions/{session_id}/{rest}")
        assert answer.status == 404, (method, rest)
    assert picture(tmp_path / "sessions") == before


async def test_a_deleted_session_has_no_files_left_to_reach(call: Client, theirs: str) -> None:
    url = f"/api/v1/sessions/{theirs}"
    assert (await call("DELETE", url)).status == 204
    for method, rest in (("GET", "files"), ("GET", "files/secret.txt"), ("PUT", "files/x"), ("GET", "archive")):
        assert (await call(method, f"{url}/{rest}")).status == 404


@pytest.mark.parametrize(
    "target", ["/proc/self/environ", "/proc/self/root/etc/passwd", "/proc/self/cwd", "/dev/fd/0", "../Theirs", "loop"]
)
async def test_a_link_gives_nothing_that_is_not_the_sessions_own(
    call: Client, own: str, theirs: str, tmp_path: Path, target: str
) -> None:
    (tmp_path / "sessions" / own / "loop").symlink_to(target)
    base = f"/api/v1/sessions/{own}"
    for path in ("loop", "loop/secret.txt", "loop/etc"):
        assert (await call("GET", f"{base}/files/{path}")).status in {400, 404}
        assert (await call("POST", f"{base}/files/{path}/x", {"to": "got"})).status in {400, 404}
    for rest in ("files?path=loop", "archive?path=loop"):
        assert (await call("GET", f"{base}/{rest}")).status in {400, 404}
    listed = (await call("GET", f"{base}/files")).json()
    assert [(file["path"], file["kind"]) for file in listed["files"]] == [("loop", "link")]
    with tarfile.open(fileobj=io.BytesIO((await call("GET", f"{base}/archive")).body)) as archive:
        assert [(info.name, info.linkname) for info in archive] == [("loop", target)], "as a link, not what it leads to"


@pytest.mark.timeout(30)
async def test_what_is_no_file_neither_hangs_nor_is_read(
    call: Client, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base = tmp_path / "sessions" / own, f"/api/v1/sessions/{own}"
    os.mkfifo(folder / "fifo")
    (folder / "dangling").symlink_to("nothing")
    (folder / "real").write_text("x")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        monkeypatch.chdir(tmp_path)
        for path in ("fifo", "socket", "dangling"):
            assert (await call("GET", f"{base}/files/{path}", headers={"range": "bytes=0-0"})).status in {400, 404}
        listed = {file["path"]: file["kind"] for file in (await call("GET", f"{base}/files")).json()["files"]}
        assert listed == {"dangling": "link", "fifo": "fifo", "real": "file", "socket": "socket"}
        with tarfile.open(fileobj=io.BytesIO((await call("GET", f"{base}/archive")).body)) as archive:
            assert sorted(archive.getnames()) == ["dangling", "real"]
        assert (await call("PUT", f"{base}/files/fifo", body=b"a file now")).status == 200
        assert (await call("POST", f"{base}/files/socket", {"to": "moved"})).json()["kind"] == "socket"
        assert (await call("DELETE", f"{base}/files/moved")).status == 204


async def test_a_swap_during_requests_leaks_nothing_and_harms_nobody(
    call: Client, own: str, theirs: str, tmp_path: Path
) -> None:
    folder, base = tmp_path / "sessions" / own, f"/api/v1/sessions/{own}"
    (folder / "d").mkdir()
    (folder / "d" / "secret.txt").write_text("inside")
    (folder / "swap").symlink_to(f"../{theirs}")
    before = picture(tmp_path / "sessions" / theirs)
    seen: set[bytes] = set()
    with meanwhile(lambda: exchange(folder / "d", folder / "swap")) as swaps:
        for number in tries(12, swaps):
            seen.add((await call("GET", f"{base}/files/d/secret.txt")).body)
            await call("PUT", f"{base}/files/d/up{number}", body=b"ours")
            await call("POST", f"{base}/files/d/secret.txt", {"to": f"d/moved{number}"})
            await call("POST", f"{base}/files/d/moved{number}", {"to": "d/secret.txt"})
            await call("DELETE", f"{base}/files/d/up{number}")
            # One that is made while names change ends early, or in an error; what came of it has to be ours.
            seen.add(_unpacked((await call("GET", f"{base}/archive")).body))
    assert not [body for body in seen if SECRET in body]
    assert picture(tmp_path / "sessions" / theirs) == before
    if (folder / "d").is_symlink():
        exchange(folder / "d", folder / "swap")
    assert b"inside" in _unpacked((await call("GET", f"{base}/archive")).body)
    with meanwhile(lambda: exchange(folder / "d", folder / "swap")):
        assert any(naive_read(folder, "d/secret.txt") == SECRET for _ in range(200_000)), "the control never leaked"


def _unpacked(archive: bytes) -> bytes:
    """Return what is in an archive, as far as it goes; or an error as it is."""
    return zlib.decompressobj(31).decompress(archive) if archive.startswith(b"\x1f\x8b") else archive
