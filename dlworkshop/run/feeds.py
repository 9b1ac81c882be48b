"""How the programs come by their examples: resident on the devices, or streamed.

Both feed the same batches, bit for bit; a run may go on with the other one.
"""

import math
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dlworkshop.data.feed import Stream
from dlworkshop.data.order import Order
from dlworkshop.run.mesh import BATCH, MEMBER, place
from dlworkshop.run.programs import batched_indices
from dlworkshop.types import Array, Batch, Dataset

# Splits are resident where they take at most this share of what is free; the rest is
# for parameters, the optimizer's state and what a step leaves for its gradient.
RESIDENT_SHARE = 0.5
# Streamed examples are put on the devices in pieces of at most this size (or of one
# step). Two are there at a time, and data.feed.AHEAD of them are on the host; while
# a split is evaluated, it has as many again.
PIECE_BYTES = 2**24


class Resident:
    """Whole splits on the devices, put there once; a step is fed indices."""

    name = "resident"

    def __init__(self, dataset: Dataset, mesh: Mesh, order: Order):
        self._dataset, self._mesh, self._order = dataset, mesh, order
        self._placed: dict[str, Batch] = {}

    def data(self, split: str) -> Any:
        """What the programs gather from: the split [N, ...]."""
        if split not in self._placed:
            arrays = Batch(*map(np.asarray, getattr(self._dataset, split)))
            self._placed[split] = place(self._mesh, arrays)
        return self._placed[split]

    def training(
        self, first: int, last: int, chunk: int
    ) -> Generator[Array, None, None]:
        """Indices [S, P, B] of each chunk of the steps first ... last - 1."""
        for step, count in cut(first, last, chunk, self._order.steps_per_epoch):
            indices = self._order.steps(step, count)
            yield place(self._mesh, indices, None, MEMBER, BATCH)

    def evaluation(self, split: str, batch_size: int) -> Generator[Array, None, None]:
        """Indices [T, B] of every example of a split once, the last batch padded."""
        size = len(getattr(self._dataset, split).label)
        yield place(self._mesh, batched_indices(size, batch_size), None, BATCH)


class Streamed:
    """Splits stay where they are; a step is fed the batch itself.

    A chunk or a split comes in pieces, so that the memory of host and devices is
    bounded by the sizes above, whatever the size of the data.
    """

    name = "streamed"

    def __init__(self, dataset: Dataset, mesh: Mesh, order: Order):
        self._dataset, self._mesh, self._order = dataset, mesh, order

    def data(self, _split: str) -> Any:
        """Nothing to gather from."""
        return ()

    def training(
        self, first: int, last: int, chunk: int
    ) -> Generator[Batch, None, None]:
        """Batches [S, P, B, ...] of the steps first ... last - 1; chunks in pieces."""
        order = self._order
        most = self._most(len(order.member) * order.batch_size)
        pieces = [
            piece
            for step, count in cut(first, last, chunk, order.steps_per_epoch)
            for piece in cut(step, step + count, evenly(count, most))
        ]

        def indices(position: int) -> np.ndarray:
            return order.steps(*pieces[position])

        yield from self._stream("train", indices, len(pieces), None, MEMBER, BATCH)

    def evaluation(self, split: str, batch_size: int) -> Generator[Batch, None, None]:
        """Batches [T, B, ...] of every example of a split once, the last ones padded.

        All pieces are of one shape, for one program.
        """
        size = len(getattr(self._dataset, split).label)
        total = -(-size // batch_size)
        batches = evenly(total, self._most(batch_size))
        examples = batches * batch_size

        def indices(position: int) -> np.ndarray:
            index = np.arange(position * examples, (position + 1) * examples)
            return np.where(index < size, index, 0).reshape(batches, batch_size)

        yield from self._stream(split, indices, -(-total // batches), None, BATCH)

    def _most(self, examples: int) -> int:
        """Batches of so many examples that a piece may have."""
        image = self._dataset.train.image
        each = examples * math.prod(image.shape[1:]) * image.dtype.itemsize
        return max(1, PIECE_BYTES // max(each, 1))

    def _stream(
        self, split: str, indices: Callable, count: int, *axes
    ) -> Generator[Batch, None, None]:
        with Stream(getattr(self._dataset, split), indices, count) as batches:
            # no name for a batch: once on the devices, the host's copy can go
            yield from (place(self._mesh, next(batches), *axes) for _ in range(count))


Feed = Resident | Streamed


def choose(streamed: bool | None, dataset: Dataset, mesh: Mesh, order: Order) -> Feed:
    """The feed that was asked for; None: resident where the splits fit."""
    if streamed is None:
        streamed = not fits(dataset, list(mesh.devices.flat))
    return (Streamed if streamed else Resident)(dataset, mesh, order)


def cut(
    first: int, last: int, most: int, every: int | None = None
) -> list[tuple[int, int]]:
    """(first, count) of parts of at most `most`, none across a multiple of `every`.

    >>> cut(3, 16, most=4, every=8)
    [(3, 4), (7, 1), (8, 4), (12, 4)]
    """
    parts = []
    while first < last:
        end = last if every is None else min(last, (first // every + 1) * every)
        parts.append((first, min(most, end - first)))
        first += parts[-1][1]
    return parts


def evenly(count: int, most: int) -> int:
    """The size of as few parts of `count` as can be, all but the last of one size.

    >>> evenly(10, most=4), evenly(9, most=4), evenly(3, most=4)
    (4, 3, 3)
    """
    return -(-count // -(-count // most))


def fits(dataset: Dataset, devices: list[jax.Device]) -> bool:
    """True if the splits take at most RESIDENT_SHARE of what is free on each device.

    Every device has them all; devices of a CPU share its memory. A device that does
    not tell how much it has is taken to have enough.
    """
    needed = sum(
        math.prod(array.shape) * array.dtype.itemsize
        for split in (dataset.train, dataset.validation, dataset.test)
        for array in split
    )
    if devices[0].platform == "cpu":
        return needed * len(devices) <= RESIDENT_SHARE * available_memory()
    stats = [device.memory_stats() or {} for device in devices]
    free = [s.get("bytes_limit", math.inf) - s.get("bytes_in_use", 0) for s in stats]
    return needed <= RESIDENT_SHARE * min(free)


def available_memory() -> int:
    """Bytes of memory that this process could still take, as the system tells.

    On Linux that is MemAvailable, or the limit of the container where it is lower;
    elsewhere the whole memory.
    """
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = dict(line.split(":", 1) for line in lines)
        available = int(known["MemAvailable"].split()[0]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except (OSError, KeyError):
        return available
    return available if limit == "max" else min(available, int(limit))
