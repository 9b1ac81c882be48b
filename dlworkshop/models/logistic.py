"""Logistic regression: one affine map, whose softmax gives the probabilities."""

import jax.numpy as jnp
from flax import linen as nn

from dlworkshop.models.functions import config_of
from dlworkshop.models.linen import from_linen
from dlworkshop.models.model import Model, check_layers, check_rank


class Logistic(nn.Module):
    """logits = x W + b for ONE example (Bishop 2006, PRML, section 4.3.4)."""

    num_classes: int

    @nn.compact
    def __call__(self, example, *, key=None):  # [D] or [H, W, C]
        del key  # the model is deterministic
        check_rank(example, (1, 3), "[D] or [H, W, C]")
        x = example.reshape(-1)  # [D]
        return nn.Dense(self.num_classes, param_dtype=jnp.result_type(float))(x)  # [K]


def logistic(num_classes: int = 10) -> Model:
    """Multinomial logistic regression on [D] or [H, W, C], flattened.

    >>> import jax
    >>> model = logistic(num_classes=3)
    >>> params = model.init(jax.random.key(0), jnp.ones(4))
    >>> model.apply(params, jnp.ones(4)).shape
    (3,)
    """
    check_layers(num_classes)
    module = Logistic(num_classes)
    return from_linen(module, config_of("logistic", module))
