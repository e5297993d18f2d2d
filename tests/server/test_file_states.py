"""Parts of files, changes that depend on what is there, moves, pages and watches, over HTTP."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest

from alcove import limits
from server.asgi import Client, events
from server.conftest import Agents

CONTENT = bytes(range(256)) * 40  # 10,240 bytes


@pytest.fixture
async def url(call: Client, own: str) -> str:
    url = f"/api/v1/sessions/{own}/files/f"
    await call("PUT", url, body=CONTENT)
    return url


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=100-100", 100, 100),
        ("bytes=10000-", 10000, 10239),
        ("bytes=-40", 10200, 10239),
        ("bytes=-99999999", 0, 10239),
        ("bytes=10239-99999999999", 10239, 10239),
        ("BYTES= 5-7 ", 5, 7),
    ],
)
async def test_a_range_is_answered_with_that_part(call: Client, url: str, asked: str, first: int, last: int) -> None:
    answer = await call("GET", url, headers={"range": asked})
    assert (answer.status, answer.body) == (206, CONTENT[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/10240"
    assert answer.headers["content-length"] == str(last - first + 1)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
async def test_a_range_behind_the_end_says_where_that_is(call: Client, url: str, asked: str) -> None:
    answer = await call("GET", url, headers={"range": asked})
    assert (answer.status, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */10240"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=5-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes 0-1", "bytes=0-" + "9" * 30, ""]
)
async def test_what_is_not_one_range_gets_the_whole(call: Client, url: str, asked: str) -> None:
    answer = await call("GET", url, headers={"range": asked})
    assert (answer.status, answer.body) == (200, CONTENT)


async def test_an_empty_file_has_no_ranges(call: Client, own: str) -> None:
    url = f"/api/v1/sessions/{own}/files/empty"
    await call("PUT", url)
    assert (await call("GET", url, headers={"range": "bytes=0-"})).status == 416
    assert (await call("GET", url)).body == b""


async def test_a_range_of_a_changed_file_is_the_whole(call: Client, url: str) -> None:
    head = await call("HEAD", url, headers={"range": "bytes=0-9"})
    assert (head.status, head.headers["content-length"]) == (200, "10240")
    same = {"range": "bytes=0-9", "if-range": head.headers["etag"]}
    assert (await call("GET", url, headers=same)).status == 206
    for other in ('"x"', f"W/{head.headers['etag']}", "Wed, 25 Nov 2026 10:00:00 GMT"):
        assert (await call("GET", url, headers={**same, "if-range": other})).status == 200
    await call("PUT", url, body=CONTENT)
    assert (await call("GET", url, headers=same)).status == 200, "the same content, but nobody compared it"


async def test_a_huge_file_with_holes_is_read_in_parts(call: Client, own: str, tmp_path: Path) -> None:
    with open(tmp_path / "sessions" / own / "huge", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"middle")
    url = f"/api/v1/sessions/{own}/files/huge"
    answer = await call("GET", url, headers={"range": f"bytes={1 << 39}-{(1 << 39) + 5}"})
    assert (answer.status, answer.body) == (206, b"middle")
    assert (await call("HEAD", url)).headers["content-length"] == str(1 << 40)
    async with aclosing(call.stream("GET", url)) as pieces:
        assert await anext(pieces) == b"200"
        assert await anext(pieces) == bytes(limits.SEND_BYTES)
    # And that was that: whoever leaves is not read a terabyte.


async def test_a_file_that_grows_is_sent_as_long_as_it_was_and_one_that_shrinks_is_cut_off(
    call: Client, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEND_BYTES", 1000)
    path, url = tmp_path / "sessions" / own / "log", f"/api/v1/sessions/{own}/files/log"
    path.write_bytes(CONTENT)
    for change, length in ((CONTENT + b"more", len(CONTENT)), (b"short", 5000)):
        received = b""
        async with aclosing(call.stream("GET", url)) as pieces:
            await anext(pieces)
            async for piece in pieces:
                if not received:
                    with open(path, "r+b") as file:
                        file.write(change)
                        file.truncate(len(change))
                received += piece
        assert len(received) <= length
        if length > 5000:
            assert received == CONTENT


async def test_states_have_names_and_changes_depend_on_them(call: Client, own: str, url: str) -> None:
    tag = (await call("HEAD", url)).headers["etag"]
    listed = (await call("GET", f"/api/v1/sessions/{own}/files")).json()["files"][0]
    assert listed["etag"] == tag
    for method, body in (("PUT", b"new"), ("DELETE", b""), ("GET", b"")):
        refused = await call(method, url, body=body, headers={"if-match": '"other"'})
        assert (refused.status, refused.json()["code"]) == (412, "version_mismatch")
    assert (await call("PUT", url, body=b"x", headers={"if-match": f"W/{tag}"})).status == 412, "a weak one is no match"
    put = await call("PUT", url, body=b"two", headers={"if-match": f'"other", {tag}'})
    assert put.status == 200
    assert put.headers["etag"] == put.json()["etag"] != tag
    assert (await call("PUT", url, body=b"three", headers={"if-match": tag})).status == 412
    assert (await call("GET", url, headers={"if-match": put.headers["etag"]})).body == b"two"
    assert (await call("DELETE", url, headers={"if-match": put.headers["etag"]})).status == 204
    assert (await call("PUT", url, body=b"x", headers={"if-match": "*"})).status == 412
    assert (await call("GET", url)).status == 404


async def test_a_file_is_created_by_one_of_many(call: Client, own: str) -> None:
    url, new = f"/api/v1/sessions/{own}/files/d/new", {"if-none-match": "*"}
    answers = await asyncio.gather(*(call("PUT", url, body=b"%d" % number, headers=new) for number in range(8)))
    assert sorted(answer.status for answer in answers) == [201] + [412] * 7
    [won] = [number for number, answer in enumerate(answers) if answer.status == 201]
    assert (await call("GET", url)).body == b"%d" % won


async def test_of_many_who_saw_the_same_state_one_changes_it(call: Client, url: str) -> None:
    tag = (await call("HEAD", url)).headers["etag"]
    answers = await asyncio.gather(
        *(call("PUT", url, body=b"%d" % number, headers={"if-match": tag}) for number in range(8))
    )
    assert sorted(answer.status for answer in answers) == [200] + [412] * 7


async def test_a_refused_upload_is_not_waited_for(call: Client, url: str) -> None:
    heard = [
        piece
        async for piece in call.stream("PUT", url, headers={"if-none-match": "*", "content-length": "10"}, sends=False)
    ]
    assert heard[0] == b"412"


async def test_what_is_known_is_not_sent_again(call: Client, url: str) -> None:
    tag = (await call("HEAD", url)).headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = await call("GET", url, headers={"if-none-match": known})
        assert (answer.status, answer.body) == (304, b"")
    assert (await call("GET", url, headers={"if-none-match": '"x"'})).body == CONTENT


@pytest.mark.parametrize("tags", ["x", '"', '"a" "b', "W/x", "*, *", '"a";q=1'])
@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
async def test_a_condition_that_is_none_is_refused(call: Client, url: str, header: str, tags: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = await call(method, url, headers={header: tags})
        assert (answer.status, answer.json()["field"]) == (400, header)


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("content-range", "bytes 3-5/6", 400), ("content-encoding", "gzip", 415), ("content-encoding", "identity", 200)],
)
async def test_what_is_not_the_whole_file_as_it_is_replaces_none(
    call: Client, url: str, header: str, value: str, status: int
) -> None:
    before = (await call("GET", url)).body
    answer = await call("PUT", url, body=b"end", headers={header: value})
    assert answer.status == status
    assert status == 200 or answer.json()["field"] == header
    assert (await call("GET", url)).body == (b"end" if status == 200 else before)


async def test_a_slow_sender_is_hung_up_on_in_the_end(
    call: Client, own: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(limits, "LINGER_S", 0.05)
    url = f"/api/v1/sessions/{own}/files/slow"
    heard = [piece async for piece in call.stream("PUT", url, headers={"content-length": "10"}, sends=False)]
    assert heard[0] == b"408"
    assert os.listdir(tmp_path / "sessions/.alcove/temp") == []


async def test_a_file_is_moved(call: Client, own: str, url: str) -> None:
    moved = await call("POST", url, {"to": "new/place/ü"})
    assert (moved.status, moved.json()["path"], moved.json()["name"]) == (200, "new/place/ü", "ü")
    assert (await call("GET", url)).status == 404
    files = f"/api/v1/sessions/{own}/files"
    assert (await call("GET", f"{files}/new/place/%C3%BC")).body == CONTENT
    await call("PUT", f"{files}/other", body=b"other")
    assert (await call("POST", f"{files}/other", {"to": "new/place/ü"})).json()["code"] == "already_exists"
    for body in ({"to": "../x"}, {"to": ""}, {}, {"to": "a", "raw_to": "a"}, {"raw_to": "%2e%2e/x"}, {"to": "a\0b"}):
        assert (await call("POST", f"{files}/other", body)).status == 400
    assert (await call("POST", f"{files}/missing", {"to": "x"})).status == 404
    raw = await call("POST", f"{files}/other", {"raw_to": "d%FF/o"})
    assert raw.json()["raw_path"] == "d%FF/o"
    assert (await call("POST", f"{files}/d%FF/o", {"to": "new/place/ü", "replace": True})).status == 200
    assert (await call("GET", f"{files}/new/place/%C3%BC")).body == b"other"
    assert (await call("POST", f"{files}/new", {"to": "new/place/deeper"})).status == 400


async def test_a_move_across_sessions_is_none(call: Client, own: str, url: str, tmp_path: Path) -> None:
    theirs = (await call("POST", "/api/v1/sessions")).json()["session_id"]
    for to in (f"../{theirs}/f", str(tmp_path / "sessions" / theirs / "f")):
        assert (await call("POST", url, {"to": to})).status == 400
    (tmp_path / "sessions" / own / "door").symlink_to(f"../{theirs}")
    assert (await call("POST", url, {"to": "door/f"})).status == 400
    assert os.listdir(tmp_path / "sessions" / theirs) == []
    os.rename(tmp_path / "sessions" / own / "f", tmp_path / "sessions" / own / "door" / "f")
    assert os.listdir(tmp_path / "sessions" / theirs) == ["f"], "the control: the door is open to whoever goes through"


async def test_a_listing_comes_in_pages_and_of_one_folder(call: Client, own: str) -> None:
    files = f"/api/v1/sessions/{own}/files"
    for path in ("a", "b/c", "b/d%FF", "b/e/f", "g"):
        await call("PUT", f"{files}/{path}", body=b"x")
    whole = (await call("GET", files)).json()
    assert (whole["file_count"], whole["next_cursor"], whole["truncated"]) == (5, None, False)
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = (await call("GET", f"{files}?limit=2{cursor}")).json()
        assert page["file_count"] == len(page["files"]) <= 2
        seen += [file["path"] for file in page["files"]]
        cursor = f"&cursor={page['next_cursor'].replace('%', '%25')}" if page["next_cursor"] else ""
    assert cursor == ""
    assert seen == [file["path"] for file in whole["files"]]
    folder = (await call("GET", f"{files}?path=b")).json()
    assert [file["path"] for file in folder["files"]] == ["b/c", "b/d\ufffd", "b/e/f"]
    assert (await call("GET", f"{files}?path=b/e&limit=1")).json()["next_cursor"] is None
    for path, status in (("missing", 404), ("../x", 400), ("a", 404), ("%00", 400)):
        assert (await call("GET", f"{files}?path={path}")).status == status
    for query in ("limit=0", "limit=x", "path=a&raw_path=a"):
        assert (await call("GET", f"{files}?{query}")).status == 400


async def test_a_watch_is_a_stream_that_resumes(call: Client, own: str) -> None:
    url, files = f"/api/v1/sessions/{own}/watch", f"/api/v1/sessions/{own}/files"
    async with aclosing(call.stream("GET", url)) as stream:
        assert [await anext(stream) for _ in range(2)] == [b"200", b"retry: 2000\n\n"]
        [(begun, kind, data)] = events(await anext(stream))
        assert (kind, data) == ("files", {"changed": [], "removed": [], "more": 0})
        await call("PUT", f"{files}/d%FF/a", body=b"x")
        [(first, _, data)] = events(await anext(stream))
        assert data["changed"] == ["d\ufffd/a"]
    await call("DELETE", f"{files}/d%FF", body=b"")
    await call("DELETE", f"{files}/d%FF?recursive=true")
    async with aclosing(call.stream("GET", url, headers={"last-event-id": str(first)})) as stream:
        await anext(stream)
        await anext(stream)
        [(_, _, data)] = events(await anext(stream))
        assert data["removed"] == ["d\ufffd/a"]
    async with aclosing(call.stream("GET", f"{url}?after={begun - 1}")) as stream:
        await anext(stream)
        await anext(stream)
        [(_, kind, data)] = events(await anext(stream))
        assert (kind, data) == ("gap", {"from": begun, "to": begun})
    assert (await call("GET", f"{url}?after=-1")).status == 400
    assert (await call("GET", "/api/v1/sessions/nobody/watch")).status == 404
    assert (await call("HEAD", url)).status == 200


async def test_a_watch_names_nothing_outside(call: Client, own: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "sessions" / own / "door").symlink_to(outside)
    async with aclosing(call.stream("GET", f"/api/v1/sessions/{own}/watch")) as stream:
        for _ in range(3):
            await anext(stream)
        (outside / "theirs").write_text("x")
        assert (tmp_path / "sessions" / own / "door" / "theirs").exists(), "the control: the link leads there"
        (tmp_path / "sessions" / own / "ours").write_text("x")
        [(_, _, data)] = events(await anext(stream))
        assert data == {"changed": ["ours"], "removed": [], "more": 0}


async def test_every_change_is_refused_beside_a_run(call: Client, agents: Agents, own: str, url: str) -> None:
    await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "hi", "agent": "slow"})
    for method, path, json in (
        ("PUT", url, None),
        ("PUT", f"{url}?type=folder", None),
        ("POST", url, {"to": "g"}),
        ("DELETE", url, None),
        ("POST", f"/api/v1/sessions/{own}/archive", None),
    ):
        answer = await call(method, path, json)
        assert (answer.status, answer.json()["code"]) == (409, "session_busy"), (method, path)
    assert (await call("GET", url)).body == CONTENT
    agents.go.set()
