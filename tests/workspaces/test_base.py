from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from alcove.errors import AlcoveError, AlreadyExistsError, ConfigurationError, ConflictError, FileMissingError
from alcove.workspaces.base import Base, installation
from workspaces.probes import picture

ROOT = os.geteuid() == 0


def test_a_new_base_is_private_and_belongs_to_the_installation(folder: Path):
    assert installation(str(folder)) is None
    Base.open(str(folder), "one").close()
    assert installation(str(folder)) == "one"
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("", ".alcove")}
    assert modes == {"": 0o700, ".alcove": 0o700}
    assert sorted(os.listdir(folder / ".alcove")) == ["installation", "temp", "trash"]
    assert os.listdir(folder / ".alcove/temp") == []
    before = picture(folder)
    Base.open(str(folder), "one").close()
    assert picture(folder) == before


def test_a_shared_base_can_be_passed_through_and_not_looked_into(folder: Path):
    before = os.umask(0)
    try:
        Base.open(str(folder), "one").close()
        Base.open(str(folder), "one", shared=True).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    assert stat.S_IMODE((folder / ".alcove").stat().st_mode) == 0o700


def test_a_base_of_another_installation_is_refused_and_unchanged(folder: Path):
    with Base.open(str(folder), "one") as base:
        base.create("ours")
    before = picture(folder)
    with pytest.raises(ConfigurationError, match="another installation") as caught:
        Base.open(str(folder), "two")
    assert caught.value.remedy
    assert picture(folder) == before


