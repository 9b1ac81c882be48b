"""A finished run and its data -> `answers.json`."""

from collections.abc import Mapping
from typing import Any

from dlworkshop.answers import conformal, explained, limits
from dlworkshop.answers.held_out import held_out
from dlworkshop.errors import UserError
from dlworkshop.train import run_folder
from dlworkshop.train.predictions import is_array
from dlworkshop.train.result import Run, check_run
from dlworkshop.train.scores import only_array, scores_of
from dlworkshop.types import Dataset

FILE = "answers.json"  # of a run folder


def study(run: Run, dataset: Dataset, headline: str | None = None) -> dict[str, Any]:
    """Measure the reliability of predictions on validation, and check it on test.

    Sets of classes, or intervals, that hold the truth nine times of ten; limits beyond
    which inputs are unlike those of train; a temperature, where the calibration error
    exceeds what chance makes; what each column of a table, or part of an image, does;
    and where the worst mistakes are.

    Args:
        run: of `fit`, with a folder, in which `answers.json` is written.
        dataset: that it learnt from.
        headline: the score by which columns are judged; by default the accuracy, or of
            values the RMSE.

    Returns:
        What was written.

    Raises:
        UserError: where the run has no folder, or nobody knows what its outputs mean.
    """
    check_run(run)
    if run.workdir is None:
        raise UserError("the run has no folder: give fit a workdir to study it")
    kind, test = run.summary["outputs"], dataset.test
    scores_of(kind)  # refused where it is not known
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
    return found


def notes(found: Mapping[str, Any]) -> list[str]:
    """What a user should know before trusting a prediction, in sentences.

    >>> share = {"share": 0.5, "low": 0.4, "high": 0.6, "examples": 80}
    >>> notes({"level": 0.9, "sets": {"test": share}})
    ['Sets of classes hold the truth of 50 % of test, fewer than the 90 % wanted.']
    """
    said = []
    kinds = [("Sets of classes", found.get("sets"))]
    kinds += [("Intervals", own) for own in found.get("intervals") or []]
    for kind, own in kinds:
        if own and own["test"]["high"] < found["level"]:
            said.append(
                f"{kind} hold the truth of {100 * own['test']['share']:.0f} % of test, "
                f"fewer than the {100 * found['level']:.0f} % wanted."
            )
    far = found.get("unlike")
    if far and far["test"]["low"] > far["rate"]:
        said.append(
            f"{100 * far['test']['share']:.0f} % of test are unlike train, where "
            f"{100 * far['rate']:.2g} % were to be expected."
        )
    heat = found.get("temperature") or {}
    if "temperature" in heat:
        said.append(
            f"The probabilities are off by {100 * heat['error']:.1f} % on validation, "
            f"more than chance makes ({100 * heat['noise']:.1f} %): dlworkshop predict "
            f"--calibrated divides the logits by {heat['temperature']:.3g} (on test "
            f"they are off by {100 * heat['test']['before']:.1f} %, and then by "
            f"{100 * heat['test']['after']:.1f} %)."
        )
    return said
