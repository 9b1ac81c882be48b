"""Choice of the implementation of a model's convolutions, in any library's layers.

The model is traced for ONE example, and each convolution in its jaxpr is replaced by
the chosen implementation (`conv_impls`). The jaxpr of a gradient is brought to the form
that XLA's libraries for CPUs compute (`for_cpu`).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend.core import primitives

from dlworkshop.jaxprs import bodies_of
from dlworkshop.models.conv_impls import CONV_IMPLS, NHWC
from dlworkshop.models.model import AnyModel

__all__ = [
    "CONV_IMPLS",
    "OF_XLA",
    "computed_by",
    "for_cpu",
    "has_convolutions",
    "with_convolutions",
]

# The implementations that are XLA's convolution, everywhere or in most layers.
OF_XLA = "lax", "winograd"

# Entries of the largest kernel that is replaced: each becomes an operation or more of
# the program. Kernels as large as an image occur in gradients within a model.
ENTRIES = 256
# Rows from which on a sum of them is a matrix product in `for_cpu`.
ROWS = 1024
STANDARD = lax.conv_dimension_numbers((1,) * 4, (1,) * 4, NHWC)
# The primitives whose bodies are rewritten. A function with its own derivative rule
# (custom_jvp, custom_vjp) is not rewritten, because the rule was written for its body.
BODIES = {
    primitives.jit_p,
    primitives.call_p,
    primitives.closed_call_p,
    primitives.remat_p,
    primitives.scan_p,
    primitives.while_p,
    primitives.cond_p,
}


def computed_by(
    model: AnyModel, how: str | None, platform: str | None = None
) -> AnyModel:
    """The same model with its convolutions computed by `how`.

    Args:
        model: of one example, from any library.
        how: a name in CONV_IMPLS; None chooses patches on a CPU, else "lax".
        platform: on which the model runs, "cpu", "gpu" or "tpu"; by default the default
            backend of JAX.

    >>> from dlworkshop import models
    >>> image = np.zeros((8, 8, 1), np.float32)
    >>> model = computed_by(models.cnn((4,), (8,)), "patches")
    >>> params = model.init(jax.random.key(0), image)
    >>> "conv_general_dilated" in str(jax.make_jaxpr(model.apply)(params, image))
    False
    """
    return model._replace(apply=with_convolutions(model.apply, how, platform))


def with_convolutions(
    apply: Callable, how: str | None, platform: str | None = None
) -> Callable:
    """`apply` of one example with its convolutions computed by `how`.

    Convolutions with three dimensions, mixed dtypes, batch groups, or kernels of more
    than `ENTRIES` entries are not replaced, nor are those in functions with a custom
    derivative rule.

    Args:
        apply: any pytrees -> a pytree. Arrays are traced; other leaves are constants.
        how, platform: as in `computed_by`.
    """
    if how is not None and how not in CONV_IMPLS:
        raise ValueError(f"how is {how!r}: give one of {', '.join(CONV_IMPLS)}")

    @functools.wraps(apply)  # keeps the hyper-parameters in the signature
    def computed(*args, **kwargs):
        arrays, closed, tree = _traced(apply, args, kwargs)
        if not _inside(closed.jaxpr, _is_covered):
            return apply(*args, **kwargs)
        # not earlier, because it initialises the devices of the process
        where = platform or jax.default_backend()
        by = how or ("patches" if where == "cpu" else "lax")
        compute = functools.partial(_compute, by, where)
        rewritten = _rewritten(closed, _is_covered, compute)
        return jax.tree.unflatten(tree, core.jaxpr_as_fun(rewritten)(*arrays))

    return computed


def for_cpu(function: Callable) -> Callable:
    """`function` in the form that XLA's libraries for CPUs compute, also inside a loop.

    Convolutions are on [N, H, W, C] with kernels [h, w, C, F]: the gradients of a
    convolution are convolutions whose operands are laid out in other ways, which take
    20 to 100 times as long inside a loop. Those in groups stay as they are. Sums of
    `ROWS` rows or more, such as the gradient of a bias, are matrix products, which run
    on all cores.

    Args:
        function: any pytrees -> a pytree. If it is differentiated afterwards, new
            convolutions in other layouts appear.

    >>> from dlworkshop.models.conv_impls import by_lax
    >>> def gradient(kernel, images):
    ...     return jax.grad(lambda w: by_lax(images, w).sum())(kernel)
    >>> given = np.ones((3, 3, 2, 4), np.float32), np.ones((8, 8, 2), np.float32)
    >>> changed = for_cpu(gradient)(*given)
    >>> bool(jnp.allclose(changed, gradient(*given)))
    True
    """

    def covers(eqn):
        return _is_transposed(eqn) or _is_sum_of_rows(eqn)

    def compute(params, *operands):
        is_sum = len(operands) == 1
        return (_as_product if is_sum else _in_standard_layout)(params, *operands)

    @functools.wraps(function)
    def changed(*args, **kwargs):
        arrays, closed, tree = _traced(function, args, kwargs)
        rewritten = _rewritten(closed, covers, compute)
        return jax.tree.unflatten(tree, core.jaxpr_as_fun(rewritten)(*arrays))

    return changed


def has_convolutions(apply: Callable, *shapes: Any, **more: Any) -> bool:
    """Whether `apply` of one example has a convolution that can be replaced.

    The arguments are arrays or `jax.ShapeDtypeStruct`s.

    >>> from dlworkshop import models
    >>> image = jax.ShapeDtypeStruct((8, 8, 1), "float32")
    >>> for model in models.cnn((4,), (8,)), models.mlp((8,)):
    ...     params = jax.eval_shape(model.init, jax.random.key(0), image)
    ...     print(has_convolutions(model.apply, params, image))
    True
    False
    """
    _, closed, _ = _traced(apply, shapes, more)
    return _inside(closed.jaxpr, _is_covered)


def all_strided(apply: Callable, *shapes: Any, **more: Any) -> bool:
    """Whether all convolutions in `apply` of one example have strides.

    >>> from flax import linen as nn
    >>> image = jax.ShapeDtypeStruct((8, 8, 1), "float32")
    >>> for strides in (1, 2):
    ...     layer = nn.Conv(4, (3, 3), strides)
    ...     params = jax.eval_shape(layer.init, jax.random.key(0), image)
    ...     print(all_strided(layer.apply, params, image))
    False
    True
    """
    _, closed, _ = _traced(apply, shapes, more)

    def covers(eqn):
        return _is_covered(eqn) and max(eqn.params["window_strides"]) == 1

    return not _inside(closed.jaxpr, covers)


def _traced(apply: Callable, args: tuple, kwargs: dict):
    """The array arguments, the jaxpr of `apply`, and its outputs."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    kinds = jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, kinds)]
    arrays = [leaves[i] for i in places]

    def flat(*arrays):
        given = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            given[i] = array
        args, kwargs = jax.tree.unflatten(tree, given)
        return apply(*args, **kwargs)

    closed, outputs = jax.make_jaxpr(flat, return_shape=True)(*arrays)
    return arrays, closed, jax.tree.structure(outputs)


