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
from dlworkshop.data.readers.inference_sources import Source, sources
from dlworkshop.data.readers.workers import cores
from dlworkshop.errors import UserError
from dlworkshop.serve.telling import Answer, Labels, Said, Value, answering
from dlworkshop.serve.vgg16_features import FEATURES, input_transform
from dlworkshop.train.result import PREDICT_BATCH, Run, check_run
from dlworkshop.train.scores import only_array

log = logging.getLogger(__name__)

__all__ = ["Answer", "Labels", "Skipped", "Value", "predict_files", "write"]

SHOWN = 5  # examples that are named as unlike train
MOST_UNKNOWN = 20  # words that are said to be unknown


class Skipped(NamedTuple):
    """A file or row that could not be read as an example."""

    name: str
    reason: str
    found: bool = False  # in a folder that was given; else it was named itself


class Part(NamedTuple):
    """Sources that were read together."""

    rows: list[Source | Skipped]  # in their order
    examples: np.ndarray  # [B, ...] of those that could be read

    @property
    def decoded(self) -> list[Source]:
        """[B] those that could be read."""
        return [row for row in self.rows if isinstance(row, Source)]


def predict_files(
    run: Run, paths: str | Path | Iterable[str | Path], calibrated: bool = False
) -> Iterator[Said | Skipped]:
    """A prediction for each image file, and for each row of a CSV or .npz file.

    Files become examples as the training data did, with the statistics of those. They
    are read and answered in parts, so that any number of them takes little memory.
    Members that were quarantined, or are of another setting than the best by
    validation, have no vote.

    Args:
        run: with a folder; `load` brings one back.
        paths: a file or a folder, or several, which are walked in the order of names.
        calibrated: whether logits are divided by the temperature of the run, so that
            probabilities are as large as their answers are right.

    Raises:
        UserError: if the run does not answer files, or has no temperature.

    Source of the entropy as a measure of what an ensemble does not know:
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
    """The results of `answers.study`; empty where it was not run."""
    assert run.workdir is not None
    there = (run.workdir / answers.FILE).is_file()
    return run.read_artifact(answers.FILE) if there else {}


def _unlike(
    part: Part, outputs: np.ndarray, limits: dict[str, Any], about: dict[str, Any]
) -> list[str]:
    """How each example differs from train: extreme numbers, unknown words."""
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
    """Pass predictions to a writer, log what was skipped, and show progress.

    Returns:
        0, 1 if something that was named was skipped, or 2 if all was. What a folder
        holds besides, as a README, is no failure.

    Raises:
        UserError: if there is nothing to answer.
    """
    if not paths:
        raise UserError("there are no files to answer: name some after the run")
    console, answered, skipped, failed = Console(stderr=True), 0, 0, False
    strange, first = 0, list[str]()  # of those that are unlike train
    # where the rows themselves are seen, they are the progress
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
                    status.update(f"{answered:,} answered, {skipped:,} skipped")

    writer(each())
    if not answered and not skipped:
        raise UserError(f"{', '.join(map(str, paths))} has nothing to answer")
    if answered and skipped:
        log.warning("%s answered, %s skipped", f"{answered:,}", f"{skipped:,}")
    if strange:
        rate = studied_of(run)["unlike"]["rate"]
        log.warning(
            "%s of %s answered are unlike what was learnt from, as %.2g %% of such as "
            "were learnt from are: %s",
            f"{strange:,}",
            f"{answered:,}",
            100 * rate,
            ", ".join(first) + (", ..." if strange > SHOWN else ""),
        )
    return int(failed) if answered else 2


def preprocessing_of(run: Run) -> dict[str, Any]:
    """The contents of `preprocessing.json`; refused where files cannot be examples.

    Raises:
        UserError: if files cannot be examples of this run.
    """
    about = run.read_artifact("preprocessing.json")
    if run.summary["outputs"] is None:
        raise UserError(
            f"it is not known what the outputs of the run in {run.workdir} mean: say "
            'it with fit(..., outputs="logits") or another of its kinds'
        )
    wanted = run.read_artifact("config.json")["dataset"]["shape"]
    how = about["preprocessing"]
    if how is None or wanted != ([FEATURES] if "seen_by" in how else shape_of(how)):
        raise UserError(
            f"the run in {run.workdir} learnt from arrays of shape {wanted}, which no "
            "file becomes: give them to Run.predict in Python"
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
                    if change is not None:  # of the first that is so
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
    """Log each word of a row that is not in train, unless it was seen before."""
    for found in readers.unknown_cells(source.content, preprocessing):
        if found not in seen and len(seen) < MOST_UNKNOWN:
            name, word = found
            log.warning(
                "%s: column '%s' says %s, which no row did that was learnt from: "
                "it counts as %s",
                source.name,
                name,
                f"'{word}'" if word else "nothing",
                "no category" if word else "the mean, or as no category",
            )
        seen.add(found)
