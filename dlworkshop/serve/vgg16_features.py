"""Features of a pretrained VGG16 as inputs, for training data and later files.

The preprocessing of a run on features names the network, so that the run can predict
for image files as long as the file of the weights is there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlworkshop.data.checksums import sha256
from dlworkshop.data.readers import images
from dlworkshop.errors import UserError
from dlworkshop.models.model import Model
from dlworkshop.models.rgb import on_rgb
from dlworkshop.models.vgg16 import official, vgg16
from dlworkshop.serve.features import Extractor, features
from dlworkshop.types import Dataset

FEATURES = 512  # channels of the last block, averaged over all places


def network(weights: str | Path) -> Model:
    """A VGG16 with average pooling: images of any kind -> features [512].

    Raises:
        UserError: if the weights cannot be read, or are not those of a VGG16.
    """
    return on_rgb(vgg16(weights=weights, pooling="avg"))


def vgg16_features(dataset: Dataset, weights: str | Path) -> Dataset:
    """The data set with features [N, 512] in place of its images; see `features`.

    Args:
        dataset: of images [H, W, C].
        weights: "imagenet" (fetched once), or a path, as of `models.vgg16`.

    Raises:
        UserError: if the examples are no images, or the weights cannot be read.
    """
    shape = tuple(getattr(dataset.train.inputs, "shape", ()))[1:]
    if len(shape) != len("HWC"):
        raise UserError(
            f"VGG16 sees images, and an example of '{dataset.name}' is "
            f"{list(shape) or 'several arrays'}: train on the data set itself"
        )
    path = official(False) if weights == "imagenet" else Path(weights).resolve()
    model = network(path)
    params = model.init(jax.random.key(0), dataset.train.inputs[0])
    found = features(model, params, dataset)
    about = {"network": "vgg16", "weights": str(path), "sha256": sha256(path)}
    how = dataset.preprocessing or images.as_shaped(shape)
    return found._replace(
        name=f"{dataset.name} seen by VGG16 ({path.name})",
        preprocessing={**how, "seen_by": about},
    )


def input_transform(how: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """A function: images [B, H, W, C] -> inputs of a run, images or features [B, 512].

    Raises:
        UserError: if the weights are missing or have changed.
    """
    about = how.get("seen_by")
    if about is None:
        return lambda pixels: pixels
    path = Path(about["weights"])
    model = network(path)
    if sha256(path) != about["sha256"]:
        raise UserError(
            f"the weights {path} are not those whose features the run learnt from: "
            "restore that file"
        )

    def transform(pixels: np.ndarray) -> np.ndarray:
        params = model.init(jax.random.key(0), pixels[0])
        return np.concatenate([*Extractor(model, params, pixels)(pixels)])

    return transform
