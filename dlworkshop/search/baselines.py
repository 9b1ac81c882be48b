"""Baselines: the commonest class, and a linear model."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dlworkshop.data.pixels import coarse
from dlworkshop.data.rows import evenly
from dlworkshop.search.task import Task
from dlworkshop.types import Array, Batch, Dataset

MOST_NUMBERS = 10_000_000  # that a linear model is fitted to; more are sampled
MOST_CLASSES = 100  # that its solver is asked to tell apart
MOST_UPDATES = 100
PIECE = 256  # examples that are read or answered at a time
SIDE = 28  # pixels, at most, of the images that a linear model is given


def baselines(dataset: Dataset, task: Task, factor: float) -> dict[str, dict[str, Any]]:
    """Name -> scores on the test split, fitted on train and validation together.

    Inputs of several arrays have no linear model here, and images have one of means of
    square blocks, so that no side has more than `SIDE`. Errors of values are multiplied
    by `factor`.
    """
    both, test = (dataset.train, dataset.validation), dataset.test
    y = np.concatenate([np.asarray(split.targets) for split in both])
    if task.kind == "values":
        simple = np.broadcast_to(y.mean(0), test.targets.shape)
        found = {"mean of train": task.scores(simple[None], test, factor)}
    else:
        logits = _constant(y, task)
        same = np.broadcast_to(logits, (test.num_examples, len(logits)))
        name = "commonest class" if task.kind == "classes" else "commonest labels"
        found = {name: task.scores(same[None], test, factor)}
    if task.outputs > MOST_CLASSES or not hasattr(test.inputs, "shape"):
        return found
    some = [_some(split) for split in both]
    x, targets = (np.concatenate(each) for each in zip(*some, strict=True))
    answer = _linear(x, targets, task)
    pieces = range(0, test.num_examples, PIECE)
    said = [answer(_flat(test.inputs[first : first + PIECE])) for first in pieces]
    name = "linear regression" if task.kind == "values" else "logistic regression"
    if len(x) < len(y):
        name += f" (of {len(x):,} examples)"
    return found | {name: task.scores(np.concatenate(said)[None], test, factor)}


def _some(split: Batch) -> tuple[np.ndarray, np.ndarray]:
    """As many examples of a split as a solver is given: [n, D] and targets."""
    each = _flat(split.inputs[:1]).size
    index = evenly(split.num_examples, max(1, MOST_NUMBERS // max(1, each)))
    pieces = [index[first : first + PIECE] for first in range(0, len(index), PIECE)]
    x = np.concatenate([_flat(split.inputs[piece]) for piece in pieces])
    return x, np.asarray(split.targets)[index]


def _flat(inputs: Array) -> np.ndarray:
    """Flattened inputs [n, D] float32."""
    inputs = np.asarray(inputs)
    inputs = coarse(inputs, SIDE) if inputs.ndim == len("NHWC") else inputs
    return inputs.astype(np.float32).reshape(len(inputs), -1)


def _constant(y: np.ndarray, task: Task) -> np.ndarray:
    """Logits [K] of the class frequencies."""
    if task.kind == "labels":
        share = np.clip(y.mean(0), 1e-3, 1 - 1e-3)
        return np.log(share / (1 - share))
    return np.log(np.maximum(np.bincount(y, minlength=task.outputs), 0.5) / len(y))


def _linear(
    x: np.ndarray, y: np.ndarray, task: Task
) -> Callable[[np.ndarray], np.ndarray]:
    """Outputs [n, K] of scikit-learn's linear model on standardised columns."""
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415
    from sklearn.multioutput import MultiOutputClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    logistic: Any = LogisticRegression(max_iter=MOST_UPDATES)
    learner: Any = {
        "values": Ridge,
        "classes": lambda: logistic,
        "labels": lambda: MultiOutputClassifier(logistic),
    }[task.kind]()
    constant, varied = np.zeros(task.outputs), list(range(task.outputs))
    if task.kind == "labels":  # what is always so has nothing to be learnt
        constant = _constant(y, task)
        varied = [k for k in range(y.shape[1]) if len(np.unique(y[:, k])) > 1]
        y = y[:, varied].astype(int)
        if not varied:
            return lambda rows: np.tile(constant, (len(rows), 1))
    model = make_pipeline(StandardScaler(), learner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged in so many steps
        model.fit(x, y)

    def answer(rows: np.ndarray) -> np.ndarray:
        if task.kind == "values":
            return np.asarray(model.predict(rows))
        if task.kind == "classes":
            outputs = np.full((len(rows), task.outputs), -100.0)  # where train has none
            outputs[:, model.classes_] = model.predict_log_proba(rows)
            return outputs
        chances = np.stack([each[:, 1] for each in model.predict_proba(rows)], -1)
        odds = np.clip(chances, 1e-6, 1 - 1e-6)
        outputs = np.tile(constant, (len(rows), 1))
        outputs[:, varied] = np.log(odds / (1 - odds))
        return outputs

    return answer
