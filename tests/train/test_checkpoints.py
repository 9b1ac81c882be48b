"""A checkpoint is noticed to be damaged, and saving leaves nothing behind."""

import logging
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop import fit, models
from dlworkshop.errors import UserError
from dlworkshop.train.checkpoints import DIGESTS, Checkpoints
from tests.train.test_resume import assert_close, lines

STATE = {"kernel": jnp.arange(12.0).reshape(3, 4), "key": jax.random.key(3)}


def saved(folder, steps=(1, 2)):
    """Checkpoints whose kernels are filled with their steps."""
    checkpoints = Checkpoints(folder)
    for step in steps:
        state = {**STATE, "kernel": jnp.full((3, 4), float(step))}
        checkpoints.save(step, state, {"step": step})
    checkpoints.close()
    return folder


def restored(folder):
    checkpoints = Checkpoints(folder)
    try:
        state, position = checkpoints.restore(STATE)
        return position["step"], float(state["kernel"][0, 0])
    finally:
        checkpoints.close()


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("two") / "checkpoints")


def test_each_flipped_bit_is_noticed_in_each_file(two, tmp_path, caplog):
    assert restored(two) == (2, 2.0)
    files = [p for p in sorted((two / "2").rglob("*")) if p.is_file()]
    assert len(files) > 5
    rng = np.random.default_rng(0)
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        damaged = folder / "2" / file.relative_to(two / "2")
        if not damaged.stat().st_size:
            damaged.write_bytes(b"x")
        elif damaged.name == DIGESTS:
            damaged.write_bytes(damaged.read_bytes()[:-3])
        else:
            flip(damaged, int(rng.integers(1 << 30)))
        with caplog.at_level(logging.WARNING):
            assert restored(folder) == (1, 1.0), file
        assert "checkpoint 2 (" in caplog.text and "damaged-2" in caplog.text
        caplog.clear()
        saved(folder, [2])  # a new one takes its place
        assert restored(folder) == (2, 2.0)


@pytest.mark.parametrize("name", ["run [1]", "a*b", "what?", "[!a] %41 #"])
def test_a_path_is_no_pattern(name, two, tmp_path):
    """Neither where checkpoints are written, nor where they are moved."""
    folder = saved(tmp_path / name / "checkpoints")
    assert restored(folder) == (2, 2.0)
    moved = shutil.copytree(folder, tmp_path / "plain")
    assert restored(saved(moved, [3])) == (3, 3.0)
    shutil.copytree(two, folder, dirs_exist_ok=True)
    assert restored(saved(folder, [3])) == (3, 3.0)


def test_one_that_cannot_be_restored_is_not_signed(tmp_path, monkeypatch):
    monkeypatch.setattr("glob.escape", str)  # so orbax merges nothing
    folder = tmp_path / "run [1]"
    with pytest.raises(UserError, match="parts that were not merged"):
        saved(folder, [1])
    assert not (folder / "1" / DIGESTS).exists()


def _replace(path, by, tmp_path):
    """Put a pipe, a link or other content in the place of a file or folder."""
    path.rename(tmp_path / "moved")
    if by == "pipe":
        os.mkfifo(path)
    elif by == "link":
        path.symlink_to(tmp_path / "moved")
    elif by == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("[" * 200_000)


@pytest.mark.parametrize("aside", [None, "file", "link"])
@pytest.mark.parametrize(
    ("name", "by"),
    [
        (".", "link"),
        (DIGESTS, "nested"),
        (DIGESTS, "pipe"),
        (DIGESTS, "endless"),
        ("state/_METADATA", "pipe"),
        ("state", "link"),
    ],
)
def test_what_is_no_plain_file_is_passed_over(name, by, aside, two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "own")
    _replace(folder / "2" / name, by, tmp_path)
    if aside:  # of an earlier run
        (tmp_path / "mine").write_text("precious")
        place = folder / "damaged-2"
        place.symlink_to(tmp_path) if aside == "link" else place.touch()
    assert restored(folder) == (1, 1.0)
    assert aside is None or (tmp_path / "mine").read_text() == "precious"


def test_one_that_was_not_brought_to_the_disk_is_passed_over(two, tmp_path, caplog):
    folder = shutil.copytree(two, tmp_path / "own")
    (folder / "2" / DIGESTS).unlink()  # they are written when all else is there
    for file in (folder / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert restored(folder) == (1, 1.0)
    assert "checkpoint 2 (it was not finished)" in caplog.text
    older = shutil.copytree(two, tmp_path / "older")  # of a version without digests
    for step in "12":
        (older / step / DIGESTS).unlink()
    assert restored(older) == (2, 2.0)


def test_files_reach_the_disk_before_their_digests(tmp_path, monkeypatch):
    there = []
    sync = os.fsync

    def fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        there.append((path, (tmp_path / "checkpoints" / "1" / DIGESTS).exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    saved(tmp_path / "checkpoints", [1])
    first = {path for path, digests in there if not digests}
    step = tmp_path / "checkpoints" / "1"
    assert {str(p) for p in step.rglob("*") if p.name != DIGESTS} <= first
    assert {str(step), str(step.parent)} <= first


def test_a_file_that_nobody_needs_stops_nothing(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "own")
    (folder / "2" / "note.txt").write_text("mine")
    (folder / "note.txt").write_text("mine")
    assert restored(folder) == (2, 2.0)


def test_all_damaged_is_one_sentence(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "own")
    for step in "12":
        (folder / step / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(UserError, match=r"all checkpoints .* 2 \(_CHECKPOINT_META"):
        Checkpoints(folder)
    assert (folder / "1").is_dir() and (folder / "2").is_dir()


def test_a_linked_folder_is_refused(two, tmp_path):
    (tmp_path / "checkpoints").symlink_to(two)
    with pytest.raises(UserError, match="is a link"):
        Checkpoints(tmp_path / "checkpoints")


def test_saving_leaves_no_threads_and_no_open_files(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    counts = []
    for step in range(1, 31):
        checkpoints.save(step, STATE, {"step": step})
        if step in (10, 30):
            checkpoints.wait()
            files = len(os.listdir("/proc/self/fd"))
            counts.append((threading.active_count(), files))
    checkpoints.close()
    (threads, files), (threads_later, files_later) = counts
    assert threads_later <= threads + 1 and files_later <= files + 3


@pytest.mark.usefixtures("unreported")
def test_a_run_goes_on_from_the_one_before_to_the_same_bits(quadrants, tmp_path):
    def train(workdir):
        return fit(
            models.logistic(4),
            quadrants,
            num_epochs=3,
            batch_size=16,
            save_every_steps=4,
            steps_per_chunk=2,
            devices=jax.devices()[:1],
            workdir=workdir,
        )

    wanted = train(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "own")
    newest = max(
        (tmp_path / "own" / "checkpoints").iterdir(), key=lambda step: int(step.name)
    )
    (tmp_path / "own" / "summary.json").unlink()
    data = max(newest.rglob("*"), key=lambda p: p.stat().st_size)
    flip(data, 100)
    found = train(tmp_path / "own")
    assert_close(found.params, wanted.params)
    assert lines(tmp_path / "own") == lines(tmp_path / "whole")
