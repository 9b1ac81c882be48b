"""Scores of a finished run on its own test split or other data."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dlworkshop import data
from dlworkshop.data import readers
from dlworkshop.data.load import reload
from dlworkshop.data.readers.cards import LISTED
from dlworkshop.data.readers.inference_sources import labelled
from dlworkshop.data.readers.reader import Source
from dlworkshop.errors import UserError, check_path, repr_of
from dlworkshop.report import terminal
from dlworkshop.report.words import count, humanize, quantity, with_error
from dlworkshop.serve.predict import Skipped, preprocessing_of, read
from dlworkshop.train.result import Run, check_run
from dlworkshop.train.scores import Evaluation, Parts, all_scores, evaluate_parts

log = logging.getLogger(__name__)


def evaluate(
    run: Run,
    path: str | Path | None = None,
    target: str | None = None,
    data_dir: str | Path | None = None,
) -> Evaluation:
    """The scores of `Run.evaluate` on labelled data on disk.

    New data are preprocessed like the training data, with the same statistics, and
    their test split is scored, or all if there is none. If the data are those of the
    run, which are recognised by their content, the run's own test split is scored.

    Args:
        run: from `fit`, or `load`; with a folder.
        path: labelled data that `data.load` reads; None is the run's own test split.
        target: of a table, the column to predict; by default that of the run.
        data_dir: the folder of prepared data, as for `data.load`.

    Raises:
        UserError: if the data are missing or have unknown classes, or the meaning of
            the outputs is unknown.
    """
    check_run(run)
    for name, given in (("path", path), ("data_dir", data_dir)):
        if given is not None:
            check_path(name, given)
    if path is None and target is not None:
        raise UserError(
            f"target is {repr_of(target)}, which has no effect on the run's own test "
            "split: leave it out, or give labelled data (--data PATH)"
        )
    all_scores(run, None)  # raises before any data are read
    said = run.read_artifact("config.json")["dataset"]
    words = f"the test split of {said['name']}"
    if path is None:
        test = reload(said["name"], said["fingerprint"], data_dir).test
        return run.evaluate(test)._replace(of=words)
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
        test = data.load(path, data_dir, **same).test
        return run.evaluate(test)._replace(of=words)
    if not about["classes"] and run.target is None:
        raise UserError(
            f"the run in {run.workdir} learnt numbers that no file can hold: give them "
            "to Run.evaluate(Batch(inputs, targets)) in Python"
        )
    if card.get("source") == str(path.absolute()):
        log.warning(
            "%s has changed since the run learnt from it, or another version of "
            "dlworkshop prepared it: examples that the run learnt from may be among "
            "those that are scored",
            path,
        )
    found = labelled(path, preprocessing, about["classes"], target)
    unread: list[Skipped] = []
    parts = _others(found, preprocessing, unread)
    return evaluate_parts(run, parts, str(path), unread)


def show(found: Evaluation) -> int:
    """Print the scores as a table; returns 1 if something could not be read."""
    setting = f", {found.setting}" if found.setting else ""
    terminal.print_line(f"{found.of}: {count(found.examples, 'example')}{setting}")
    head = "", f"{count(found.members, 'member')}, mean ± standard error", "ensemble"
    scores = [
        (
            humanize(name) + (f" ({found.units[name]})" if name in found.units else ""),
            with_error(score["mean"], score["sem"], name),
            quantity(found.ensemble.get(name), name, 2),
        )
        for name, score in found.scores.items()
    ]
    terminal.show(head, scores)
    for each in found.unread[:LISTED]:
        log.warning("skipped %s: %s", each.name, each.reason)
    if (more := len(found.unread) - LISTED) > 0:
        log.warning("skipped %s more", f"{more:,}")
    return int(len(found.unread) > 0)


def _others(found: Iterable[Source], preprocessing, unread: list[Skipped]) -> Parts:
    for part in read(found, preprocessing):
        unread += [row for row in part.rows if isinstance(row, Skipped)]
        yield part.examples, np.array([s.label for s in part.decoded]), None
