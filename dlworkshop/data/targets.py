"""Targets of `from_arrays`: the rule that tells classes from numbers."""

from collections.abc import Sequence

import jax
import numpy as np

from dlworkshop.data.content import pieces
from dlworkshop.data.leaves import TEXT, check_finite, is_float
from dlworkshop.errors import UserError, repr_of
from dlworkshop.types import Array, PyTree

DARK = 32  # uint8 targets below it are counts or classes, not images


def as_targets(
    given: dict[str, PyTree], classes: Sequence[str] | None
) -> tuple[dict[str, PyTree], tuple[str, ...]]:
    """Targets for a loss, and the names of the classes; () if they are numbers.

    Args:
        given: split -> arrays [N, ...] from `leaves.as_arrays`.
        classes: as in `from_arrays`.

    Raises:
        UserError: if the targets are neither classes nor finite numbers.
    """
    if classes is not None:
        classes = _names(classes)
    train = given["train"]
    if train is None:
        if classes:
            raise UserError("classes are given, but no y: give the class of each x")
        return given, ()
    given = {split: _flat(targets) for split, targets in given.items()}
    flat = given["train"]
    named = isinstance(flat, np.ndarray) and flat.ndim == 1 and _is_discrete(flat)
    if classes and not named:
        is_array = hasattr(flat, "dtype") and hasattr(flat, "shape")
        what = f"{flat.dtype} {list(flat.shape)}" if is_array else "a pytree"
        raise UserError(
            f"classes are given, but y is {what}: give y as whole numbers or text [N], "
            "or leave classes out"
        )
    if not named or classes == ():
        return {split: _values(y, split) for split, y in given.items()}, ()
    if classes is None:
        classes = _found(given)
    return {
        split: as_labels(y, classes, described(split, "y"))
        for split, y in given.items()
    }, classes


def described(split: str, what: str) -> str:
    """The name of an array in messages, such as "y" or "validation y".

    >>> described("train", "y"), described("test", "y")
    ('y', 'test y')
    """
    return what if split == "train" else f"{split} {what}"


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    ordered = np.iterable(classes) and not isinstance(classes, str | set | frozenset)
    if not ordered:
        raise UserError(
            f"classes is {repr_of(classes)}: give a name for each class, as a tuple, "
            "in the order of their numbers"
        )
    names = tuple(str(name) for name in classes)
    twice = [name for name in names if names.count(name) > 1]
    if twice or len(names) == 1:
        wrong = f"'{twice[0]}' twice" if twice else "one name"
        raise UserError(
            f"classes has {wrong}: give at least two different names, or () if y holds "
            "numbers"
        )
    return names


def _is_discrete(array: np.ndarray) -> bool:
    return array.dtype.kind in "biu" + TEXT


def _flat(targets: PyTree) -> PyTree:
    """Integers and text [N, 1] as [N], because some libraries store classes so."""
    column = isinstance(targets, np.ndarray) and targets.shape[1:] == (1,)
    return targets[:, 0] if column and _is_discrete(targets) else targets


def _found(given: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The names of the classes in train: its texts, or 0 to K - 1."""
    values = np.unique(given["train"])
    if values.dtype.kind == "b":
        return "False", "True"
    if len(values) < 2:
        raise UserError(
            f"y is {values[0]} for every example: give at least two classes, or "
            "classes=() if y holds numbers"
        )
    if len(values) > max(2, len(given["train"]) // 2):
        raise UserError(
            f"y has {len(values)} different values for {len(given['train'])} examples, "
            "too many for classes: give classes=() if they are numbers to predict, or "
            "the names of the classes"
        )
    if values.dtype.kind in TEXT:
        return tuple(values.tolist())
    if values[0] != 0 or values[-1] != len(values) - 1:
        raise UserError(
            f"y has {len(values)} different whole numbers from {values[0]} to "
            f"{values[-1]}, and classes must be 0 to K - 1, all of them in train: give "
            "classes=names, one for each of 0 to K - 1, give y as text, or classes=() "
            "if y holds numbers to predict"
        )
    return tuple(str(value) for value in values.tolist())


def as_labels(y: np.ndarray, classes: Sequence[str], what: str) -> np.ndarray:
    """Labels [N] int32 in [0, K) from text [N] that names classes, integers or bools.

    Raises:
        UserError: if `y` has a class that is not in `classes`.

    >>> as_labels(np.array(["b", "a"]), ("a", "b"), "y").tolist()
    [1, 0]
    """
    if y.dtype.kind in TEXT:
        values, place = np.unique(y, return_inverse=True)
        lost = sorted(set(values.tolist()) - set(classes))
        if lost:
            raise UserError(
                f"{what} has the class '{lost[0]}', which is none of "
                f"{', '.join(classes[:8])}{' ...' if len(classes) > 8 else ''}: give "
                "the classes of train"
            )
        number = {name: k for k, name in enumerate(classes)}
        return np.array([number[v] for v in values.tolist()], np.int32)[place]
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= len(classes):
        raise UserError(
            f"{what} has classes from {low} to {high}, and there are {len(classes)}: "
            f"give 0 to {len(classes) - 1}"
        )
    return y.astype(np.int32)


def _values(targets: PyTree, split: str) -> PyTree:
    """Numbers to predict, with dtypes that a step leaves unchanged."""

    def leaf(path, array: Array) -> Array:
        what = described(split, "y") + jax.tree_util.keystr(path)
        if array.dtype.kind in TEXT:
            raise UserError(
                f"{what} is text {list(array.shape)}, which only names classes if y is "
                "one array [N]: give numbers"
            )
        if array.dtype == bool:
            return np.asarray(array, np.float32)
        if array.dtype == np.uint8:
            return _bytes(array, what)
        if is_float(array):
            check_finite(array, what)
        return array

    return jax.tree.map_with_path(leaf, targets)


def _bytes(array: Array, what: str) -> Array:
    """uint8 targets; a step scales them to [0, 1], which is right for images only."""
    if array.ndim == 1:
        return np.asarray(array, np.int32)
    if max(int(piece.max()) for piece in pieces(array)) < DARK:
        raise UserError(
            f"{what} is uint8 {list(array.shape)} below {DARK}, and uint8 is an image, "
            "whose 255 becomes 1: give .astype(np.int32) for classes, or "
            ".astype(np.float32) for numbers"
        )
    return array
