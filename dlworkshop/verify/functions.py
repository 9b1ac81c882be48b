"""Any JAX function as a function of real vectors, whose derivatives are matrices."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError, repr_of
from dlworkshop.jaxprs import all_equations
from dlworkshop.models import convolution

SMALLEST = 2**10  # of the numbers, in multiples of the smallest normal number
# Messages of JAX about a missing mode, for which it also has NotImplementedError; any
# other exception is an error of the function.
NO_MODE = (
    "forward-mode",
    "Reverse-mode",
    "do not support JVP",
    "does not support JVP",
    "do not support transpose",
    "cannot be differentiated",
    "Differentiation rule",
    "Transpose rule",
    "Linearization",
    "gradients are only implemented",
    "gradient with respect to",
)


class Part(NamedTuple):
    """One array inside a real vector; a complex array has its real parts first."""

    path: str  # "params['dense']['kernel']"
    shape: tuple[int, ...]
    start: int
    stop: int
    is_complex: bool

    def entry(self, i: int) -> str:
        """The name of entry `start + i`, such as [1, 2] or [1, 2].imag."""
        size = int(np.prod(self.shape))
        name = str([int(j) for j in np.unravel_index(i % size, self.shape)])
        return name + ("", (".real", ".imag")[i // size])[self.is_complex]

    def array(self, vector: jax.Array) -> jax.Array:
        """The array, taken from the vector."""
        x = vector[self.start : self.stop]
        if self.is_complex:
            x = jax.lax.complex(*jnp.split(x, 2))
        return x.reshape(self.shape)


@dataclass(frozen=True)
class Function:
    """The function under test: `flat`, real [D] -> real [M], near one point."""

    flat: Callable  # traceable
    at: np.ndarray  # [D], of the dtype that `flat` computes in
    inputs: tuple[Part, ...]
    outputs: tuple[Part, ...]
    compile: Callable = jax.jit

    @functools.cached_property
    def program(self) -> Any:
        """Its jaxpr."""
        return jax.make_jaxpr(self.flat)(self.at)

    @functools.cached_property
    def value(self) -> Callable:
        """[D] -> [M], compiled."""
        return self.compile(self.flat)

    @functools.cached_property
    def numbers(self) -> Callable:
        """`value` with convolutions as matrix products.

        In float64 XLA's own convolution takes several times as long on a CPU.
        """
        eqns = all_equations(self.program.jaxpr.eqns)
        if "conv_general_dilated" not in {eqn.primitive.name for eqn in eqns}:
            return self.value
        return self.compile(convolution.with_convolutions(self.flat, None))

    @functools.cached_property
    def push(self) -> Callable:
        """`jax.jvp`: the point [D] and a direction [D] -> [M], compiled."""
        return self.compile(lambda v, d: jax.jvp(self.flat, (v,), (d,))[1])

    @functools.cached_property
    def pull(self) -> Callable:
        """`jax.vjp`: the point [D] and a cotangent [M] -> [D], compiled."""
        return self.compile(lambda v, u: jax.vjp(self.flat, v)[1](u)[0])


def lift(
    f: Callable[..., Any],
    args: Sequence[Any],
    argnums: int | Sequence[int],
    dtype: Any,
    *,
    has_aux: bool = False,
) -> Function:
    """`f` as a function of all real and complex numbers in `args[argnums]`.

    A complex number is a pair of its real and imaginary parts, for which JAX's
    conventions for `jvp` and `vjp` are those of a real function.

    Args:
        f: pytrees -> pytree; leaves that are not real or complex are ignored.
        args: of `f`; floating arrays are cast to `dtype` or its complex counterpart.
        argnums: the arguments to differentiate by.
        dtype: float64 or float32.
        has_aux: whether `f` returns a pair of which only the first is differentiated.

    Raises:
        UserError: if an argnum is out of range, there are no numbers to differentiate
            by, a number is not finite or too close to 0, or `f` returns something other
            than arrays, or no real or complex number.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(tuple(args))
    for path, x in leaves:
        _check_leaf(_name(path, len(args)), x)
    leaves = [(path, _cast(x, dtype)) for path, x in leaves]
    given_on = [jnp.asarray(x) if _is_of_numpy(x) else x for _, x in leaves]
    inputs, at = _numbers(leaves, len(args), argnums, dtype)

    def returned(v):  # [D] -> {path: real or complex array that f returns}
        given = list(given_on)
        for place, part in inputs.items():
            given[place] = part.array(v)
        out = f(*jax.tree_util.tree_unflatten(tree, given))
        if has_aux:
            if not isinstance(out, tuple) or len(out) != 2:
                raise UserError(
                    f"has_aux=True, but f returned {repr_of(out)}: return a pair"
                )
            out = out[0]
        flat, _ = jax.tree_util.tree_flatten_with_path(out)
        named = {"f" + jax.tree_util.keystr(path): x for path, x in flat}
        for name, x in named.items():
            if not (_is_array(x) and _is_of_jax(x)):
                raise UserError(
                    f"{name} is {repr_of(x)}, which JAX does not differentiate: return "
                    "arrays, or return it in the second of a pair with has_aux=True"
                )
        return {
            name: jnp.asarray(x)
            for name, x in named.items()
            if is_inexact(x) and np.size(x)
        }

    def flat(v):
        made: list[Any] = []
        for x in returned(v).values():
            made += [jnp.real(x).ravel()]
            made += [jnp.imag(x).ravel()] if jnp.iscomplexobj(x) else []
        out = jnp.concatenate(made)
        return out.astype(dtype) if dtype == np.float32 else out  # may be bfloat16

    outputs, stop = [], 0
    for path, x in jax.eval_shape(returned, at).items():
        is_complex = jnp.issubdtype(x.dtype, jnp.complexfloating)
        start, stop = stop, stop + x.size * (1 + is_complex)
        outputs.append(Part(path, x.shape, start, stop, is_complex))
    if not outputs:
        raise UserError(
            "f returned no real or complex array: give a function that returns one"
        )
    return Function(flat, at, tuple(inputs.values()), tuple(outputs))


