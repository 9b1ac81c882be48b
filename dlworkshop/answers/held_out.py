"""Predictions for validation examples by members that were not trained on them."""

from typing import NamedTuple

import numpy as np

from dlworkshop.data.rows import evenly
from dlworkshop.train import folds
from dlworkshop.train.result import Run
from dlworkshop.train.scores import only_array
from dlworkshop.types import Array, Batch, Dataset

MOST = 10_000  # examples of a validation split that are looked at


class HeldOut(NamedTuple):
    """Examples, and ensemble predictions from members that did not train on them."""

    outputs: np.ndarray  # [S, N, ...]
    examples: Batch  # [N, ...]
    groups: Array | None = None  # [N] int, where some belong together


def held_out(run: Run, dataset: Dataset) -> HeldOut | None:
    """Validation, or with folds every example by the members that held it out.

    There an example is answered by one member of each seed, S of them; else by all that
    are `chosen`. Of a large split some are taken, evenly spread.

    Returns:
        None where no seed has all its folds.
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
