"""Shared by the readers of arrays: checks, splits, records, and names."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop.data import split
from dlworkshop.data.archive import Arrays
from dlworkshop.data.content import SPLITS
from dlworkshop.data.readers import cards, images, store
from dlworkshop.data.readers.reader import Options, Source
from dlworkshop.data.readers.split_names import SPLIT_NAMES, tested
from dlworkshop.data.units import spread
from dlworkshop.errors import UserError

INPUTS = ("image", "images", "x", "data", "features")
LABELS = ("label", "labels", "y", "target", "targets")

Parts = dict[int, tuple[np.ndarray, np.ndarray]]  # place in SPLITS -> inputs, labels
Read = Callable[[Path, Options], Parts]  # the step in which the readers differ


def read_inputs(path: Path) -> np.ndarray:
    """The inputs [N, ...] of an .npz file; labels are not needed.

    Raises:
        UserError: if there are no inputs, or those of several splits.
    """
    with reading(path) as arrays:
        found = list(by_split(path, arrays, INPUTS).values())
    if len(found) != 1:
        raise UserError(
            f"{path} has {', '.join(arrays) or 'no array'}: wanted one array x of "
            "inputs"
        )
    if not found[0].ndim or found[0].dtype.kind not in "biuf":
        raise UserError(
            f"{path} has inputs of {found[0].dtype} {list(found[0].shape)}: wanted "
            "numbers [N, ...]"
        )
    return with_channels(found[0])


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Arrays]:
    """The arrays of an .npz file by name; pickles are rejected.

    Raises:
        UserError: if the file, or an array that is read inside, is damaged.
    """
    try:
        yield Arrays(path)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read as .npz without pickles ({error}): save it with "
            "np.savez(path, x=..., y=...), numbers or text only"
        ) from None


def by_split(
    path: Path, arrays: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> dict[int, np.ndarray]:
    """Index in SPLITS -> the array with one of `names`, such as "x_train".

    Raises:
        UserError: if there are two for a split.
    """
    found: dict[int, str] = {}
    any_name = "|".join(map(re.escape, names))
    form = rf"(?:(?P<a>\w+?)_)?(?:{any_name})(?:_(?P<b>\w+))?"
    for key in arrays:
        if rest := re.fullmatch(form, key, re.IGNORECASE):
            part = (rest["a"] or rest["b"] or "train").lower()
            if part in SPLIT_NAMES and not (rest["a"] and rest["b"]):
                other = found.setdefault(SPLIT_NAMES[part], key)
                if other != key:
                    raise UserError(
                        f"{path} has the arrays '{other}' and '{key}', of which one is "
                        "expected: save it without the other"
                    )
    return {number: arrays[key] for number, key in found.items()}


def prepare(read: Read, path: Path, folder: Path, options: Options) -> store.Prepared:
    """Check the arrays, cut off missing splits, and write every example.

    Images are [N, H, W] or [N, H, W, C], uint8 or floats in [0, 1]; three equal
    channels are reduced to one. Vectors [N, D] are standardised with the statistics of
    train, and NaN becomes the mean.
    """
    parts = read(path, options)
    inputs, labels, given = join(parts, path)
    classes, label = np.unique(labels, return_inverse=True)
    _check_classes(path, classes, label, given)
    content = digests(inputs)
    made_of = key(content, labels, given, inputs.shape)
    names = [f"example {i}" for i in range(len(label))]
    words = [str(value) for value in classes.tolist()]
    same = np.unique(content, return_inverse=True)[1]
    if split.are_observations(same, inputs.shape[1:]):
        same = np.arange(len(same))
    splits = split.complete(names, label, same, given, words)
    prepared = "as they are"
    if are_grey(inputs):
        inputs = inputs[..., :1]
        prepared = "the first of three equal channels"
    preprocessing: dict[str, Any] = {"kind": "array", "shape": list(inputs.shape[1:])}
    if inputs.ndim == 2:
        train = inputs[splits == 0].astype(np.float64)
        found = [spread(column[~np.isnan(column)]) for column in train.T]
        for each in ("mean", "deviation"):
            preprocessing[each] = [column[each] for column in found]
        prepared = (
            "each minus its mean, divided by its standard deviation, both of train; "
            "missing numbers are replaced by the mean"
        )
    if inputs.ndim == 4 and inputs.shape[-1] in (1, 3):
        preprocessing = images.as_shaped(inputs.shape[1:])
        preprocessing["floats"] = inputs.dtype != np.uint8
    examples = transform(inputs, preprocessing)
    card: dict[str, Any] = {
        "kind": "arrays",
        "prepared": f"{list(inputs.shape[1:])} numbers for each example, {prepared}",
        "splits": cards.splits_sentence(given, splits),
        "groups": None,
        "copies": cards.copies_card(names, label, splits, same),
        "warnings": cards.absent(words, label, splits),
    }
    return store.Prepared(
        made_of,
        label.astype(np.int32),
        splits,
        rows_of(parts),
        words,
        examples.shape[1:],
        examples.dtype.name,
        store.write_records(folder, examples),
        preprocessing,
        card,
    )


def join(parts: Parts, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked inputs [N, ...], labels [N] and indices in SPLITS [N] of all splits."""
    for number, (inputs, labels) in parts.items():
        _check(path, SPLITS[number], inputs, labels)
    shapes = {inputs.shape[1:] for inputs, _ in parts.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{path} has examples of {' and '.join(map(str, shapes))} in its splits: "
            "make them equal"
        )
    order = sorted(parts)
    inputs = np.concatenate([parts[number][0] for number in order])
    labels = np.concatenate([np.ravel(parts[number][1]) for number in order])
    given = np.repeat(np.array(order, np.int8), [len(parts[n][0]) for n in order])
    return with_channels(inputs), labels, given


