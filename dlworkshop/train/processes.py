"""Runs in several processes: agreement, and arrays across processes.

Each process runs the same script and calls the same programs in the same order, on its
own devices, as JAX requires. Decisions that depend on a clock, on free memory, on a
signal or on a file are made by the first process; only it writes and logs. In a single
process, these functions do nothing.
"""

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from dlworkshop.errors import UserError
from dlworkshop.report import words
from dlworkshop.types import PyTree


class CollectiveUserError(UserError):
    """A user error that all processes raise together."""


def count() -> int:
    """The number of processes."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return jax.process_index() == 0


def allgather_json(value: Any) -> list[Any]:
    """The JSON values of all processes, in order; a collective.

    >>> allgather_json({"free": 3})
    [{'free': 3}]
    """
    if count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = _allgather(np.array(len(text), np.int32))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(text)] = text
    rows = _allgather(padded)
    return [
        json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)
    ]


def _allgather(own: np.ndarray) -> np.ndarray:
    """The arrays of all processes, stacked.

    It uses one device of each, so unlike that of `multihost_utils` it does not require
    that all processes have as many.
    """
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh([firsts[index] for index in range(count())], ("process",))
    spread = NamedSharding(mesh, PartitionSpec("process"))
    stacked = jax.make_array_from_process_local_data(spread, own[None])
    whole = jax.jit(_same, out_shardings=NamedSharding(mesh, PartitionSpec()))(stacked)
    return np.asarray(whole.addressable_data(0))


def _same(array: jax.Array) -> jax.Array:
    """Its own function, so that a copy to all processes is compiled once per shape."""
    return array


def broadcast_json(value: Any) -> Any:
    """The JSON value of the first process; a collective."""
    return allgather_json(value if is_first() else None)[0]


def on_first_process(action: Callable[[], Any]) -> Any:
    """Run `action` in the first process; all get its JSON result or its `UserError`."""
    if count() == 1:
        return action()
    answer, refusal = None, None
    if is_first():
        try:
            answer = action()
        except UserError as error:
            refusal = str(error)
    answer, refusal = broadcast_json((answer, refusal))
    if refusal is not None:
        raise CollectiveUserError(refusal)
    return answer


@contextlib.contextmanager
def entered_on_first_process(
    context: contextlib.AbstractContextManager,
) -> Iterator[None]:
    """Enter `context` in the first process; if that fails, all processes raise."""
    with contextlib.ExitStack() as stack:
        on_first_process(lambda: stack.enter_context(context))
        yield


def check_alike(settings: Mapping[str, Any]) -> None:
    """Require the same settings, as JSON, in all processes.

    Raises:
        UserError: names the first process that differs, the settings, and their values
            if these are short texts.
    """
    first, *others = allgather_json(settings)
    for index, other in enumerate(others, 1):
        names = [n for n in {**first, **other} if first.get(n) != other.get(n)]
        if names:
            told = ", ".join(_told(n, first.get(n), other.get(n)) for n in names)
            raise CollectiveUserError(
                f"process {index} differs from process 0 in its arguments ({told}): "
                "start the same script with the same flags, data and library versions "
                "in all processes"
            )


def _told(name: str, then: Any, now: Any) -> str:
    short = all(isinstance(value, str) and len(value) <= 60 for value in (then, now))
    return f"{name} was {then} and is {now}" if short else name


def check_devices() -> None:
    """Require that all processes have as many devices, as the checkpoints of orbax do.

    Raises:
        UserError: names the first process that has another number.
    """
    if (found := uneven(allgather_json(jax.local_device_count()))) is not None:
        raise CollectiveUserError(found)


def uneven(counts: Sequence[int]) -> str | None:
    """What is wrong if a process has more or fewer devices than the first.

    >>> print(uneven([1, 1, 3]))
    process 0 has 1 device, process 2 has 3: give all processes as many
    """
    for index, number in enumerate(counts):
        if number != counts[0]:
            return (
                f"process 0 has {words.count(counts[0], 'device')}, process {index} "
                f"has {number}: give all processes as many"
            )
    return None


def check_shared_folder(folder: str | Path | None) -> None:
    """Refuse a run folder that not all processes see.

    Raises:
        UserError: if a process does not find a file that the first one wrote there.
    """
    if count() == 1 or folder is None:
        return
    folder = Path(folder)

    def leave() -> tuple[str, str]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.mkstemp(prefix=".seen-", dir=folder)[1]
        except OSError as error:
            raise UserError(
                f"the run folder {folder} cannot be written ({error.strerror}): choose "
                "another one"
            ) from error
        return str(folder), Path(file).name

    written, name = on_first_process(leave)
    seen = allgather_json((folder / name).exists())
    if is_first():
        (folder / name).unlink(missing_ok=True)
    if not all(seen):
        raise CollectiveUserError(
            f"process {seen.index(False)} does not see the run folder {written} of "
            "process 0: give all processes the same one, on a disk that they share"
        )


def check_all_used(devices: Sequence[jax.Device]) -> None:
    """Refuse a mesh that leaves a process without devices.

    Raises:
        UserError: if there are more processes than members and examples can use.
    """
    employed = {device.process_index for device in devices}
    if len(employed) < count():
        raise CollectiveUserError(
            f"{count()} processes were started, but members and examples only use the "
            f"devices of {len(employed)}: start no more than that, or train more "
            "members or a larger batch"
        )


def is_key(leaf: Any) -> bool:
    """Whether an array holds keys of random numbers."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def as_numbers(leaf: Any) -> Any:
    """An array as it is written to disk: keys as their numbers."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def from_numbers(data: Any, like: Any) -> Any:
    """The inverse of `as_numbers`.

    Args:
        data: what was written.
        like: an array of the same dtype, or its shape.

    >>> key = jax.random.key(3, impl="rbg")
    >>> from_numbers(as_numbers(key), like=key) == key
    Array(True, dtype=bool)
    """
    if not is_key(like):
        return data
    kinds: list[Any] = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(data, impl=kinds[0])


def put(tree: PyTree, sharding: Sharding) -> PyTree:
    """Place arrays that every process has completely; each keeps its part."""
    if sharding.is_fully_addressable:
        return jax.device_put(fetch(tree) if _is_spread(tree) else tree, sharding)
    return jax.tree.map(functools.partial(_put_leaf, sharding=sharding), tree)


def _put_leaf(leaf: Any, sharding: Sharding) -> jax.Array:
    if _is_spread(leaf):
        return jax.device_put(leaf, sharding)
    if is_key(leaf):
        return from_numbers(_put_leaf(jax.random.key_data(leaf), sharding), leaf)
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    whole = np.asarray(leaf, dtype)
    return jax.make_array_from_callback(whole.shape, sharding, lambda i: whole[i])


def fetch(tree: PyTree) -> PyTree:
    """Arrays on all devices -> complete arrays on the host of every process."""
    if not _is_spread(tree):
        return jax.device_get(tree)
    return jax.tree.map(_fetch_leaf, tree)


def _fetch_leaf(leaf: Any) -> Any:
    if not _is_spread(leaf):
        return jax.device_get(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    if is_key(leaf):
        return from_numbers(_fetch_leaf(jax.jit(jax.random.key_data)(leaf)), leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def _is_spread(tree: PyTree) -> bool:
    """Whether arrays are partly on devices of other processes."""
    return any(
        isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        for leaf in jax.tree.leaves(tree)
    )


# For each axis, first and last + 1.
Box = tuple[slice, ...]


def own_box(sharding: Sharding, shape: tuple[int, ...]) -> Box:
    """The smallest box around the part of an array on this process's devices.

    >>> one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> own_box(one, (4, 3))
    (slice(0, 4, None), slice(0, 3, None))
    """
    found = sharding.addressable_devices_indices_map(shape).values()
    ranges = [
        [index.indices(size)[:2] for index, size in zip(indices, shape, strict=True)]
        for indices in found
        if indices is not None
    ]
    return tuple(
        slice(min(a for a, _ in axis), max(b for _, b in axis))
        for axis in zip(*ranges, strict=True)
    )


def put_box(tree: PyTree, sharding: Sharding, box: Box, shape: tuple[int, ...]):
    """Place arrays of which each process has only its own box.

    Args:
        tree: leaves [*box, ...].
        sharding: of the whole array.
        box: the position of the leaves in the whole array, on the first axes.
        shape: of the whole array, on these axes.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def leaf(own):
        def part(index):
            first = (
                slice(*(x - b.start for x in i.indices(size)[:2]))
                for i, b, size in zip(index, box, shape, strict=False)
            )
            return own[tuple(first)]

        dtype = jax.dtypes.canonicalize_dtype(own.dtype)
        whole = (*shape, *own.shape[len(shape) :])
        own = np.asarray(own, dtype)
        return jax.make_array_from_callback(whole, sharding, part)

    return jax.tree.map(leaf, tree)
