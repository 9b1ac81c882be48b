"""Feeding of the compiled programs: data resident on the devices, or streamed.

Both feed the same batches, bit for bit, so a run may continue with the other one.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dlworkshop.data.feed import Stream
from dlworkshop.data.order import Order
from dlworkshop.models.model import BATCH
from dlworkshop.train import memory, processes
from dlworkshop.train.groups import Group, balanced_size
from dlworkshop.train.mesh import MEMBER, row_structs, shape_structs, shard
from dlworkshop.train.programs import tree_bytes
from dlworkshop.types import Array, Batch, Dataset

# Splits are resident if they take at most this share of the free memory; the rest is
# for parameters, the optimizer's state and activations.
RESIDENT_SHARE = 0.5
# Streamed examples are copied to the devices in pieces of at most this size (or of one
# step). Two pieces are there at a time, and data.feed.AHEAD of them on the host; the
# evaluation of a split needs as many again.
PIECE_BYTES = 2**24

# (seeds [G], step, count) -> indices [S, G, B] on the devices: `Programs.order`.
Draw = Callable[[np.ndarray, int, int], Array]
Piece = tuple[Any, Array]  # indices or examples [T, B, ...], and their shares [T, B]


class Resident:
    """Whole splits on the devices; a step is fed indices."""

    name = "resident"

    def __init__(self, dataset: Dataset, mesh: Mesh, order: Order):
        self._dataset, self._mesh, self._order = dataset, mesh, order
        self._placed: dict[str, Batch] = {}
        self._pieces: dict[tuple, list[Piece]] = {}

    def data(self, split: str) -> Any:
        """The split [N, ...] that the programs gather from."""
        if split not in self._placed:
            arrays = jax.tree.map(np.asarray, getattr(self._dataset, split))
            self._placed[split] = shard(self._mesh, arrays)
        return self._placed[split]

    def training(
        self,
        first: int,
        last: int,
        chunk: int,
        groups: Sequence[Group],
        draw: Draw | None = None,
    ) -> Generator[Array, None, None]:
        """Indices [S, G, B] of the steps first ... last - 1, by chunk and group.

        `draw` draws them on the devices. If several groups take turns, the host draws
        them, because the order of all groups would fill the devices.
        """
        members = [_members(group, self._order) for group in groups]
        for step, count in cut(first, last, chunk, self._order.steps_per_epoch):
            for some in members:
                if draw is not None and len(groups) == 1:
                    yield draw(self._order.seeds[self._order.member[some]], step, count)
                    continue
                indices = self._order.steps(step, count, some)
                yield shard(self._mesh, indices, None, MEMBER, BATCH)

    def evaluation(
        self, split: str, batch_size: int, most: int
    ) -> Generator[Piece, None, None]:
        """Pieces of at most `most` batches, covering every example of a split once.

        They are indices [T, B] and the shares of the examples.
        """
        key = split, batch_size, most
        if key not in self._pieces:
            batch = getattr(self._dataset, split)
            cut = evaluation_pieces(batch, batch_size, most)
            self._pieces[key] = [shard(self._mesh, piece, None, BATCH) for piece in cut]
        yield from self._pieces[key]

    def shapes(
        self, chunk: int, members: int, batch_size: int, most: int
    ) -> tuple[Any, Any]:
        """(data, piece) of training and of evaluation, as shapes."""
        train, held = self._dataset.train, self._dataset.validation
        shape = (chunk, members, self._order.batch_size)
        indices = jax.ShapeDtypeStruct(shape, np.int32)
        piece = next(evaluation_pieces(held, batch_size, most))
        return (
            shape_structs(self._mesh, row_structs(train, train.num_examples)),
            shape_structs(self._mesh, indices, None, MEMBER, BATCH),
        ), (
            shape_structs(self._mesh, row_structs(held, held.num_examples)),
            shape_structs(self._mesh, piece, None, BATCH),
        )

    def more(self) -> int:
        """Bytes on each device besides the arguments of training."""
        return tree_bytes(self._dataset.validation) + tree_bytes(self._dataset.test)


class Streamed:
    """Splits stay on the host; a step is fed its batch.

    A chunk or a split is fed in pieces, so that the needed memory of host and devices
    does not depend on the size of the data.
    """

    name = "streamed"

    def __init__(self, dataset: Dataset, mesh: Mesh, order: Order):
        self._dataset, self._mesh, self._order = dataset, mesh, order

    def data(self, _split: str) -> Any:
        """Nothing to gather from."""
        return ()

    def training(
        self,
        first: int,
        last: int,
        chunk: int,
        groups: Sequence[Group],
        draw: Draw | None = None,
    ) -> Generator[Batch, None, None]:
        """Batches [S, G, B, ...] of the same steps; a chunk of a group in pieces."""
        del draw  # the host gathers the examples
        order = self._order
        pieces = [
            (*piece, _members(group, order))
            for step, count in cut(first, last, chunk, order.steps_per_epoch)
            for group in groups
            for piece in cut(step, step + count, self._steps(count, len(group)))
        ]

        def indices(position: int) -> np.ndarray:
            return order.steps(*pieces[position])

        shapes = [(count, len(some), order.batch_size) for _, count, some in pieces]
        yield from self._stream("train", indices, shapes, None, MEMBER, BATCH)

    def evaluation(
        self, split: str, batch_size: int, most: int
    ) -> Generator[Piece, None, None]:
        """Pieces of at most `most` batches, covering every example of a split once.

        They are batches [T, B, ...] and the shares of the examples; all have the same
        shape, for one program.
        """
        batch = getattr(self._dataset, split)
        most = min(most, self._most(batch_size))
        cut = list(evaluation_pieces(batch, batch_size, most))

        def indices(position: int) -> np.ndarray:
            return cut[position][0]

        shapes = [index.shape for index, _ in cut]
        batches = self._stream(split, indices, shapes, None, BATCH)
        with contextlib.closing(batches):
            for placed, (_, share) in zip(batches, cut, strict=True):
                yield placed, shard(self._mesh, share, None, BATCH)

    def shapes(
        self, chunk: int, members: int, batch_size: int, most: int
    ) -> tuple[Any, Any]:
        """(data, piece) of training and of evaluation, as shapes."""
        train, held = self._dataset.train, self._dataset.validation
        steps = self._steps(chunk, members)
        most = min(most, self._most(batch_size))
        index, share = next(evaluation_pieces(held, batch_size, most))
        batch = row_structs(train, steps, members, self._order.batch_size)
        piece = row_structs(held, *index.shape), share
        return (
            ((), shape_structs(self._mesh, batch, None, MEMBER, BATCH)),
            ((), shape_structs(self._mesh, piece, None, BATCH)),
        )

    def more(self) -> int:
        """Bytes on each device besides the arguments of training."""
        return PIECE_BYTES

    def _steps(self, chunk: int, members: int) -> int:
        """Steps in a piece of a chunk."""
        return balanced_size(chunk, self._most(members * self._order.batch_size))

    def _most(self, examples: int) -> int:
        """The largest number of batches in a piece."""
        train = self._dataset.train
        each = examples * tree_bytes(train) // train.num_examples
        return max(1, PIECE_BYTES // max(each, 1))

    def _stream(
        self, split: str, indices: Callable, shapes: Sequence[tuple[int, ...]], *axes
    ) -> Generator[Batch, None, None]:
        """Batches by index; each process reads the part of its devices."""
        sharding = NamedSharding(self._mesh, PartitionSpec(*axes))
        boxes = [processes.own_box(sharding, shape) for shape in shapes]

        def own(position: int) -> np.ndarray:
            return indices(position)[boxes[position]]

        with Stream(getattr(self._dataset, split), own, len(shapes)) as batches:
            # no variable holds a batch, so that its copy on the host is freed
            yield from (
                processes.put_box(next(batches), sharding, *where)
                for where in zip(boxes, shapes, strict=True)
            )


Feed = Resident | Streamed


def choose(streamed: bool | None, dataset: Dataset, mesh: Mesh, order: Order) -> Feed:
    """The requested feed; by default resident if the splits fit."""
    if streamed is None:
        streamed = not fits(dataset, list(mesh.devices.flat))
    return (Streamed if streamed else Resident)(dataset, mesh, order)


def evaluation_pieces(split: Batch, batch_size: int, most: int) -> Iterator[Piece]:
    """Indices [T, B] and shares [T, B] that cover every example of a split once.

    T is the same in all pieces, at most `most`. The last piece is padded with the first
    example, with a share of 0; the share of other examples is their weight, or 1.

    >>> split = Batch(np.zeros((3, 1)))
    >>> [[part.tolist() for part in p] for p in evaluation_pieces(split, 2, 1)]
    [[[[0, 1]], [[1.0, 1.0]]], [[[2, 0]], [[1.0, 0.0]]]]
    """
    size = split.num_examples
    total = -(-size // batch_size)
    batches = balanced_size(total, most)
    dtype = jnp.result_type(float)
    weights = np.ones(size) if split.weights is None else np.asarray(split.weights)
    for first in range(0, total, batches):
        place = batch_size * first + np.arange(batches * batch_size)
        index = np.where(place < size, place, 0).astype(np.int32)
        share = np.where(place < size, weights[index], 0).astype(dtype)
        shape = batches, batch_size
        yield index.reshape(shape), share.reshape(shape)


def cut(
    first: int, last: int, most: int, every: int | None = None
) -> list[tuple[int, int]]:
    """(first, count) of parts of at most `most`; none crosses a multiple of `every`.

    >>> cut(3, 16, most=4, every=8)
    [(3, 4), (7, 1), (8, 4), (12, 4)]
    """
    parts = []
    while first < last:
        end = last if every is None else min(last, (first // every + 1) * every)
        parts.append((first, min(most, end - first)))
        first += parts[-1][1]
    return parts


def _members(group: Group, order: Order) -> np.ndarray:
    """The members of a group; an empty place repeats the last member."""
    return np.minimum(group, len(order.member) - 1)


def fits(dataset: Dataset, devices: list[jax.Device]) -> bool:
    """Whether all splits take at most RESIDENT_SHARE of each device's free memory.

    Every device has a copy of all splits.
    """
    needed = sum(map(tree_bytes, (dataset.train, dataset.validation, dataset.test)))
    return needed <= RESIDENT_SHARE * memory.free(devices)
