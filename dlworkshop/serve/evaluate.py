"""How good a finished run is: on its own test split again, or on other data."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlworkshop import data
from dlworkshop.data import readers
from dlworkshop.data.load import reload
from dlworkshop.data.readers.inference_sources import Source, labelled
from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import mean_and_error, own_units
from dlworkshop.report import terminal
from dlworkshop.report.words import count, humanize, quantity, with_error
from dlworkshop.serve.predict import Skipped, preprocessing_of, read, target_of
from dlworkshop.serve.scores import only_array, scores_of
from dlworkshop.train.result import PREDICT_BATCH, Run
from dlworkshop.types import Array, Batch, PyTree

log = logging.getLogger(__name__)

# Examples [B, ...], targets [B, ...] and weights [B], part by part.
Parts = Iterator[tuple[PyTree, Array, Array | None]]


class Evaluation(NamedTuple):
    """Scores of the members that were not quarantined, and of their ensemble."""

    of: str  # the data, in words
    examples: int
    members: int
    scores: dict[str, dict[str, Any]]  # accuracy, ... -> mean, sem and n
    ensemble: dict[str, float]  # accuracy, ... of the mean probability or value
    unread: list[Skipped]
    units: dict[str, str]  # in words, of the scores that have one


def evaluate(
    run: Run,
    path: str | Path | Batch | None = None,
    target: str | None = None,
    data_dir: str | Path | None = None,
) -> Evaluation:
    """The scores that go with what the outputs of a run mean.

    Of classes accuracy, balanced accuracy (fractions) and cross-entropy (nats); of
    several labels the accuracy of labels, the mean of their F1 (fractions) and binary
    cross-entropy (nats); of values MAE, RMSE (in units of the target, where it is one
    column of a table) and R2.

    Other data become examples as the training data did, with the statistics of those.
    They are scored whole, or their test split where they have one. What the run itself
    learnt from is recognised by its content, and its test split is scored.

    Args:
        run: from `fit`, or `load`; with a folder, except where examples are given.
        path: labelled data, whatever `data.load` takes; or examples with targets as
            the run learnt them, as `dataset.test`. None: the run's own test split.
        target: of a table, the column to be told; by default that of the run.
        data_dir: where prepared data are kept, as for `data.load`.

    Raises:
        UserError: if the data are not there, or have classes that the run has not, or
            it is not known what the outputs mean.
    """
    scores_of(run.summary["outputs"])  # refused before anything is read
    unread: list[Skipped] = []
    if isinstance(path, Batch):
        return _scored(run, _split(path), "the examples given", unread)
    said = run.read_artifact("config.json")["dataset"]
    words = f"the test split of {said['name']}"
    if path is None:
        test = reload(said["name"], said["fingerprint"], data_dir).test
        return _scored(run, _split(test), words, unread)
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path} is not there: give the path of labelled data")
    about, card = preprocessing_of(run), run.read_artifact("data_card.json")
    target = target or card.get("target")
    group_by = (card.get("groups") or {}).get("by")
    preprocessing = about["preprocessing"]
    if (
        readers.fingerprint(path, preprocessing, target, group_by)
        == said["fingerprint"]
    ):
        same = readers.asked(path, preprocessing, target, group_by)
        return _scored(
            run, _split(data.load(path, data_dir, **same).test), words, unread
        )
    if not about["classes"] and target_of(run) is None:
        raise UserError(
            f"the run in {run.workdir} learnt numbers that no file here holds: give "
            "evaluate(run, Batch(inputs, targets)) in Python"
        )
    found = labelled(path, preprocessing, about["classes"], target)
    return _scored(run, _others(found, preprocessing, unread), str(path), unread)


def show(found: Evaluation) -> int:
    """Print a small table; 1 if something could not be read."""
    terminal.say(f"{found.of}: {count(found.examples, 'example')}")
    head = "", f"{count(found.members, 'member')}, mean ± standard error", "ensemble"
    scores = [
        (
            humanize(name) + (f" ({found.units[name]})" if name in found.units else ""),
            with_error(score["mean"], score["sem"], name),
            quantity(found.ensemble[name], name, 2),
        )
        for name, score in found.scores.items()
    ]
    terminal.show(head, scores)
    for each in found.unread:
        log.warning("skipped %s: %s", each.name, each.reason)
    return int(len(found.unread) > 0)


def _split(split: Batch) -> Parts:
    if not hasattr(split.targets, "shape"):
        raise UserError(
            "the targets are no single array, which is not scored: use Run.predict in "
            "Python"
        )
    for first in range(0, split.num_examples, PREDICT_BATCH):
        part = split.rows(slice(first, first + PREDICT_BATCH))
        yield jax.tree.map(np.asarray, part.inputs), *map(_host, part[1:])


def _host(array: Array | None) -> np.ndarray | None:
    return None if array is None else np.asarray(array)


def _others(found: Iterable[Source], preprocessing, unread: list[Skipped]) -> Parts:
    for part in read(found, preprocessing):
        unread += [row for row in part.rows if isinstance(row, Skipped)]
        yield part.examples, np.array([s.label for s in part.decoded]), None


def _scored(run: Run, parts: Parts, words: str, unread) -> Evaluation:
    predict, alive, examples = run.predictor, run.finite, 0
    scores = scores_of(run.summary["outputs"], *own_units(target_of(run)))
    for inputs, targets, weights in parts:
        if len(targets):
            scores.add(only_array(predict(inputs))[alive], targets, weights)
            examples += len(targets)
    if not examples:
        why = f": {unread[0].name} {unread[0].reason}" if unread else ""
        raise UserError(f"{words} has no example that can be read{why}")
    members, ensemble, units = scores.result()
    means = {name: mean_and_error(values) for name, values in members.items()}
    return Evaluation(words, examples, int(alive.sum()), means, ensemble, unread, units)
