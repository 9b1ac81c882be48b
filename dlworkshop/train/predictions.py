"""Predictions of each member on the test split, in `predictions.npz`.

What is recorded depends on the meaning of the outputs (`losses.OUTPUTS`): the predicted
class and its confidence, the probabilities of labels, or values. If the meaning is not
known, nothing is recorded.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from dlworkshop.data.units import in_own_units
from dlworkshop.files import atomic_file
from dlworkshop.learn.step import Evaluated
from dlworkshop.train.groups import Group, scatter_rows
from dlworkshop.types import Array, Dataset

WORST = 24  # mistakes shown in the report
OF_CONFUSION = 4  # mistakes kept per pair of true and predicted class
MOST_MISTAKES, MOST_BYTES = 240, 1 << 22  # of all pairs together
MOST_NUMBERS = 1 << 24  # kept of all members: 64 MB

# Kind of outputs -> a function from outputs to probabilities [..., K], on the host.
LINKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logits": lambda outputs: scipy.special.softmax(outputs, -1),
    # a lambda, because scipy.special is loaded at the first use
    "binary_logits": lambda outputs: scipy.special.expit(outputs),  # noqa: PLW0108
    "probabilities": lambda outputs: outputs,
}


def predictions_of(
    dataset: Dataset, outputs: str | None, counted: np.ndarray
) -> "PredictionRecorder | None":
    """The recorder for these outputs; None if their meaning is not known.

    Args:
        dataset: its test split is read.
        outputs: their meaning, a key of `losses.OUTPUTS`; None if not known.
        counted: [P] bool, the members of the ensemble.
    """
    if outputs in ("logits", "probabilities"):
        label = labels(dataset.test.targets)
        if not dataset.classes or label is None:
            return None
        return ClassPredictions(dataset, label, outputs, counted)
    if outputs in ("binary_logits", "values") and is_array(dataset.test.targets):
        return NumberPredictions(dataset, outputs, counted)
    return None


def is_array(tree: Any) -> bool:
    """Whether a pytree is one array."""
    return hasattr(tree, "shape") and hasattr(tree, "dtype")


def labels(targets: Any) -> np.ndarray | None:
    """The class [N] int32 of each target; None if targets are not classes.

    For soft targets [N, K], it is the most probable class.

    >>> labels(np.array([[0.1, 0.9], [0.5, 0.5]])).tolist(), labels(np.zeros(3))
    ([1, 0], None)
    """
    if not is_array(targets):
        return None
    whole = np.issubdtype(targets.dtype, np.integer)
    if targets.ndim == 1 and whole:
        return np.asarray(targets, np.int32)
    if targets.ndim == 2 and not whole:
        return np.asarray(targets).argmax(-1).astype(np.int32)
    return None


def fitted_target(preprocessing: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The columns and units of the target; None if unknown.

    Args:
        preprocessing: of a `Dataset`, or from a run's `preprocessing.json`.
    """
    found = (preprocessing or {}).get("target")
    return found if isinstance(found, dict) and "columns" in found else None


