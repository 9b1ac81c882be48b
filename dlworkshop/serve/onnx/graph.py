"""An ONNX graph under construction: nodes, constants, and the type of each name.

An array may be smaller than the shape of its JAX variable, with axes of size 1 that
ONNX broadcasts in elementwise operations. `Graph.whole` expands it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError

LAST = np.iinfo(np.int64).max  # the end of an axis of any size
BATCH = "batch"  # the name of the batch size
INT64 = np.dtype(np.int64)  # dtype of sizes and indices in ONNX
Shape = Sequence[Any]  # of integers and multiples of the symbolic batch size


class UntranslatableError(UserError):
    """A part of a model cannot be expressed in ONNX."""

    def __init__(self, what: str):
        super().__init__(
            f"{what} has no ONNX form here: use the format stablehlo, which supports "
            "any model"
        )


class Graph:
    """An ONNX graph to which nodes are added one at a time; values are names.

    Args:
        taken: the names of its inputs and outputs.
        size: the symbolic size of the batch.
    """

    def __init__(self, taken: Iterable[str], size: Any) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.known: dict[str, jax.ShapeDtypeStruct] = {}  # name -> shape and dtype
        self._size, self._length = size, ""
        self._taken = frozenset(taken)
        self._count = itertools.count()
        self._constants: dict[tuple[int, Any], tuple[Any, str]] = {}

    def input(self, name: str, shape: Shape, dtype: Any) -> str:
        """An input [B, ...]; the first one determines the batch size."""
        self.known[name] = described(shape, dtype)
        if not self._length:
            out = described([1], INT64)
            self._length = self.add("Shape", name, out=out, start=0, end=1)
        return name

    def add(
        self,
        op: str,
        *inputs: str,
        out: Any = None,
        dtype: Any = None,
        **attributes: Any,
    ) -> str:
        """Add an ONNX operation with one output, of the shape and dtype of `out`.

        By default the shape is the broadcast shape of the inputs, and the dtype is
        `dtype` or that of the first input.
        """
        if out is None:
            shapes = [self.known[name].shape for name in inputs]
            out = described(_broadcast(shapes), dtype or self.known[inputs[0]])
        return self.add_several(op, inputs, [out], **attributes)[0]

    def add_several(
        self, op: str, inputs: Sequence[str], outs: Sequence[Any], **attributes: Any
    ) -> list[str]:
        """Add an operation with several outputs of the given shapes and dtypes."""
        from onnx import helper  # noqa: PLC0415

        names = [self._name(op, out) for out in outs]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant array."""
        from onnx import numpy_helper  # noqa: PLC0415

        array = np.asarray(value)
        dtype = stored(dtype or array.dtype)
        if (id(value), dtype) not in self._constants:
            name = self._name("constant", described(array.shape, dtype))
            array = np.asarray(array, dtype, order="C")
            self.constants.append(numpy_helper.from_array(array, name))
            # keeping the array keeps its id unique
            self._constants[id(value), dtype] = value, name
        return self._constants[id(value), dtype][1]

    def integers(self, values: Iterable[Any]) -> str:
        """Add an integer vector, the form of axes and sizes in ONNX."""
        return self.constant(np.array([int(value) for value in values], INT64))

    def sizes(self, shape: Shape) -> str:
        """A shape as a vector; the batch size is taken from the inputs."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(shape)
        one, parts = described([1], INT64), []
        for size in shape:
            times = size // self._size
            if isinstance(size, int):
                parts.append(self.integers([size]))
            elif isinstance(times, int) and times * self._size == size:
                factor = self.integers([times])
                parts.append(self.add("Mul", self._length, factor, out=one))
            else:
                raise UntranslatableError(
                    f"an array of {size} entries for {self._size}"
                )
        if len(parts) == 1:
            return parts[0]
        out = described([len(parts)], INT64)
        return self.add("Concat", *parts, out=out, axis=0)

    def whole(self, name: str, shape: Shape) -> str:
        """Broadcast to the full shape."""
        known = self.known[name]
        if tuple(known.shape) == tuple(shape):
            return name
        # a size that is the same in both shapes need not be known
        there = [1] * (len(shape) - len(known.shape)) + list(known.shape)
        wanted = [1 if a == b else b for a, b in zip(there, shape, strict=True)]
        sizes = self.sizes(wanted)
        return self.add("Expand", name, sizes, out=described(shape, known.dtype))

    def cast(self, name: str, dtype: Any) -> str:
        """Convert to another dtype."""
        from onnx import helper  # noqa: PLC0415

        shape, known = self.known[name].shape, self.known[name].dtype
        if known == stored(dtype):
            return name
        to = helper.np_dtype_to_tensor_dtype(stored(dtype))
        return self.add("Cast", name, out=described(shape, dtype), to=to)

    def reshape(self, name: str, shape: Shape) -> str:
        """Reshape."""
        known = self.known[name]
        if tuple(known.shape) == tuple(shape):
            return name
        fixed = [isinstance(size, int) for size in shape]
        if fixed.count(False) == 1 and 0 not in shape:
            sizes = self.integers(
                size if is_fixed else -1
                for size, is_fixed in zip(shape, fixed, strict=True)
            )
        else:
            sizes = self.sizes(shape)
        out = described(shape, known.dtype)
        return self.add("Reshape", name, sizes, out=out, allowzero=int(0 in shape))

    def unsqueeze(self, name: str, axes: Sequence[int]) -> str:
        """Insert axes of size 1 at these positions of the result."""
        if not axes:
            return name
        known = self.known[name]
        sizes = iter(known.shape)
        rank = len(known.shape) + len(axes)
        out = described([1 if i in axes else next(sizes) for i in range(rank)], known)
        return self.add("Unsqueeze", name, self.integers(axes), out=out)

    def transpose(self, name: str, order: Iterable[int]) -> str:
        """Permute the axes."""
        order = [int(axis) for axis in order]
        if order == list(range(len(order))):
            return name
        known = self.known[name]
        out = described([known.shape[axis] for axis in order], known)
        return self.add("Transpose", name, out=out, perm=order)

    def slice(self, name: str, axes: dict[int, tuple[int, int, int]], out: Any) -> str:
        """Slice: axis -> start, end, step, as in Python."""
        if not axes:
            return name
        starts, ends, steps = zip(*axes.values(), strict=True)
        parts = (self.integers(part) for part in (starts, ends, axes, steps))
        return self.add("Slice", name, *parts, out=out)

    def pad(self, name: str, low: Sequence[int], high: Sequence[int], fill: str) -> str:
        """Pad before and after; negative numbers remove entries."""
        cut = {
            axis: (max(-a, 0), b if b < 0 else LAST, 1)
            for axis, (a, b) in enumerate(zip(low, high, strict=True))
            if min(a, b) < 0
        }
        known = self.known[name]
        shape = [
            size + min(a, 0) + min(b, 0)
            for a, size, b in zip(low, known.shape, high, strict=True)
        ]
        name = self.slice(name, cut, described(shape, known))
        low, high = ([max(n, 0) for n in some] for some in (low, high))
        if not any((*low, *high)):
            return name
        known = self.known[name]
        shape = [a + n + b for a, n, b in zip(low, known.shape, high, strict=True)]
        pads = self.integers([*low, *high])
        return self.add("Pad", name, pads, fill, out=described(shape, known))

    def subgraph(
        self, inputs: Sequence[Any], make: Callable[..., Sequence[str]]
    ) -> Any:
        """The body of a loop or branch, which may use every outer name.

        Args:
            inputs: their shapes and dtypes.
            make: names of the inputs -> names of the outputs.
        """
        from onnx import helper  # noqa: PLC0415

        outer, self.nodes = self.nodes, []
        try:
            names = [self._name("each", each) for each in inputs]
            made = [self.add("Identity", name) for name in make(*names)]
            graph = helper.make_graph(
                self.nodes,
                f"body_{made[0]}",
                [self.info(name) for name in names],
                [self.info(name) for name in made],
            )
        finally:
            self.nodes = outer
        return graph

    def info(self, name: str) -> Any:
        """ONNX's description of an input or output: name, dtype and shape."""
        from onnx import helper  # noqa: PLC0415

        shape, dtype = self.known[name].shape, self.known[name].dtype
        sizes = [
            size if isinstance(size, int) else BATCH if size == self._size else None
            for size in shape
        ]
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        return helper.make_tensor_value_info(name, kind, sizes)

    def _name(self, kind: str, out: Any) -> str:
        name = f"{kind.lower()}_{next(self._count)}"
        while name in self._taken:
            name += "_"
        self.known[name] = described(out.shape, out.dtype)
        return name


