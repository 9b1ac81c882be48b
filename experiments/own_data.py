"""How well does a network classify your own images or table?

Give a folder with one folder of images per class (optionally below train, validation
and test), a CSV file, an .npz file with x and y, or IDX files. The data are prepared
once; missing splits are taken from train; the report begins with a summary of the data.

    python experiments/own_data.py --data ~/photos
    python experiments/own_data.py --data penguins.csv --target species
    python experiments/own_data.py --data houses.csv --target price
    python experiments/own_data.py --data ~/photos --features vgg16 --weights vgg16.h5

Networks, learning rates, weight decays and, for images, shifts and flips are chosen on
the validation split; a setting given as a flag is used as it is. For images the network
is the largest that can be trained in the time (docs/own_data.md). The chosen setting is
trained again with fresh seeds; the report compares its ensemble and its members with
the most common class and a linear model. With fewer than a thousand examples, the
search uses cross-validation, and the report has an interval for the score on new data.

A target of real numbers, or of many different whole numbers, is predicted as a number
(--task overrides this), with errors in its own units (for several such targets, in
standard deviations of train). Several targets of 0 and 1 are labels of one example.

Expect 98 to 100 % on the penguins, in a minute or two on 2 cores; --minutes sets the
time. Nothing is chosen on the test split.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlworkshop import autofit, data, losses, models, workshop
from dlworkshop.errors import UserError, check_whole
from dlworkshop.search import prepared, task_of
from dlworkshop.serve.vgg16_features import vgg16_features
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset

AUGMENTED_BY = "rotate", "brightness", "cut_out"


@dataclass(frozen=True)
class Config(workshop.TrainingConfig):
    """Settings of the experiment; every one is a flag."""

    data: Path | None = None
    """The folder, table or file to learn from."""
    target: tuple[str, ...] = ()
    """The column of a table to predict, or several."""
    task: Literal["classification", "regression"] | None = None
    """Kind of target of a table; by default inferred from its cells."""
    group_by: str | None = None
    """Keep each group in one split: a regular expression for paths, or a column."""
    image_size: int | None = None
    """Height and width in pixels; by default those of most files, or 64."""
    resize: Literal["crop", "pad"] = "crop"
    """Fill the frame and crop, or show everything with black borders."""
    features: Literal["pixels", "vgg16"] = "pixels"
    """Train on pixels, or on features of VGG16 with --weights."""
    weights: str | None = None
    """VGG16 weights: .h5 of Keras, .safetensors of torchvision, or imagenet."""
    minutes: float = 3.0
    """Time budget for everything, approximately."""
    class_weights: bool = False
    """Weight the loss so that all classes count the same."""
    model: Literal["auto", "logistic", "mlp", "cnn", "resnet"] = "auto"
    """Kind of network; by default chosen on the validation split."""
    flip: bool | None = None
    """Flip half of the training images horizontally; by default validation decides."""
    shift: float | None = None
    """Shift by up to this fraction of a side; by default validation picks 0 or 0.1."""
    rotate: float = 0.0
    """Rotate by up to this many degrees."""
    brightness: float = 0.0
    """Change the brightness by up to this fraction."""
    cut_out: float = 0.0
    """Hide a square whose side is this fraction of the side of the image."""
    seeds: int | None = None  # type: ignore[assignment]
    """Models in the final ensemble; by default 4, or as many as time allows."""
    folds: int | None = None
    """Cross-validation folds; by default 8 below a thousand examples, else 0."""
    num_epochs: int | None = None  # type: ignore[assignment]
    """Passes over the training split; by default as many as time allows."""
    batch_size: int | None = None  # type: ignore[assignment]
    """Examples per step and model; by default 32 to 256."""
    learning_rate: tuple[float, ...] = ()
    """Peak learning rate; several values are searched by validation."""
    weight_decay: tuple[float, ...] = ()
    """Decoupled weight decay; several values are searched by validation."""
    dropout: tuple[float, ...] = ()
    """Dropout rate of dense units; several values are searched by validation."""
    channels: tuple[int, ...] | None = None
    """Channels of each stage, for --model cnn or resnet; by default 32 64 128."""
    dense: tuple[int, ...] | None = None
    """Units of each hidden layer, for --model mlp or cnn; by default 128."""


def choose_loss(config: Config, dataset: Dataset) -> Callable | None:
    """The weighted loss for --class-weights; None for the default loss."""
    if not config.class_weights:
        return None
    if not dataset.classes:
        raise UserError(
            "class_weights needs a target with classes, and this target has none: "
            "leave it out"
        )
    weights = losses.class_weights(dataset.train.targets, len(dataset.classes))
    return losses.weighted(losses.cross_entropy, weights)


def choose_model(config: Config, dataset: Dataset) -> models.Model | None:
    """The requested model on standardised inputs; None if it is to be searched."""
    shape, task = dataset.train.inputs.shape[1:], task_of(dataset)
    kind, outputs = config.model, task.outputs
    channels = (32, 64, 128) if config.channels is None else config.channels
    dense = (128,) if config.dense is None else config.dense
    if kind == "auto":
        return None
    if kind in ("cnn", "resnet") and len(shape) != 3:
        raise UserError(
            f"model is {kind}, which needs images [H, W, C], and an example has the "
            f"shape {list(shape)}: use mlp"
        )
    if kind == "logistic":
        model = models.logistic(outputs)
    elif kind == "mlp":
        model = models.mlp(dense, num_classes=outputs)
    elif kind == "resnet":
        model = models.resnet(channels, norm="batch", num_classes=outputs)
    else:
        model = models.cnn(
            channels, dense, pooling=models.max_pool, num_classes=outputs
        )
    return prepared(model, dataset, task)


def check_widths(config: Config) -> None:
    """Reject widths of layers that the network does not have."""
    for name, kinds in {"channels": ("cnn", "resnet"), "dense": ("mlp", "cnn")}.items():
        if getattr(config, name) is not None and config.model not in kinds:
            raise UserError(
                f"{name} is for --model {' or '.join(kinds)}, and the model is "
                f"{config.model}: give one of these, or leave {name} out"
            )


def choose_augment(config: Config, dataset: Dataset) -> models.Augment | None:
    """Augmentation besides flips and shifts."""
    asked: dict[str, Any] = {
        name: value for name in AUGMENTED_BY if (value := getattr(config, name))
    }
    if "cut_out" in asked:
        side = min(dataset.train.inputs.shape[1:3])
        asked["cut_out"] = round(config.cut_out * side)
        if not asked["cut_out"]:
            raise UserError(
                f"cut_out is {config.cut_out}, less than a pixel of {side}: give a "
                "larger fraction, or leave it out"
            )
    return models.Augment(**asked) if asked else None


def choose_features(config: Config) -> Callable[[Dataset], Dataset]:
    """Images -> inputs of the model; wrong flags are rejected before reading images."""
    if config.features == "pixels":
        if config.weights is not None:
            raise UserError(
                "weights are used with features of VGG16 only: add --features vgg16"
            )
        return lambda dataset: dataset
    if config.weights is None:
        raise UserError(
            "features of VGG16 need trained weights: give --weights PATH, an .h5 "
            "file of Keras or a .safetensors file of torchvision, or --weights imagenet"
        )
    models.vgg16(weights=config.weights)
    return functools.partial(vgg16_features, weights=config.weights)


def main(config: Config) -> Run:
    """Prepare once, search, train the chosen setting, read the test split once."""
    if config.data is None:
        raise UserError("no data were given: give a folder or a table with --data PATH")
    for name in "num_epochs", "batch_size":
        if getattr(config, name) is not None:
            check_whole(name, getattr(config, name))
    check_widths(config)
    seen = choose_features(config)
    dataset = data.load(
        config.data,
        config.data_dir,
        target=config.target[0] if len(config.target) == 1 else config.target or None,
        group_by=config.group_by,
        image_size=config.image_size,
        resize=config.resize,
        task=config.task,
    )
    dataset = seen(dataset)
    size, updates, batch_size = dataset.train.num_examples, None, config.batch_size
    if config.num_epochs is not None:
        batch_size = batch_size or min(64, size)
        updates = math.ceil(size * config.num_epochs / batch_size)
    names = "learning_rate", "weight_decay", "dropout", "flip", "shift"
    given = {name: getattr(config, name) for name in names}
    return autofit(
        dataset,
        minutes=config.minutes,
        seeds=config.seeds,
        workdir=config.workdir,
        model=choose_model(config, dataset),
        augment=choose_augment(config, dataset),
        hparams={k: v for k, v in given.items() if v is not None and v != ()},
        num_updates=updates,
        batch_size=batch_size,
        folds=config.folds,
        loss=choose_loss(config, dataset),
        experiment="own_data",
    )


if __name__ == "__main__":
    workshop.start(main, Config)