def rows_of(parts: Parts) -> list[str]:
    """A description of the source of each example [N] of `join`.

    >>> x, y = np.zeros((2, 3)), np.zeros(2)
    >>> rows_of({0: (x, y)}), rows_of({2: (x, y), 0: (x[:1], y[:1])})
    (['row 0', 'row 1'], ['train row 0', 'test row 0', 'test row 1'])
    """
    split = {n: f"{SPLITS[n]} " if len(parts) > 1 else "" for n in sorted(parts)}
    return [
        f"{said}row {i}" for n, said in split.items() for i in range(len(parts[n][0]))
    ]


def with_channels(inputs: np.ndarray) -> np.ndarray:
    """Grey images [N, H, W] with a channel axis; other arrays unchanged."""
    return inputs[..., None] if inputs.ndim == 3 else inputs


def are_grey(images: np.ndarray) -> bool:
    """Whether the three channels of images [..., H, W, 3] are equal.

    >>> are_grey(np.ones((2, 4, 4, 3))), are_grey(np.ones((2, 4, 4, 1)))
    (True, False)
    """
    colours = images.ndim >= 3 and images.shape[-1] == 3
    return colours and bool((images[..., 1:] == images[..., :1]).all())


def labelled(
    read: Read, path: Path, options: Options, label: Callable[[str], Any]
) -> Iterator[Source]:
    """The examples of the test split, or all if there is none."""
    inputs, labels, given = join(read(path, options), path)
    names = {value: label(str(value)) for value in np.unique(labels).tolist()}
    return (
        Source(f"{path} row {i}", inputs[i], names[labels[i].item()])
        for i in np.flatnonzero(tested(given))
    )


def fingerprint(
    read: Read, path: Path, preprocessing: Mapping[str, Any], options: Options
) -> str:
    """The content hash that `prepare` would compute, without preparing."""
    del preprocessing  # the arrays determine it
    inputs, labels, given = join(read(path, options), path)
    return key(digests(inputs), labels, given, inputs.shape)


def key(
    content: Sequence[str], labels: np.ndarray, given: np.ndarray, shape: Sequence[int]
) -> str:
    """The content hash of inputs, labels, splits and shapes."""
    parts = [*content, *labels.tolist(), *given.tolist(), tuple(shape)]
    return store.digest([store.VERSION, *parts])


