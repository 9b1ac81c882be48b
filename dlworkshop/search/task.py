"""The learning task of a data set, and its scores."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn import losses, metrics
from dlworkshop.train.predictions import fitted_target
from dlworkshop.train.scores import scores_of
from dlworkshop.types import Array, Batch, Dataset

IMBALANCED = 3  # times as many examples has the commonest class as the rarest
MANY = 1000  # examples in validation, of which an accuracy tells settings apart
SAMPLE = 20_000  # targets that are looked at


class Task(NamedTuple):
    """Classification, multi-label classification, or regression.

    Settings are judged by the accuracy where there are many examples to tell it by,
    by the balanced accuracy where classes are imbalanced, else by the loss.
    """

    kind: str  # "classes", "labels" or "values"
    loss: Callable
    outputs: int  # K, of the network
    judged_by: str  # a metric, or "loss": what settings are chosen by
    why: str = ""  # in words, where that is not the usual one

    @property
    def headline(self) -> str:
        """The score that is reported first."""
        if self.kind == "values":
            return "rmse"
        return "accuracy" if self.judged_by == "loss" else self.judged_by

    @property
    def sign(self) -> int:
        """The sign that makes lower better."""
        return 1 if self.judged_by == "loss" else -1

    def scores(self, outputs: Array, batch: Batch, factor: float) -> dict[str, float]:
        """Scores of the mean of the members' predictions.

        Args:
            outputs: [P, N, ...] of the members.
            batch: the N examples.
            factor: what errors of values are multiplied by, to be in their own units.
        """
        usual = {"classes": "logits", "labels": "binary_logits", "values": "values"}
        meaning = losses.outputs_of(self.loss) or usual[self.kind]
        measured = scores_of(meaning, factor)
        measured.add(outputs, np.asarray(batch.targets), batch.weights)
        return measured.ensemble()


def task_of(dataset: Dataset, loss: Callable | None = None) -> Task:
    """The task that the targets of a data set imply, with its usual loss or another.

    Raises:
        UserError: where that is not to be told, as from several arrays.

    >>> split = Batch(np.zeros((4, 2)), np.array([0, 1, 1, 1]))
    >>> task_of(Dataset(split, split, split, ("a", "b"))).judged_by
    'loss'
    """
    targets = dataset.train.targets
    if not hasattr(targets, "dtype"):
        raise UserError(
            f"the targets of '{dataset.name}' are no single array, and their loss is "
            "not to be guessed: use fit with a loss or an objective of your own"
        )
    few = np.asarray(targets[:SAMPLE])
    if dataset.classes and few.ndim == 1:
        counts = np.bincount(np.asarray(targets))
        ratio = counts.max() / counts[counts > 0].min()
        judged_by, why = "loss", ""
        if ratio > IMBALANCED:
            judged_by = "balanced_accuracy"
            why = (
                f"the commonest class has {ratio:.0f} times the examples of the "
                "rarest, so all classes count the same in the choice"
            )
            if loss is None:
                why += (
                    ", but not in training: see --class-weights (losses.class_weights)"
                )
        elif dataset.validation.num_examples >= MANY:
            judged_by = "accuracy"
        own = loss or losses.cross_entropy
        return Task("classes", own, len(dataset.classes), judged_by, why)
    outputs = max(1, int(np.prod(few.shape[1:])))
    several = few.ndim == 2 and few.shape[1] > 1
    if several and ((few == 0) | (few == 1)).all():
        return Task("labels", loss or losses.binary_cross_entropy, outputs, "loss")
    if few.ndim > 2:
        raise UserError(
            f"a target of '{dataset.name}' has the shape {list(few.shape[1:])}: use "
            "fit with a model and a loss of your own"
        )
    return Task("values", loss or losses.squared_error, outputs, "loss")


def own_units(dataset: Dataset) -> tuple[float, str]:
    """The factor that brings errors to the user's units, and the name of the unit.

    The name is "" if the targets were not standardised.
    """
    return metrics.own_units(fitted_target(dataset.preprocessing))
