"""Adapter: Haiku's transformed functions as models of ONE example."""

import inspect
from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax

from dlworkshop.errors import UserError, repr_of
from dlworkshop.models.adapter import make_model, read_call
from dlworkshop.models.model import BATCH_AXES, ones_for
from dlworkshop.types import Array, PyTree


def from_haiku(
    transformed: hk.Transformed | hk.TransformedWithState,
    config: Mapping[str, Any] | None = None,
    *,
    batched: bool = False,
) -> Any:
    """The model of `hk.transform(f)`, or of `hk.transform_with_state(f)`.

    `f` takes its inputs first. With a key, `f` gets it as Haiku's rng, and the training
    flag as `is_training`, `train`, `training` or `deterministic`; without a key there
    is no rng. Other keywords of `f` may be hyper-parameters. Wrap a function with
    another signature, such as
    `hk.transform(lambda x, is_training: net(x, mode="train" if is_training else ""))`.

    `f` sees ONE example. `hk.Flatten` and `hk.GroupNorm` take the first axis for the
    batch: give `batched=True` for a function that has them, or BatchNorm on images.
    `hk.BatchNorm(..., cross_replica_axis=models.BATCH_AXES)` sees the whole batch.

    Args:
        transformed: the result of Haiku's transform.
        config: of the model, as JSON; by default the name of `f`.
        batched: `f` is written for inputs [B, ...], and sees each as a batch of one.

    Returns:
        `Model`, or `StatefulModel` for `hk.transform_with_state`.

    Raises:
        UserError: if `transformed` is not a transformed function, or `f` takes another
            argument without a default.

    >>> import jax.numpy as jnp
    >>> model = from_haiku(hk.transform(lambda x: hk.Linear(3)(x)))
    >>> params = model.init(jax.random.key(0), jnp.ones(4))
    >>> model.apply(params, jnp.ones(4)).shape
    (3,)
    """
    if not isinstance(transformed, hk.Transformed | hk.TransformedWithState):
        raise UserError(
            f"from_haiku got {repr_of(transformed)}, wanted a transformed "
            "function: give hk.transform(f), or hk.transform_with_state(f)"
        )
    has_state = isinstance(transformed, hk.TransformedWithState)
    apply: Any = transformed.apply
    names = list(inspect.signature(apply).parameters)
    first = 2 if has_state else 1  # params, state
    random = names[first : first + 1] == ["rng"]  # not after hk.without_apply_rng
    taken = read_call(apply, first + random + 1, "from_haiku")
    function = getattr(apply, "_original_fn", apply)
    name = getattr(function, "__name__", type(function).__name__)

    def init(key: Array, inputs: PyTree) -> tuple[PyTree, PyTree]:
        # in training, because Haiku creates running statistics only there; the vmaps
        # provide the axes of a batch
        def begin(key: Array, inputs: PyTree) -> PyTree:
            keywords = ones_for(taken.options) | taken.arguments(key)
            return transformed.init(key, inputs, **keywords)

        for axis in BATCH_AXES:
            begin = jax.vmap(
                begin, in_axes=None, out_axes=None, axis_name=axis, axis_size=1
            )
        made: Any = begin(key, inputs)
        return made if has_state else (made, {})

    def run(params, state, inputs, key, keywords):
        rng = (key,) if random else ()
        if has_state:
            return apply(params, state, *rng, inputs, **keywords)
        return apply(params, *rng, inputs, **keywords), state

    return make_model(
        init,
        run,
        taken,
        config,
        transformed,
        name,
        has_state=has_state,
        batched=batched,
    )
