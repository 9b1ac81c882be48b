"""A run whose data is streamed is the run whose data is resident, bit for bit."""

import json
import signal
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from dlworkshop import data, fit, models
from dlworkshop.data.feed import AHEAD
from dlworkshop.data.order import Order
from dlworkshop.errors import UserError
from dlworkshop.train import feeds, memory
from dlworkshop.train.mesh import make_mesh
from dlworkshop.types import Batch
from tests.conftest import make_dataset
from tests.train.test_resume import assert_close, assert_same_run, stop_after, train

pytestmark = pytest.mark.usefixtures("unreported")
BITS = pytest.mark.optimized  # of other programs

MODELS = {  # dropout, which takes long to compile: see a run that goes on
    "mlp": models.mlp((16,), num_classes=4),
    "cnn": models.cnn((4,), (8,), num_classes=4),
}
MEMBERS, BATCH = 3, 16
STEP_BYTES = MEMBERS * BATCH * 8 * 8


class Rows:
    """Images that tell how many rows were gathered, and fail after some."""

    def __init__(self, array, most=None):
        self.array, self.most, self.gathered = array, most, 0
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, index):
        rows = self.array[index]
        if np.ndim(index):
            self.gathered += np.size(index)
        if self.most is not None and self.gathered > self.most:
            raise IndexError("the last rows are gone")
        return rows


def with_rows(dataset, most=None):
    rows = Rows(dataset.train.inputs, most)
    return dataset._replace(train=Batch(rows, dataset.train.targets)), rows


def run(dataset, model="mlp", **changes):
    settings = {
        "hparams": {"learning_rate": 0.01},
        "seeds": MEMBERS,
        "num_epochs": 2,
        "batch_size": BATCH,
        "steps_per_chunk": 5,  # of the six of an epoch: one chunk is partial
        "devices": jax.devices()[:1],
        "streamed": True,
    }
    return fit(MODELS[model], dataset, optax.adam, **settings | changes)


