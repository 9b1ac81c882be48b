"""Predictions of a finished run for files: one row per example, streamed."""

import contextlib
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from dlworkshop import answers
from dlworkshop.answers.unlike import unlike
from dlworkshop.data import readers
from dlworkshop.data.readers import shape_of
from dlworkshop.data.readers.inference_sources import sources
from dlworkshop.data.readers.reader import Source
from dlworkshop.data.readers.workers import cores
from dlworkshop.errors import UserError
from dlworkshop.serve.telling import Labels, Prediction, Said, Value, answering
from dlworkshop.serve.vgg16_features import FEATURES, input_transform
from dlworkshop.train.result import PREDICT_BATCH, Run, check_run
from dlworkshop.train.scores import only_array

log = logging.getLogger(__name__)

__all__ = ["Labels", "Prediction", "Skipped", "Value", "predict_files", "write"]

SHOWN = 5  # examples unlike train that are named
MOST_UNKNOWN = 20  # unknown words that are logged


class Skipped(NamedTuple):
    """A file or row that could not be read as an example."""

    name: str
    reason: str
    found: bool = False  # in a given folder; else the file itself was given


class Part(NamedTuple):
    """Sources that were read together."""

    rows: list[Source | Skipped]  # in their order
    examples: np.ndarray  # [B, ...] of the readable ones

    @property
    def decoded(self) -> list[Source]:
        """The readable sources [B]."""
        return [row for row in self.rows if isinstance(row, Source)]


def predict_files(
    run: Run, paths: str | Path | Iterable[str | Path], calibrated: bool = False
) -> Iterator[Said | Skipped]:
    """Yield a prediction for each image file, and each row of a CSV or .npz file.

    Files are preprocessed like the training data, with the same statistics. They are
    processed in parts, so that memory does not grow with their number. Only the
    `chosen` members of the run vote.

    Args:
        run: with a folder, such as the result of `load`.
        paths: a file or a folder, or several; folders are walked in the order of names.
        calibrated: divide logits by the temperature of the run, so that probabilities
            match the accuracy.

    Raises:
        UserError: if the run cannot predict for files, or has no temperature.

    Source of the entropy as a measure of the uncertainty of an ensemble:
    Lakshminarayanan et al. (2017), Simple and scalable predictive uncertainty
    estimation using deep ensembles, section 3.5.
    """
    check_run(run)
    if isinstance(paths, str | Path):
        paths = [paths]
    about = preprocessing_of(run)
    predict, studied = run.predictor, studied_of(run)
    answers_of = answering(run, about["classes"], studied, calibrated)
    for part in read(
        sources(map(Path, paths), about["preprocessing"]), about["preprocessing"]
    ):
        told: Iterator[Said] = iter(())
        if len(part.examples):
            outputs = only_array(predict(part.examples))[run.chosen]  # [P, B, ...]
            outputs = outputs.astype(np.float64)
            told = answers_of(part.decoded, outputs)
            if "unlike" in studied:
                words = _unlike(part, outputs, studied["unlike"], about)
                pairs = zip(told, words, strict=True)
                told = (row._replace(unlike=each) for row, each in pairs)
        for row in part.rows:
            yield row if isinstance(row, Skipped) else next(told)


def studied_of(run: Run) -> dict[str, Any]:
    """The results of `answers.study`; {} if it was not run."""
    assert run.workdir is not None
    there = (run.workdir / answers.FILE).is_file()
    return run.read_artifact(answers.FILE) if there else {}


def _unlike(
    part: Part, outputs: np.ndarray, limits: dict[str, Any], about: dict[str, Any]
) -> list[str]:
    """The names of the columns in which each example is unlike train."""
    words = unlike(part.examples, outputs, limits)
    for i, source in enumerate(part.decoded):
        cells = readers.unknown_cells(source.content, about["preprocessing"])
        names = [*filter(None, words[i].split(", ")), *(name for name, _ in cells)]
        words[i] = ", ".join(dict.fromkeys(names))
    return words


