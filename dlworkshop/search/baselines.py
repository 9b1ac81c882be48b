"""What any network has to be ahead of: the commonest class, and a linear model."""

import warnings
from typing import Any

import numpy as np

from dlworkshop.search.task import Task
from dlworkshop.types import Array, Batch, Dataset

MOST_NUMBERS = 20_000_000  # that a linear model is fitted to; more are sampled
MOST_CLASSES = 100  # that its solver is asked to tell apart
MOST_UPDATES = 1000


def baselines(dataset: Dataset, task: Task, factor: float) -> dict[str, dict[str, Any]]:
    """Name -> scores on the test split, learnt from train and validation together.

    Args:
        dataset: of the task.
        task: of the data set.
        factor: what errors of values are multiplied by.
    """
    learnt = [_rows(split) for split in (dataset.train, dataset.validation)]
    x, y = (np.concatenate(parts) for parts in zip(*learnt, strict=True))
    test = dataset.test
    if task.kind == "values":
        simple = np.broadcast_to(y.mean(0), test.targets.shape)
        found = {"mean of train": task.scores(simple[None], test, factor)}
    else:
        logits = _constant(y, task)
        same = np.broadcast_to(logits, (test.num_examples, len(logits)))
        name = "commonest class" if task.kind == "classes" else "commonest labels"
        found = {name: task.scores(same[None], test, factor)}
    if task.outputs > MOST_CLASSES:
        return found
    outputs = _linear(x, y, _rows(test)[0], task)
    name = "linear regression" if task.kind == "values" else "logistic regression"
    return found | {name: task.scores(outputs[None], test, factor)}


def _rows(split: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [n, D] float32 and targets of a split, or of a sample of it."""
    inputs, targets = split.inputs, np.asarray(split.targets)
    each = max(1, int(np.prod(inputs.shape[1:])))
    most = max(1, MOST_NUMBERS // each)
    index: Any = slice(None)
    if len(targets) > most:
        index = np.unique(np.linspace(0, len(targets) - 1, most).astype(int))
    rows = np.asarray(inputs[index], np.float32)
    return rows.reshape(len(rows), -1), targets[index]


def _constant(y: np.ndarray, task: Task) -> np.ndarray:
    """Logits [K] of what is so before anything was looked at."""
    if task.kind == "labels":
        share = np.clip(y.mean(0), 1e-3, 1 - 1e-3)
        return np.log(share / (1 - share))
    return np.log(np.maximum(np.bincount(y, minlength=task.outputs), 0.5) / len(y))


def _linear(x: np.ndarray, y: np.ndarray, unseen: Array, task: Task) -> np.ndarray:
    """Outputs [n, K] of scikit-learn's linear model of standardised columns."""
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415
    from sklearn.multioutput import MultiOutputClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged in so many steps
        if task.kind == "values":
            model = make_pipeline(StandardScaler(), Ridge())
            return np.asarray(model.fit(x, y).predict(unseen))
        logistic: Any = LogisticRegression(max_iter=MOST_UPDATES)
        if task.kind == "classes":
            model = make_pipeline(StandardScaler(), logistic).fit(x, y)
            chance = model.predict_log_proba(unseen)  # [n, classes that train has]
            outputs = np.full((len(unseen), task.outputs), -100.0)
            outputs[:, model.classes_] = chance
            return outputs
        varied = [k for k in range(y.shape[1]) if len(np.unique(y[:, k])) > 1]
        outputs = np.broadcast_to(_constant(y, task), (len(unseen), y.shape[1])).copy()
        if varied:
            model = make_pipeline(StandardScaler(), MultiOutputClassifier(logistic))
            model.fit(x, y[:, varied].astype(int))
            for k, chance in zip(varied, model.predict_proba(unseen), strict=True):
                odds = np.clip(chance[:, 1], 1e-6, 1 - 1e-6)
                outputs[:, k] = np.log(odds / (1 - odds))
        return outputs
