"""Model: a pair of pure functions of ONE example, and what lifts it to a batch."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.types import Array, PyTree


class Model(NamedTuple):
    """A model is how to begin and how to answer; it holds no numbers itself.

    Anything that can be written as this pair trains unchanged.
    """

    init: Callable[..., PyTree]  # (key, example) -> params
    apply: Callable[..., jax.Array]  # (params, example, *, key=None) -> outputs [K]
    config: Mapping[str, Any] = MappingProxyType({})  # what it was built from, as JSON
    module: nn.Module | None = None  # where the pair was made from a Linen module
    augment: Callable | None = None  # what `apply` does first, given a key; for show


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


def as_float(image: Array) -> jax.Array:
    """Pixels as a network wants them: uint8 in 0..255 becomes float in [0, 1].

    >>> as_float(jnp.array([0, 255], jnp.uint8)).tolist()
    [0.0, 1.0]
    """
    image = jnp.asarray(image)
    if image.dtype == jnp.uint8:
        return image.astype(float) / 255
    return image


def predict(model: Model, params: PyTree, images: Array) -> jax.Array:
    """Lift 1: outputs [B, K] of a batch of images [B, ...], without randomness.

    >>> from dlworkshop.models import logistic
    >>> images = jnp.zeros((5, 28, 28, 1), jnp.uint8)
    >>> model = logistic(num_classes=10)
    >>> params = model.init(jax.random.key(0), images[0])
    >>> predict(model, params, images).shape
    (5, 10)
    """
    return jax.vmap(model.apply, in_axes=(None, 0))(params, images)


def check_rank(example: Array, ranks: tuple[int, ...], wanted: str) -> None:
    """Refuse a batch that nobody vmapped, before it is flattened into one example."""
    if jnp.ndim(example) not in ranks:
        raise ValueError(
            f"one example must be {wanted}, got shape {jnp.shape(example)}: "
            "lift the model to a batch with jax.vmap or models.predict"
        )


def num_params(params: PyTree) -> int:
    """How many numbers are learned."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def table(model: Model, example: Array) -> str:
    """Layers with their output shapes and parameter counts, for ONE example."""
    if model.module is not None:
        return model.module.tabulate(
            jax.random.key(0),
            as_float(example),
            console_kwargs={"width": 100, "force_terminal": False},
        ).strip("\n")
    params = jax.eval_shape(model.init, jax.random.key(0), example)
    rows = [
        f"{jax.tree_util.keystr(path):50} {leaf.shape!s:>20} {leaf.size:>12,}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    return "\n".join([*rows, f"{'total':50} {'':>20} {num_params(params):>12,}"])
