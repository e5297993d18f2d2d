"""Archives in and out: what is in comes out, and nothing of a hostile one gets anywhere."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from alcove import limits
from alcove.errors import AlcoveError, AlreadyExistsError, ConflictError, FileMissingError, InvalidError, TooLargeError
from alcove.workspaces.base import Base
from alcove.workspaces.model import Extracted
from alcove.workspaces.tree import Tree
from workspaces.probes import picture
from workspaces.tars import gz, member, naive, names, tar

pytestmark = pytest.mark.usefixtures("way")
ROOT = os.geteuid() == 0


def extract(tree: Tree, data: bytes, path: str = "", *, piece: int = 1000, replace: bool = False, skip: bool = False):
    with tree.stage(path, skip=skip) as extraction:
        for start in range(0, len(data), piece):
            extraction.feed(data[start : start + piece])
        extracted = extraction.finish()
        extraction.place(replace=replace)
        return extracted


def shown(folder: Path) -> dict[str, str]:
    """Return what is in a folder, as text."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "folder" if path.is_dir() else path.read_text()
    return found


# What must be refused, why, and where it lands when it is believed (the control), relative to the folder unpacked in.
HOSTILE: dict[str, tuple[bytes, str, str]] = {
    "absolute": (tar(member("{outside}/new", b"x")), "no path", "{outside}/new"),
    "up": (tar(member("../theirs/new", b"x")), "no path", "../theirs/new"),
    "up-inside": (tar(member("a", kind="folder"), member("a/../../theirs/new", b"x")), "no path", "../theirs/new"),
    "link-out": (tar(member("l", kind="link", target="{outside}/secret.txt")), "leads, or could lead", "l"),
    "link-up": (tar(member("l", kind="link", target="../theirs")), "leads, or could lead", "l"),
    "link-chain": (
        tar(
            member("p/q/r", kind="link", target="../.."),
            member("out", kind="link", target="p/q/r/../theirs/secret.txt"),
        ),
        "leads, or could lead",
        "out",
    ),
    "link-then-write": (
        tar(member("l", kind="link", target="deep"), member("deep", kind="folder"), member("l/new", b"x")),
        "below a file or link",
        "deep/new",
    ),
    "link-out-then-write": (
        tar(member("l", kind="link", target="../theirs"), member("l/new", b"x")),
        "leads, or could lead",
        "../theirs/new",
    ),
    "hard-link-up": (tar(member("h", kind="hard link", target="../theirs/secret.txt")), "no path", "h"),
    "hard-link-to-link": (
        tar(member("l", kind="link", target="f"), member("f", b"x"), member("h", kind="hard link", target="l")),
        "hard link to a link",
        "h",
    ),
    "fifo": (tar(member("f", kind="fifo")), "is a fifo", "f"),
    "twice": (tar(member("f", b"one"), member("f", b"two")), "is in it twice", "f"),
    "file-then-below": (tar(member("f", b"x"), member("f/below", b"x")), "below a file or link", ""),
    "nul": (tar(member("a\0b", b"x", pax_headers={"path": "a\0b"})), "no path", ""),
    "long-name": (tar(member("n" * 300, b"x")), "no path", ""),
    "long-path": (tar(member("n/" * 2100 + "n", b"x")), "folders deep", ""),
    "empty-part": (tar(member("a//b", b"x", pax_headers={"path": "a//b"})), "no path", "a/b"),
    "dot-part": (tar(member("a/./b", b"x", pax_headers={"path": "a/./b"})), "no path", "a/b"),
}
if ROOT:
    HOSTILE["device"] = (tar(member("z", kind="device", devmajor=1, devminor=5)), "is a device", "z")
    HOSTILE["block-device"] = (tar(member("z", kind="block device", devmajor=7, devminor=9)), "is a device", "z")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_may_not_be_in_a_workspace_refuses_the_archive(
    tree: Tree, ours: Path, folder: Path, outside: Path, theirs: Path, name: str
):
    data, why, _ = HOSTILE[name]
    data = tar(member("first", b"good"), _placed(data, outside))
    (ours / "kept").write_text("kept")
    with pytest.raises(InvalidError, match=why) as caught:
        extract(tree, data)
    assert caught.value.remedy
    assert shown(ours) == {"kept": "kept"}, "all or nothing"
    assert os.listdir(folder / ".alcove/temp") == []
    extracted = extract(tree, data, skip=True)
    assert extracted.skipped_count == len(extracted.skipped) > 0
    assert why in " ".join(extracted.skipped)
    assert shown(ours)["first"] == "good"
    for path in ours.rglob("*"):
        assert path.resolve().is_relative_to(ours.resolve()), "no link leads out"
        assert stat.S_IFMT(path.lstat().st_mode) in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}