class ClassPredictions:
    """Records predicted classes, their confidence, and those of the ensemble.

    The ensemble is the mean of the probabilities of the members in `counted` [P].
    """

    def __init__(
        self, dataset: Dataset, label: np.ndarray, outputs: str, counted: np.ndarray
    ):
        shape = len(counted), len(label)
        self._dataset, self._link = dataset, LINKS[outputs]
        self._counted = counted if counted.any() else np.ones_like(counted)
        self._label = label
        self._prediction = np.zeros(shape, np.int32)
        self._loss, self._confidence, self._likelihood = (
            np.zeros(shape, np.float32) for _ in range(3)
        )
        self._together: np.ndarray | None = None  # [N, K]

    def __call__(self, group: Group, first: int, found: Evaluated) -> None:
        """Record the predictions of a group for the examples from `first` on."""
        place = slice(first, first + found.scores["loss"].shape[1])
        outputs = np.asarray(found.outputs, np.float64)  # [G, n, K]
        with np.errstate(invalid="ignore"):  # outputs of a quarantined member
            chance = self._link(outputs)
        label = np.broadcast_to(self._label[place], chance.shape[:-1])
        of_label = np.take_along_axis(chance, label[..., None], -1)[..., 0]
        for whole, rows in (
            (self._prediction, outputs.argmax(-1)),
            (self._loss, found.scores["loss"]),
            (self._confidence, chance.max(-1)),
            (self._likelihood, of_label),
        ):
            scatter_rows(whole[:, place], group, rows)
        if self._together is None:
            self._together = np.zeros((self._label.size, outputs.shape[-1]))
        add_counted(self._together[place], group, chance, self._counted)

    def write(self, path: Path) -> None:
        """Write `predictions.npz`, including the worst examples."""
        assert self._together is not None
        members = np.flatnonzero(self._counted)
        wrong = (self._prediction[members] != self._label).any(0)  # [N]
        loss = np.nan_to_num(self._loss[members].astype(np.float64)).mean(0)
        badness = np.where(wrong, loss, -np.inf)
        worst = np.argsort(-badness, kind="stable")[: min(WORST, int(wrong.sum()))]
        likelihood = np.take_along_axis(self._together, self._label[:, None], 1)[:, 0]
        shown: dict[str, Any] = self._pictures(
            of_confusions(self._label, self._prediction[members], loss)
        )
        with atomic_file(path) as file:
            np.savez_compressed(
                file,
                label=self._label,
                prediction=self._prediction,
                loss=self._loss,
                confidence=self._confidence,
                likelihood=self._likelihood,
                ensemble_prediction=self._together.argmax(-1).astype(np.int32),
                ensemble_confidence=self._together.max(-1).astype(np.float32),
                ensemble_likelihood=likelihood.astype(np.float32),
                worst_index=worst.astype(np.int32),
                worst_image=self._examples(worst),
                classes=np.asarray(self._dataset.classes, dtype=np.str_),
                **shown,
            )

    def _pictures(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The first of these examples, up to a limit, if they are pictures."""
        inputs = self._dataset.test.inputs
        if not is_array(inputs) or len(inputs.shape) != 4 or inputs.dtype != np.uint8:
            return {}
        most = min(MOST_MISTAKES, MOST_BYTES // max(1, int(np.prod(inputs.shape[1:]))))
        kept = index[:most].astype(np.int32)
        return {"mistake_index": kept, "mistake_image": self._examples(kept)}

    def _examples(self, index: np.ndarray) -> np.ndarray:
        inputs = self._dataset.test.inputs
        if not is_array(inputs):  # several arrays cannot be shown
            return np.zeros((len(index), 0), np.float32)
        in_order = np.argsort(np.argsort(index))  # arrays on disk need a sorted index
        return np.asarray(inputs[np.sort(index)])[in_order]


def of_confusions(label: np.ndarray, said: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Indices of mistakes, some of each pair of true and predicted class.

    Args:
        label: [N] int.
        said: [P, N] int, the predictions of the members.
        loss: [N], their mean; the largest come first.

    >>> label, said = np.array([0, 0, 0, 1]), np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
    >>> of_confusions(label, said, np.array([2.0, 1.0, 0.5, 3.0])).tolist()
    [3, 0, 1]
    """
    member, example = np.nonzero(said != label)
    found: dict[tuple[int, int], Counter] = {}
    for n, answer in zip(example.tolist(), said[member, example].tolist(), strict=True):
        found.setdefault((int(label[n]), answer), Counter())[n] += 1
    some = {
        n
        for votes in found.values()
        for n in sorted(votes, key=lambda n: (-votes[n], -loss[n]))[:OF_CONFUSION]
    }
    return np.array(sorted(some, key=lambda n: (-loss[n], n)), int)


class NumberPredictions:
    """Records predicted values, or probabilities of labels.

    Values are in the units of the targets; if targets were standardised, in their
    original units. The ensemble is the mean over the members in `counted` [P]. Of a
    split with very many numbers, only the first examples are recorded.
    """

    def __init__(self, dataset: Dataset, outputs: str, counted: np.ndarray):
        targets = dataset.test.targets
        each = max(1, int(np.prod(targets.shape[1:]))) * len(counted)
        kept = min(len(targets), max(1, MOST_NUMBERS // each))
        self._target = as_learnt(np.asarray(targets[:kept]))  # [N, ...]
        self._outputs = outputs
        self._fitted = fitted_target(dataset.preprocessing)
        self._counted = counted if counted.any() else np.ones_like(counted)
        self._said = np.zeros((len(counted), *self._target.shape), np.float32)
        self._together = np.zeros(self._target.shape)
        self._alike = True  # whether there is one output for each target

    def __call__(self, group: Group, first: int, found: Evaluated) -> None:
        """Record the predictions of a group for the examples from `first` on."""
        place = slice(first, first + found.scores["loss"].shape[1])
        target = self._target[place]
        if not len(target):
            return
        self._alike = self._alike and is_array(found.outputs)
        if not self._alike:
            return
        outputs = np.asarray(found.outputs, np.float64)[:, : len(target)]
        shape = len(outputs), *target.shape
        self._alike = outputs.size == int(np.prod(shape))
        if not self._alike:  # possible with a custom objective
            return
        said = outputs.reshape(shape)  # [G, n, ...]
        if self._outputs == "binary_logits":
            said = LINKS["binary_logits"](said)
        scatter_rows(self._said[:, place], group, said)
        add_counted(self._together[place], group, said, self._counted)

    def write(self, path: Path) -> None:
        """Write `predictions.npz`, unless outputs and targets differ in shape."""
        if not self._alike:
            return
        columns = (self._fitted or {}).get("columns", ())
        arrays: dict[str, np.ndarray] = {
            "target": self._target,
            "ensemble": self._together.astype(np.float32),
            "names": np.asarray([column["name"] for column in columns], np.str_),
        }
        if self._outputs == "binary_logits":
            arrays["probability"] = self._said
        elif self._fitted is None:
            arrays["prediction"] = self._said
        else:  # in float64: original values have more digits than standardised ones
            target, ensemble, said = (
                in_own_units(each.astype(np.float64), self._fitted)
                for each in (self._target, self._together, self._said)
            )
            arrays |= {"target": target, "ensemble": ensemble, "prediction": said}
        with atomic_file(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)


PredictionRecorder = ClassPredictions | NumberPredictions


def add_counted(
    together: np.ndarray, group: Group, said: np.ndarray, counted: np.ndarray
) -> None:
    """Add a group's contribution to the mean [n, ...] over the counted members.

    >>> together = np.zeros(1)
    >>> add_counted(together, [0, 1], np.array([[1.0], [3.0]]), np.array([True, True]))
    >>> together.tolist()
    [2.0]
    """
    for member, own in zip(group, said, strict=True):
        if member < len(counted) and counted[member]:
            together += own / counted.sum()


def as_learnt(targets: Array) -> np.ndarray:
    """Targets as a loss gets them: uint8 becomes a float in [0, 1].

    >>> as_learnt(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    if targets.dtype == np.uint8:
        return targets / np.float32(255)
    return targets.astype(np.float32)
