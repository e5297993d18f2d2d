"""Files over HTTP: paths that others fell for, names that are not UTF-8, and nothing that a browser would run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alcove import limits
from server.asgi import Client
from server.conftest import Agents

# CVE-2021-43831, -2023-34239, -2023-1177, -2023-6909, -2026-33497, -2026-5027 and more: see reference of each in B5.
TRAVERSALS = [
    "../secret",
    "..%2fsecret",
    "%2e%2e/secret",
    "%2e%2e%2fsecret",
    "a/../../secret",
    "a/%2e%2e/%2e%2e/secret",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "//etc/passwd",
    "./x",
    "a//b",
    "a/",
    "a%00.txt",
    "../own-evil/x",
    "x" * 300,
    "d/" + "x" * 300,
    "a/" * 2100 + "x",
]
# These are plain names to Linux: there is no such file, and none outside is meant by them.
HARMLESS = ["%252e%252e%252fsecret", "..%5csecret", "C:%5cwindows", "C:%2fwindows", "...", "~root", "%e2%80%a5", "a;b"]


@pytest.fixture
def secret(tmp_path: Path, own: str) -> Path:
    path = tmp_path / "sessions" / "secret"
    path.write_text("secret")
    return path


@pytest.mark.parametrize("path", TRAVERSALS)
async def test_no_path_leads_out_of_the_workspace(call: Client, own: str, secret: Path, path: str) -> None:
    url = f"/api/v1/sessions/{own}/files/{path}"
    before = sorted(secret.parent.rglob("*"))
    for method in ("GET", "PUT", "DELETE"):
        answer = await call(method, url, body=b"evil" if method == "PUT" else b"")
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert str(secret.parent).encode() not in answer.body
    assert sorted(secret.parent.rglob("*")) == before
    assert secret.read_text() == "secret"


@pytest.mark.parametrize("path", HARMLESS)
async def test_odd_names_are_names(call: Client, own: str, secret: Path, path: str) -> None:
    url = f"/api/v1/sessions/{own}/files/{path}"
    assert (await call("GET", url)).status == 404
    assert (await call("PUT", url, body=b"mine")).status == 201
    assert (await call("GET", url)).body == b"mine"
    assert secret.read_text() == "secret"


async def test_no_link_leads_out_of_the_workspace(call: Client, own: str, secret: Path) -> None:
    """CVE-2024-23334, CVE-2025-53109."""
    folder = secret.parent / own
    (folder / "link").symlink_to(secret)
    (folder / "up").symlink_to("..")
    for path in ("link", "up/secret"):
        assert (await call("GET", f"/api/v1/sessions/{own}/files/{path}")).status == 400
    assert (await call("PUT", f"/api/v1/sessions/{own}/files/up/new", body=b"x")).status == 400
    assert (await call("PUT", f"/api/v1/sessions/{own}/files/link", body=b"x")).status == 200, "the link is replaced"
    assert secret.read_text() == "secret"
    assert (folder / "up" / "secret").read_text() == "secret", "the control: the link works for whoever follows it"


@pytest.mark.parametrize(
    "name", ["x.svg", "x.html", "x.xhtml", "x.htm", "x.js", "x.xml", "x.wasm", "x", "x.png", "x.txt"]
)
async def test_a_download_is_never_run_by_a_browser(call: Client, own: str, name: str) -> None:
    """CVE-2018-21030, CVE-2026-44727."""
    url = f"/api/v1/sessions/{own}/files/{name}"
    await call("PUT", url, body=b"<script>alert(1)</script>")
    headers = (await call("GET", url)).headers
    assert headers["content-disposition"].startswith("attachment;")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-type"] in {"application/octet-stream", "image/png", "text/plain; charset=utf-8"}
    assert (await call("GET", url, headers={"sec-fetch-site": "cross-site"})).status == 403


async def test_a_name_cannot_break_out_of_a_header(call: Client, own: str) -> None:
    url = f"/api/v1/sessions/{own}/files/a%22%0d%0aSet-Cookie:%20x%3d1%0d%0a%3b.txt"
    await call("PUT", url, body=b"x")
    headers = (await call("GET", url)).headers
    assert headers["content-disposition"] == (
        'attachment; filename="a___Set-Cookie_ x=1___.txt"; '
        "filename*=UTF-8''a%22%0D%0ASet-Cookie%3A%20x%3D1%0D%0A%3B.txt"
    )


@pytest.mark.parametrize(
    ("name", "plain", "exact"),
    [
        ("%C3%BC%20%E2%82%AC.txt", "_ _.txt", "%C3%BC%20%E2%82%AC.txt"),
        ("d%FF.txt", "d_.txt", "d%EF%BF%BD.txt"),
        ("%5C%25.txt", "__.txt", "%5C%25.txt"),
    ],
)
async def test_a_download_has_a_name_for_every_browser(
    call: Client, own: str, name: str, plain: str, exact: str
) -> None:
    url = f"/api/v1/sessions/{own}/files/{name}"
    await call("PUT", url, body=b"x")
    said = (await call("GET", url)).headers["content-disposition"]
    assert said == f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"


async def test_names_that_are_not_utf8_have_an_exact_path(call: Client, own: str) -> None:
    url = f"/api/v1/sessions/{own}/files"
    assert (await call("PUT", f"{url}/d%ff/%fe.txt", body=b"raw")).status == 201
    [file] = (await call("GET", url)).json()["files"]
    assert (file["path"], file["raw_path"]) == ("d\ufffd/\ufffd.txt", "d%FF/%FE.txt")
    assert (await call("GET", f"{url}/{file['raw_path']}")).body == b"raw"
    assert (await call("DELETE", f"{url}/{file['raw_path']}")).status == 204
    assert (await call("GET", f"{url}/{file['raw_path']}")).status == 404


async def test_a_known_state_is_not_sent_again(call: Client, own: str) -> None:
    url = f"/api/v1/sessions/{own}/files/a.txt"
    await call("PUT", url, body=b"one")
    first = await call("GET", url)
    tag = first.headers["etag"]
    known = await call("GET", url, headers={"if-none-match": f'"x", {tag}'})
    assert (known.status, known.body, known.headers["etag"]) == (304, b"", tag)
    assert known.headers["cache-control"] == first.headers["cache-control"], "RFC 9110, 15.4.5"
    assert (await call("PUT", url, body=b"three")).status == 200
    assert (await call("GET", url, headers={"if-none-match": tag})).body == b"three"


async def test_a_long_file_arrives_whole(call: Client, own: str) -> None:
    url, content = f"/api/v1/sessions/{own}/files/long", os.urandom(3 * limits.SEND_BYTES + 1)
    pieces = [content[start : start + 60_000] for start in range(0, len(content), 60_000)]
    assert (await call("PUT", url, body=pieces, headers={"transfer-encoding": "chunked"})).json()["size"] == len(
        content
    )
    answer = await call("GET", url)
    assert answer.body == content
    assert answer.headers["content-length"] == str(len(content))
    assert (await call("HEAD", url)).headers["content-length"] == str(len(content))


async def test_a_file_past_the_limit_is_refused(call: Client, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPLOAD_BYTES", 1000)
    url = f"/api/v1/sessions/{own}/files/long"
    assert (await call("PUT", url, body=b"x" * 1001)).status == 413
    chunked = {"transfer-encoding": "chunked"}
    assert (await call("PUT", url, body=[b"x" * 600] * 2, headers=chunked)).status == 413
    assert (await call("GET", url)).status == 404


async def test_folders_are_made_and_deleted(call: Client, own: str) -> None:
    url = f"/api/v1/sessions/{own}/files/d"
    made = await call("PUT", f"{url}?type=folder")
    assert (made.status, made.json()["kind"]) == (201, "folder")
    assert (await call("PUT", f"{url}?type=folder")).status == 200
    assert (await call("PUT", f"{url}?type=fifo")).status == 400
    await call("PUT", f"{url}/a", body=b"x")
    full = await call("DELETE", url)
    assert (full.status, full.json()["remedy"]) == (409, "delete it with ?recursive=true")
    assert (await call("GET", url)).status == 400
    assert (await call("DELETE", f"{url}?recursive=true")).status == 204
    assert (await call("GET", f"/api/v1/sessions/{own}/files")).json()["file_count"] == 0


async def test_a_write_beside_a_run_is_refused(call: Client, agents: Agents, own: str) -> None:
    await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "hi", "agent": "slow"})
    answer = await call("PUT", f"/api/v1/sessions/{own}/files/a", body=b"x")
    assert (answer.status, answer.json()["code"]) == (409, "session_busy")
    agents.go.set()
