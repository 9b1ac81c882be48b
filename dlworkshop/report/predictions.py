"""`predictions.npz` of a run folder: what the members said on the test split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlworkshop import run_files
from dlworkshop.data.archive import Arrays
from dlworkshop.data.checksums import sha256
from dlworkshop.errors import UserError
from dlworkshop.files import open_own

MOST_UNNAMED = 4096  # classes that a run without class names may have
MOST_BYTES = 1 << 32


class Probabilities(NamedTuple):
    """Confidence and likelihood of the members, and of their ensemble."""

    confidence: np.ndarray  # [P, N] largest probability
    likelihood: np.ndarray  # [P, N] probability of the true class
    ensemble_prediction: np.ndarray  # [N] int
    ensemble_confidence: np.ndarray  # [N]
    ensemble_likelihood: np.ndarray  # [N]

    def of(self, members: Any) -> "Probabilities":
        """Those of some members, given by an index or a mask [P]."""
        confidence, likelihood = self.confidence[members], self.likelihood[members]
        return self._replace(confidence=confidence, likelihood=likelihood)


class Mistakes(NamedTuple):
    """Misclassified test examples, some for each pair of classes."""

    example: np.ndarray  # [S] int in [0, N)
    image: np.ndarray  # [S, H, W, C] uint8


class Predictions(NamedTuple):
    """Class predictions of the members on the test split, and the worst examples."""

    label: np.ndarray  # [N] int
    prediction: np.ndarray  # [P, N] int
    loss: np.ndarray  # [P, N] nats
    worst_index: np.ndarray  # [M] int in [0, N), the worst first
    worst_image: np.ndarray  # [M, H, W, C] uint8, or [M, D] features
    classes: np.ndarray  # [K] names
    probabilities: Probabilities | None = None  # None if they were not saved
    mistakes: Mistakes | None = None  # None if no images were saved

    def of(self, members: Any) -> "Predictions":
        """Those of some members, given by an index or a mask [P]."""
        return self._replace(
            prediction=self.prediction[members],
            loss=self.loss[members],
            probabilities=self.probabilities and self.probabilities.of(members),
        )

    def class_names(self, least: int = 0) -> list[str]:
        """Names of at least `least` classes; one without a name gets its number."""
        names = [str(name) for name in self.classes]
        return names + [str(k) for k in range(len(names), least)]


class Numbers(NamedTuple):
    """Numeric predictions of the members on the test split.

    Values are in the units of the targets. A very large split is truncated.
    """

    target: np.ndarray  # [N, D]
    prediction: np.ndarray  # [P, N, D] values, or probabilities of labels
    ensemble: np.ndarray  # [N, D] their mean over the finite members
    names: list[str]  # [D] of the columns; "" for a column without a name
    are_labels: bool  # several of which may be true at once; else values

    def of(self, members: Any) -> "Numbers":
        """Those of some members, given by an index or a mask [P]."""
        return self._replace(prediction=self.prediction[members])


def read_predictions(
    path: Path, summary: Mapping[str, Any]
) -> Predictions | Numbers | None:
    """The predictions in a file; None if it is missing or empty.

    Raises:
        UserError: if it is damaged, or not that of the summary.
    """
    if not path.exists():
        return None
    try:
        with open_own(path):
            pass  # it is a regular file, and not a link
        known = summary.get("sha256", {}).get(path.name)
        if known is not None and sha256(path) != known:
            raise ValueError("it was changed since the run wrote it")
        arrays = Arrays(path, most=MOST_BYTES)
        found = _numbers(arrays) if "target" in arrays else _classes(arrays)
    except (KeyError, ValueError, OSError) as error:
        what = getattr(error, "strerror", None) or error
        what = f"{error} is missing" if isinstance(error, KeyError) else what
        raise UserError(f"'{path}' cannot be read as predictions: {what}.") from None
    if not found.prediction.size:
        return None
    run_files.check_members(path, {len(found.prediction)}, summary)
    return found


def _classes(arrays: Mapping[str, np.ndarray]) -> Predictions:
    """Class predictions with checked shapes, dtypes and indices."""
    named: list[Any] = [arrays[name] for name in Predictions._fields[:-2]]
    found = Predictions(*named)
    examples = found.label.size
    each = (*found.prediction.shape[:1], examples)  # of each member
    shapes: dict[str, tuple[int, ...]] = {"label": (examples,)}
    shapes |= dict.fromkeys(("prediction", "loss"), each)
    shapes |= {name: (arrays[name].size,) for name in ("classes", "worst_index")}
    images = {"worst_index": found.worst_image}
    if "mistake_index" in arrays:
        kept = Mistakes(arrays["mistake_index"], arrays["mistake_image"])
        found = found._replace(mistakes=kept)
        shapes["mistake_index"] = (kept.example.size,)
        images["mistake_index"] = kept.image
    if set(Probabilities._fields) <= arrays.keys():
        sure = {name: arrays[name] for name in Probabilities._fields}
        found = found._replace(probabilities=Probabilities(**sure))
        shapes |= dict.fromkeys(Probabilities._fields[:2], each)
        shapes |= dict.fromkeys(Probabilities._fields[2:], (examples,))
    for name, shape in shapes.items():
        whole = name.endswith(("label", "prediction", "index"))
        kinds = "U" if name == "classes" else "iu" if whole else "f"
        array = arrays[name]
        if array.shape != shape or array.dtype.kind not in kinds:
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}")
    most = max(found.classes.size, MOST_UNNAMED)
    if not found.classes.size:
        raise ValueError("it contains no class names")
    for name, image in images.items():
        index = arrays[name]
        if index.size != len(np.atleast_1d(image)) or (
            index.size and not 0 <= index.min() <= index.max() < examples
        ):
            raise ValueError("its worst examples are not examples of the test split")
    for array in (found.label, found.prediction):
        if array.size and array.max() >= most:
            raise ValueError(f"it contains the class {array.max()}, of {most}")
    return found


def _numbers(arrays: Mapping[str, np.ndarray]) -> Numbers:
    """Values, or probabilities of labels, with checked shapes and dtypes."""
    are_labels = "probability" in arrays
    key = "probability" if are_labels else "prediction"
    target, said, ensemble = (arrays[name] for name in ("target", key, "ensemble"))
    for name, array in (("target", target), (key, said), ("ensemble", ensemble)):
        if array.dtype.kind not in "biuf" or not array.ndim:
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}")
    if said.shape[1:] != target.shape or ensemble.shape != target.shape:
        raise ValueError(
            f"{key} has the shape {list(said.shape)}, target {list(target.shape)} and "
            f"ensemble {list(ensemble.shape)}"
        )
    size, columns = len(target), int(np.prod(target.shape[1:]))
    names = [str(name) for name in np.ravel(arrays["names"])]
    if len(names) != columns:
        names = [""] * columns
    return Numbers(
        target.reshape(size, columns),
        said.reshape(len(said), size, columns),
        ensemble.reshape(size, columns),
        names,
        are_labels,
    )
