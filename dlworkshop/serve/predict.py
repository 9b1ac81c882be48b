"""What a finished run says to files: one row for each, as they are read."""

import contextlib
import functools
import itertools
import logging
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
from dlworkshop.data.units import in_own_units
from dlworkshop.errors import UserError
from dlworkshop.train.predictions import LINKS
from dlworkshop.train.result import PREDICT_BATCH, Run
from dlworkshop.train.scores import only_array

log = logging.getLogger(__name__)

MOST_UNKNOWN = 20  # words that are said to be unknown


class Answer(NamedTuple):
    """What the ensemble, the mean of the members' probabilities, says of an example."""

    name: str  # the file, or the file and the row
    prediction: str  # the class of the largest probability
    probability: float  # in [0, 1], of that class
    spread: float | None  # standard deviation of it over the members; None for one
    entropy: float  # of all probabilities, in nats, in [0, log K]


class Value(NamedTuple):
    """What the ensemble, the mean of the members, says of an example: a number.

    In the units of the target, where it was standardised. Of a target of several
    columns, a number for each: name -> number.
    """

    name: str
    prediction: float | dict[str, float]
    spread: float | dict[str, float] | None  # standard deviation over the members


class Labels(NamedTuple):
    """What the ensemble says of labels, several of which may be true at once."""

    name: str
    prediction: str  # those above one half, joined by " + "; "" where none is
    probability: dict[str, float]  # label -> mean over the members, in [0, 1]


Said = Answer | Value | Labels


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


def predict_files(run: Run, paths: Iterable[str | Path]) -> Iterator[Said | Skipped]:
    """An answer to each image file, and to each row of a CSV or .npz file.

    Files become examples as the training data did, with the statistics of those. They
    are read and answered in parts, so that any number of them takes little memory.
    Members that were quarantined have no vote.

    Args:
        run: with a folder; `load` brings one back.
        paths: files, and folders of them, which are walked in the order of names.

    Raises:
        UserError: if the run does not answer files.

    Source of the entropy as a measure of what an ensemble does not know:
    Lakshminarayanan et al. (2017), Simple and scalable predictive uncertainty
    estimation using deep ensembles, section 3.5.
    """
    about = preprocessing_of(run)
    predict, answers_of = run.predictor, _answers(run, about)
    for part in read(
        sources(map(Path, paths), about["preprocessing"]), about["preprocessing"]
    ):
        answers: Iterator[Said] = iter(())
        if len(part.examples):
            outputs = only_array(predict(part.examples))[run.finite]  # [P, B, ...]
            answers = answers_of(part.decoded, outputs.astype(np.float64))
        for row in part.rows:
            yield row if isinstance(row, Skipped) else next(answers)