def no_threads():
    """None of a stream; idle ones have a moment to end."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if not [t for t in threading.enumerate() if t.name.startswith("grain")]:
            return True
        time.sleep(0.001)
    return False


# step by step, and in pieces; as a whole: see examples on disk
@pytest.mark.parametrize(
    ("model", "devices", "size"),
    [
        pytest.param("mlp", 1, 1, marks=[BITS, pytest.mark.slow]),
        pytest.param("cnn", 4, 2 * STEP_BYTES, marks=pytest.mark.slow),
    ],
)
def test_streamed_equals_resident(
    model, devices, size, quadrants, tmp_path, monkeypatch
):
    monkeypatch.setattr(feeds, "PIECE_BYTES", size)
    resident, streamed = (
        run(
            quadrants,
            model,
            streamed=streamed,
            devices=jax.devices()[:devices],
            workdir=tmp_path / str(streamed),
        )
        for streamed in (False, True)
    )
    assert resident.summary["feed"] == "resident"
    assert streamed.summary["feed"] == "streamed"
    told = "validation", "test", "population"
    assert_same_run(resident.workdir, streamed.workdir, *told)
    configs = [r.workdir / "config.json" for r in (resident, streamed)]
    assert configs[0].read_text() == configs[1].read_text()
    assert no_threads()


@pytest.mark.slow
@pytest.mark.parametrize("first", [False, True])
def test_a_run_goes_on_with_the_other_feed(first, quadrants, tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "PIECE_BYTES", 1)  # of one step
    train(quadrants, tmp_path / "whole", streamed=first)
    workdir = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        train(quadrants, workdir, streamed=first, observe=stop_after(4))
    assert no_threads()  # although the error still holds the frames of the run
    assert stopped.value.code == 128 + signal.SIGTERM
    train(quadrants, workdir, streamed=not first)
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["feed"] == ("resident" if first else "streamed")
    assert_same_run(workdir, tmp_path / "whole")


@pytest.mark.parametrize("pieces", [2**25, 3 * 8, 1])
@pytest.mark.parametrize("size", [1, 8, 9, 50])
def test_every_example_is_evaluated_once(size, pieces, monkeypatch):
    monkeypatch.setattr(feeds, "PIECE_BYTES", pieces)
    split = Batch(np.zeros((size, 1), np.uint8), np.arange(size, dtype=np.int32) + 1)
    dataset = make_dataset()._replace(train=split, validation=split)
    mesh = make_mesh(1, 8, jax.devices()[:1])
    feed = feeds.Streamed(dataset, mesh, Order([0], size, 1))
    pieces_of_split = list(feed.evaluation("validation", 8, 100))
    found = [batch for batch, _ in pieces_of_split]
    assert len({piece.targets.shape for piece in found}) == 1  # one program
    assert all(piece.inputs.nbytes <= max(pieces, 8) for piece in found)
    labels = np.concatenate([piece.targets.ravel() for piece in found])
    assert labels[:size].tolist() == list(range(1, size + 1))
    assert (labels[size:] == 1).all()  # padding, whose share is nothing
    shares = np.concatenate([share.ravel() for _, share in pieces_of_split])
    assert shares.tolist() == [1] * size + [0] * (len(shares) - size)


def test_memory_is_bounded(quadrants, monkeypatch):
    """The host has AHEAD pieces and the devices two, none of them too large."""
    monkeypatch.setattr(feeds, "PIECE_BYTES", 2 * STEP_BYTES)
    dataset, rows = with_rows(quadrants)
    placed, ahead, used = [], [], 0
    place = feeds.processes.put_box

    def watched(tree, *where):
        nonlocal used
        if MEMBERS in tree.targets.shape:  # of training
            used += tree.targets.size
            ahead.append(rows.gathered - used)
        placed.append(sum(leaf.nbytes for leaf in jax.tree.leaves(tree.inputs)))
        return place(tree, *where)

    monkeypatch.setattr(feeds.processes, "put_box", watched)
    run(dataset, num_epochs=4)
    # the least that can be evaluated at a time are 128 examples
    assert max(placed) <= max(2 * STEP_BYTES, 128 * 8 * 8)
    assert used == rows.gathered == 4 * 6 * MEMBERS * BATCH
    assert 0 < max(ahead) <= AHEAD * 2 * MEMBERS * BATCH


def test_an_error_in_the_source_ends_the_run(quadrants, tmp_path):
    dataset, _ = with_rows(quadrants, most=3 * STEP_BYTES // 64)
    with pytest.raises(IndexError, match="the last rows are gone"):
        run(dataset, workdir=tmp_path, steps_per_chunk=1)
    assert no_threads()


def test_stopping_early_leaves_no_thread(quadrants):
    ended = run(
        quadrants, hparams={"learning_rate": 1e30}, num_epochs=9, steps_per_chunk=1
    )
    assert ended.summary["population"][0]["status"] == "quarantined"
    assert no_threads()


def test_what_does_not_fit_is_streamed(quadrants, tmp_path, monkeypatch, capsys):
    needed = sum(a.nbytes for a in jax.tree.leaves(quadrants[:3]))
    for available, feed in ((2 * needed, "resident"), (2 * needed - 1, "streamed")):
        monkeypatch.setattr(memory, "available", lambda free=available: free)
        ended = run(quadrants, streamed=None, members_at_once=MEMBERS, num_epochs=1)
        assert ended.summary["feed"] == feed
        assert f"data {feed}" in capsys.readouterr().err
    monkeypatch.setattr(memory, "available", lambda: 2 * needed)
    # two devices of a CPU hold two copies
    assert feeds.fits(quadrants, jax.devices()[:1])
    assert not feeds.fits(quadrants, jax.devices()[:2])


def test_what_devices_say_of_their_memory(quadrants):
    def device(**stats):
        told = {"platform": "gpu", "process_index": 0}
        return SimpleNamespace(memory_stats=lambda: stats or None, **told)

    needed = sum(a.nbytes for a in jax.tree.leaves(quadrants[:3]))
    large = device(bytes_limit=3 * needed, bytes_in_use=needed)
    small = device(bytes_limit=3 * needed, bytes_in_use=needed + 1)
    assert feeds.fits(quadrants, [large])
    assert not feeds.fits(quadrants, [large, small])
    assert feeds.fits(quadrants, [device()])  # it does not tell
    assert 2**20 < memory.available() < 2**50


def test_a_failing_disk_of_the_data_is_not_taken_for_that_of_the_run(
    quadrants, tmp_path
):
    class Refusing(Rows):
        fails = False

        def __getitem__(self, index):
            if self.fails and np.ndim(index):
                raise PermissionError(13, "Permission denied", "train.npy")
            return super().__getitem__(index)

    rows = Refusing(quadrants.train.inputs)
    dataset = quadrants._replace(train=Batch(rows, quadrants.train.targets))
    options = {"workdir": tmp_path, "num_epochs": 9, "save_every_steps": 1}

    def fail(snapshot):
        rows.fails = True

    with pytest.raises(UserError, match=r"reading the data failed .*train\.npy"):
        run(dataset, observe=[fail], **options)
    rows.fails, seen = False, []
    ended = run(dataset, observe=[lambda there: seen.append(there.step)], **options)
    assert ended.summary["steps"] == 54 and seen[0] > 5  # from its last checkpoint


@pytest.mark.slow
@BITS
def test_examples_on_disk_give_the_same_run(tmp_path):
    dataset = make_dataset()
    arrays = {
        f"{kind}_{split}": getattr(getattr(dataset, split), part)
        for split in ("train", "validation", "test")
        for kind, part in (("x", "inputs"), ("y", "targets"))
    }
    np.savez(tmp_path / "quadrants.npz", **arrays)
    on_disk = data.load(tmp_path / "quadrants.npz", tmp_path / "cache")
    in_memory = run(dataset, streamed=False)
    for streamed in (True, False):
        other = run(on_disk, streamed=streamed)
        assert_close(other.params, in_memory.params)
        assert other.summary["test"] == in_memory.summary["test"]
