"""Streaming: batches of a split that is not in memory, prefetched by threads."""

import ctypes
import os
import threading
from collections.abc import Callable

import jax
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.types import Batch

# Batches that are read or kept ahead: four reads at a time hide most of the latency of
# a disk.
AHEAD = 4
M_MMAP_THRESHOLD = -3  # of glibc's mallopt; malloc.h
LARGE = 2**20  # bytes


class Stream:
    """The batches of `split` at indices(0), indices(1), ..., indices(count - 1).

    Threads gather at most AHEAD batches in advance. The stream is an iterator and a
    context manager that closes it; an exception in a thread is raised by `next`.

    Args:
        split: arrays [N, ...], in memory or memory-mapped, which are indexed by rows.
        indices: position -> indices of examples, of any shape; called from threads.
        count: the number of positions.

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
        """The batch at `position`, read in a thread; None after `close`."""
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

        Sorting the indices was no faster from disk, and half as fast from memory.
        """
        try:
            return jax.tree.map(np.asarray, self._split.rows(index))
        except OSError as error:
            raise UserError(
                f"reading the data failed ({error}): check that the data files are "
                "complete, and start again"
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
    """Make glibc return blocks of at least LARGE bytes to the system when freed.

    By default glibc raises this threshold to the size of each freed block, up to 32
    MiB, and then takes such blocks from the heaps of the threads, which grow with every
    stream. Other C libraries have no `mallopt`.

    The setting holds for the whole process: glibc can neither return the old threshold
    nor restore the automatic one. It only changes where large blocks come from, at the
    price of a system call for each block of 1 to 32 MiB. If the user has set
    MALLOC_MMAP_THRESHOLD_, nothing is changed.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
