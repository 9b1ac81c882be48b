"""Adapter: Flax NNX modules as models of ONE example."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.interpreters import partial_eval

from dlworkshop.errors import UserError, repr_of
from dlworkshop.models.adapter import (
    call_of,
    call_with,
    make_model,
    making,
    plain,
    read_call,
    restored,
)
from dlworkshop.types import Array, PyTree

# parameters, streams of randomness, intermediate values, and the state
PARTS = nnx.Param, nnx.RngState, nnx.Intermediate, ...


def from_nnx(
    make: Callable[..., nnx.Module] | nnx.Module,
    config: Mapping[str, Any] | None = None,
    *,
    batched: bool = False,
    call: Callable | None = None,
) -> Any:
    """The `Model` of an NNX module, or its `StatefulModel` if it has a state.

    `nnx.Param` is trained; other variables (`nnx.BatchStat`, ...) are the state. With a
    key the module is in `train()` and its streams of randomness begin from that key;
    without one it is in `eval()`. Its `__call__` gets `rngs`, `train`, `deterministic`
    and so on if it takes them; other keywords may be hyper-parameters. The module
    itself is never changed.

    It sees ONE example. `nnx.GroupNorm` and `x.reshape((x.shape[0], -1))` take the
    first axis for the batch: give `batched=True` for a module that has them.

    Args:
        make: (rngs) -> module, such as `lambda rngs: Net(10, rngs=rngs)`; or a module,
            with whose numbers all members begin.
        config: of the model, as JSON; by default the name of the module.
        batched: the module is written for inputs [B, ...], and sees each example as a
            batch of one. BatchNorm(axis_name=models.BATCH_AXES) still sees them all.
        call: (module, inputs, ...) -> outputs; replaces `__call__`.

    Returns:
        `Model`, or `StatefulModel`; parameters and state are nested dicts of arrays.

    Raises:
        UserError: if `make` makes no module, or the call has another parameter without
            a default; from `apply`, if it draws random numbers without a key.

    >>> model = from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
    >>> params = model.init(jax.random.key(0), jnp.ones(4))
    >>> model.apply(params, jnp.ones(4)).shape
    (3,)
    """

    def build(key: Array) -> nnx.Module:
        if isinstance(make, nnx.Module):
            return make
        return call_with(make, "rngs", nnx.Rngs(key))

    module = make
    if not isinstance(make, nnx.Module):
        with making("from_nnx", make, "rngs"):
            module = nnx.eval_shape(lambda: build(jax.random.key(0)))
    if not isinstance(module, nnx.Module):
        raise UserError(
            f"from_nnx got {repr_of(module)}, wanted an nnx.Module: give the "
            "module, or a function (rngs) -> module"
        )
    form, like_params, like_streams, like_notes, like_state = _split(module)
    name = type(module).__name__
    called = call_of(module, call)
    taken = read_call(called, 2, "from_nnx", ("rngs",))

    def init(key: Array, inputs: PyTree) -> tuple[PyTree, PyTree]:
        del inputs  # an NNX module knows its shapes
        _, params, _, _, state = _split(build(key))
        return jax.tree.map(jnp.asarray, (arrays(params), arrays(state)))

    def run(params, state, inputs, key, keywords):
        def answer(streams: nnx.State) -> tuple[PyTree, nnx.Module, bool]:
            whole = nnx.merge(
                form,
                filled(like_params, params),
                streams,
                like_notes,
                filled(like_state, state),
            )
            (whole.eval if key is None else whole.train)()
            before = jax.tree.leaves(nnx.state(whole, nnx.RngCount))
            if "rngs" in taken.reserved:
                keywords["rngs"] = None if key is None else nnx.Rngs(key)
            outputs = called(whole, inputs, **keywords)
            after = jax.tree.leaves(nnx.state(whole, nnx.RngCount))
            moved = any(a is not b for a, b in zip(before, after, strict=True))
            return outputs, whole, moved

        streams = begin(like_streams, jax.random.key(0) if key is None else key)
        outputs, whole, moved = answer(streams)
        # a recurrent layer takes a key for its first carry, which is zeros
        if key is None and moved and _matters(lambda s: answer(s)[0], streams):
            raise UserError(
                f"{name} draws random numbers without a key, where the same inputs "
                "must give the same outputs: let it do so only when it is told that "
                "it trains (nnx.Dropout does after module.train())"
            )
        new = arrays(_split(whole)[4])
        # new variables that the call has made are dropped
        return outputs, arrays(filled(like_state, new))

    return make_model(
        init,
        run,
        taken,
        config,
        module,
        name,
        has_state=bool(jax.tree.leaves(like_state)),
        batched=batched,
    )


def _split(module: nnx.Module) -> tuple[Any, ...]:
    """The graph definition, and the variables in `PARTS`."""
    return nnx.split(module, *PARTS)


def _matters(function: Callable, streams: nnx.State) -> bool:
    """Whether the outputs of a function depend on the streams of randomness."""
    program = jax.make_jaxpr(function)(streams).jaxpr
    return any(partial_eval.dce_jaxpr(program, [True] * len(program.outvars))[1])


def arrays(state: nnx.State) -> dict:
    """The arrays of variables as nested dicts, without NNX's wrappers."""
    return plain(nnx.to_pure_dict(state))


def filled(like: nnx.State, nested: Mapping) -> nnx.State:
    """Variables in the form of `like` with the contents of `arrays`."""
    values = jax.tree.leaves(restored(nnx.to_pure_dict(like), nested))
    return jax.tree.unflatten(jax.tree.structure(like), values)


def begin(like: PyTree, key: Array) -> PyTree:
    """Reset streams of randomness, each with its own key."""
    leaves, form = jax.tree.flatten(like)
    started = []
    for number, leaf in enumerate(leaves):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            own = jax.random.fold_in(key, number)
            started.append(jax.random.split(own, leaf.shape) if leaf.shape else own)
        else:
            started.append(jnp.zeros(leaf.shape, leaf.dtype))  # the count of draws
    return jax.tree.unflatten(form, started)
