"""Scores, curves, mistakes and filters of some members of a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dlworkshop.errors import UserError, check_known
from dlworkshop.report import figures, pictures
from dlworkshop.report.confusion import mean_counts
from dlworkshop.report.predictions import Predictions
from dlworkshop.report.read import RunFolder
from dlworkshop.report.words import humanize
from dlworkshop.train.result import Run

MOST_FILTERS = 64


def member_rows(run: RunFolder) -> list[dict[str, Any]]:
    """A row for each member: number, seed, hyper-parameters, status and scores."""
    rows = []
    for number, member in enumerate(run.members):
        row = {"member": number, "seed": member.get("seed")}
        row |= member.get("hparams") or {}
        row |= {"status": member.get("status"), "steps": member.get("steps")}
        for split in ("validation", "test"):
            for name, value in (member.get(split) or {}).items():
                row[f"{split} {humanize(name)}"] = value
        rows.append(row)
    return rows


def scores_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of `member_rows` that contain scores.

    >>> scores_of([{"member": 0, "test loss": 0.1}])
    ['test loss']
    """
    return [name for name in rows[0] if name.startswith(("validation ", "test "))]


def members_of(run: RunFolder, given: Sequence[Any]) -> list[int]:
    """The selected members in ascending order; all members if none is selected.

    Raises:
        UserError: if a number is not the number of a member.
    """
    size = len(run.members)
    for each in given:
        if not isinstance(each, int) or not 0 <= each < size:
            raise UserError(
                f"there is no member {each!r:.20}: give some of 0 to {size - 1}"
            )
    return sorted(set(given)) or list(range(size))


def quantities(run: RunFolder) -> list[str]:
    """The quantities that have curves, the loss first."""
    names = dict.fromkeys(name for _, name in run.series)
    return sorted(names, key=lambda name: name != "loss")


def curves(run: RunFolder, quantity: str, members: Sequence[int]) -> str:
    """A quantity of these members over time, on train and validation, as SVG.

    Raises:
        UserError: if it was not logged.
    """
    check_known("quantity", quantity, quantities(run))
    series = {
        split: each.of(list(members))
        for (split, name), each in run.series.items()
        if name == quantity
    }
    label = pictures.label(run, quantity)
    who = f"{len(members)} of {len(run.members)} members"
    title = f"{label[0].upper()}{label[1:]} of {who}"
    return figures.learning_curves(f"curve-{quantity}", title, label, series, quantity)


def confusion(run: RunFolder, members: Sequence[int]) -> np.ndarray:
    """The confusion matrix [K, K] on test, true by predicted class, mean over members.

    Raises:
        UserError: if the run folder has no predictions of classes.
    """
    return mean_counts(_of_classes(run).of(list(members)))


def most_confused(run: RunFolder) -> tuple[list[str], tuple[str, str]]:
    """The names of the classes, and the most frequent confusion: true and predicted.

    Raises:
        UserError: if the run folder has no predictions of classes.
    """
    counts = confusion(run, range(len(run.members)))
    np.fill_diagonal(counts, -1)
    true, said = np.unravel_index(counts.argmax(), counts.shape)
    names = _of_classes(run).class_names(len(counts))
    return names, (names[true], names[said])


def mistaken(
    run: RunFolder, members: Sequence[int], true: str, said: str
) -> list[tuple[int, int]]:
    """The test examples of class `true` that some members take for `said`: all of them.

    Returns:
        (index in test, number of members), in descending order of the number.

    Raises:
        UserError: if `true` or `said` is not a class of the run.
    """
    found = _of_classes(run)
    names = found.class_names()
    for name in (true, said):
        check_known("class", name, names)
    votes = (found.prediction[list(members)] == names.index(said)).sum(0)  # [N]
    votes = np.where(found.label == names.index(true), votes, 0)
    order = np.argsort(-votes, kind="stable")
    return [(int(i), int(votes[i])) for i in order if votes[i]]


def _of_classes(run: RunFolder) -> Predictions:
    if not isinstance(run.predictions, Predictions):
        raise UserError(
            "the run folder has no predictions of classes: give a run of a classifier"
        )
    return run.predictions


def filters(run: Run, member: int) -> np.ndarray:
    """The weights of the first layer of a member as images [F, h, w], one per unit.

    Weights are averaged over the channels. A unit of a dense layer has the shape of the
    input image.

    Raises:
        UserError: if the first layer is neither a convolution nor a dense layer.
    """
    shape = tuple(run.read_artifact("config.json")["dataset"]["shape"] or ())
    for leaf in jax.tree.leaves(run.params):
        kernel = np.asarray(leaf[member], np.float32)
        if kernel.ndim == 4:  # [h, w, C, F]
            return kernel.mean(2).transpose(2, 0, 1)[:MOST_FILTERS]
        if kernel.ndim == 2 and len(shape) == 3 and len(kernel) == np.prod(shape):
            images = kernel.reshape(*shape, -1).mean(2)
            return images.transpose(2, 0, 1)[:MOST_FILTERS]
    raise UserError(
        "the first layer of the model is not applied to an image: give a run of an "
        "MLP or a CNN on images"
    )


def tiles(images: np.ndarray) -> np.ndarray:
    """Filters [F, h, w] as images [F, h, w, 3] uint8: blue below 0, orange above.

    >>> tiles(np.array([[[-1.0, 0.0, 1.0]]]))[0, 0].tolist()
    [[0, 114, 178], [255, 255, 255], [213, 94, 0]]
    """
    share = images / max(float(abs(images).max()), 1e-12)
    ends = np.where(share[..., None] < 0, [0, 114, 178], [213, 94, 0])
    return (255 + abs(share)[..., None] * (ends - 255)).round().astype(np.uint8)