def _numbers(
    leaves: Sequence[tuple[Any, Any]],
    num_args: int,
    argnums: int | Sequence[int],
    dtype: Any,
) -> tuple[dict[int, Part], np.ndarray]:
    """The numbers to differentiate by.

    Args:
        leaves: (path, leaf) of all arguments.
        num_args: the number of arguments.
        argnums: the arguments to differentiate by.
        dtype: of the vector.

    Returns:
        Index among the leaves -> part of the vector, and the vector [D].
    """
    chosen = list(argnums) if isinstance(argnums, Sequence) else [int(argnums)]
    if not chosen or any(not -num_args <= i < num_args for i in chosen):
        raise UserError(
            f"argnums={argnums} with {num_args} arguments: give the positions of the "
            "arguments to differentiate by, as in jax.grad"
        )
    chosen = [i % num_args for i in chosen]
    if len(set(chosen)) < len(chosen):
        raise UserError(f"argnums={argnums}: give each position once")
    parts: dict[int, Part] = {}
    pieces, stop = [], 0
    for place, (keys, x) in enumerate(leaves):
        if keys[0].idx not in chosen or not is_inexact(x) or not np.size(x):
            continue
        path = _name(keys, num_args)
        piece = _finite(path, _cast(np.asarray(x), dtype)).ravel()
        if np.iscomplexobj(piece):
            piece = np.concatenate([piece.real, piece.imag])
        least = SMALLEST * np.finfo(dtype).tiny
        if (tiny := piece[(piece != 0) & (np.abs(piece) < least)]).size:
            raise UserError(
                f"{path} has the number {tiny[0]:.2g}, near which the steps of "
                f"differences are rounded to 0: set it to 0, or to at least {least:.0e}"
            )
        start, stop = stop, stop + piece.size
        parts[place] = Part(path, np.shape(x), start, stop, np.iscomplexobj(x))
        pieces.append(piece)
    if not pieces:
        given = [_argument(i, num_args) for i in chosen]
        kinds = sorted({_kind(x) for (key, *_), x in leaves if key.idx in chosen})
        raise UserError(
            f"{' and '.join(given)}: no numbers to differentiate by "
            f"(got {', '.join(kinds) or 'nothing'}): give real or complex arrays"
        )
    return parts, np.concatenate(pieces)