def test_of_two_installations_that_race_for_a_base_one_wins(folder: Path):
    folder.mkdir(mode=0o700)
    for round_ in range(20):
        path = folder / str(round_)
        won: list[str] = []

        def claim(name: str, path: Path = path, won: list[str] = won) -> None:
            try:
                Base.open(str(path), name).close()
                won.append(name)
            except ConfigurationError:
                pass

        threads = [threading.Thread(target=claim, args=(f"installation-{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [installation(str(path))]


def test_a_base_that_cannot_be_one_is_refused_with_a_remedy(tmp_path: Path, outside: Path):
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    cases = {
        "missing/base": "does not exist",
        "link": "is a link",
        "file": "not a folder",
        "file/base": "not a folder",
        "open": "everybody may write",
    }
    for path, reason in cases.items():
        with pytest.raises(ConfigurationError, match=reason) as caught:
            Base.open(str(tmp_path / path), "one")
        assert caught.value.remedy
    assert os.listdir(tmp_path / "open") == []
    assert not (tmp_path / "missing").exists()


def test_a_base_is_made_only_when_that_is_asked_for(folder: Path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        Base.open(str(folder), "one", create=False)
    assert not folder.exists()


@pytest.mark.skipif(ROOT, reason="root writes everywhere")
def test_a_base_that_is_not_writable_is_refused(folder: Path):
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(ConfigurationError, match="not writable"):
        Base.open(str(folder), "one")
    assert os.listdir(folder) == []
    with pytest.raises(ConfigurationError):
        Base.open(str(folder / "below"), "one")


def test_a_planted_link_in_place_of_our_own_folder_is_refused(folder: Path, outside: Path):
    folder.mkdir()
    (folder / ".alcove").symlink_to(outside)
    with pytest.raises(ConfigurationError):
        Base.open(str(folder), "one")
    (folder / ".alcove").unlink()
    (folder / ".alcove").mkdir()
    (folder / ".alcove" / "installation").symlink_to(outside / "secret.txt")
    with pytest.raises(ConfigurationError):
        Base.open(str(folder), "one")
    with pytest.raises(ConfigurationError):
        installation(str(folder))


def test_an_empty_installation_id_is_refused(folder: Path):
    Base.open(str(folder), "one").close()
    (folder / ".alcove/installation").write_text("")
    with pytest.raises(ConfigurationError, match="empty"):
        Base.open(str(folder), "one")


def test_a_refused_base_leaves_no_descriptor_open(folder: Path):
    Base.open(str(folder), "one").close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(ConfigurationError):
            Base.open(str(folder), "two")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_workspace_is_made_once_and_private(base: Base, folder: Path):
    base.create("new")
    assert base.exists("new")
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o700
    with pytest.raises(AlreadyExistsError):
        base.create("new")


def test_adopting_keeps_the_files_and_sets_the_mode_right(base: Base, ours: Path):
    (ours / "kept").write_text("x")
    ours.chmod(0)
    base.create("ours", adopt=True)
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert (ours / "kept").read_text() == "x"


@pytest.mark.parametrize("what", ["link", "file"])
def test_what_is_no_folder_is_not_adopted(base: Base, folder: Path, outside: Path, what: str):
    if what == "link":
        (folder / "odd").symlink_to(outside)
    else:
        (folder / "odd").write_text("")
    assert not base.exists("odd")
    with pytest.raises(AlreadyExistsError):
        base.create("odd", adopt=True)
    with pytest.raises(FileMissingError):
        base.tree("odd")


@pytest.mark.skipif(not ROOT, reason="only root gives folders away")
def test_a_root_server_gives_the_workspace_to_the_session(base: Base, folder: Path):
    base.create("leased", owner=54321)
    info = (folder / "leased").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (54321, 54321, 0o700)


@pytest.mark.skipif(ROOT, reason="root may give folders away")
def test_a_workspace_that_cannot_be_given_away_is_not_half_made(base: Base, folder: Path):
    with pytest.raises(AlcoveError):
        base.create("leased", owner=54321)
    assert not base.exists("leased")


def test_trash_and_back_keep_everything(base: Base, ours: Path):
    (ours / "a").write_text("x")
    ours.chmod(0)
    assert base.trash("ours", "t1")
    assert base.trash("ours", "t1"), "repeating it is no error"
    assert base.trash("theirs", "t1")
    assert not base.exists("ours")
    assert base.untrash("ours", "t1")
    assert base.untrash("ours", "t1")
    ours.chmod(0o700)
    assert (ours / "a").read_text() == "x"
    assert base.untrash("theirs", "t1")
    assert os.listdir(ours.parent / ".alcove/trash") == []


def test_there_is_nothing_to_trash_or_bring_back(base: Base, folder: Path):
    assert not base.trash("never", "t1")
    assert not base.untrash("never", "t1")
    assert os.listdir(folder / ".alcove/trash") == []


def test_neither_trash_nor_restore_overwrites(base: Base, ours: Path):
    (ours / "a").write_text("old")
    base.trash("ours", "t1")
    base.create("ours")
    with pytest.raises(ConflictError):
        base.trash("ours", "t1")
    with pytest.raises(ConflictError):
        base.untrash("ours", "t1")
    assert base.trash("ours", "t2")
    assert base.untrash("ours", "t1")
    assert (ours / "a").read_text() == "old"


def test_a_purge_takes_the_whole_trashing_and_nothing_else(base: Base, ours: Path, theirs: Path):
    (ours / "a").write_text("x")
    base.trash("ours", "t1")
    base.create("other")
    base.trash("other", "t2")
    assert base.purge("t1").files == 1
    assert base.untrash("other", "t2")


def test_a_trashed_workspace_takes_no_more_writes(base: Base, ours: Path):
    with base.tree("ours") as tree:
        base.trash("ours", "t1")
        with pytest.raises(ConflictError):
            tree.write("a", b"x")
    assert base.purge("t1").files == 0


def test_a_sweep_takes_files_and_folders_that_nobody_holds_and_leaves_the_rest(base: Base, folder: Path):
    (folder / ".alcove/temp/folder/deep").mkdir(parents=True)
    (folder / ".alcove/temp/link").symlink_to("folder")
    (folder / ".alcove/temp/left-by-a-crash").write_text("x")
    (folder / ".alcove/temp/held").mkdir()
    held = os.open(folder / ".alcove/temp/held", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        Base.open(str(folder), "installation-1").close()
        assert sorted(os.listdir(folder / ".alcove/temp")) == ["held", "link"]
    finally:
        os.close(held)
    Base.open(str(folder), "installation-1").close()
    assert sorted(os.listdir(folder / ".alcove/temp")) == ["link"]
