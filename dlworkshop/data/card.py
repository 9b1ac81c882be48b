"""The data card: counts, examples, warnings, and how the data set was prepared."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from dlworkshop.data.content import SPLITS
from dlworkshop.data.leaves import by_place
from dlworkshop.data.rows import evenly
from dlworkshop.types import Array, Dataset, PyTree

CLASSES_SHOWN, EXAMPLES_SHOWN = 12, 6  # classes with pictures, pictures of each
MOST_PIXELS = 96  # of the longer side of a picture


def describe(dataset: Dataset) -> dict[str, Any]:
    """The data card as JSON, including the entries recorded by the preparation.

    >>> from dlworkshop.data import load
    >>> card = describe(load("digits"))
    >>> card["shape"], card["counts"]["test"][:3], len(card["examples"])
    ([8, 8, 1], [31, 35, 39], 10)
    """
    card = {
        **(dataset.card or {}),
        "name": dataset.name,
        "shape": _each(dataset.train.inputs, lambda x: [int(n) for n in x.shape[1:]]),
        "dtype": _each(dataset.train.inputs, lambda x: str(x.dtype)),
        "sizes_of_splits": {n: getattr(dataset, n).num_examples for n in SPLITS},
        "classes": list(dataset.classes),
    }
    if found := counts(dataset):
        card["counts"] = found
        if is_picture(dataset.train.inputs):
            card["examples"] = _examples(dataset)
    return card


def counts(dataset: Dataset) -> dict[str, list[int]]:
    """The number of examples of each class [K] in each split; {} without classes."""
    labels = {name: getattr(dataset, name).targets for name in SPLITS}
    if not dataset.classes or not all(map(_are_labels, labels.values())):
        return {}
    return {
        name: np.bincount(targets, minlength=len(dataset.classes)).tolist()
        for name, targets in labels.items()
    }


def warnings(card: Mapping[str, Any]) -> list[str]:
    """Warnings about the data that a reader of the results should know.

    >>> warnings({"counts": {"train": [90, 10]}})
    ["The classes are uneven: read the balanced accuracy and each class's own."]
    """
    said = [str(text) for text in card.get("warnings") or []]
    copies, groups = card.get("copies") or {}, card.get("groups") or {}
    if found := copies.get("across_splits"):
        said.append(
            f"Exact copies of {_many(found, 'example')} are in several splits, so the "
            "scores are too good."
        )
    if found := copies.get("of_several_classes"):
        said.append(
            f"Exact copies of {_many(found, 'example')} are in several classes."
        )
    if found := groups.get("in_several_splits"):
        said.append(
            f"Parts of {_many(found, 'group')} by '{groups.get('by')}' are in several "
            "of the given splits."
        )
    if found := card.get("num_skipped"):
        files = [f"{name} ({why})" for name, why in (card.get("skipped") or [])[:5]]
        more = f" and {found - len(files)} more" if found > len(files) else ""
        said.append(f"Files that are no readable image: {', '.join(files)}{more}.")
    classes = (card.get("counts") or {}).get("train") or []
    if classes and min(classes) * 5 <= max(classes):
        said.append(
            "The classes are uneven: read the balanced accuracy and each class's own."
        )
    return said


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _each(inputs: PyTree, said: Callable[[Array], Any]) -> Any:
    """A description of the array of inputs, or of each array by its place."""
    found = {place: said(leaf) for place, leaf in by_place(inputs).items()}
    return found.get("", found)


def _are_labels(targets: Any) -> bool:
    """Whether targets are one class per example, not class probabilities."""
    return getattr(targets, "ndim", 0) == 1 and targets.dtype.kind in "iu"


def is_picture(images: PyTree) -> bool:
    """Whether examples can be shown as pictures: one array [N, H, W, 1 or 3].

    >>> is_picture(np.zeros((2, 8, 8, 3))), is_picture({"x": np.zeros((2, 8, 8, 3))})
    (True, False)
    """
    shape: tuple[int, ...] = getattr(images, "shape", ())
    return len(shape) == 4 and shape[-1] in (1, 3)


def picture(image: np.ndarray) -> str:
    """An image [H, W, C], uint8 or float in [0, 1], as PNG in base64.

    >>> picture(np.zeros([2, 2, 1], np.uint8))[:8]
    'iVBORw0K'
    """
    if image.dtype != np.uint8:
        image = (255 * np.clip(image, 0, 1)).round().astype(np.uint8)
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    pixels.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    pixels.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _examples(dataset: Dataset) -> list[list[str]]:
    """Pictures of training examples: a list for each of the first classes."""
    label = np.asarray(dataset.train.targets)
    rows = []
    for k in range(min(len(dataset.classes), CLASSES_SHOWN)):
        own = np.flatnonzero(label == k)
        shown = own[evenly(len(own), EXAMPLES_SHOWN)].tolist()
        rows.append([picture(np.asarray(dataset.train.inputs[i])) for i in shown])
    return rows
