"""Reader of an .npz file with x and y, or x_train, y_train, ..."""

import functools
from pathlib import Path

from dlworkshop.data import leaves
from dlworkshop.data.readers import arrays
from dlworkshop.data.readers.examples import inside, shape, to_example
from dlworkshop.data.readers.reader import Options
from dlworkshop.errors import UserError

__all__ = ["inside", "shape", "to_example"]  # the same for all arrays

KINDS: tuple[str, ...] = ("array", "image")
OPTIONS: tuple[str, ...] = ("target",)


def matches(path: Path) -> bool:
    """Whether the suffix is .npz."""
    return path.suffix.lower() == ".npz"


def files(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The file itself."""
    return [path], ()


def read(path: Path, options: Options) -> arrays.Parts:
    """The arrays of an .npz file: x and y, or x_train, y_train, x_test, ...

    The name of the labels is the target, or one of `arrays.LABELS`.

    Raises:
        UserError: if there are no such arrays, or inputs without labels.
    """
    parts: arrays.Parts = {}
    target = options.target
    if isinstance(target, tuple):
        raise UserError(f"target is {target}: give the name of one array of {path}")
    labels = arrays.LABELS if target is None else (target,)
    with arrays.reading(path) as given:
        inputs_of = arrays.by_split(path, given, arrays.INPUTS)
        labels_of = arrays.by_split(path, given, labels)
    for number, inputs in inputs_of.items():
        found = labels_of.get(number)
        if found is None:
            raise UserError(
                f"{path} has inputs but no labels of the same split (it has "
                f"{', '.join(given)}): name them as in x_train, y_train, or with "
                "--target"
            )
        parts[number] = inputs, leaves.read(found, f"the array of labels in {path}")
    if 0 not in parts:
        raise UserError(
            f"{path} has {', '.join(given) or 'no array'}: wanted x and y, or "
            "x_train, y_train, x_test, y_test"
        )
    return parts


prepare = functools.partial(arrays.prepare, read)
fingerprint = functools.partial(arrays.fingerprint, read)
labelled = functools.partial(arrays.labelled, read)
