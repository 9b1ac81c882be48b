"""Floating-point operations of an update, counted in its traced program."""

import math

import jax

from dlworkshop.jaxprs import all_equations, bodies_of
from dlworkshop.models.model import (
    BATCH_AXES,
    Model,
    StatefulModel,
    as_float,
    shapes,
    stand_ins,
    stateful,
)
from dlworkshop.types import PyTree

# Operations of a chunk: one or two seconds on a few cores or on one accelerator, so
# that a signal is answered soon.
CHUNK_FLOPS = {"cpu": 1e11, "gpu": 1e13, "tpu": 1e13}


def update_flops(model: Model | StatefulModel, example: PyTree) -> float:
    """Approximate floating-point operations of one example's update.

    An update costs about three forward passes in training, which may differ from those
    of predictions; Griewank & Walther (2008), chapter 4, derive bounds.
    """
    params, state = shapes(model, example)
    lifted = stateful(model)
    more = stand_ins(lifted)

    def apply(params, state, inputs, key):
        return lifted.apply(params, state, as_float(inputs), key=key, **more)

    for axis in BATCH_AXES:  # a layer may average over them
        apply = jax.vmap(apply, (None, None, 0, 0), axis_name=axis)
    batch = jax.tree.map(  # of one
        lambda leaf: jax.ShapeDtypeStruct((1, 1, *leaf.shape), leaf.dtype),
        jax.eval_shape(lambda: (example, jax.random.key(0))),
    )
    # CUDA reports no cost before compilation, and XLA counts a loop once
    traced = jax.jit(apply).trace(params, state, *batch)
    cost = traced.lower().cost_analysis() or {}
    return 3 * max(cost.get("flops", 0.0), products(traced.jaxpr.jaxpr))


def products(jaxpr) -> float:
    """Floating-point operations of matrix products and convolutions.

    >>> import jax.numpy as jnp
    >>> product = jax.make_jaxpr(jnp.matmul)(jnp.ones((2, 3)), jnp.ones((3, 5)))
    >>> products(product.jaxpr)
    60.0
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        outputs = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * outputs * math.prod(shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            features = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * outputs * math.prod(kernel) / features
        inner = [products(each) for each in bodies_of(equation)]
        if name == "cond":  # only one branch runs
            inner = [max(inner)]
        total += sum(inner) * (params["length"] if name == "scan" else 1)
    return total


def has_while(jaxpr) -> bool:
    """Whether a jaxpr has, at any depth, a loop of unknown length.

    >>> import jax.numpy as jnp
    >>> def loop(times, x):
    ...     return jax.lax.fori_loop(0, times, lambda i, x: jnp.sin(x), x)
    >>> [has_while(jax.make_jaxpr(jax.jit(f))(1.0).jaxpr) for f in (
    ...     lambda x: loop(3, x), lambda x: loop(x.astype(int), x))]
    [False, True]
    """
    return any(eqn.primitive.name == "while" for eqn in all_equations(jaxpr.eqns))


def chunk_flops(platform: str) -> float:
    """Floating-point operations of a chunk on this kind of device."""
    return CHUNK_FLOPS.get(platform, 1e11)


def chunk_steps(wanted: float, steps_per_epoch: int) -> int:
    """Steps per chunk, dividing the epoch if possible.

    >>> chunk_steps(10.2, steps_per_epoch=429)
    11
    """
    wanted = max(1, min(steps_per_epoch, round(wanted)))
    divisors = [
        steps
        for steps in range(max(1, wanted // 2), min(2 * wanted, steps_per_epoch) + 1)
        if steps_per_epoch % steps == 0
    ]
    return min(divisors, key=lambda steps: abs(steps - wanted), default=wanted)