def _bodies(eqn: core.JaxprEqn) -> dict[str, Any]:
    """Name -> the parameters of an equation that hold one or several jaxprs."""
    if eqn.primitive not in BODIES:
        return {}
    kinds = core.Jaxpr, core.ClosedJaxpr
    return {
        name: value
        for name, value in eqn.params.items()
        if isinstance(value, kinds)
        or (isinstance(value, tuple) and value and isinstance(value[0], kinds))
    }


def _inside(jaxpr: core.Jaxpr, covers: Callable) -> bool:
    """Whether a jaxpr has a convolution to replace, at any depth."""
    return any(
        covers(eqn)
        or (eqn.primitive in BODIES and any(_inside(b, covers) for b in bodies_of(eqn)))
        for eqn in jaxpr.eqns
    )


def _rewritten(jaxpr: Any, covers: Callable, compute: Callable) -> Any:
    """The jaxpr, or several, with the equations that `covers` names replaced.

    `compute` is (params of the equation, *operands) -> result.
    """
    if isinstance(jaxpr, tuple):
        return tuple(_rewritten(one, covers, compute) for one in jaxpr)
    inner = getattr(jaxpr, "jaxpr", jaxpr)  # JAX 0.12 has no separate closed type
    if inner is not jaxpr:
        return jaxpr.replace(jaxpr=_rewritten(inner, covers, compute))
    if not _inside(jaxpr, covers):  # unchanged, so that compiled programs stay cached
        return jaxpr
    eqns = []
    for eqn in jaxpr.eqns:
        if covers(eqn):
            eqns += _exchanged(eqn, compute)
        else:
            bodies = {
                name: _rewritten(body, covers, compute)
                for name, body in _bodies(eqn).items()
            }
            eqns.append(eqn.replace(params={**eqn.params, **bodies}))
    return jaxpr.replace(eqns=eqns)


