"""Archives over HTTP."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path

import pytest

from alcove import limits
from server.asgi import Client
from workspaces.tars import gz, member, names, tar


@pytest.fixture
def url(own: str) -> str:
    return f"/api/v1/sessions/{own}/archive"


async def test_a_workspace_comes_out_and_goes_into_another(call: Client, own: str, url: str) -> None:
    content = os.urandom(700_000)
    await call("PUT", f"/api/v1/sessions/{own}/files/d%FF/a", body=content)
    answer = await call("GET", url)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{own}.tar.gz"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert list(names([answer.body])) == ["d\udcff", "d\udcff/a"]
    other = (await call("POST", "/api/v1/sessions")).json()["session_id"]
    pieces = [answer.body[start : start + 50_000] for start in range(0, len(answer.body), 50_000)]
    into = f"/api/v1/sessions/{other}/archive?path=in"
    taken = await call("POST", into, body=pieces, headers={"transfer-encoding": "chunked"})
    assert taken.json() == {"files": 1, "folders": 1, "size": 700_000, "skipped": [], "skipped_count": 0}
    assert (await call("GET", f"/api/v1/sessions/{other}/files/in/d%FF/a")).body == content
    folder = await call("GET", f"/api/v1/sessions/{other}/archive?raw_path=in/d%25FF")
    assert list(names([folder.body])) == ["a"]
    assert (
        folder.headers["content-disposition"]
        == "attachment; filename=\"d_.tar.gz\"; filename*=UTF-8''d%EF%BF%BD.tar.gz"
    )


async def test_a_hostile_archive_is_refused_by_name(call: Client, own: str, url: str, tmp_path: Path) -> None:
    hostile = gz(member("good", b"x"), member("../evil", b"x"), member("l", kind="link", target="/etc"))
    answer = await call("POST", url, body=hostile)
    assert (answer.status, answer.json()["code"], answer.json()["field"]) == (400, "invalid", "archive")
    assert "'../evil'" in answer.json()["detail"]
    assert "?skip=true" in answer.json()["remedy"]
    assert os.listdir(tmp_path / "sessions" / own) == []
    taken = (await call("POST", f"{url}?skip=true", body=hostile)).json()
    assert (taken["files"], taken["skipped_count"]) == (1, 2)
    assert [line.partition(":")[0] for line in taken["skipped"]] == ["../evil", "l"]
    assert sorted(os.listdir(tmp_path / "sessions")) == sorted([".alcove", own])


async def test_what_is_there_is_replaced_only_when_that_is_asked_for(call: Client, own: str, url: str) -> None:
    file = f"/api/v1/sessions/{own}/files/a"
    await call("PUT", file, body=b"old")
    answer = await call("POST", url, body=tar(member("a", b"new")))
    assert (answer.status, answer.json()["code"]) == (409, "already_exists")
    assert "?replace=true" in answer.json()["remedy"]
    assert (await call("GET", file)).body == b"old"
    assert (await call("POST", f"{url}?replace=true", body=tar(member("a", b"new")))).status == 200
    assert (await call("GET", file)).body == b"new"


@pytest.mark.parametrize(
    ("limit", "value", "body"),
    [
        ("UPLOAD_BYTES", 1000, tar(member("a", b"x" * 5000))),
        ("ARCHIVE_BYTES", 1000, gz(member("a", b"x" * 5000))),
        ("ARCHIVE_NAMES", 2, tar(*(member(name, b"x") for name in "abc"))),
    ],
)
async def test_an_archive_past_a_limit_is_refused(
    call: Client, url: str, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, body: bytes
) -> None:
    monkeypatch.setattr(limits, limit, value)
    answer = await call("POST", url, body=body)
    assert (answer.status, answer.json()["limit"]) == (413, value)


async def test_paths_and_what_is_missing_are_refused_before_anything_is_sent(call: Client, own: str, url: str) -> None:
    for query, status in (("path=../x", 400), ("path=/etc", 400), ("path=missing", 404), ("raw_path=%252e%252e", 400)):
        assert (await call("GET", f"{url}?{query}")).status == status
        assert (await call("HEAD", f"{url}?{query}")).status == status
        if status == 400:
            assert (await call("POST", f"{url}?{query}", body=tar(member("a", b"x")))).status == status
    assert (await call("POST", url, body=b"no archive")).status == 400
    assert (await call("GET", "/api/v1/sessions/nobody/archive")).status == 404
    assert (await call("HEAD", url)).status == 200


async def test_an_archive_that_cannot_be_made_to_its_end_is_cut_off(
    call: Client, own: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "SEND_BYTES", 1000)
    path = tmp_path / "sessions" / own / "f"
    path.write_bytes(os.urandom(100_000))
    async with aclosing(call.stream("GET", url)) as pieces:
        assert await anext(pieces) == b"200"
        await anext(pieces)
        path.write_bytes(b"short")
        received = [piece async for piece in pieces]
    assert sum(map(len, received)) < 100_000
    assert "became shorter" in caplog.text
