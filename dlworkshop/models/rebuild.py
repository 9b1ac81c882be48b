"""A model's config, as a run folder keeps it -> the model again."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from dlworkshop.errors import UserError
from dlworkshop.models import layers
from dlworkshop.models.augment import Augment, augmented
from dlworkshop.models.cnn import cnn
from dlworkshop.models.logistic import logistic
from dlworkshop.models.mlp import mlp
from dlworkshop.models.model import Model
from dlworkshop.models.vgg16 import vgg16

MAKERS: dict[str, Callable[..., Model]] = {
    make.__name__: make for make in (logistic, mlp, cnn, vgg16)
}


def from_config(config: Mapping[str, Any]) -> Model:
    """The model that `config` came from; parameters are not part of it.

    Raises:
        UserError: if it is none of the models here, or has a function of its own.

    >>> from_config(cnn((4,), num_classes=3).config).config["features"]
    [4]
    """
    settings = dict(config)
    name = settings.pop("name", None)
    augment = settings.pop("augment", None)
    if name not in MAKERS:
        raise UserError(
            f"the model '{name}' is none of {', '.join(MAKERS)}: give the model that "
            "the run was made with"
        )
    if name == "vgg16":
        del settings["weights"]  # where training began; it ended elsewhere
    else:
        for place, room in (("activation", nn), ("pooling", layers)):
            if place in settings:
                settings[place] = _function(room, settings[place], place)
    model = MAKERS[name](**settings)
    # an augmentation of one's own is not known by its name, and answers need none
    return augmented(model, Augment(**augment)) if isinstance(augment, dict) else model


def _function(room: Any, name: str, place: str) -> Callable:
    function = getattr(room, name, None)
    if not callable(function) or getattr(function, "__name__", None) != name:
        raise UserError(
            f"the {place} '{name}' of the model is not one of {room.__name__}: give "
            "the model that the run was made with"
        )
    return function
