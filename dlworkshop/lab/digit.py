"""What the members of a run say of one image, and why."""

from typing import Any, NamedTuple

import numpy as np

from dlworkshop.answers import mistakes, saliency
from dlworkshop.data.load import reload
from dlworkshop.errors import UserError
from dlworkshop.train.predictions import LINKS, labels
from dlworkshop.train.result import Run
from dlworkshop.train.scores import only_array
from dlworkshop.types import Dataset

COMPARED = 10_000  # images of train, evenly spread; the nearest are among them


class Answer(NamedTuple):
    """The answers of P members, for K classes."""

    members: np.ndarray  # [P] int, their numbers in the run
    chance: np.ndarray  # [P, K] probabilities
    ensemble: np.ndarray  # [K] their mean
    entropy: float  # of the ensemble, in nats
    disagreement: float  # that less the mean entropy of the members, in nats
    saliency: np.ndarray  # [H, W, 3] uint8, where covering lowers the first class most
    nearest: list[tuple[int, int, float]]  # place in train, class, distance


def dataset_of(run: Run) -> Dataset:
    """The data set that a run learnt from.

    Raises:
        UserError: if it is not there any more, or has no images of classes.
    """
    said = run.read_artifact("config.json")["dataset"]
    dataset = reload(said["name"], said["fingerprint"])
    kind = run.summary["outputs"]
    images = getattr(dataset.train.inputs, "ndim", 0) == 4
    if kind not in ("logits", "probabilities") or not images:
        raise UserError(
            f"the run in {run.workdir} does not tell the classes of images: give one "
            "that does, as of experiments/digits.py"
        )
    return dataset


def answer(run: Run, dataset: Dataset, image: np.ndarray) -> Answer:
    """The answers to one image [H, W, C], stored as the run's own data are.

    Source of the disagreement: Houlsby et al. (2011), Bayesian active learning for
    classification and preference learning, eq. 2.
    """
    members = np.flatnonzero(run.chosen)
    inputs = np.concatenate([image[None], saliency.covered(image)])
    every = chances(run, inputs)  # [P, 1 + GRID * GRID, K]
    chance, ensemble = every[:, 0], every[:, 0].mean(0)
    best = ensemble.argmax()
    fell = ensemble[best] - every[:, 1:, best].mean(0)
    fell = fell.reshape(saliency.GRID, saliency.GRID)
    entropy = float(_entropy(ensemble))
    return Answer(
        members,
        chance,
        ensemble,
        entropy,
        entropy - float(_entropy(chance).mean()),
        saliency.overlaid(image, fell),
        _nearest(dataset, image),
    )


def chances(run: Run, inputs: np.ndarray) -> np.ndarray:
    """Probabilities [P, B, K] of the members that have a vote."""
    outputs = only_array(run.predict(inputs))[run.chosen]
    return LINKS[run.summary["outputs"]](outputs.astype(np.float64))


def _entropy(chance: np.ndarray) -> np.ndarray:
    """In nats, [..., K] -> [...].

    >>> _entropy(np.array([0.5, 0.5, 0.0])).round(4).item()  # log 2
    0.6931
    """
    known = np.where(chance > 0, chance, 1)
    return -(chance * np.log(known)).sum(-1)


def _nearest(dataset: Dataset, image: np.ndarray) -> list[tuple[int, int, float]]:
    train = dataset.train.inputs
    size = min(len(train), COMPARED)
    some = np.linspace(0, len(train) - 1, size).astype(int)
    places, far, _ = mistakes.nearest(train[some], image[None])
    found, label = some[places[0]], labels(dataset.train.targets)
    assert label is not None
    rows: Any = zip(found.tolist(), label[found].tolist(), far[0].tolist(), strict=True)
    return list(rows)
