"""Arrays of one's own, in an .npz file or IDX files -> records, labels and splits."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop.data import raw
from dlworkshop.data.readers import folder as folders
from dlworkshop.data.readers import images, split, store
from dlworkshop.data.readers.folder import SPLIT_FOLDERS
from dlworkshop.errors import UserError

INPUTS = ("image", "images", "x", "data", "features")
LABELS = ("label", "labels", "y", "target", "targets")
IDX = re.compile(r"(?P<split>.*?)[-_.]?images[-_.]idx3[-_.]ubyte(\.gz)?$")
IDX_SPLITS = SPLIT_FOLDERS | {"t10k": 2, "": 0}

Parts = dict[int, tuple[np.ndarray, np.ndarray]]  # place in SPLITS -> inputs, labels


def read_npz(path: Path, target: str | None) -> Parts:
    """The arrays of an .npz file: x and y, or x_train, y_train, x_test, ...

    Args:
        path: of the file; pickles in it are refused.
        target: the name of the labels, where it is none of LABELS.

    Raises:
        UserError: if there is nothing by these names, or what is there cannot be.
    """
    arrays = _read(path)
    parts: Parts = {}
    labels = LABELS if target is None else (target,)
    for number, inputs in _by_split(arrays, INPUTS).items():
        found = _by_split(arrays, labels).get(number)
        if found is None:
            raise UserError(
                f"{path} has inputs but no labels of the same split (it has "
                f"{', '.join(arrays)}): name them as in x_train, y_train, or with "
                "--target"
            )
        parts[number] = inputs, found
    if 0 not in parts:
        raise UserError(
            f"{path} has {', '.join(arrays) or 'no array'}: wanted x and y, or "
            "x_train, y_train, x_test, y_test"
        )
    return parts


def read_inputs(path: Path) -> np.ndarray:
    """The one array of inputs [N, ...] of an .npz file; labels are not needed.

    Raises:
        UserError: if there is none, or one for each of several splits.
    """
    arrays = _read(path)
    found = list(_by_split(arrays, INPUTS).values())
    if len(found) != 1:
        raise UserError(
            f"{path} has {', '.join(arrays) or 'no array'}: wanted one array x of "
            "inputs"
        )
    return with_channels(found[0])


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as .npz without pickles ({error}): save it with "
            "np.savez(path, x=..., y=...), numbers or text only"
        ) from None


def _by_split(
    arrays: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> dict[int, Any]:
    found = {}
    for key, array in arrays.items():
        for name in names:
            rest = re.fullmatch(
                rf"(?:(?P<a>\w+?)_)?{re.escape(name)}(?:_(?P<b>\w+))?",
                key,
                re.IGNORECASE,
            )
            if rest:
                part = (rest["a"] or rest["b"] or "train").lower()
                if part in SPLIT_FOLDERS and not (rest["a"] and rest["b"]):
                    found[SPLIT_FOLDERS[part]] = array
    return found


def idx_files(path: Path) -> list[Path]:
    """The files of images in IDX format in a folder, or the one that is given."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in inside if file.is_file() and IDX.match(file.name)]


def read_idx(files: list[Path]) -> Parts:
    """IDX files of images, each with the one of labels beside it."""
    parts: Parts = {}
    for file in files:
        match = IDX.match(file.name)
        name = match["split"].lower() if match else ""
        if name not in IDX_SPLITS:
            raise UserError(
                f"{file} is of a split '{name}': name it train, validation, test or "
                "t10k"
            )
        partner = file.name.replace("images", "labels").replace("idx3", "idx1")
        homes = [partner, f"{partner}.gz", partner.removesuffix(".gz")]
        labels = [
            file.with_name(home) for home in homes if file.with_name(home).is_file()
        ]
        if not labels:
            raise UserError(f"{file} has no labels beside it: put {partner} there")
        pair = [
            raw.parse_idx(raw.gunzip(f.read_bytes(), str(f)), str(f), ndim)
            for f, ndim in ((file, 3), (labels[0], 1))
        ]
        parts[IDX_SPLITS[name]] = pair[0][..., None], pair[1]
    if 0 not in parts:
        raise UserError(f"{files[0].parent} has IDX files of no train split: add them")
    return parts


