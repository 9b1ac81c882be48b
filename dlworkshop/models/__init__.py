"""Models as pairs of pure functions of ONE example, and their lift to a batch."""

from dlworkshop.models.augment import Augment, augmented
from dlworkshop.models.cnn import cnn
from dlworkshop.models.layers import average_pool, max_pool
from dlworkshop.models.linen import from_linen
from dlworkshop.models.logistic import logistic
from dlworkshop.models.mlp import mlp
from dlworkshop.models.model import (
    BATCH_AXES,
    Model,
    StatefulModel,
    num_params,
    predict,
    stateful,
    table,
)
from dlworkshop.models.vgg16 import vgg16

__all__ = [
    "BATCH_AXES",
    "Augment",
    "Model",
    "StatefulModel",
    "augmented",
    "average_pool",
    "cnn",
    "from_linen",
    "logistic",
    "max_pool",
    "mlp",
    "num_params",
    "predict",
    "stateful",
    "table",
    "vgg16",
]
