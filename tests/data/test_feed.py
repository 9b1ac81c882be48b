"""Streamed batches are those of plain indexing; memory, errors and threads are kept."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dlworkshop.data import order as order_module
from dlworkshop.data.feed import AHEAD, Stream
from dlworkshop.data.order import Order, permutation
from dlworkshop.errors import UserError
from dlworkshop.types import Batch

SIZE, COUNT = 100, 30


class Rows:
    """An array that tells how many times it was asked, and fails when told to."""

    def __init__(self, array, fail_at=None, error=None):
        self.array, self.fail_at, self.error = array, fail_at, error
        self.asked = 0

    def __getitem__(self, index):
        self.asked += 1
        if self.asked == self.fail_at:
            raise self.error
        return self.array[index]


@pytest.fixture
def split(tmp_path):
    """100 memory-mapped images [2, 3, 1]."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.integers(0, 256, (SIZE, 2, 3, 1), dtype=np.uint8))
    image = np.load(tmp_path / "x.npy", mmap_mode="r")
    return Batch(image, np.arange(SIZE, dtype=np.int32))


def indices(position):
    return np.random.default_rng(position).integers(0, SIZE, (4, 2, 5))


def threads():
    """Those of streams; idle ones have a moment to end."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        found = [t for t in threading.enumerate() if t.name.startswith("grain")]
        if not found:
            break
        time.sleep(0.001)
    return found


@pytest.mark.parametrize("first", [0, 7])
def test_batches_are_those_of_plain_indexing(split, first):
    with Stream(split, lambda i: indices(first + i), COUNT - first) as stream:
        batches = list(stream)
    assert len(batches) == COUNT - first
    for position, batch in enumerate(batches, first):
        index = indices(position)
        np.testing.assert_array_equal(batch.inputs, np.asarray(split.inputs)[index])
        np.testing.assert_array_equal(batch.targets, index)
        assert batch.inputs.dtype == np.uint8 and batch.targets.dtype == np.int32
        assert type(batch.inputs) is np.ndarray  # in memory, not a map of the file
    assert not threads()


def test_no_more_than_a_few_are_gathered_ahead(split):
    rows = Rows(split.inputs)
    with Stream(Batch(rows, split.targets), indices, COUNT) as stream:
        for taken in range(1, 6):
            next(stream)
            deadline = time.monotonic() + 0.1  # time enough to gather them all
            while time.monotonic() < deadline:
                assert rows.asked <= taken + AHEAD
            assert rows.asked == taken + AHEAD
    assert rows.asked <= 5 + AHEAD
    assert not threads()


@pytest.mark.parametrize("error", [IndexError("row 7 is gone"), OSError("no disk")])
def test_an_error_in_a_thread_comes_out_where_the_batch_is_wanted(split, error):
    rows = Rows(split.inputs, fail_at=3, error=error)
    stream = Stream(Batch(rows, split.targets), indices, COUNT)
    with pytest.raises((IndexError, UserError)) as raised, stream:
        list(stream)
    if isinstance(error, IndexError):
        assert raised.value is error
    else:
        assert "reading the data failed (no disk)" in str(raised.value)
        assert raised.value.__cause__ is error
    assert not threads()


def test_closing_waits_for_threads_that_are_reading(split):
    class Slow(Rows):
        read = 0

        def __getitem__(self, index):
            rows = super().__getitem__(index)
            time.sleep(0.05)
            self.read += 1
            return rows

    rows = Slow(split.inputs)
    stream = Stream(Batch(rows, split.targets), indices, COUNT)
    next(stream)
    stream.close()
    assert rows.read == rows.asked > 1
    asked = rows.asked
    assert not threads()
    assert rows.asked == asked


def test_a_stream_that_was_never_used_can_be_closed(split):
    Stream(split, indices, COUNT).close()
    with Stream(split, indices, 0) as empty:
        assert list(empty) == []


def test_order_may_be_asked_by_many_threads(monkeypatch):
    drawn = []

    def counting(seed, epoch, size):
        drawn.append((seed, epoch))
        return permutation(seed, epoch, size)

    wanted = [Order([3, 5, 3], SIZE, 10).steps(step, 1) for step in range(200)]
    monkeypatch.setattr(order_module, "permutation", counting)
    shared, before = Order([3, 5, 3], SIZE, 10), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda step: shared.steps(step, 1), range(200)))
    finally:
        sys.setswitchinterval(before)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(drawn) >= 2 * 20
    assert set(drawn) == {(seed, epoch) for seed in (3, 5) for epoch in range(20)}


def test_threads_that_ask_together_draw_an_epoch_once(monkeypatch):
    drawn, together = [], threading.Barrier(4)

    def slow(seed, epoch, size):
        drawn.append(epoch)
        time.sleep(0.02)
        return permutation(seed, epoch, size)

    monkeypatch.setattr(order_module, "permutation", slow)
    order = Order([0], SIZE, 10)

    def ask(step):
        together.wait()
        return order.steps(step, 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(8, 12)))  # on both sides of the end of an epoch
    assert sorted(drawn) == [0, 1]


def test_both_sides_of_the_end_of_an_epoch_are_drawn_once(monkeypatch):
    drawn = []

    def counting(seed, epoch, size):
        drawn.append(epoch)
        return permutation(seed, epoch, size)

    monkeypatch.setattr(order_module, "permutation", counting)
    order = Order([0], SIZE, 10)
    for step in (9, 10, 8, 11, 9, 12):
        order.steps(step, 1)
    assert drawn == [0, 1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it")
def test_what_was_gathered_is_given_back_to_the_system():
    code = """
from pathlib import Path
import numpy as np
from dlworkshop.data.feed import Stream
from dlworkshop.types import Batch

def allocated():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(l.split(":", 1) for l in lines)["RssAnon"].split()[0]) / 1e3

split = Batch(np.zeros((64, 2**18), np.uint8), np.zeros(64, np.int32))
def read(rows):
    with Stream(split, lambda i: np.arange(rows + i % rows) % 64, 24) as batches:
        for batch in batches:
            batch.inputs[:]

read(1)  # a quarter of a MB: what is needed once is there
before = allocated()
for _ in range(10):
    read(8)  # 2 to 4 MB
print(allocated() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    # 20 MB and more where the heaps of the threads keep it
    assert float(done.stdout) < 8