def needed(
    nodes: Sequence[Any], constants: Sequence[Any], outputs: Iterable[str]
) -> tuple[list[Any], list[Any]]:
    """The nodes and constants that the outputs depend on."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(_read(node))
            kept.append(node)
    return kept[::-1], [array for array in constants if array.name in wanted]


def _read(node: Any) -> Iterator[str]:
    """The names that a node reads, including those in its subgraphs."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)


def described(shape: Shape, dtype: Any) -> jax.ShapeDtypeStruct:
    """A shape and dtype as stored in the file."""
    dtype = dtype.dtype if isinstance(dtype, jax.ShapeDtypeStruct) else dtype
    sizes = [int(n) if isinstance(n, np.integer) else n for n in shape]
    return jax.ShapeDtypeStruct(tuple(sizes), stored(dtype))


def stored(dtype: Any) -> np.dtype:
    """The dtype in the file: float32 for floats of at most 16 bits.

    Runtimes on CPUs do not support the shorter ones.

    >>> stored(jnp.bfloat16), stored("int32")
    (dtype('float32'), dtype('int32'))
    """
    dtype = np.dtype(dtype)
    short = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return np.dtype(np.float32) if short else dtype


def _broadcast(shapes: Sequence[Shape]) -> list[Any]:
    """The broadcast shape; sizes other than 1 are equal."""
    rank = max(map(len, shapes))
    padded = [[1] * (rank - len(shape)) + list(shape) for shape in shapes]
    return [
        next((size for size in sizes if size != 1), 1)
        for sizes in zip(*padded, strict=True)
    ]
