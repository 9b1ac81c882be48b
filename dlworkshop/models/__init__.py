"""Models as pairs of pure functions of ONE example, and their lift to a batch."""

from dlworkshop.models.augment import Augment, augmented
from dlworkshop.models.cnn import cnn
from dlworkshop.models.layers import average_pool, max_pool
from dlworkshop.models.logistic import logistic
from dlworkshop.models.mlp import mlp
from dlworkshop.models.model import Model, from_linen, num_params, predict, table
from dlworkshop.models.vgg16 import vgg16

__all__ = [
    "Augment",
    "Model",
    "augmented",
    "average_pool",
    "cnn",
    "from_linen",
    "logistic",
    "max_pool",
    "mlp",
    "num_params",
    "predict",
    "table",
    "vgg16",
]
