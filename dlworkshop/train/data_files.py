"""Files of a run folder about its data: the card, and the preprocessing."""

from typing import Any

import jax
import numpy as np

from dlworkshop.data import card
from dlworkshop.data.readers import images
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.types import Dataset

SHOWN, VARIANTS = 4, 8  # examples that are shown augmented, and how often each


def describe(dataset: Dataset, model: Model | StatefulModel) -> dict[str, Any]:
    """File name -> JSON of `data_card.json` and `preprocessing.json`.

    `preprocessing.json` has the names of the `classes`, the `shape` of an example, and
    the `preprocessing` that `data.readers.to_example` needs to make an example from a
    file; null if that is not possible.
    """
    about = card.describe(dataset)
    shown, shape = card.is_picture(dataset.train.inputs), about["shape"]
    if model.augment is not None and shown:
        about["augmented"] = augmented(model.augment, dataset)
        about["augment"] = model.config.get("augment")
    preprocessing = {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "shape": shape,
        "preprocessing": dataset.preprocessing
        or (images.as_shaped(shape) if shown else None),
    }
    return {"data_card.json": about, "preprocessing.json": preprocessing}


def augmented(augment: Any, dataset: Dataset) -> list[list[str]]:
    """Pictures of training examples: a row for each, the original and its variants."""
    size = len(dataset.train.targets)
    rows = []
    for i in np.linspace(0, size - 1, min(size, SHOWN)).astype(int):
        image = np.asarray(dataset.train.inputs[int(i)])
        keys = jax.random.split(jax.random.key(int(i)), VARIANTS)
        seen = np.asarray(jax.vmap(augment, in_axes=(0, None))(keys, image))
        rows.append([card.picture(image), *map(card.picture, seen)])
    return rows
