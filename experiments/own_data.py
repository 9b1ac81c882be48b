"""How well does a network classify your own images or table?

Give a folder with a folder of images for each class (or that below train, validation
and test), a CSV with a header, an .npz with x and y, or IDX files. It is prepared once;
splits that are missing are cut off train; the report begins with a card of the data.

    python experiments/own_data.py --data ~/photos
    python experiments/own_data.py --data penguins.csv --target species
    python experiments/own_data.py --data houses.csv --target price
    python experiments/own_data.py --data ~/photos --features vgg16 --weights vgg16.h5

Networks, learning rates, weight decays and, of images, shifts and flips are found by
validation; what a flag says is obeyed and not searched for. The network for images is
as large as there is time for (docs/own_data.md). The setting that is chosen is trained
with fresh seeds, and its ensemble and members are told beside the commonest class and a
linear model. Below a thousand examples this goes by cross-validation, and the report
says what to expect of new data.

A target of real numbers, or of many whole ones, is predicted as a number (--task says
otherwise), and its errors are in its own units (of several such targets, in standard
deviations of train); several targets of 0 and 1 are labels that an example may have at
once.

Expect 98 to 100 % on the penguins, in a minute or two on 2 cores; --minutes gives it
more time or less. Nothing is chosen on the test split.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlworkshop import autofit, data, losses, models, workshop
from dlworkshop.errors import UserError
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
    """Of a table, the column to predict, or several."""
    task: Literal["classification", "regression"] | None = None
    """Of a table, what its target is; by default as its cells say."""
    group_by: str | None = None
    """Examples to keep in one split: a regular expression for paths, or a column."""
    image_size: int | None = None
    """Pixels of a side; by default what most files have, or 64."""
    resize: Literal["crop", "pad"] = "crop"
    """Fill the frame and cut the rest off, or show all with black around it."""
    features: Literal["pixels", "vgg16"] = "pixels"
    """What is learnt from: the images, or what VGG16 sees in them, with --weights."""
    weights: str | None = None
    """Of VGG16: a .h5 of Keras, .safetensors of torchvision, or imagenet (fetched)."""
    minutes: float = 3.0
    """What all of it may take, about."""
    class_weights: bool = False
    """Weigh the loss so that all classes count the same."""
    model: Literal["auto", "logistic", "mlp", "cnn", "resnet"] = "auto"
    """By default what suits the data, by validation."""
    flip: bool | None = None
    """Flip half of the training images horizontally, or none; by validation."""
    shift: float | None = None
    """Shift images by up to this share of a side; by validation 0 or 0.1."""
    rotate: float = 0.0
    """Rotate by up to this many degrees."""
    brightness: float = 0.0
    """Change brightness by up to this share."""
    cut_out: float = 0.0
    """Hide a square of this share of a side."""
    seeds: int | None = None  # type: ignore[assignment]
    """How many models to train in the end; 4 by default, or what the time allows."""
    folds: int | None = None
    """Parts of a cross-validation; by default 8 below a thousand examples, else 0."""
    num_epochs: int | None = None  # type: ignore[assignment]
    """Passes over the training split; by default what the time allows."""
    batch_size: int | None = None  # type: ignore[assignment]
    """Examples per step and model; by default 32 to 256."""
    learning_rate: tuple[float, ...] = ()
    """Peak of the schedule; by validation, among these where there are several."""
    weight_decay: tuple[float, ...] = ()
    """Of AdamW; by validation, among these where there are several."""
    dropout: tuple[float, ...] = ()
    """Probability of dropping a fully connected unit in training; by validation."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of each stage of a cnn or resnet that is asked for."""
    dense: tuple[int, ...] = (128,)
    """Units of each hidden layer of an mlp or cnn that is asked for."""


def choose_loss(config: Config, dataset: Dataset) -> Callable | None:
    """Where classes are to weigh the same, one that says so."""
    if not config.class_weights:
        return None
    if not dataset.classes:
        raise UserError("class_weights is for classes, and the target has none")
    weights = losses.class_weights(dataset.train.targets, len(dataset.classes))
    return losses.weighted(losses.cross_entropy, weights)


def choose_model(config: Config, dataset: Dataset) -> models.Model | None:
    """The requested model on standardised inputs; None where it is to be found."""
    shape, task = dataset.train.inputs.shape[1:], task_of(dataset)
    kind, outputs = config.model, task.outputs
    if kind == "auto":
        return None
    if kind in ("cnn", "resnet") and len(shape) != 3:
        raise UserError(
            f"a {kind} wants images, and an example is {list(shape)}: use mlp"
        )
    if kind == "logistic":
        model = models.logistic(outputs)
    elif kind == "mlp":
        model = models.mlp(config.dense, num_classes=outputs)
    elif kind == "resnet":
        model = models.resnet(config.channels, num_classes=outputs)
    else:
        model = models.cnn(
            config.channels, config.dense, pooling=models.max_pool, num_classes=outputs
        )
    return prepared(model, dataset, task)


def choose_augment(config: Config, dataset: Dataset) -> models.Augment | None:
    """What is done to training images beside flips and shifts."""
    asked: dict[str, Any] = {
        name: value for name in AUGMENTED_BY if (value := getattr(config, name))
    }
    if "cut_out" in asked:
        side = min(dataset.train.inputs.shape[1:3])
        asked["cut_out"] = round(asked["cut_out"] * side)
    return models.Augment(**asked) if asked else None


def choose_features(config: Config) -> Callable[[Dataset], Dataset]:
    """Images -> what is learnt from; refused before the images are read."""
    if config.features == "pixels":
        if config.weights is not None:
            raise UserError("weights are those of VGG16: add --features vgg16")
        return lambda dataset: dataset
    if config.weights is None:
        raise UserError(
            "features of VGG16 need what it learnt elsewhere: give --weights PATH, a "
            ".h5 of Keras or a .safetensors of torchvision, or --weights imagenet"
        )
    models.vgg16(weights=config.weights)
    return functools.partial(vgg16_features, weights=config.weights)


def main(config: Config) -> Run:
    """Prepare once, search, train what was chosen, read the test split once."""
    if config.data is None:
        raise UserError("there are no data: give a folder or a table with --data PATH")
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
    size, updates = dataset.train.num_examples, None
    if config.num_epochs is not None:
        updates = math.ceil(size * config.num_epochs / (config.batch_size or 64))
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
        batch_size=config.batch_size or (64 if config.num_epochs else None),
        folds=config.folds,
        loss=choose_loss(config, dataset),
        experiment="own_data",
    )


if __name__ == "__main__":
    workshop.start(main, Config)