@pytest.mark.parametrize("name", [name for name in HOSTILE if HOSTILE[name][2]])
def test_the_same_archive_does_it_to_whoever_believes_it(tmp_path: Path, name: str):
    """The negative control of the test above."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/secret.txt").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "ours").mkdir()
    data, _, landed = HOSTILE[name]
    naive(tar(_placed(data, tmp_path / "outside")), tmp_path / "ours")
    assert os.path.lexists(tmp_path / "ours" / landed.format(outside=tmp_path / "outside"))


def _placed(archive: bytes, outside: Path) -> bytes:
    """Return the members of an archive with `{outside}` filled in."""
    if b"{outside}" not in archive:
        return archive[:-1024]
    [info] = names([archive]).values()
    content = b"x" if info.isreg() else b""
    target = info.linkname.format(outside=outside)
    return member(info.name.format(outside=outside), content, "file" if info.isreg() else "link", target)


def test_a_link_that_the_session_planted_is_not_gone_through(tree: Tree, ours: Path, outside: Path):
    """Link-then-write-through in two steps: the link is there before the archive comes."""
    (ours / "l").symlink_to(outside)
    with pytest.raises(ConflictError, match="link"):
        extract(tree, tar(member("l/new", b"x")), replace=True)
    with pytest.raises(InvalidError, match="leads out"):
        extract(tree, tar(member("new", b"x")), "l")
    (ours / "inside").mkdir()
    (ours / "m").symlink_to("inside")
    with pytest.raises(ConflictError, match="link"):
        extract(tree, tar(member("m/new", b"x")), replace=True)
    naive(tar(member("l/new", b"x")), ours)
    assert (outside / "new").exists(), "the negative control"
    (outside / "new").unlink()


def test_modes_owners_and_times_are_taken_over_without_rights(tree: Tree, ours: Path):
    extract(
        tree,
        tar(
            member("suid", b"x", mode=0o6755, uid=12345, gid=54321, uname="root", mtime=1_000_000_000),
            member("locked", b"x", mode=0),
            member("d", kind="folder", mode=0o1777, uid=12345),
            member("far", b"x", mtime=2**70),
            member("past", b"x", mtime=-5),
        ),
    )
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ours.iterdir()}
    assert modes == {"suid": 0o755, "locked": 0o600, "d": 0o777, "far": 0o644, "past": 0o644}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in ours.iterdir()} == {(os.geteuid(), os.getegid())}
    assert (ours / "suid").stat().st_mtime == 1_000_000_000


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_a_root_server_gives_what_comes_out_to_the_session(base: Base, folder: Path):
    base.create("leased", owner=54321)
    with base.tree("leased", owner=54321) as tree:
        data = tar(member("d/f", b"x", uid=0), member("l", kind="link", target="d/f"), member("e", kind="folder"))
        extract(tree, data)
        extract(tree, data, "whole")
    assert {path.lstat().st_uid for path in (folder / "leased").rglob("*")} == {54321}


BOMBS: dict[str, tuple[Callable[[], bytes], str, int, str]] = {
    "ratio": (lambda: gz(member("zeros", bytes(3_000_000))), "ARCHIVE_RATIO_FREE_BYTES", 100_000, "times its size"),
    "size": (lambda: tar(member("big", bytes(100_000))), "ARCHIVE_BYTES", 50_000, "more than 50000 bytes"),
    "members": (lambda: tar(*(member("d", kind="folder") for _ in range(20))), "ARCHIVE_NAMES", 10, "members"),
    "folders": (lambda: tar(member("a/b/c/d/e/f/g/h/i/j/k", b"x")), "ARCHIVE_NAMES", 10, "names, with the folders"),
    "header": (
        lambda: tar(member("f", b"x", pax_headers={"comment": "c" * 2000})),
        "ARCHIVE_HEADER_BYTES",
        1000,
        "a header of",
    ),
    "depth": (lambda: tar(member("a/b/c/d/e", b"x")), "TREE_DEPTH", 3, "more than 3 folders deep"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_found_out_while_it_goes_off(
    tree: Tree, ours: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    make, limit, value, why = BOMBS[name]
    data = make()
    naive(data, folder / "theirs")
    assert any((folder / "theirs").iterdir()), "the control: it can be unpacked"
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(InvalidError, match=why):
        extract(tree, data)
    assert list(ours.iterdir()) == []
    assert os.listdir(folder / ".alcove/temp") == []


def test_however_much_comes_out_of_it_an_archive_takes_little_memory(tree: Tree, ours: Path):
    packed = gz(member("zeros", bytes(60 * limits.MIB)))
    with tree.stage() as extraction:
        tracemalloc.start()
        try:
            extraction.feed(packed)
            assert tracemalloc.get_traced_memory()[1] < 4 * limits.MIB
        finally:
            tracemalloc.stop()
        assert extraction.finish().size_bytes == 60 * limits.MIB
        extraction.place()
    (ours / "zeros").unlink()
    with open(ours / "holes", "wb") as holes:
        holes.truncate(60 * limits.MIB)
    tracemalloc.start()
    try:
        assert sum(map(len, tree.archive())) < limits.MIB
        assert tracemalloc.get_traced_memory()[1] < 4 * limits.MIB
    finally:
        tracemalloc.stop()


def test_a_sparse_member_is_refused_by_name(tree: Tree):
    header = bytearray(member("sparse", form=tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    for data in (tar(bytes(header)), tar(member("f", b"x", pax_headers={"GNU.sparse.major": "1"}))):
        with pytest.raises(InvalidError, match="sparse"):
            extract(tree, data, skip=True)


DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"x",
    "text": b"this is no archive" * 100,
    "zeros that do not end": bytes(512) + b"x" * 512,
    "cut in a header": tar(member("f", b"x"))[:300],
    "cut in content": tar(member("f", b"x" * 5000))[:2000],
    "cut before its end": member("f", b"x"),
    "checksum": bytes([tar(member("f", b"x"))[0] ^ 1]) + tar(member("f", b"x"))[1:],
    "gzip cut": gz(member("f", os.urandom(5000)))[:-100],
    "gzip damaged": gz(member("f", os.urandom(5000)))[:-6] + bytes(6),
    "gzip and more": gz(member("f", b"x")) + b"more",
    "content of a folder": tar(member("d", b"x" * 10, "folder")),
    "global path": tarfile.TarInfo.create_pax_global_header({"path": "evil"}) + tar(member("f", b"x")),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("skip", [False, True])
def test_a_damaged_archive_is_refused_as_a_whole(tree: Tree, ours: Path, name: str, skip: bool):
    with pytest.raises(InvalidError, match="cannot be read"):
        extract(tree, DAMAGED[name], skip=skip)
    assert list(ours.iterdir()) == []


@settings(max_examples=25)
@given(
    noise=st.binary(max_size=3000),
    at=st.integers(0, 1023),
    patch=st.binary(min_size=1, max_size=12),
    gzipped=st.booleans(),
)
def test_no_bytes_do_anything_but_be_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, patch: bytes, gzipped: bool
):
    place = tmp_path_factory.mktemp("noise")
    with Base.open(str(place / "base"), "one") as base:
        base.create("ours")
        good = bytearray(tar(member("a/" + "é" * 60, b"x" * 600), member("l", kind="link", target="a")))
        good[at : at + len(patch)] = patch
        with base.tree("ours") as tree:
            for data in (noise, gzip.compress(bytes(good)) if gzipped else bytes(good)):
                try:
                    extract(tree, data, skip=True)
                except InvalidError:
                    continue
        before = {path.name for path in place.iterdir()}
        assert before == {"base"}
        assert {path.name for path in (place / "base").iterdir()} == {".alcove", "ours"}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("piece", [1, 511, 100_000])
def test_every_form_of_tar_is_read_however_it_arrives(tree: Tree, ours: Path, form: int, piece: int):
    long = "d" * 60 + "/" + "n" * (60 if form == tarfile.USTAR_FORMAT else 200)
    data = tar(
        member("./", kind="folder", form=form),
        member("./a.txt", b"a" * 1000, form=form),
        member("d/", kind="folder", form=form),
        member(long, b"long", form=form),
        member("d/up", kind="link", target="../a.txt", form=form),
        member("b.txt", kind="hard link", target="a.txt", form=form),
        member("empty", form=form),
    )
    extracted = extract(tree, data, piece=piece)
    assert extracted == Extracted(files=5, folders=2, size_bytes=1004)
    assert shown(ours) == {
        "a.txt": "a" * 1000,
        "b.txt": "a" * 1000,
        "d": "folder",
        "d/up": "-> ../a.txt",
        long.partition("/")[0]: "folder",
        long: "long",
        "empty": "",
    }
    extract(tree, gzip.compress(data), "again", piece=piece)
    assert shown(ours / "again")[long] == "long"


def test_what_was_archived_comes_back_as_it_was(tree: Tree, ours: Path, folder: Path):
    for path, content in {"a": b"a", "d/\udcff.bin": os.urandom(700_000), "d/ü/deep": b"", "n" * 200: b"n"}.items():
        tree.write(path, content)
    tree.mkdir("empty/folder")
    (ours / "d/run.sh").write_text("x")
    (ours / "d/run.sh").chmod(0o750)
    (ours / "d/l").symlink_to("../a")
    os.utime(ours / "a", (10, 10))
    os.utime(ours / "d/l", (20, 20), follow_symlinks=False)
    archive = b"".join(tree.archive())
    extract(tree, archive, "copy")
    back, there = names(tree.archive("copy")), names([archive])
    assert {n: (i.size, i.mode, i.mtime, i.type, i.linkname) for n, i in back.items() if not i.isdir()} == {
        n: (i.size, i.mode, i.mtime, i.type, i.linkname) for n, i in there.items() if not i.isdir()
    }
    assert {info.uid for info in there.values()} == {0}
    assert tree.read("copy/d/\udcff.bin") == tree.read("d/\udcff.bin")
    assert tree.usage().files == 12


def test_an_archive_holds_no_device_and_nothing_from_outside(tree: Tree, ours: Path, outside: Path):
    os.mkfifo(ours / "fifo")
    (ours / "l").symlink_to(outside)
    (ours / "f").write_text("x")
    found = names([b"".join(tree.archive())])
    assert {name: info.type for name, info in found.items()} == {"l": tarfile.SYMTYPE, "f": tarfile.REGTYPE}
    with pytest.raises(InvalidError, match="leads out"):
        list(tree.archive("l"))
    with pytest.raises(FileMissingError):
        list(tree.archive("missing"))


def test_an_archive_that_cannot_be_whole_ends_in_an_error(
    base: Base, tree: Tree, ours: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
):
    os.link(outside / "secret.txt", ours / "hard")
    with base.tree("ours", owner=os.geteuid() + 1) as other, pytest.raises(InvalidError, match="no regular file"):
        list(other.archive())
    os.unlink(ours / "hard")
    for name in ("a", "b", "c"):
        tree.write(name, b"x" * 100)
    for limit, value in (("ARCHIVE_NAMES", 2), ("ARCHIVE_BYTES", 250)):
        with monkeypatch.context() as patched:
            patched.setattr(limits, limit, value)
            with pytest.raises(TooLargeError):
                list(tree.archive())
    with open(ours / "sparse", "wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(TooLargeError, match="bytes in its files"):
        list(tree.archive())


def test_a_file_that_changes_while_it_is_archived(tree: Tree, ours: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "SEND_BYTES", 1000)
    (ours / "log").write_bytes(os.urandom(50_000))
    growing = tree.archive()
    first = next(growing)
    with open(ours / "log", "ab") as log:
        log.write(b"more")
    assert names([first, *growing])["log"].size == 50_000
    shrinking = tree.archive()
    next(shrinking)
    (ours / "log").write_bytes(b"short")
    with pytest.raises(ConflictError, match="shorter"):
        list(shrinking)


def test_nothing_is_replaced_unless_that_is_asked_for(tree: Tree, ours: Path):
    tree.write("a", b"old")
    tree.write("d/b", b"old")
    data = tar(member("new", b"new"), member("d/b", b"new"), member("d/e/f", b"new"))
    with pytest.raises(AlreadyExistsError, match="'d/b'"):
        extract(tree, data)
    assert shown(ours) == {"a": "old", "d": "folder", "d/b": "old"}
    extract(tree, data, replace=True)
    assert shown(ours) == {
        "a": "old",
        "d": "folder",
        "d/b": "new",
        "d/e": "folder",
        "d/e/f": "new",
        "new": "new",
    }
    for bad in (tar(member("d", b"x")), tar(member("a/x", b"x"))):
        with pytest.raises(ConflictError, match="where the archive has"):
            extract(tree, bad, replace=True)


def test_into_a_new_folder_everything_comes_in_one_step(tree: Tree, ours: Path):
    with tree.stage("x/y") as extraction:
        extraction.feed(tar(member("a", b"1"), member("b/c", b"2")))
        extraction.finish()
        assert shown(ours) == {}
        extraction.place()
    assert shown(ours / "x/y") == {"a": "1", "b": "folder", "b/c": "2"}
    extract(tree, tar(member("d", b"3")), "x/y")
    assert shown(ours / "x/y")["d"] == "3"


def test_what_was_not_placed_leaves_nothing(tree: Tree, ours: Path, folder: Path):
    before = picture(ours)
    with tree.stage() as extraction:
        extraction.feed(tar(member("a/b/c", b"x" * 10_000)))
    with tree.stage() as extraction:
        extraction.feed(tar(member("a/b/c", b"x" * 10_000))[:2000])
    assert picture(ours) == before
    assert os.listdir(folder / ".alcove/temp") == []


def test_the_standard_library_makes_what_we_read(tree: Tree, ours: Path):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.add(Path(__file__).parent, "tests", filter=lambda info: None if "__pycache__" in info.name else info)
    extract(tree, made.getvalue())
    assert (ours / "tests/test_archives.py").read_bytes() == Path(__file__).read_bytes()


def test_refusals_are_errors_of_ours(tree: Tree):
    for path in ("../x", "/x", "a//b", "n" * 300):
        with pytest.raises(AlcoveError):
            extract(tree, tar(member("f", b"x")), path)
        with pytest.raises(AlcoveError):
            list(tree.archive(path))
