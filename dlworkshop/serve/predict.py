"""What a finished run says to files: one row for each, as they are read."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from rich.console import Console

from dlworkshop.data import readers
from dlworkshop.data.readers.inference_sources import Source, sources
from dlworkshop.data.readers.workers import cores
from dlworkshop.errors import UserError
from dlworkshop.train.result import PREDICT_BATCH, Run


class Answer(NamedTuple):
    """What the ensemble, the mean of the members' probabilities, says of an example."""

    name: str  # the file, or the file and the row
    prediction: str  # the class of the largest probability
    probability: float  # in [0, 1], of that class
    spread: float | None  # standard deviation of it over the members; None for one
    entropy: float  # of all probabilities, in nats, in [0, log K]


class Skipped(NamedTuple):
    """A file or row that is no example."""

    name: str
    reason: str


class Part(NamedTuple):
    """Sources that were read together."""

    rows: list[Source | Skipped]  # in their order
    examples: np.ndarray  # [B, ...] of those that could be read

    @property
    def decoded(self) -> list[Source]:
        """[B] those that could be read."""
        return [row for row in self.rows if isinstance(row, Source)]


def predict_files(run: Run, paths: Iterable[str | Path]) -> Iterator[Answer | Skipped]:
    """An answer to each image file, and to each row of a CSV or .npz file.

    Files become examples as the training data did, with the statistics of those. They
    are read and answered in parts, so that any number of them takes little memory.
    Members that were quarantined have no vote.

    Args:
        run: of a classifier, with a folder; `saved.load` brings one back.
        paths: files, and folders of them, which are walked in the order of names.

    Raises:
        UserError: if the run does not answer files.

    Source of the entropy as a measure of what an ensemble does not know:
    Lakshminarayanan et al. (2017), Simple and scalable predictive uncertainty
    estimation using deep ensembles, section 3.5.
    """
    about = preprocessing_of(run)
    predict, classes = run.predictor, about["classes"]
    for part in read(
        sources(map(Path, paths), about["preprocessing"]), about["preprocessing"]
    ):
        outputs = predict(part.examples) if len(part.examples) else None  # [P, B, K]
        answers = _answers(part.decoded, classes, outputs, run.finite)
        for row in part.rows:
            yield row if isinstance(row, Skipped) else next(answers)


def write(
    run: Run, paths: Sequence[Path], writer: Callable[[Iterable[Answer]], None]
) -> int:
    """Hand the answers to a writer; say on stderr what was skipped, and how far it is.

    Returns:
        0, 1 if something was skipped, or 2 if all was.

    Raises:
        UserError: if there is nothing to answer.
    """
    if not paths:
        raise UserError("there are no files to answer: name some after the run")
    console, answered, skipped = Console(stderr=True), 0, 0
    # where the rows themselves are seen, they are the progress
    seen = sys.stdout.isatty() or not console.is_terminal
    live = contextlib.nullcontext() if seen else console.status("")

    def answers() -> Iterator[Answer]:
        nonlocal answered, skipped
        with live as status:
            for row in predict_files(run, paths):
                if isinstance(row, Skipped):
                    skipped += 1
                    print(f"skipped {row.name}: {row.reason}", file=sys.stderr)
                else:
                    answered += 1
                    yield row
                if status is not None:
                    status.update(f"{answered:,} answered, {skipped:,} skipped")

    writer(answers())
    if not answered and not skipped:
        raise UserError(f"{', '.join(map(str, paths))} has nothing to answer")
    if answered and skipped:
        print(f"{answered:,} answered, {skipped:,} skipped", file=sys.stderr)
    return 0 if not skipped else 1 if answered else 2


def preprocessing_of(run: Run) -> dict[str, Any]:
    """What is in `preprocessing.json`, where files become examples for this run.

    Raises:
        UserError: where they do not.
    """
    about = run.read_artifact("preprocessing.json")
    if not about["classes"]:
        raise UserError(f"the run in {run.workdir} has no classes to tell apart")
    wanted = run.read_artifact("config.json")["dataset"]["shape"]
    if (
        about["preprocessing"] is None
        or readers.shape_of(about["preprocessing"]) != wanted
    ):
        raise UserError(
            f"the run in {run.workdir} learnt from arrays of shape {wanted}, which no "
            "file becomes: give them to Run.predict in Python"
        )
    return about


def read(found: Iterable[Source], preprocessing: dict[str, Any]) -> Iterator[Part]:
    """Examples of PREDICT_BATCH sources at a time, decoded on all cores."""

    def example(source: Source) -> np.ndarray | Skipped:
        try:
            if isinstance(source.content, UserError):
                raise source.content
            return readers.to_example(source.content, preprocessing)
        except UserError as error:
            return Skipped(source.name, str(error).removeprefix(f"{source.name} "))

    found = iter(found)
    with ThreadPoolExecutor(cores()) as pool:
        while chunk := list(itertools.islice(found, PREDICT_BATCH)):
            made = list(pool.map(example, chunk))
            rows = [
                each if isinstance(each, Skipped) else source
                for each, source in zip(made, chunk, strict=True)
            ]
            whole = [each for each in made if not isinstance(each, Skipped)]
            yield Part(rows, np.stack(whole) if whole else np.empty(0))


def _answers(decoded: list[Source], classes, outputs, alive) -> Iterator[Answer]:
    if outputs is None:
        return
    chance = scipy.special.softmax(outputs[alive].astype(np.float64), -1)  # [P, B, K]
    together = chance.mean(0)  # [B, K]
    best = together.argmax(-1)  # [B]
    entropy = scipy.special.entr(together).sum(-1)  # [B]
    for i, source in enumerate(decoded):
        members = chance[:, i, best[i]]  # [P]
        yield Answer(
            source.name,
            classes[best[i]],
            float(members.mean()),
            float(members.std(ddof=1)) if len(members) > 1 else None,
            float(entropy[i]),
        )
