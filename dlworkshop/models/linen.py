"""Flax Linen modules as models of ONE example."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.models.model import Model, as_float
from dlworkshop.types import Array, PyTree


def from_linen(module: nn.Module, config: Mapping[str, Any] | None = None) -> Model:
    """The pair of a Linen module whose call is `(example, *, key=None) -> outputs`.

    Only the collection "params" is trained: a module which keeps other variables
    (running statistics, caches) is not a pure function of one example.
    """

    def init(key: jax.Array, example: Array) -> PyTree:
        variables = module.init(key, as_float(example))
        if set(variables) != {"params"}:
            kept = ", ".join(sorted(set(variables) - {"params"}))
            raise ValueError(
                f"{type(module).__name__} keeps the variables '{kept}', and only "
                "'params' are trained: use layers without running statistics"
            )
        return variables["params"]

    def apply(params: PyTree, example: Array, *, key=None, dropout=None) -> jax.Array:
        more = {} if dropout is None else {"dropout": dropout}
        outputs = module.apply({"params": params}, as_float(example), key=key, **more)
        return jnp.asarray(outputs)

    return Model(init, apply, config or {"name": type(module).__name__}, module)
