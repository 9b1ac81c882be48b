"""A residual convolutional network with batch or group normalisation."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.errors import UserError
from dlworkshop.models.functions import config_of
from dlworkshop.models.layers import (
    at_least_float32,
    drop,
    drops,
    group_norm,
    max_pool,
)
from dlworkshop.models.linen import from_linen
from dlworkshop.models.model import BATCH_AXES, check_halvings, check_layers

CHANNELS = 16  # of a group, at most
NORMS = "group", "batch"
MOMENTUM = 0.9  # of the running statistics


class Normed(nn.Module):
    """A 3x3 convolution without a bias, followed by a normalisation with a bias."""

    features: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x, train):  # [H, W, C] -> [H, W, features]
        param_dtype = jnp.result_type(float)
        dtypes = {"dtype": self.dtype, "param_dtype": param_dtype}
        x = nn.Conv(self.features, (3, 3), use_bias=False, **dtypes)(x)
        if self.norm == "batch":
            over: Any = BATCH_AXES  # Flax's annotation allows a single axis only
            norm = nn.BatchNorm(not train, momentum=MOMENTUM, axis_name=over, **dtypes)
            return norm(x)
        shape = (self.features,)
        scale = self.param("scale", nn.initializers.ones, shape, param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, param_dtype)
        normed = group_norm(x, num_groups(self.features))
        return normed * scale.astype(x.dtype) + bias.astype(x.dtype)


class ResNet(nn.Module):
    """Classifier of ONE image; its parameters are float32 for any `dtype`."""

    features: Sequence[int]
    activation: Callable
    dropout: float
    norm: str
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, image, *, key=None, dropout=None):  # [H, W, C]
        check_halvings(image, len(self.features))
        rate = self.dropout if dropout is None else dropout
        x, train = image, key is not None
        for features in self.features:
            first, second, third = (
                Normed(features, self.norm, self.dtype) for _ in range(3)
            )
            x = self.activation(first(x, train))
            x = max_pool(x)  # [H/2, W/2, features]
            y = self.activation(second(x, train))
            x = self.activation(x + third(y, train))
        x = x.mean((0, 1))  # [features]
        if drops(key, rate):
            x = drop(x, key, rate)
        dtypes = {"dtype": self.dtype, "param_dtype": jnp.result_type(float)}
        return at_least_float32(nn.Dense(self.num_classes, **dtypes)(x))  # logits [K]


def num_groups(features: int) -> int:
    """The smallest number of equal groups of at most `CHANNELS` channels.

    >>> num_groups(32), num_groups(48), num_groups(7)
    (2, 3, 1)
    """
    least = -(-features // CHANNELS)
    return next(n for n in range(least, features + 1) if features % n == 0)


def resnet(
    features: Sequence[int] = (32, 64, 128),
    activation: Callable = nn.relu,
    dropout: float = 0.0,
    *,
    norm: Literal["group", "batch"] = "group",
    num_classes: int = 10,
    dtype: Any = None,
) -> Any:
    """Residual network on images [H, W, C] with H, W >= 2 ** len(features).

    A stage is a convolution, 2x2 max pooling and a residual block of two convolutions;
    the mean over all places goes into one affine map. A normalisation follows every
    convolution. BatchNorm learns much faster (docs/own_data.md) and needs a
    `StatefulModel` with running statistics. With GroupNorm the outputs never depend on
    the other examples of the batch.

    Args:
        features: channels of each stage.
        activation: elementwise function.
        dropout: probability in [0, 1) of dropping one of the means in training; a
            population may override it per member with hparams["dropout"].
        norm: "group" or "batch".
        num_classes: length K of the logits.
        dtype: of the computation, e.g. jnp.bfloat16; parameters stay float32.

    Returns:
        `Model`, or `StatefulModel` with BatchNorm.

    Source: He et al. (2016), Deep residual learning for image recognition; Ioffe &
    Szegedy (2015), Batch normalization; Wu & He (2018), Group normalization.

    >>> import jax
    >>> model = resnet((4, 8))
    >>> image = jnp.ones((8, 8, 3))
    >>> params = model.init(jax.random.key(0), image)
    >>> model.apply(params, image).shape
    (10,)
    """
    check_layers(num_classes, dropout, dtype, features=features)
    if norm not in NORMS:
        raise UserError(f"norm is {norm!r:.40}: give one of {', '.join(NORMS)}")
    module = ResNet(
        tuple(features), activation, float(dropout), norm, num_classes, dtype
    )
    return from_linen(module, config_of("resnet", module), stateful=norm == "batch")
