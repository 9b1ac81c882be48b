"""Conversion of one image or array to an example, as in training."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop.data.readers import arrays, images
from dlworkshop.data.readers.reader import Source
from dlworkshop.errors import UserError
from dlworkshop.files import open_regular


def to_example(source: Any, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """An image file or an array as an example, as in training.

    Raises:
        UserError: if the source is of another kind, shape or dtype.

    >>> preprocessing = images.as_shaped((2, 2, 1))
    >>> to_example(np.zeros((2, 2, 1), np.uint8), preprocessing).shape
    (2, 2, 1)
    """
    is_image = preprocessing["kind"] == "image"
    if isinstance(source, np.ndarray):
        wanted = shape(preprocessing)
        if wanted == [*source.shape[:2], 1] and arrays.are_grey(source):
            source = source[..., :1]
        if list(source.shape) != wanted:
            raise UserError(
                f"an example has shape {list(source.shape)}, wanted {wanted}: give "
                "examples like those of training"
            )
        if is_image:
            return _pixels(source, preprocessing)
        if np.isinf(source).any():
            raise UserError("an example has an infinite number: fix or remove it")
        return arrays.transform(source[None], preprocessing)[0]
    if not is_image or not isinstance(source, Path):
        wanted_kind = "an image file" if is_image else "an array"
        raise UserError(f"{source} is given, wanted {wanted_kind}")
    try:
        with open_regular(source) as file:
            content = file.read()
        return _pixels(images.decode(content, preprocessing), preprocessing)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{source} cannot be read as an image: {why}") from None


def _pixels(image: np.ndarray, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Pixels in the dtype of training: uint8, or floats in [0, 1]."""
    if not preprocessing.get("floats"):
        if image.dtype != np.uint8:
            raise UserError(f"an image is {image.dtype}, wanted uint8 in 0 to 255")
        return image
    if image.dtype == np.uint8:
        return image / np.float32(255)
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # also rejects NaN
        raise UserError(
            f"an image is {image.dtype} from {low:g} to {high:g}, wanted floats in "
            "[0, 1], or uint8"
        )
    return image.astype(np.float32)


def shape(preprocessing: Mapping[str, Any]) -> list[int]:
    """The shape of the examples of `to_example`."""
    if preprocessing["kind"] == "image":
        return [preprocessing[side] for side in ("height", "width", "channels")]
    return list(preprocessing["shape"])


def inside(file: Path, preprocessing: Mapping[str, Any]) -> Iterator[Source]:
    """The rows of the array x of an .npz file, or an image file itself."""
    if file.suffix.lower() == ".npz":
        for i, row in enumerate(arrays.read_inputs(file)):
            yield Source(f"{file} row {i}", row)
    elif preprocessing["kind"] == "array":
        raise UserError(
            f"{file} is no .npz file, and the run learnt from arrays of shape "
            f"{preprocessing['shape']}, which are no images: give an .npz with an "
            "array x"
        )
    else:
        yield Source(str(file), file)
