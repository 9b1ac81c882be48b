"""A fully connected network: affine maps with an activation between them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.data.leaves import at_least_float32
from dlworkshop.models.functions import config_of
from dlworkshop.models.layers import drop, drops
from dlworkshop.models.linen import from_linen
from dlworkshop.models.model import Model, check_layers, check_rank


class Mlp(nn.Module):
    """Classifier of ONE example; its parameters are float32 for any `dtype`."""

    widths: Sequence[int]
    activation: Callable
    dropout: float
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, example, *, key=None, dropout=None):  # [D] or [H, W, C]
        check_rank(example, (1, 3), "[D] or [H, W, C]")
        dtypes = {"dtype": self.dtype, "param_dtype": jnp.result_type(float)}
        rate = self.dropout if dropout is None else dropout
        x = example.reshape(-1)  # [D]
        for layer, width in enumerate(self.widths):
            x = self.activation(nn.Dense(width, **dtypes)(x))  # [width]
            if drops(key, rate):
                x = drop(x, jax.random.fold_in(key, layer), rate)
        return at_least_float32(nn.Dense(self.num_classes, **dtypes)(x))  # logits [K]


def mlp(
    widths: Sequence[int] = (128,),
    activation: Callable = nn.relu,
    dropout: float = 0.0,
    *,
    num_classes: int = 10,
    dtype: Any = None,
) -> Model:
    """Multi-layer perceptron on [D] or [H, W, C], flattened.

    Args:
        widths: units of each hidden layer; () is logistic regression.
        activation: elementwise function after each hidden layer.
        dropout: probability in [0, 1) of dropping a hidden unit in training; a
            population may override it per member with hparams["dropout"].
        num_classes: length K of the logits.
        dtype: of the computation, e.g. jnp.bfloat16; parameters stay float32.

    >>> model = mlp((32, 16), num_classes=3)
    >>> params = model.init(jax.random.key(0), jnp.ones(4))
    >>> model.apply(params, jnp.ones(4)).shape
    (3,)
    """
    check_layers(num_classes, dropout, dtype, widths=widths)
    module = Mlp(tuple(widths), activation, float(dropout), num_classes, dtype)
    return from_linen(module, config_of("mlp", module))
