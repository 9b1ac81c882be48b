"""Checks and counts of non-finite inputs and losses."""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.data.content import SPLITS
from dlworkshop.data.leaves import is_float, not_finite
from dlworkshop.data.rows import is_lazy
from dlworkshop.errors import UserError
from dlworkshop.learn.step import Evaluated, TrainSpec, make_eval_step
from dlworkshop.models.model import as_float, stateful
from dlworkshop.report.words import count
from dlworkshop.train.compiling import compiler_options
from dlworkshop.train.groups import Group
from dlworkshop.types import Array, Batch, Dataset

log = logging.getLogger(__name__)


def check_inputs(
    spec: TrainSpec, dataset: Dataset, hparams: Mapping[str, np.ndarray]
) -> None:
    """Refuse NaN and infinite inputs for which the loss is not finite.

    A model may mask such inputs, so the first such example of each split is tried.
    Inputs on disk are not read. Train is not checked if there is a batch transform,
    which may replace such inputs.

    Args:
        spec: of the step.
        dataset: all its splits are checked.
        hparams: name -> [P].

    Raises:
        UserError: names the split, the array and the examples.
    """
    for split, one, sentence in _found(dataset):
        may_fill = split == "train" and spec.batch_transform is not None
        if not may_fill and not _is_masked(spec, one, hparams):
            raise UserError(sentence)


def refuse(dataset: Dataset) -> None:
    """Refuse NaN and infinite inputs, even if a model would mask them."""
    for *_, sentence in _found(dataset):
        raise UserError(sentence)


def _found(dataset: Dataset) -> Iterator[tuple[str, Batch, str]]:
    """Split, its first example with such an input, and the message."""
    for name in SPLITS:
        split: Batch = getattr(dataset, name)
        for path, leaf in jax.tree.leaves_with_path(split.inputs):
            if is_lazy(leaf) or not is_float(leaf):
                continue
            rows = not_finite(leaf)
            if len(rows):
                yield (
                    name,
                    split.rows(rows[:1]),
                    f"the {name} split of '{dataset.name}' has NaN or infinity in "
                    f"inputs{jax.tree_util.keystr(path)} of {len(rows):,} of "
                    f"{split.num_examples:,} examples (the first is number {rows[0]}), "
                    "so their loss is not finite: leave them out, impute values, as "
                    "sklearn.impute.SimpleImputer does, or let the model mask them",
                )


def _is_masked(spec: TrainSpec, one: Batch, hparams: Mapping[str, np.ndarray]) -> bool:
    """Whether the loss of an example is finite for some parameters."""
    numbers = {name: jnp.asarray(values[0], float) for name, values in hparams.items()}

    @functools.partial(
        jax.jit, compiler_options=compiler_options(jax.default_backend())
    )
    def loss(batch: Batch) -> Array:
        example = as_float(jax.tree.map(lambda leaf: leaf[0], batch.inputs))
        drawn = stateful(spec.model).init(jax.random.key(0), example)
        return make_eval_step(spec)(*drawn, batch, numbers).scores["loss"]

    return bool(np.isfinite(loss(one)).all())


class NotFinite:
    """Watcher that counts the examples whose loss is not finite.

    Args:
        dataset: of the run.
        split: its name.
        counted: [P] bool, the members that are scored.
        held_out: [P, N] bool, the examples that count for each member; None for all.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        counted: np.ndarray,
        held_out: np.ndarray | None = None,
    ):
        batch: Batch = getattr(dataset, split)
        self._split, self._found = split, np.zeros(batch.num_examples, bool)
        self._members = np.zeros(len(counted), bool)  # who has some
        self._counted = np.broadcast_to(
            counted[:, None], (len(counted), self._found.size)
        )
        for share in (held_out, batch.weights):
            if share is not None:
                self._counted = self._counted & (np.asarray(share) > 0)

    def __call__(self, group: Group, first: int, found: Evaluated) -> None:
        """Count in losses [G, n] of the examples from `first` on."""
        every = ~np.isfinite(found.scores["loss"])
        place = slice(first, first + every.shape[1])
        for member, bad in zip(group, every, strict=True):
            if bad.any() and member < len(self._members):  # else an empty place
                counts = bad & self._counted[member, place]
                self._found[place] |= counts
                self._members[member] |= counts.any()

    def report(self, rows: Sequence[dict[str, Any]], level: int) -> None:
        """Log the counts, and note them in the rows [P] of the summary."""
        numbers = np.flatnonzero(self._found)
        if not len(numbers):
            return
        why = (
            f"{self._split} has {count(len(numbers), 'example')} of "
            f"{self._found.size:,} whose loss is not finite (the first is number "
            f"{numbers[0]}), so some scores are not known"
        )
        log.log(level, "%s", why)
        for row, has_some in zip(rows, self._members, strict=True):
            if has_some:
                row["note"] = "; ".join(filter(None, [row.get("note"), why]))