def write(
    run: Run,
    paths: Sequence[Path],
    writer: Callable[[Iterable[Said]], None],
    calibrated: bool = False,
) -> int:
    """Pass predictions to a writer, log skipped files, and show progress.

    Returns:
        0; 1 if a given file was skipped; 2 if nothing could be predicted. Other files
        in a folder, such as a README, are no failure.

    Raises:
        UserError: if there are no examples.
    """
    if not paths:
        raise UserError("there are no files: name some after the run")
    console, answered, skipped, failed = Console(stderr=True), 0, 0, False
    strange, first = 0, list[str]()  # number and names of examples unlike train
    # rows on the terminal are progress enough
    seen = sys.stdout.isatty() or not console.is_terminal
    live = contextlib.nullcontext() if seen else console.status("")

    def each() -> Iterator[Said]:
        nonlocal answered, skipped, failed, strange
        with live as status:
            for row in predict_files(run, paths, calibrated):
                if isinstance(row, Skipped):
                    skipped += 1
                    failed = failed or not row.found
                    log.warning("skipped %s: %s", row.name, row.reason)
                else:
                    answered += 1
                    if row.unlike:
                        strange += 1
                        if len(first) < SHOWN:
                            first.append(f"{row.name} ({row.unlike})")
                    yield row
                if status is not None:
                    status.update(f"{answered:,} predicted, {skipped:,} skipped")

    writer(each())
    if not answered and not skipped:
        raise UserError(
            f"{', '.join(map(str, paths))} has no examples: give files or folders "
            "with some"
        )
    if answered and skipped:
        log.warning("%s predicted, %s skipped", f"{answered:,}", f"{skipped:,}")
    if strange:
        rate = studied_of(run)["unlike"]["rate"]
        log.warning(
            "%s of %s examples are unlike the training data, where %.2g %% are to be "
            "expected by chance: %s",
            f"{strange:,}",
            f"{answered:,}",
            100 * rate,
            ", ".join(first) + (", ..." if strange > SHOWN else ""),
        )
    return int(failed) if answered else 2


def preprocessing_of(run: Run) -> dict[str, Any]:
    """The contents of `preprocessing.json`.

    Raises:
        UserError: if files cannot be converted to examples of this run.
    """
    about = run.read_artifact("preprocessing.json")
    if run.summary["outputs"] is None:
        raise UserError(
            f"it is not known what the outputs of the run in {run.workdir} mean: give "
            'fit(..., outputs="logits") or another kind'
        )
    wanted = run.read_artifact("config.json")["dataset"]["shape"]
    how = about["preprocessing"]
    if how is None or wanted != ([FEATURES] if "seen_by" in how else shape_of(how)):
        raise UserError(
            f"the run in {run.workdir} learnt from arrays of shape {wanted}, to which "
            "no file can be converted: give them to Run.predict in Python"
        )
    return about


def read(found: Iterable[Source], preprocessing: dict[str, Any]) -> Iterator[Part]:
    """Read PREDICT_BATCH sources at a time, decoded on all cores."""

    def example(source: Source) -> np.ndarray | Skipped:
        try:
            if isinstance(source.content, UserError):
                raise source.content
            return readers.to_example(source.content, preprocessing)
        except UserError as error:
            reason = str(error).removeprefix(f"{source.name} ")
            return Skipped(source.name, reason, source.found)

    found, unknown = iter(found), set[tuple[str, str]]()
    transform = input_transform(preprocessing)
    change: str | None = None
    with ThreadPoolExecutor(cores()) as pool:
        while chunk := list(itertools.islice(found, PREDICT_BATCH)):
            made = list(pool.map(example, chunk))
            for source in chunk:
                _say_unknown(source, preprocessing, unknown)
                if change is None:
                    change = readers.changed(source.content, preprocessing)
                    if change is not None:  # logged once
                        log.info("%s", change)
            rows = [
                each if isinstance(each, Skipped) else source
                for each, source in zip(made, chunk, strict=True)
            ]
            whole = [each for each in made if not isinstance(each, Skipped)]
            yield Part(rows, transform(np.stack(whole)) if whole else np.empty(0))


def _say_unknown(
    source: Source, preprocessing: dict[str, Any], seen: set[tuple[str, str]]
) -> None:
    """Log each word of a row that is not in train, once."""
    for found in readers.unknown_cells(source.content, preprocessing):
        if found not in seen and len(seen) < MOST_UNKNOWN:
            name, word = found
            log.warning(
                "%s: column '%s' has %s, unlike every row of train: it counts as %s",
                source.name,
                name,
                f"'{word}'" if word else "no value",
                "no category" if word else "the mean, or as no category",
            )
        seen.add(found)
