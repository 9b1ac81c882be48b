"""Predictions by members for examples that they were not trained on."""

from typing import NamedTuple

import numpy as np

from dlworkshop.data.rows import evenly
from dlworkshop.train import folds
from dlworkshop.train.result import Run
from dlworkshop.train.scores import only_array
from dlworkshop.types import Array, Batch, Dataset

MOST = 10_000  # examples of a validation split that are used


class HeldOut(NamedTuple):
    """Examples, and ensemble predictions from members that did not train on them."""

    outputs: np.ndarray  # [S, N, ...]
    examples: Batch  # [N, ...]
    groups: Array | None = None  # [N] int, if examples are grouped


def held_out(run: Run, dataset: Dataset) -> HeldOut | None:
    """Predictions for validation, or with folds for every example.

    With folds, the members that held an example out predict it: one for each of S
    seeds. Otherwise S is the number of `chosen` members, and a large validation split
    is subsampled evenly.

    Returns:
        None if no seed has all its folds.
    """
    num_folds = run.summary.get("folds")
    if not num_folds:
        index = evenly(dataset.validation.num_examples, MOST)
        some = dataset.validation.rows(index)
        groups = None if dataset.groups is None else dataset.groups[1][index]
        return HeldOut(only_array(run.predict(some.inputs))[run.chosen], some, groups)
    pooled = folds.pooled(dataset)
    seeds = [row["seed"] for row in run.summary["population"]][::num_folds]
    pool, held = pooled.train, folds.held_out(pooled, num_folds, seeds)  # [P, N]
    outputs = only_array(run.predict(pool.inputs))  # [P, N, ...]
    said = []
    for first in range(0, len(held), num_folds):
        own = slice(first, first + num_folds)
        if run.chosen[own].all():
            of_row = held[own].argmax(0)  # [N]
            said.append(outputs[own][of_row, np.arange(len(of_row))])
    groups = None if pooled.groups is None else pooled.groups[0]
    return HeldOut(np.stack(said), pool, groups) if said else None