def write(
    run: Run, paths: Sequence[Path], writer: Callable[[Iterable[Said]], None]
) -> int:
    """Hand the answers to a writer; log what was skipped, and show how far it is.

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

    def answers() -> Iterator[Said]:
        nonlocal answered, skipped
        with live as status:
            for row in predict_files(run, paths):
                if isinstance(row, Skipped):
                    skipped += 1
                    log.warning("skipped %s: %s", row.name, row.reason)
                else:
                    answered += 1
                    yield row
                if status is not None:
                    status.update(f"{answered:,} answered, {skipped:,} skipped")

    writer(answers())
    if not answered and not skipped:
        raise UserError(f"{', '.join(map(str, paths))} has nothing to answer")
    if answered and skipped:
        log.warning("%s answered, %s skipped", f"{answered:,}", f"{skipped:,}")
    return 0 if not skipped else 1 if answered else 2


def preprocessing_of(run: Run) -> dict[str, Any]:
    """What is in `preprocessing.json`, where files become examples for this run.

    Raises:
        UserError: where they do not.
    """
    about = run.read_artifact("preprocessing.json")
    if run.summary["outputs"] is None:
        raise UserError(
            f"it is not known what the outputs of the run in {run.workdir} mean: say "
            'it with fit(..., outputs="logits") or another of its kinds'
        )
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

    found, unknown = iter(found), _Unknown(preprocessing)
    with ThreadPoolExecutor(cores()) as pool:
        while chunk := list(itertools.islice(found, PREDICT_BATCH)):
            made = list(pool.map(example, chunk))
            for source in chunk:
                unknown.say(source)
            rows = [
                each if isinstance(each, Skipped) else source
                for each, source in zip(made, chunk, strict=True)
            ]
            whole = [each for each in made if not isinstance(each, Skipped)]
            yield Part(rows, np.stack(whole) if whole else np.empty(0))


class _Unknown:
    """Says once of each word of a table that no row of train has it."""

    def __init__(self, preprocessing: dict[str, Any]):
        self._preprocessing, self._seen = preprocessing, set[tuple[str, str]]()

    def say(self, source: Source) -> None:
        """Log what is new in a row."""
        for found in readers.unknown_categories(source.content, self._preprocessing):
            if found not in self._seen and len(self._seen) < MOST_UNKNOWN:
                log.warning(
                    "%s: column '%s' says '%s', which no row did that was learnt from: "
                    "it counts as no category",
                    source.name,
                    *found,
                )
            self._seen.add(found)


Answers = Callable[[list[Source], np.ndarray], Iterator[Said]]


def _answers(run: Run, about: dict[str, Any]) -> Answers:
    """What tells outputs [P, B, ...] in rows, by what they mean."""
    kind, fitted = run.summary["outputs"], run.target
    columns = [column["name"] for column in (fitted or {}).get("columns", ())]
    if kind == "values":
        return functools.partial(_values, columns, fitted)
    if kind == "binary_logits":
        return functools.partial(_labels, columns)
    return functools.partial(_classes, about["classes"], kind)


def _classes(
    classes: Sequence[str], kind: str, decoded: list[Source], outputs: np.ndarray
) -> Iterator[Answer]:
    chance = LINKS[kind](outputs)  # [P, B, K]
    together = chance.mean(0)  # [B, K]
    best = together.argmax(-1)  # [B]
    entropy = scipy.special.entr(together).sum(-1)  # [B]
    for i, source in enumerate(decoded):
        members = chance[:, i, best[i]]  # [P]
        yield Answer(
            source.name,
            classes[best[i]] if classes else str(best[i]),
            float(members.mean()),
            float(members.std(ddof=1)) if len(members) > 1 else None,
            float(entropy[i]),
        )


def _values(
    columns: Sequence[str],
    fitted: dict[str, Any] | None,
    decoded: list[Source],
    outputs: np.ndarray,
) -> Iterator[Value]:
    names = _names(columns, outputs)
    said = outputs if fitted is None else in_own_units(outputs, fitted)
    said = said.reshape(*said.shape[:2], -1)  # [P, B, D]
    together = said.mean(0)
    spread = said.std(0, ddof=1) if len(said) > 1 else None
    for i, source in enumerate(decoded):
        here = None if spread is None else spread[i]
        if len(names) == 1:
            around = None if here is None else float(here[0])
            yield Value(source.name, float(together[i, 0]), around)
        else:
            yield Value(
                source.name,
                dict(zip(names, together[i].tolist(), strict=True)),
                None if here is None else dict(zip(names, here.tolist(), strict=True)),
            )


def _labels(
    columns: Sequence[str], decoded: list[Source], outputs: np.ndarray
) -> Iterator[Labels]:
    names = _names(columns, outputs)
    chance = LINKS["binary_logits"](outputs).mean(0)  # [B, ...]
    for source, row in zip(decoded, chance.reshape(len(chance), -1), strict=True):
        told = dict(zip(names, row.tolist(), strict=True))
        said = " + ".join(name for name, p in told.items() if p > 0.5)
        yield Labels(source.name, said, told)


def _names(columns: Sequence[str], outputs: np.ndarray) -> list[str]:
    """Of the outputs [P, B, ...] of an example; numbers where they have none.

    Raises:
        UserError: for outputs that do not fit into a row.
    """
    if outputs.ndim > 3:
        raise UserError(
            f"an answer has the shape {list(outputs.shape[2:])}, which fits in no row: "
            "use Run.predict in Python"
        )
    size = int(np.prod(outputs.shape[2:]))
    return list(columns) if len(columns) == size else [str(d) for d in range(size)]