def _is_covered(eqn: core.JaxprEqn) -> bool:
    """Whether an equation is a convolution that `_exchanged` can replace."""
    if eqn.primitive is not primitives.conv_general_dilated_p:
        return False
    shapes: list[Any] = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    image, kernel, result = shapes
    axes = eqn.params["dimension_numbers"]
    entries = math.prod(kernel.shape[axis] for axis in axes.rhs_spec[2:])
    return (
        image.ndim in (3, 4)
        and image.dtype == kernel.dtype == result.dtype
        and jnp.issubdtype(image.dtype, jnp.inexact)
        and eqn.params["batch_group_count"] == 1
        and 0 < entries <= ENTRIES
        and result.size > 0
    )


def _is_transposed(eqn: core.JaxprEqn) -> bool:
    """Whether an equation is a convolution of images in another layout."""
    if eqn.primitive is not primitives.conv_general_dilated_p:
        return False
    params = eqn.params
    return (
        len(params["window_strides"]) == 2
        and params["feature_group_count"] == params["batch_group_count"] == 1
        and params["dimension_numbers"] != STANDARD
    )


def _is_sum_of_rows(eqn: core.JaxprEqn) -> bool:
    """Whether an equation is the sum of many float32 rows, over the leading axes."""
    if eqn.primitive is not primitives.reduce_sum_p:
        return False
    x: Any = eqn.invars[0].aval
    axes = eqn.params["axes"]
    rows = math.prod(x.shape[axis] for axis in axes)
    kept = [axis for axis, size in enumerate(x.shape) if axis not in axes and size > 1]
    return (
        x.dtype == jnp.float32
        and rows >= ROWS
        and x.size > rows
        and max(axes) < min(kept)
    )


def _exchanged(eqn: core.JaxprEqn, compute: Callable) -> list[core.JaxprEqn]:
    """The equations that replace this one."""
    compute = functools.partial(compute, eqn.params)
    closed = jax.make_jaxpr(compute)(*(v.aval for v in eqn.invars))
    assert not closed.consts
    names = dict(zip(closed.jaxpr.invars, eqn.invars, strict=True))
    names |= dict(zip(closed.jaxpr.outvars, eqn.outvars, strict=True))

    def named(variables):
        return [
            v if isinstance(v, core.Literal) else names.get(v, v) for v in variables
        ]

    return [
        new.replace(
            invars=named(new.invars),
            outvars=named(new.outvars),
            source_info=eqn.source_info,  # so that profiles and errors name the layer
        )
        for new in closed.jaxpr.eqns
    ]


