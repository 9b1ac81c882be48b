"""Models as pairs of pure functions of ONE example, and their lift to a batch."""

import importlib
from typing import Any

from dlworkshop.errors import UserError
from dlworkshop.models.augment import Augment, augmented, mirrored
from dlworkshop.models.checks import check_one_example, check_state, explain
from dlworkshop.models.cnn import cnn
from dlworkshop.models.layers import average_pool, max_pool
from dlworkshop.models.linen import from_linen
from dlworkshop.models.logistic import logistic
from dlworkshop.models.mlp import mlp
from dlworkshop.models.model import (
    BATCH_AXES,
    Model,
    StatefulModel,
    all_examples,
    num_params,
    predict,
    stateful,
    table,
)
from dlworkshop.models.resnet import resnet
from dlworkshop.models.scaling import (
    coarser,
    on_first_channel,
    piecewise_linear,
    rescaled,
    standardized,
)
from dlworkshop.models.vgg16 import vgg16

_LIBRARIES = {  # adapter -> its module, which imports the library, and the package
    "from_equinox": ("equinox", "equinox"),
    "from_haiku": ("haiku", "dm-haiku"),
    "from_nnx": ("nnx", "flax"),
}

__all__ = [
    "BATCH_AXES",
    "Augment",
    "Model",
    "StatefulModel",
    "all_examples",
    "augmented",
    "average_pool",
    "check_one_example",
    "check_state",
    "cnn",
    "coarser",
    "explain",
    "from_equinox",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "logistic",
    "max_pool",
    "mirrored",
    "mlp",
    "num_params",
    "on_first_channel",
    "piecewise_linear",
    "predict",
    "rescaled",
    "resnet",
    "standardized",
    "stateful",
    "table",
    "vgg16",
]


def __getattr__(name: str) -> Any:
    if name not in _LIBRARIES:
        raise AttributeError(f"module 'dlworkshop.models' has no attribute '{name}'")
    file, package = _LIBRARIES[name]
    try:
        return getattr(importlib.import_module(f"dlworkshop.models.{file}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("equinox", "haiku"):
            raise
        raise UserError(
            f"models.{name} needs {error.name}, which is not installed: "
            f"pip install {package}"
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
