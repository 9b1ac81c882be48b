"""How well does a network classify your own images or table?

Give a folder with a folder of images for each class (or that below train, validation
and test), a CSV with a header, an .npz with x and y, or IDX files. It is prepared once;
splits that are missing are cut off train; the report begins with a card of the data.

    python experiments/own_data.py --data ~/photos
    python experiments/own_data.py --data penguins.csv --target species
    python experiments/own_data.py --data houses.csv --target price

A target of real numbers, or of many whole ones, is predicted as a number (--task says
otherwise), and its errors are in its own units (of several such targets, in standard
deviations of train); several targets of 0 and 1 are labels that an example may have at
once.

Expect 97 % on the penguins after a second of training on 2 cores; fifty thousand small
photographs take one to two minutes for each epoch of four models. Nothing is chosen
on the test split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import optax

from dlworkshop import data, fit, losses, models, schedules, workshop
from dlworkshop.errors import UserError
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset


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
    class_weights: bool = False
    """Weigh the loss so that all classes count the same."""
    model: Literal["auto", "logistic", "mlp", "cnn"] = "auto"
    """By default cnn for images and mlp for everything else."""
    augment: bool = True
    """Augment the training images by the four flags below (cnn only)."""
    flip: bool = True
    """Flip half of the training images horizontally."""
    shift: float = 0.1
    """Shift by up to this share of a side."""
    rotate: float = 0.0
    """Rotate by up to this many degrees."""
    brightness: float = 0.0
    """Change brightness by up to this share."""
    cut_out: float = 0.0
    """Hide a square of this share of a side."""
    seeds: int = 4
    """How many models to train together, with seeds 0, 1, ..."""
    num_epochs: int = 20
    """Passes over the training split."""
    batch_size: int = 64
    """Examples per step and model; at most all that there are to learn from."""
    learning_rate: tuple[float, ...] = (0.003,)
    """Peak of the one-cycle schedule; several values make a sweep."""
    dropout: float = 0.3
    """Probability of dropping a fully connected unit in training."""
    features: tuple[int, ...] = (32, 64, 128)
    """Channels of each convolution of a cnn."""
    dense: tuple[int, ...] = (128,)
    """Units of each hidden fully connected layer."""
    streamed: bool | None = None
    """Read the examples from disk in each epoch; by default where they are too many."""


def choose_loss(dataset: Dataset) -> Callable:
    """By what the targets are; it decides what is measured as well."""
    if dataset.classes:
        return losses.cross_entropy
    target = (dataset.preprocessing or {}).get("target", {})
    if target.get("task") == "classification":
        return losses.binary_cross_entropy
    return losses.squared_error


def choose_model(config: Config, dataset: Dataset) -> models.Model:
    """The requested model, or one that suits the examples and targets."""
    shape, targets = dataset.train.inputs.shape[1:], dataset.train.targets
    num_classes = len(dataset.classes) or int(np.prod(targets.shape[1:]))  # or outputs
    kind = config.model
    if kind == "auto":
        kind = "cnn" if len(shape) == 3 else "mlp"
    if kind == "cnn" and len(shape) != 3:
        raise UserError(f"a cnn wants images, and an example is {list(shape)}: use mlp")
    if kind == "logistic":
        return models.logistic(num_classes)
    if kind == "mlp":
        return models.mlp(config.dense, dropout=config.dropout, num_classes=num_classes)
    model = models.cnn(
        config.features,
        config.dense,
        pooling=models.max_pool,
        dropout=config.dropout,
        num_classes=num_classes,
    )
    if not config.augment:
        return model
    side = min(shape[:2])
    augment = models.Augment(
        flip=config.flip,
        shift=round(config.shift * side),
        rotate=config.rotate,
        brightness=config.brightness,
        cut_out=round(config.cut_out * side),
    )
    return models.augmented(model, augment)


def main(config: Config) -> Run:
    """Prepare once, train, choose nothing, read the test split once."""
    if config.data is None:
        raise UserError("there are no data: give a folder or a table with --data PATH")
    dataset = data.load(
        config.data,
        config.data_dir,
        target=config.target[0] if len(config.target) == 1 else config.target or None,
        group_by=config.group_by,
        image_size=config.image_size,
        resize=config.resize,
        task=config.task,
    )
    loss = choose_loss(dataset)
    if config.class_weights:
        if not dataset.classes:
            raise UserError("class_weights is for classes, and the target has none")
        weights = losses.class_weights(dataset.train.targets, len(dataset.classes))
        loss = losses.weighted(loss, weights)
    return fit(
        choose_model(config, dataset),
        dataset,
        optax.adam,
        hparams={"learning_rate": config.learning_rate},
        seeds=config.seeds,
        num_epochs=config.num_epochs,
        batch_size=min(config.batch_size, dataset.train.num_examples),
        schedule=schedules.one_cycle,
        loss=loss,
        streamed=config.streamed,
        workdir=config.workdir,
        experiment="own_data",
    )


if __name__ == "__main__":
    workshop.start(main, Config)