def _as_product(params: dict[str, Any], array):
    """A sum of rows [N, F] with the parameters of `lax.reduce_sum_p`.

    As ones [1, N / n] @ [N / n, n * F], then over n: the shorter sums round less.
    """
    axes = params["axes"]
    kept = [size for axis, size in enumerate(array.shape) if axis not in axes]
    features = math.prod(kept)
    n = math.gcd(array.size // features, 64)
    rows = array.reshape(-1, n * features)
    partial = jnp.ones((1, len(rows)), array.dtype) @ rows
    return partial.reshape(n, features).sum(0).reshape(kept)


def _in_standard_layout(params: dict[str, Any], image, kernel):
    """A convolution with the parameters of `lax.conv_general_dilated_p`."""
    x, w = _transposed(params, image, kernel)
    y = lax.conv_general_dilated(
        x,
        w,
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        NHWC,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return _transposed_back(params, y)


def _transposed(params: dict[str, Any], image, kernel) -> tuple:
    """The image as [N, H, W, C], or [N, L, C], and the kernel as [h, w, C, F]."""
    lhs, rhs, _ = params["dimension_numbers"]
    x = lax.transpose(image, (lhs[0], *lhs[2:], lhs[1]))
    return x, lax.transpose(kernel, (*rhs[2:], rhs[1], rhs[0]))


def _transposed_back(params: dict[str, Any], result):
    """A result [N, H, W, F], or [N, L, F], in the layout of the equation."""
    _, _, out = params["dimension_numbers"]
    return lax.transpose(result, np.argsort((out[0], *out[2:], out[1])))


def _compute(how: str, platform: str, params: dict[str, Any], image, kernel):
    """A convolution with the parameters of `lax.conv_general_dilated_p`, by `how`."""
    x, w = _transposed(params, image, kernel)
    groups = params["feature_group_count"]
    strides, dilation = params["window_strides"], params["rhs_dilation"]
    pads = params["padding"]
    spread = params["lhs_dilation"]
    if any(d != 1 for d in spread) or any(n < 0 for pair in pads for n in pair):
        around = [(*pair, d - 1) for pair, d in zip(pads, spread, strict=True)]
        zero = jnp.zeros((), x.dtype)
        x = lax.pad(x, zero, [(0, 0, 0), *around, (0, 0, 0)])
        pads = ((0, 0),) * len(pads)
    line = len(pads) == 1  # [N, L, C] is [N, 1, L, C]
    if line:
        x, w, pads = x[:, None], w[None], ((0, 0), *pads)
        strides, dilation = (1, *strides), (1, *dilation)

    def one(x):  # [H, W, C] -> [H', W', F]
        return _grouped(way, x, w, groups, window)

    window = tuple(strides), tuple(pads), tuple(dilation)
    if platform == "cpu" and not _is_fast(x, w, groups):
        how = "patches" if how in OF_XLA else how
    way = CONV_IMPLS[how]
    precision = params["precision"]
    precision = precision if precision is None else precision[0].name.lower()
    with jax.default_matmul_precision(precision):
        y = one(x[0])[None] if len(x) == 1 else jax.vmap(one)(x)  # [N, H', W', F]
    if line:
        y = y[:, 0]
    return _transposed_back(params, y)


def _is_fast(images, kernel, groups: int) -> bool:
    """Whether XLA's library for CPUs computes a convolution, and fast.

    It has neither groups nor float64. Images smaller than the kernel are slow: 2x2x512
    by 3x3 ran at 3 GFLOP/s, patches at 380.
    """
    large = all(
        n >= k for n, k in zip(images.shape[1:3], kernel.shape[:2], strict=True)
    )
    return groups == 1 and images.dtype == jnp.float32 and large


def _grouped(way: Callable, image, kernel, groups: int, window: tuple):
    """A convolution in feature groups, each with its own kernels."""
    if groups == 1:
        return way(image, kernel, *window)
    x = image.reshape(*image.shape[:2], groups, -1)  # [H, W, groups, C / groups]
    w = kernel.reshape(*kernel.shape[:3], groups, -1)
    lifted = jax.vmap(lambda x, w: way(x, w, *window), (2, 3), 2)
    y = lifted(x, w)  # [H', W', groups, F / groups]
    return y.reshape(*y.shape[:2], -1)
