"""A convolutional network: convolution, activation, pooling; then fully connected."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.data.leaves import at_least_float32
from dlworkshop.models.functions import config_of
from dlworkshop.models.layers import average_pool, drop, drops
from dlworkshop.models.linen import from_linen
from dlworkshop.models.model import Model, check_halvings, check_layers


class Cnn(nn.Module):
    """Classifier of ONE image; its parameters are float32 for any `dtype`."""

    features: Sequence[int]
    dense: Sequence[int]
    activation: Callable
    pooling: Callable
    dropout: float
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, image, *, key=None, dropout=None):  # [H, W, C]
        check_halvings(image, len(self.features))
        dtypes = {"dtype": self.dtype, "param_dtype": jnp.result_type(float)}
        rate = self.dropout if dropout is None else dropout
        x = image
        for features in self.features:
            x = nn.Conv(features, (3, 3), **dtypes)(x)  # [H, W, features]
            x = self.pooling(self.activation(x))  # [H/2, W/2, features]
        x = x.reshape(-1)  # [H*W*C]
        for layer, width in enumerate(self.dense):
            x = self.activation(nn.Dense(width, **dtypes)(x))  # [width]
            if drops(key, rate):
                x = drop(x, jax.random.fold_in(key, layer), rate)
        return at_least_float32(nn.Dense(self.num_classes, **dtypes)(x))  # logits [K]


def cnn(
    features: Sequence[int] = (32, 64),
    dense: Sequence[int] = (256,),
    activation: Callable = nn.relu,
    pooling: Callable = average_pool,
    dropout: float = 0.0,
    *,
    num_classes: int = 10,
    dtype: Any = None,
) -> Model:
    """Convolutional network on images [H, W, C] with H, W >= 2 ** len(features).

    Args:
        features: channels of each 3x3 convolution, each followed by 2x2 pooling.
        dense: units of each hidden fully connected layer.
        activation: elementwise function after each convolution and hidden layer.
        pooling: [H, W, C] -> [H // 2, W // 2, C]: `average_pool` or `max_pool`.
        dropout: probability in [0, 1) of dropping a fully connected unit in training;
            a population may override it per member with hparams["dropout"].
        num_classes: length K of the logits.
        dtype: of the computation, e.g. jnp.bfloat16; parameters stay float32.

    Source: LeCun et al. (1998), Gradient-based learning applied to document
    recognition, section II, here with 3x3 kernels.

    >>> model = cnn((4, 8), dense=(16,))
    >>> image = jnp.ones((8, 8, 1))
    >>> params = model.init(jax.random.key(0), image)
    >>> model.apply(params, image).shape
    (10,)
    """
    check_layers(num_classes, dropout, dtype, features=features, dense=dense)
    sizes, rate = (tuple(features), tuple(dense)), float(dropout)
    module = Cnn(*sizes, activation, pooling, rate, num_classes, dtype)
    return from_linen(module, config_of("cnn", module))