def _argument(i: int, num_args: int) -> str:
    return "params" if num_args == 1 else f"args[{i}]"


def _name(keys: Sequence[Any], num_args: int) -> str:
    """The name of a leaf of the arguments."""
    first, *rest = keys
    return _argument(first.idx, num_args) + jax.tree_util.keystr(tuple(rest))


def _check_leaf(name: str, x: Any) -> None:
    """Raise an error for an array that JAX does not take, or that it is tracing."""
    if isinstance(x, jax.core.Tracer):
        raise UserError(
            f"{name} is traced by JAX: call check_gradients outside of jit, grad, vmap "
            "and other transformations"
        )
    if isinstance(x, np.ndarray | np.generic) and not _is_of_jax(x):
        raise UserError(
            f"{name} is a {type(x).__name__} of dtype {x.dtype}, which JAX does not "
            "take: give a plain array of numbers, such as float32 or float64"
        )


def _is_of_jax(x: Any) -> bool:
    """Whether JAX takes an array of this type and dtype."""
    try:
        jnp.result_type(x)
    except TypeError:
        return False
    return not isinstance(x, np.ma.MaskedArray)


def gradient(fn: Function, cotangent: np.ndarray) -> Function:
    """v [D] -> J(v)^T cotangent [D], by reverse mode."""

    def flat(v):
        return jax.vjp(fn.flat, v)[1](cotangent)[0]

    derived = _derived(fn.inputs)
    return replace(fn, flat=flat, inputs=derived, outputs=derived)


def tangent(fn: Function, direction: np.ndarray) -> Function:
    """v [D] -> J(v) direction [M], by forward mode."""

    def flat(v):
        return jax.jvp(fn.flat, (v,), (direction,))[1]

    return replace(fn, flat=flat, inputs=_derived(fn.inputs))


def _derived(parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple(part._replace(path=f"d/d({part.path})") for part in parts)


def mode_is_missing(error: Exception) -> bool:
    """Whether an exception means that f lacks this mode, and not that f failed."""
    is_said = any(words in str(error) for words in NO_MODE)
    return is_said or isinstance(error, NotImplementedError)


def first_line(error: Exception) -> str:
    """The first line of what an exception says, or its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic | jax.Array | float | complex | int)


def _kind(x: Any) -> str:
    """For a message: the dtype of an array, else the type."""
    return str(jnp.result_type(x)) if _is_array(x) else type(x).__name__


def is_inexact(x: Any) -> bool:
    """Whether it is an array of real or complex numbers, or one of them."""
    return _is_array(x) and jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _is_of_numpy(x: Any) -> bool:
    """Whether JAX would convert this argument to an array of its own."""
    return isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "biufc"


def _cast(x: Any, dtype: Any) -> Any:
    """Cast arrays to `dtype` or its complex counterpart, but not Python numbers."""
    if not is_inexact(x) or isinstance(x, float | complex):
        return x
    is_complex = jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)
    with np.errstate(over="ignore"):  # what becomes inf is refused by name
        return np.asarray(x).astype(
            np.result_type(dtype, np.complex64 if is_complex else dtype)
        )


def _finite(what: str, x: np.ndarray) -> np.ndarray:
    if bad := np.argwhere(~np.isfinite(x)).tolist():
        raise UserError(
            f"{what} is {x[tuple(bad[0])]} at {bad[0]}, but must be finite: correct "
            "it, or check at other arguments"
        )
    return x
