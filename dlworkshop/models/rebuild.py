"""Building of a model from its config in a run folder."""

from collections.abc import Callable, Mapping
from typing import Any

from dlworkshop.errors import UserError
from dlworkshop.models.augment import Augment, augmented, mirrored
from dlworkshop.models.cnn import cnn
from dlworkshop.models.functions import OWN, ROOMS, find_function
from dlworkshop.models.logistic import logistic
from dlworkshop.models.mlp import mlp
from dlworkshop.models.model import Model
from dlworkshop.models.resnet import resnet
from dlworkshop.models.rgb import on_rgb
from dlworkshop.models.scaling import (
    coarser,
    on_first_channel,
    piecewise_linear,
    rescaled,
    standardized,
)
from dlworkshop.models.vgg16 import vgg16

MAKERS: dict[str, Callable[..., Model]] = {
    make.__name__: make for make in (logistic, mlp, cnn, resnet, vgg16)
}
WRAPPERS: dict[str, Callable[..., Model]] = {
    make.__name__: make
    for make in (
        standardized,
        piecewise_linear,
        on_first_channel,
        coarser,
        rescaled,
        mirrored,
    )
}


def from_config(config: Mapping[str, Any]) -> Model:
    """The model with this config, without parameters.

    Raises:
        UserError: if the model is not from this package, or has a custom function.

    >>> from_config(cnn((4,), num_classes=3).config).config["features"]
    [4]
    """
    settings = dict(config)
    name = settings.pop("name", None)
    augment = settings.pop("augment", None)
    any_kind = settings.pop("on_rgb", False)
    # a config lists wrappers in the order in which they were applied
    wrappers = {key: settings.pop(key) for key in config if key in WRAPPERS}
    if name not in MAKERS:
        raise UserError(f"the model '{name}' is none of {', '.join(MAKERS)}: {OWN}")
    if name == "vgg16":
        del settings["weights"]  # only used to initialise the parameters
    else:
        for place, room in ROOMS.items():
            if place in settings:
                settings[place] = find_function(settings[place], room, place)
    model = MAKERS[name](**settings)
    for key, known in wrappers.items():
        model = WRAPPERS[key](model, **known)
    model = on_rgb(model) if any_kind else model
    # a custom augmentation cannot be built from its name, and is for training only
    return augmented(model, Augment(**augment)) if isinstance(augment, dict) else model
