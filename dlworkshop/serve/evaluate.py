"""How good a finished run is: on its own test split again, or on other data."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from dlworkshop import data
from dlworkshop.data import readers
from dlworkshop.data.load import reload
from dlworkshop.data.readers.inference_sources import Source, labelled
from dlworkshop.errors import UserError
from dlworkshop.learn.metrics import mean_and_error, mean_over_classes
from dlworkshop.report import terminal
from dlworkshop.report.words import count, quantity, spoken, with_error
from dlworkshop.serve.predict import Skipped, preprocessing_of, read
from dlworkshop.train.result import PREDICT_BATCH, Run
from dlworkshop.types import Batch

Scored = Iterator[tuple[np.ndarray, np.ndarray]]  # examples [B, ...], labels [B]


class Evaluation(NamedTuple):
    """Scores of the members that were not quarantined, and of their ensemble."""

    of: str  # the data, in words
    examples: int
    members: int
    scores: dict[str, dict[str, Any]]  # accuracy, ... -> mean, sem and n
    ensemble: dict[str, float]  # accuracy, ... of the mean probability
    unread: list[Skipped]


def evaluate(
    run: Run,
    path: str | Path | None = None,
    target: str | None = None,
    data_dir: str | Path | None = None,
) -> Evaluation:
    """Accuracy, balanced accuracy (fractions) and cross-entropy (nats) of a run.

    Other data become examples as the training data did, with the statistics of those.
    They are scored whole, or their test split where they have one. What the run itself
    learnt from is recognised by its content, and its test split is scored.

    Args:
        run: of a classifier, with a folder; `saved.load` brings one back.
        path: labelled data, whatever `data.load` takes; None: the run's own.
        target: of a table, the column of the classes; by default that of the run.
        data_dir: where prepared data are kept, as for `data.load`.

    Raises:
        UserError: if the data are not there, or have classes that the run has not.
    """
    said = run.read_artifact("config.json")["dataset"]
    words = f"the test split of {said['name']}"
    unread: list[Skipped] = []
    if not said["classes"]:
        raise UserError(f"the run in {run.workdir} has no classes to tell apart")
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
    found = labelled(path, preprocessing, about["classes"], target)
    return _scored(run, _others(found, preprocessing, unread), str(path), unread)


def show(found: Evaluation) -> int:
    """Print a small table; 1 if something could not be read."""
    print(f"{found.of}: {count(found.examples, 'example')}")
    head = "", f"{count(found.members, 'member')}, mean ± standard error", "ensemble"
    scores = [
        (
            spoken(name) + (" (cross-entropy, nats)" if name == "loss" else ""),
            with_error(score["mean"], score["sem"], name),
            quantity(found.ensemble[name], name, 2),
        )
        for name, score in found.scores.items()
    ]
    terminal.show(head, scores)
    for each in found.unread:
        print(f"skipped {each.name}: {each.reason}", file=sys.stderr)
    return int(len(found.unread) > 0)


def _split(split: Batch) -> Scored:
    for first in range(0, len(split.targets), PREDICT_BATCH):
        part = slice(first, first + PREDICT_BATCH)
        yield np.asarray(split.inputs[part]), np.asarray(split.targets[part])


def _others(found: Iterable[Source], preprocessing, unread: list[Skipped]) -> Scored:
    for part in read(found, preprocessing):
        unread += [row for row in part.rows if isinstance(row, Skipped)]
        yield part.examples, np.array([source.label for source in part.decoded], int)


def _scored(run: Run, batches: Scored, words: str, unread) -> Evaluation:
    predict, alive = run.predictor, run.finite
    columns = []
    for examples, label in batches:
        if len(label):
            columns.append([label, *_measured(predict(examples)[alive], label)])
    if not columns:
        why = f": {unread[0].name} {unread[0].reason}" if unread else ""
        raise UserError(f"{words} has no example that can be read{why}")
    label, right, loss, right_together, loss_together = (
        np.concatenate(parts, -1) for parts in zip(*columns, strict=True)
    )
    scores = {
        "accuracy": right.mean(-1),
        "balanced_accuracy": mean_over_classes(right, label),
        "loss": loss.mean(-1),
    }
    ensemble = {
        "accuracy": float(right_together.mean()),
        "balanced_accuracy": float(mean_over_classes(right_together, label)),
        "loss": float(loss_together.mean()),
    }
    means = {name: mean_and_error(values) for name, values in scores.items()}
    return Evaluation(words, len(label), len(right), means, ensemble, unread)


def _measured(outputs: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
    """Right or not and cross-entropy: of members [P, B], and of their ensemble [B]."""
    log_chance = scipy.special.log_softmax(outputs.astype(np.float64), -1)  # [P, B, K]
    together = scipy.special.logsumexp(log_chance, 0) - np.log(len(outputs))  # [B, K]
    example = np.arange(len(label))
    return (
        log_chance.argmax(-1) == label,
        -log_chance[:, example, label],
        together.argmax(-1) == label,
        -together[example, label],
    )
