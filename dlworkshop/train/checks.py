"""What is refused at the door of `fit`, each in one sentence."""

import contextlib
import errno
import functools
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import UserError, unknown
from dlworkshop.models.convolution import CONV_IMPLS
from dlworkshop.models.model import Model
from dlworkshop.types import Dataset


def check_numbers(num_epochs: int, batch_size: int, **optional: int | None) -> None:
    """Counts are whole numbers of at least one, or None where they are optional."""
    given = {name: value for name, value in optional.items() if value is not None}
    given |= {"num_epochs": num_epochs, "batch_size": batch_size}
    for name, value in given.items():
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise UserError(f"{name} is {value!r}: give a whole number of at least 1")


def check_convolution(how: str, convolutions: bool) -> str:
    """It is one of the ways that there are, and the model has what it is for.

    Args:
        how: as it was asked for.
        convolutions: whether the model has any, see `convolution.has_convolutions`.
    """
    if how not in CONV_IMPLS:
        raise unknown("convolution", how, CONV_IMPLS)
    if not convolutions:
        raise UserError(
            f"convolution is '{how}', but the model has no convolution of an image or "
            "a sequence: leave it out"
        )
    return how


def check_dataset(dataset: Dataset, batch_size: int) -> None:
    """Every split has examples of one shape, and labels that name a class."""
    for name in ("train", "validation", "test"):
        image, label = getattr(dataset, name)
        if len(image) != len(label) or len(label) == 0:
            raise UserError(
                f"the {name} split of '{dataset.name}' has {len(image)} images and "
                f"{len(label)} labels: it needs as many of both, and at least one"
            )
        if image.shape[1:] != dataset.train.inputs.shape[1:]:
            raise UserError(
                f"the {name} split of '{dataset.name}' has images {image.shape[1:]} "
                f"and the train split {dataset.train.inputs.shape[1:]}: make them equal"
            )
        if dataset.classes:
            low, high = int(np.min(label)), int(np.max(label))
            if low < 0 or high >= len(dataset.classes):
                raise UserError(
                    f"the {name} split of '{dataset.name}' has labels {low} ... {high} "
                    f"for {len(dataset.classes)} classes: labels must be in "
                    f"[0, {len(dataset.classes)})"
                )
    size = len(dataset.train.targets)
    if batch_size > size:
        raise UserError(
            f"batch_size is {batch_size}, but the train split of '{dataset.name}' has "
            f"{size} examples: choose a batch size of at most {size}"
        )


def check_outputs(model: Model, dataset: Dataset, loss: Callable) -> None:
    """The model takes one example and has an output for each class."""
    example = jnp.asarray(dataset.train.inputs[0])
    try:
        params = jax.eval_shape(model.init, jax.random.key(0), example)
        outputs = jax.eval_shape(model.apply, params, example)
        train = functools.partial(model.apply, key=jax.random.key(0))
        jax.eval_shape(train, params, example)
        jax.eval_shape(loss, outputs, jnp.asarray(dataset.train.targets[0]))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the model and its loss do not take an example {example.shape} of "
            f"'{dataset.name}': {str(error).splitlines()[0]}"
        ) from error
    classes = len(dataset.classes)
    if classes and outputs.shape != (classes,):
        raise UserError(
            f"the model has outputs {outputs.shape}, but '{dataset.name}' has "
            f"{classes} classes: build it with num_classes={classes}"
        )


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Say in one sentence that the disk is full or the folder cannot be written."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception(error))  # with its causes
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
            reason = "the disk is full"
        elif number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            reason = "it cannot be written"
        elif number == errno.EFBIG or "File too large" in text:
            reason = "a file became larger than this system allows"
        else:
            raise
        raise UserError(
            f"writing the run folder {folder} failed, {reason}: make room or choose "
            "another with --workdir; what was saved whole before is intact"
        ) from error
