"""The study of a finished run, which writes `answers.json`."""

from collections.abc import Mapping
from typing import Any

from dlworkshop import run_files
from dlworkshop.answers import conformal, explained, limits
from dlworkshop.answers.held_out import held_out
from dlworkshop.errors import UserError
from dlworkshop.train import run_folder
from dlworkshop.train.predictions import is_array
from dlworkshop.train.result import Run, check_run
from dlworkshop.train.scores import only_array, scores_of
from dlworkshop.types import Dataset

FILE = run_files.ANSWERS


def study(run: Run, dataset: Dataset, headline: str | None = None) -> dict[str, Any]:
    """Measure the reliability of predictions on validation, and check it on test.

    It finds sets of classes, or intervals, that include the truth with probability 0.9;
    limits beyond which inputs are unlike train; a temperature, if the calibration error
    is larger than by chance; the importance of columns or parts of images; and the
    worst mistakes.

    Args:
        run: of `fit`, with a folder, in which `answers.json` is written, and its digest
            in `summary.json`.
        dataset: of the run.
        headline: the score for the importance of columns; by default the accuracy, or
            for values the RMSE.

    Returns:
        The content of `answers.json`.

    Raises:
        UserError: if the run has no folder, or the meaning of its outputs is unknown.
    """
    check_run(run)
    if run.workdir is None:
        raise UserError("the run has no folder: give fit a workdir to study it")
    kind, test = run.summary["outputs"], dataset.test
    scores_of(kind)  # raises if the kind is unknown
    known = held_out(run, dataset)
    said = only_array(run.predict(test.inputs))[run.chosen]  # [P, N, ...]
    found: dict[str, Any] = {"level": conformal.LEVEL}
    if known is not None:
        found["held_out"] = {
            "examples": known.examples.num_examples,
            "folds": run.summary.get("folds"),
        }
        found |= limits.limits(run, known, said, test)
    if is_array(dataset.train.inputs):
        found["unlike"] = limits.limits_of_inputs(run, dataset, known, said)
        found["importance"] = explained.of_columns(run, dataset, headline)
        found["saliency"] = explained.of_images(run, dataset, said)
        found["mistakes"] = explained.of_mistakes(run, dataset, said)
    found = {name: each for name, each in found.items() if each is not None}
    run_folder.write_json(run.workdir / FILE, found)
    run.summary.update(run_folder.write_summary(run.workdir, run.summary))
    return found


def notes(found: Mapping[str, Any]) -> list[str]:
    """Warnings about the reliability of predictions, in sentences.

    >>> share = {"share": 0.5, "low": 0.4, "high": 0.6, "examples": 80}
    >>> notes({"level": 0.9, "sets": {"test": share}})
    ['Sets of classes include the truth for 50 % of test, less than the level of 90 %.']
    """
    said = []
    kinds = [("Sets of classes", found.get("sets"))]
    kinds += [("Intervals", own) for own in found.get("intervals") or []]
    for kind, own in kinds:
        if own and own["test"]["high"] < found["level"]:
            said.append(
                f"{kind} include the truth for {100 * own['test']['share']:.0f} % of "
                f"test, less than the level of {100 * found['level']:.0f} %."
            )
    far = found.get("unlike")
    if far and far["test"]["low"] > far["rate"]:
        said.append(
            f"{100 * far['test']['share']:.0f} % of test are unlike train, where "
            f"{100 * far['rate']:.2g} % are to be expected by chance."
        )
    heat = found.get("temperature") or {}
    if "temperature" in heat:
        said.append(
            f"The calibration error is {100 * heat['error']:.1f} % on validation, more "
            f"than by chance ({100 * heat['noise']:.1f} %): dlworkshop predict "
            f"--calibrated divides the logits by {heat['temperature']:.3g} (the error "
            f"on test is {100 * heat['test']['before']:.1f} % before, and "
            f"{100 * heat['test']['after']:.1f} % after it)."
        )
    return said
