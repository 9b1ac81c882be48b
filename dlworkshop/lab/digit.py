"""The predictions of the members of a run for one image, and their explanation."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import entr

from dlworkshop.answers import mistakes, saliency
from dlworkshop.data.load import reload
from dlworkshop.data.rows import evenly
from dlworkshop.errors import UserError
from dlworkshop.train.predictions import LINKS, labels
from dlworkshop.train.result import Run
from dlworkshop.train.scores import only_array
from dlworkshop.types import Dataset

COMPARED = 10_000  # training images among which the nearest are searched


class Explanation(NamedTuple):
    """The predictions of P members for K classes, and what explains them."""

    members: np.ndarray  # [P] int, their numbers in the run
    chance: np.ndarray  # [P, K] probabilities
    ensemble: np.ndarray  # [K], mean over the members
    entropy: float  # of the ensemble, in nats
    disagreement: float  # `entropy` minus the mean entropy of the members, in nats
    saliency: np.ndarray  # [H, W, 3] uint8, the image with its most important parts
    nearest: list[tuple[int, int, float]]  # index in train, class, distance


def dataset_of(run: Run) -> Dataset:
    """The data set that a run was trained on.

    Raises:
        UserError: if it is not available any more, or does not classify images.
    """
    said = run.read_artifact("config.json")["dataset"]
    dataset = reload(said["name"], said["fingerprint"])
    kind = run.summary["outputs"]
    images = getattr(dataset.train.inputs, "ndim", 0) == 4
    if kind not in ("logits", "probabilities") or not images:
        raise UserError(
            f"the run in {run.workdir} does not classify images: give a run that does, "
            "as of experiments/digits.py"
        )
    return dataset


def answer(run: Run, dataset: Dataset, image: np.ndarray) -> Explanation:
    """The predictions for one image [H, W, C], stored like the data of the run.

    Source of the disagreement: Houlsby et al. (2011), Bayesian active learning for
    classification and preference learning, eq. 2.
    """
    members = np.flatnonzero(run.chosen)
    inputs = np.concatenate([image[None], saliency.covered(image)])
    outputs = only_array(run.predict(inputs))[run.chosen].astype(np.float64)
    every = LINKS[run.summary["outputs"]](outputs)  # [P, 1 + GRID * GRID, K]
    chance, ensemble = every[:, 0], every[:, 0].mean(0)
    best = ensemble.argmax()
    fell = ensemble[best] - every[:, 1:, best].mean(0)
    fell = fell.reshape(saliency.GRID, saliency.GRID)
    entropy = float(entr(ensemble).sum())
    return Explanation(
        members,
        chance,
        ensemble,
        entropy,
        entropy - float(entr(chance).sum(-1).mean()),
        saliency.overlaid(image, fell),
        _nearest(dataset, image),
    )


def _nearest(dataset: Dataset, image: np.ndarray) -> list[tuple[int, int, float]]:
    train = dataset.train.inputs
    some = evenly(len(train), COMPARED)
    places, far, _ = mistakes.nearest(train[some], image[None])
    found, label = some[places[0]], labels(dataset.train.targets)
    assert label is not None
    rows: Any = zip(found.tolist(), label[found].tolist(), far[0].tolist(), strict=True)
    return list(rows)
