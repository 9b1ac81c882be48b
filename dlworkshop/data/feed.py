"""Streaming: batches of a split that is not held in memory, prefetched by threads."""

import ctypes
import os
import threading
from collections.abc import Callable

import jax
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.types import Batch

# Gathers under way or waiting to be taken: what has never been read comes from a disk
# one latency after the other, and four at a time hide most of it.
AHEAD = 4
M_MMAP_THRESHOLD = -3  # of glibc's mallopt; malloc.h
LARGE = 2**20  # bytes


class Stream:
    """The batches of `split` at indices(0), indices(1), ..., indices(count - 1).

    They are gathered by threads, at most AHEAD of them before they are asked for. A
    position is one integer, so a stream has no state: another one begins anywhere.
    It is an iterator, to be closed, best by `with`; what goes wrong in a thread is
    raised where the batch is asked for.

    Args:
        split: arrays [N, ...], in memory or memory-mapped; only rows are asked for.
        indices: position -> indices of examples, of any shape; called from threads.
        count: how many positions there are.

    >>> split = Batch(np.arange(6, dtype=np.uint8) * 10, np.arange(6, dtype=np.int32))
    >>> with Stream(split, lambda i: np.array([5 - i, i]), count=2) as batches:
    ...     [batch.inputs.tolist() for batch in batches]
    [[50, 0], [40, 10]]
    """

    def __init__(self, split: Batch, indices: Callable[[int], np.ndarray], count: int):
        import grain  # noqa: PLC0415

        give_back_large_blocks()
        self._split, self._indices = split, indices
        self._idle = threading.Condition()
        self._reading, self._closed = 0, False
        options = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        positions = grain.MapDataset.source(range(count))
        self._batches = iter(positions.map(self._gather).to_iter_dataset(options))

    def _gather(self, position: int) -> Batch | None:
        """The batch at `position`, in a thread; None after `close`."""
        with self._idle:
            if self._closed:
                return None
            self._reading += 1
        try:
            return self._read(self._indices(position))
        finally:
            with self._idle:
                self._reading -= 1
                self._idle.notify_all()

    def _read(self, index: np.ndarray) -> Batch:
        """The rows, in the requested order.

        Sorted they came no sooner from a disk, and half as fast from memory.
        """
        try:
            return jax.tree.map(np.asarray, self._split.rows(index))
        except OSError as error:
            raise UserError(
                f"reading the data failed ({error}): see that its files are there and "
                "whole, and start again"
            ) from error

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Discard prefetched batches; afterwards no thread reads the split."""
        self._batches.close()
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._reading)


def give_back_large_blocks() -> None:
    """Make glibc return blocks of LARGE bytes to the system when they are freed.

    By default it does so until the first of them is freed; then it raises the size from
    which it does to that of the block, up to 32 MiB, and takes the next ones from heaps
    of the threads, which grow with every stream. Other C libraries have no such call.

    It holds for the whole process and cannot be undone: glibc has no call that tells
    what was set before, and none that lets it choose by itself again. What differs
    afterwards is where large blocks come from, never what is in them; the price is
    that a block of 1 to 32 MiB is asked of the system each time. The variable
    MALLOC_MMAP_THRESHOLD_ says that the user chose, and is left as it is.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