def prepare(parts: Parts, path: Path, folder: Path) -> store.Prepared:
    """Check the arrays, cut the splits that are missing, write every example.

    Images are [N, H, W] or [N, H, W, C], uint8 or floats in [0, 1]; vectors [N, D]
    are standardised with the statistics of train, NaN becoming the mean.
    """
    inputs, labels, given = join(parts, path)
    classes, label = np.unique(labels, return_inverse=True)
    _check_classes(path, classes, label, given)
    content = digests(inputs)
    names = [f"example {i}" for i in range(len(label))]
    together = split.merge(np.arange(len(label)), content)
    splits = split.complete(names, label, together, given)
    how: dict[str, Any] = {"kind": "array", "shape": list(inputs.shape[1:])}
    prepared = "as they are"
    if inputs.ndim == 2:
        train = inputs[splits == 0].astype(np.float64)
        mean = np.nan_to_num(np.nanmean(train, 0))
        deviation = np.nan_to_num(np.nanstd(train, 0))
        how["mean"] = mean.tolist()
        how["deviation"] = np.where(deviation > 0, deviation, 1.0).tolist()
        prepared = (
            "each number less its mean, divided by its standard deviation, both of "
            "train; what is missing is the mean"
        )
    if inputs.dtype == np.uint8 and inputs.ndim == 4 and inputs.shape[-1] in (1, 3):
        how = images.as_shaped(inputs.shape[1:])
    examples = transform(inputs, how)
    card: dict[str, Any] = {
        "kind": "arrays",
        "source": path.name,
        "prepared": f"{list(inputs.shape[1:])} numbers for each example, {prepared}",
        "splits": folders.splits_sentence(given),
        "groups": None,
        "copies": folders.copies_card(names, label, splits, content),
        "warnings": [],
    }
    return store.Prepared(
        key(content, labels, given, inputs.shape),
        label.astype(np.int32),
        splits,
        [str(value) for value in classes.tolist()],
        examples.shape[1:],
        examples.dtype.name,
        store.write_records(folder, examples),
        how,
        card,
    )


def join(parts: Parts, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked inputs [N, ...], labels [N] and places in SPLITS [N] of all splits."""
    for number, (inputs, labels) in parts.items():
        _check(path, store.SPLITS[number], inputs, labels)
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


def with_channels(inputs: np.ndarray) -> np.ndarray:
    """Grey images [N, H, W] have one channel; all else is as it is."""
    return inputs[..., None] if inputs.ndim == 3 else inputs


def key(
    content: Sequence[str], labels: np.ndarray, given: np.ndarray, shape: Sequence[int]
) -> str:
    """Of the digest of each input, the labels and splits [N], and the shape of all."""
    parts = [*content, *labels.tolist(), *given.tolist(), tuple(shape)]
    return store.digest([store.VERSION, *parts])


def digests(inputs: np.ndarray) -> list[str]:
    """Of each of them [N, ...]."""
    return [store.digest([row.tobytes()]) for row in inputs]


def transform(inputs: np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    """Examples [N, ...] as the model wants them: uint8 as it is, else float32.

    >>> how = {"mean": [1.0], "deviation": [2.0], "shape": [1]}
    >>> transform(np.array([[3.0], [np.nan]]), how).tolist()
    [[1.0], [0.0]]
    """
    if "mean" in how:
        scaled = (inputs - np.array(how["mean"])) / np.array(how["deviation"])
        return np.nan_to_num(scaled).astype(np.float32)
    return inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)


def _check(path: Path, name: str, inputs: np.ndarray, labels: np.ndarray) -> None:
    if len(inputs) != labels.size or not len(inputs):
        raise UserError(
            f"{path} has {len(inputs)} inputs and {labels.size} labels in {name}: "
            "wanted as many of both, and at least one"
        )
    if inputs.ndim not in (2, 3, 4) or (inputs.ndim == 4 and inputs.shape[-1] > 4):
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
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise UserError(
                f"{path} has images of {inputs.dtype} from {low:g} to {high:g} in "
                f"{name}: wanted uint8, or floats in [0, 1]"
            )
    if inputs.ndim == 2 and np.isinf(inputs).any():
        raise UserError(f"{path} has infinite inputs in {name}: mend or remove them")


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
            "labels are classes, whole numbers or text that recur"
        )
