"""A residual convolutional network with group normalisation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.models.functions import config_of
from dlworkshop.models.layers import drop, group_norm, max_pool
from dlworkshop.models.linen import from_linen
from dlworkshop.models.model import Model, check_halvings, check_layers

CHANNELS = 16  # of a group, at most


class Normed(nn.Module):
    """A 3x3 convolution without a bias, then GroupNorm, which has one."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x):  # [H, W, C] -> [H, W, features]
        param_dtype = jnp.result_type(float)
        dtypes = {"dtype": self.dtype, "param_dtype": param_dtype}
        x = nn.Conv(self.features, (3, 3), use_bias=False, **dtypes)(x)
        shape = (self.features,)
        scale = self.param("scale", nn.initializers.ones, shape, param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, param_dtype)
        normed = group_norm(x, num_groups(self.features))
        return normed * scale.astype(x.dtype) + bias.astype(x.dtype)


class ResNet(nn.Module):
    """Classifier of ONE image; float32 parameters whatever it computes in."""

    features: Sequence[int]
    activation: Callable
    dropout: float
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, image, *, key=None, dropout=None):  # [H, W, C]
        check_halvings(image, len(self.features))
        rate = self.dropout if dropout is None else dropout
        x = image
        for features in self.features:
            x = self.activation(Normed(features, self.dtype)(x))
            x = max_pool(x)  # [H/2, W/2, features]
            y = self.activation(Normed(features, self.dtype)(x))
            x = self.activation(x + Normed(features, self.dtype)(y))
        x = x.mean((0, 1))  # [features]
        if key is not None and not (isinstance(rate, float) and rate == 0):
            x = drop(x, key, rate)
        x = nn.Dense(
            self.num_classes, dtype=self.dtype, param_dtype=jnp.result_type(float)
        )(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))  # logits [K]


def num_groups(features: int) -> int:
    """Groups of at most `CHANNELS` channels, all of one size.

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
    num_classes: int = 10,
    dtype: Any = None,
) -> Model:
    """Residual network on images [H, W, C] with H, W >= 2 ** len(features).

    A stage is a convolution, 2x2 max pooling and a residual block of two convolutions;
    the mean over all places goes into one affine map. GroupNorm follows every
    convolution, which, unlike BatchNorm, says the same of an image whatever it is
    beside.

    Args:
        features: channels of each stage.
        activation: elementwise function.
        dropout: probability in [0, 1) of dropping one of the means in training; a
            population may override it per member with hparams["dropout"].
        num_classes: length K of the logits.
        dtype: what to compute in, e.g. jnp.bfloat16; parameters stay float32.

    Source: He et al. (2016), Deep residual learning for image recognition; Wu & He
    (2018), Group normalization.

    >>> import jax
    >>> model = resnet((4, 8))
    >>> image = jnp.ones((8, 8, 3))
    >>> params = model.init(jax.random.key(0), image)
    >>> model.apply(params, image).shape
    (10,)
    """
    check_layers(num_classes, dropout, dtype, features=features)
    module = ResNet(tuple(features), activation, float(dropout), num_classes, dtype)
    return from_linen(module, config_of("resnet", module))