def digests(inputs: np.ndarray) -> list[str]:
    """A digest of each example [N, ...]."""
    return [store.digest([row.tobytes()]) for row in inputs]


def transform(inputs: np.ndarray, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Examples [N, ...] as model inputs: uint8 unchanged, else float32.

    >>> preprocessing = {"mean": [1.0], "deviation": [2.0], "shape": [1]}
    >>> transform(np.array([[3.0], [np.nan]]), preprocessing).tolist()
    [[1.0], [0.0]]
    """
    if "mean" in preprocessing:
        scaled = (inputs - np.array(preprocessing["mean"])) / np.array(
            preprocessing["deviation"]
        )
        return np.nan_to_num(scaled).astype(np.float32)
    return inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)


def _check(path: Path, name: str, inputs: np.ndarray, labels: np.ndarray) -> None:
    if not inputs.ndim or not labels.ndim:
        raise UserError(
            f"{path} has a scalar in {name}: wanted inputs [N, ...] and labels [N]"
        )
    if len(labels) == len(inputs) < labels.size:
        one = labels.dtype.kind in "biuf" and _is_one_hot(labels)
        raise UserError(
            f"{path} has labels of shape {list(labels.shape)} in {name}, "
            + ("one-hot: save y.argmax(1)" if one else "several for each input: give")
            + (" instead" if one else " both arrays to data.from_arrays(x, y)")
        )
    if labels.dtype.kind == "f":
        whole = bool((labels == np.floor(labels)).all())
        raise UserError(
            f"{path} has labels of {labels.dtype} in {name}: for classes save "
            f"{'y.astype(int)' if whole else 'whole numbers or text'}, and for numbers "
            "to be predicted give both arrays to data.from_arrays(x, y)"
        )
    if len(inputs) != labels.size or not len(inputs):
        raise UserError(
            f"{path} has {len(inputs)} inputs and {labels.size} labels in {name}: "
            "wanted the same number of both, and at least one"
        )
    is_odd = inputs.ndim not in (2, 3, 4) or (inputs.ndim == 4 and inputs.shape[3] > 4)
    if is_odd or 0 in inputs.shape:
        raise UserError(
            f"{path} has inputs of shape {list(inputs.shape)} in {name}: wanted images "
            "[N, H, W] or [N, H, W, C] with C at most 4, or vectors [N, D]"
        )
    if inputs.dtype.kind not in "biuf" or labels.dtype.kind not in "biuSU":
        raise UserError(
            f"{path} has inputs of {inputs.dtype} and labels of {labels.dtype} in "
            f"{name}: wanted numbers, and whole numbers or text for labels"
        )
    if inputs.ndim > 2 and inputs.dtype != np.uint8:
        low, high = inputs.min(), inputs.max()
        if not (low >= 0 and high <= 1):  # also rejects NaN
            raise UserError(
                f"{path} has images of {inputs.dtype} from {low:g} to {high:g} in "
                f"{name}: wanted uint8, or floats in [0, 1]"
            )
    if inputs.ndim == 2 and np.isinf(inputs).any():
        raise UserError(f"{path} has infinite inputs in {name}: fix or remove them")


def _is_one_hot(labels: np.ndarray) -> bool:
    """Whether each row of labels [N, K] is 0 except for a single 1."""
    marks = bool(((labels == 0) | (labels == 1)).all())
    return labels.ndim == 2 and marks and bool((labels.sum(1) == 1).all())


def _check_classes(
    path: Path, classes: np.ndarray, label: np.ndarray, given: np.ndarray
) -> None:
    counts = np.bincount(label[given == 0], minlength=len(classes))
    if len(classes) < 2 or not counts.all():
        empty = [str(c) for c, n in zip(classes, counts, strict=True) if not n]
        raise UserError(
            f"{path} has {len(classes)} classes"
            + (f", and train has none of '{empty[0]}'" if empty else "")
            + ": wanted at least 2, all of them in train"
        )
    if len(classes) > max(2, len(label) // 3):
        raise UserError(
            f"{path} has {len(classes)} different labels for {len(label)} examples: "
            "give classes as labels, integers or text that recur"
        )
