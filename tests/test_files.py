"""Files are whole or not there, whoever writes, reads or is stopped meanwhile."""

import os
import stat
import threading
import time

import pytest

from dlworkshop.files import (
    DAY,
    atomic_file,
    atomic_rename,
    atomic_write,
    partial_folder,
    private_folder,
    remove_left_over,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.json"


def test_what_is_no_regular_file_is_not_replaced(path):
    os.mkfifo(path)
    for each in (path, path.parent, "."):
        with pytest.raises(OSError, match="is not a regular file"):
            atomic_write(each, "new")
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(path.parent) == [path.name]


def test_a_block_that_fails_changes_nothing(path):
    atomic_write(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        file.flush()
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(path.parent) == ["a.json"]


def test_readers_and_writers_at_once_see_whole_files(path):
    wanted = {letter * 100_000 for letter in "abcd"}
    atomic_write(path, "a" * 100_000)

    def write(text):
        for _ in range(20):
            atomic_write(path, text)

    threads = [threading.Thread(target=write, args=[text]) for text in wanted]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_text() in wanted
    assert path.read_text() in wanted and os.listdir(path.parent) == ["a.json"]


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(path, tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    path.symlink_to(other)
    atomic_write(path, "new")
    assert not path.is_symlink() and path.read_text() == "new"
    assert other.read_text() == "mine"


def test_it_has_the_permissions_of_any_new_file_and_may_have_a_long_name(tmp_path):
    path = tmp_path / ("n" * 250)
    atomic_write(path, "new")
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("letter", ["é", "漢", "😀"])
def test_a_long_name_may_be_of_any_letters(letter, tmp_path):
    path = tmp_path / (letter * (250 // len(letter.encode())))
    atomic_write(path, "new")
    assert path.read_text() == "new"


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    path = tmp_path / "none" / "a"
    with pytest.raises(FileNotFoundError) as refused:
        atomic_write(path, "x")
    assert refused.value.filename == str(path)  # and not the one beside it


def test_a_file_that_went_away_is_told_by_its_own_name(path):
    with pytest.raises(FileNotFoundError) as refused, atomic_file(path):
        for each in path.parent.iterdir():
            each.unlink()
    assert str(refused.value) == f"[Errno 2] No such file or directory: '{path}'"


def test_what_killed_processes_left_is_removed_after_a_day(path, tmp_path):
    other = tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt), partial_folder(tmp_path) as folder:
        killed = folder.with_name(f"{folder.name[:-1]}_")
        raise KeyboardInterrupt
    killed.mkdir()
    (killed / "part").touch()
    half = tmp_path / f".a.json.{'0f' * 8}.tmp"
    for each in (half, other, tmp_path / ".a.tmp"):
        each.touch()
    (tmp_path / ".dlworkshop-linkname").symlink_to(tmp_path)
    kept = {other.name, ".a.tmp", ".dlworkshop-linkname"}
    for age, left in ((DAY / 2, kept | {killed.name, half.name}), (2 * DAY, kept)):
        then = time.time() - age
        for each in (*tmp_path.rglob("*"), killed):
            os.utime(each, (then, then), follow_symlinks=False)
        with partial_folder(tmp_path) as folder:
            assert set(os.listdir(tmp_path)) == left | {folder.name}
        remove_left_over(tmp_path, DAY)
    assert set(os.listdir(tmp_path)) == kept


def test_what_another_process_is_writing_is_left_alone(path):
    """A report is written while a run begins in the same folder."""
    killed = path.with_name(f".a.json.{'0f' * 8}.tmp")
    killed.touch()
    with atomic_file(path) as file:
        remove_left_over(path.parent)
        file.write(b"whole")
    assert path.read_text() == "whole" and not killed.exists()


def test_the_first_folder_keeps_its_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    atomic_rename(tmp_path / "one", tmp_path / "final")
    atomic_rename(tmp_path / "two", tmp_path / "final")
    assert os.listdir(tmp_path / "final") == ["one"]
    with pytest.raises(OSError):
        atomic_rename(tmp_path / "three", tmp_path / "four")


def test_the_cache_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = private_folder("programs")
    assert folder == tmp_path / "dlworkshop" / "programs"
    folder.chmod(0o755)
    assert stat.S_IMODE(private_folder("programs").stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert private_folder("data") == tmp_path / "home/.cache/dlworkshop/data"


def test_the_cache_is_private_whatever_the_umask(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a/b"))
    before = os.umask(0)
    try:
        folder = private_folder("programs")
    finally:
        os.umask(before)
    above = list(folder.parents)[: len(folder.parts) - len(tmp_path.parts) - 1]
    assert {stat.S_IMODE(f.stat().st_mode) for f in (folder, *above)} == {0o700}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
@pytest.mark.parametrize("linked", [False, True])
def test_a_cache_of_somebody_else_is_refused(linked, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = private_folder("programs")
    if linked:
        folder.rmdir()
        (tmp_path / "other").mkdir()
        folder.symlink_to(tmp_path / "other")
    os.chown(folder, 12345, -1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        private_folder("programs")


def test_no_home_is_an_os_error(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # an unknown user
    with pytest.raises(FileNotFoundError, match="no home folder is known"):
        private_folder("data")
