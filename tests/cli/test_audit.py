"""`alcove audit`: on the installation here, and on a server of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import apsw

from cli.conftest import Run, either


@either
def test_the_audit_is_listed_verified_exported_and_erased(run: Run, place: Path) -> None:
    session = run("create").stdout.strip()
    run("rm", session, "--force")
    rows = json.loads(run("audit", "ls", "--json").stdout)["rows"]
    assert [row["act"] for row in rows] == ["session.trashed"]
    assert run("audit", "ls", "--session", session).stdout.split("\t")[1:4] == ["session.trashed", "done", "1"]
    assert run("audit", "ls", "--denied").stdout == ""
    verified = run("audit", "verify")
    assert "intact: 1 rows of 1 nodes" in verified.stderr
    lines = run("audit", "export").stdout.splitlines()
    assert [(json.loads(one)["hash"], json.loads(one)["words_told"]["why"]) for one in lines] == [
        (rows[0]["hash"], "asked")
    ]
    assert "would erase the words of 1 rows" in run("audit", "erase", "--session", session, "--dry-run").stderr
    assert "(erased)" not in run("audit", "ls").stdout
    assert "erased the words of 1 rows" in run("audit", "erase", "--session", session, "--force").stderr
    assert "(erased)" in run("audit", "ls").stdout
    run("audit", "verify")
    run("audit", "erase", "--force", exit_code=2)


def test_an_export_replaces_no_file(run: Run, place: Path) -> None:
    run("key", "create")
    run("audit", "export", "audit.jsonl")
    assert "intact: 1 rows" in run("audit", "verify", "audit.jsonl").stderr
    (place / "wrong.jsonl").write_text((place / "audit.jsonl").read_text().replace("key.created", "key.revoked"))
    assert "row 1 of node" in run("audit", "verify", "wrong.jsonl", exit_code=1).stdout
    (place / "none.jsonl").write_text("{}\n")
    assert "line 1" in run("audit", "verify", "none.jsonl", exit_code=2).stderr
    assert len((place / "audit.jsonl").read_text().splitlines()) == 1
    assert "exists" in run("audit", "export", "audit.jsonl", exit_code=2).stderr


def test_verification_names_the_row_and_fails(run: Run, place: Path) -> None:
    for _ in range(3):
        run("key", "create")
    [database] = place.rglob("alcove.db")
    connection = apsw.Connection(str(database))
    connection.execute("UPDATE audit SET code = 'none' WHERE n = 2")
    connection.close()
    told = run("audit", "verify", exit_code=1)
    assert "row 2 of node" in told.stdout
    assert "NOT intact" in told.stderr


def test_an_older_copy_of_the_database_is_found_out_and_that_stays_known(run: Run, place: Path) -> None:
    run("key", "create")
    [database] = place.rglob("alcove.db")
    before = database.read_bytes()
    run("key", "create")
    run("key", "create")
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    database.write_bytes(before)
    acts = [row["act"] for row in json.loads(run("audit", "ls", "--json").stdout)["rows"]]
    assert acts == ["audit.rewound", "key.created"], "two keys were made and are not in it"


def test_the_key_of_the_audit_is_its_owners_and_in_no_row(run: Run, place: Path) -> None:
    run("key", "create")
    [key] = place.rglob("audit.key")
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    secret = key.read_text().strip()
    for path in place.rglob("*"):
        if path.is_file() and path != key:
            assert secret.encode() not in path.read_bytes(), path
    assert bytes.fromhex(secret)
    key.write_text("nonsense")
    assert "no key of an audit" in run("key", "create", exit_code=1).stderr


def test_where_the_key_cannot_be_kept_nothing_that_is_audited_happens(run: Run, place: Path) -> None:
    run("key", "create")
    [key] = place.rglob("audit.key")
    key.unlink()
    key.mkdir()
    told = run("key", "create", exit_code=1).stderr
    assert "the key of the audit cannot be kept" in told
    key.rmdir()
    assert len(json.loads(run("key", "ls", "--json").stdout)["keys"]) == 1
