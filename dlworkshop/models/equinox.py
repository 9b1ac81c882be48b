"""Adapter: Equinox modules as models of ONE example."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from dlworkshop.errors import UserError, check_function, repr_of
from dlworkshop.models.adapter import (
    call_of,
    call_with,
    make_model,
    making,
    names,
    plain,
    read_call,
    restored,
)
from dlworkshop.types import Array, PyTree

# Layers whose `weight` may have the rank of a kernel without being one, and what the
# other libraries call it there.
WEIGHTS = {
    eqx.nn.Embedding: "embedding",
    eqx.nn.LayerNorm: "scale",
    eqx.nn.RMSNorm: "scale",
}


def from_equinox(
    make: Any,
    config: Mapping[str, Any] | None = None,
    *,
    batched: bool = False,
    trainable: Callable[[Any], PyTree] | None = None,
    call: Callable | None = None,
) -> Any:
    """The `Model` of an Equinox module, or its `StatefulModel` if it has a state.

    Arrays of real and complex numbers are trained; all else is static. Without a key
    the module is in `eqx.nn.inference_mode`. Its call gets `key=`, `state=` and
    `inference=` if it takes them; other keywords may be hyper-parameters.

    Args:
        make: (key) -> module, such as a class, or the result of
            `eqx.nn.make_with_state`; or a module (or module and state), with whose
            numbers all members begin.
        config: of the model, as JSON; by default the name of the module.
        batched: the module is written for inputs [B, ...], and sees each example as a
            batch of one.
        trainable: module -> pytree of bools in its form, as in `eqx.partition`. The
            leaves that are not trained are constants, or part of the state if `make`
            is a function.
        call: (module, inputs, ...) -> outputs, or (outputs, state) if it takes a
            `state`; replaces `__call__`.

    Returns:
        `Model`, or `StatefulModel`; parameters and state are nested dicts of arrays,
        by the names of the attributes. Only the `weight` of an embedding is called
        `embedding`, and that of a normalisation over several axes `scale`, so that
        `optimizers.kernels` tells them from kernels.

    Raises:
        UserError: if `make` makes no module, the call has another parameter without a
            default, or the module has a state that the call does not take.

    >>> model = from_equinox(lambda key: eqx.nn.Linear(4, 3, key=key))
    >>> params = model.init(jax.random.key(0), jnp.ones(4))
    >>> model.apply(params, jnp.ones(4)).shape
    (3,)
    """
    given = isinstance(make, eqx.Module) or (isinstance(make, tuple) and len(make) == 2)

    def build(key: Array) -> tuple[Any, eqx.nn.State]:
        return _with_state(make if given else call_with(make, "key", key))

    some_key = jax.random.key(0)
    with making("from_equinox", make, "key"):
        made = build(some_key) if given else eqx.filter_eval_shape(build, some_key)
    module, like_state = made
    if not isinstance(module, eqx.Module):
        raise UserError(
            f"from_equinox got {repr_of(module)}, wanted an eqx.Module: give "
            "the module, or a function (key) -> module"
        )
    name = type(module).__name__
    trained, renamed = _trained(module, trainable), _renamed(module)

    def split(module: Any) -> tuple[Any, Any, Any]:
        params, rest = eqx.partition(module, trained)
        constants, static = eqx.partition(rest, _is_array)
        return params, constants, static

    like_params, like_constants, static = split(module)
    has_index = bool(jax.tree.leaves(like_state))
    has_constants = bool(jax.tree.leaves(like_constants)) and not given
    called = call_of(module, call)
    taken = read_call(called, 2, "from_equinox", ("state",))
    if has_index and "state" not in taken.reserved:
        raise UserError(
            f"{name} has a state, and its call takes none: let it be "
            "(inputs, state) -> (outputs, state)"
        )
    # a call with a state returns one too, so an optional state is given only if needed
    with_state = "state" in taken.reserved and (has_index or _needs_state(called))

    def init(key: Array, inputs: PyTree) -> tuple[PyTree, PyTree]:
        del inputs  # an Equinox module knows its shapes
        module, index = build(key)
        params, constants, _ = split(module)
        state = {}
        if has_index:
            state["state"] = plain(index)
        if has_constants:
            state["constants"] = plain(constants)
        return jax.tree.map(jnp.asarray, (plain(params, renamed), state))

    def run(params, state, inputs, key, keywords):
        constants = like_constants
        if has_constants:
            constants = restored(like_constants, state["constants"])
        whole = eqx.combine(restored(like_params, params, renamed), constants, static)
        if key is None:
            whole = eqx.nn.inference_mode(whole)
        if not with_state:
            return called(whole, inputs, **keywords), state
        index = restored(like_state, state.get("state", {}))
        outputs, index = called(whole, inputs, state=index, **keywords)
        return outputs, {**state, "state": plain(index)} if has_index else state

    return make_model(
        init,
        run,
        taken,
        config,
        module,
        name,
        has_state=has_index or has_constants,
        batched=batched,
    )


def _with_state(made: Any) -> tuple[Any, eqx.nn.State]:
    """A module and its state, from those or from the module alone."""
    if isinstance(made, tuple):
        module, state = made
        return module, state
    return eqx.nn.make_with_state(lambda: made)()


def _renamed(module: Any) -> dict[tuple[str, ...], tuple[str, ...]]:
    """The paths of WEIGHTS of rank 2 or more, and those that they are given."""
    kinds = tuple(WEIGHTS)
    found = jax.tree.leaves_with_path(module, is_leaf=lambda at: isinstance(at, kinds))
    return {
        names((*path, jax.tree_util.GetAttrKey("weight"))): names(
            (*path, jax.tree_util.GetAttrKey(name))
        )
        for path, layer in found
        for kind, name in WEIGHTS.items()
        if isinstance(layer, kind) and getattr(layer.weight, "ndim", 0) > 1
    }


def _trained(module: Any, trainable: Callable[[Any], PyTree] | None) -> PyTree:
    """The arrays of a module that are trained, as a pytree of bools."""
    if trainable is None:
        return jax.tree.map(_is_inexact, module)
    check_function("trainable", trainable)
    return jax.tree.map(
        lambda flag, part: jax.tree.map(lambda leaf: flag and _is_inexact(leaf), part),
        trainable(module),
        module,
    )


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _is_inexact(leaf: Any) -> bool:
    """Whether it is an array of real or complex numbers."""
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _needs_state(call: Callable) -> bool:
    """Whether the call requires a `state`."""
    state = inspect.signature(call).parameters["state"]
    return state.default is state.empty
