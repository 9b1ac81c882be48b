"""`from_arrays`: a data set from arrays."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr

from dlworkshop.data.inputs_like import columns_of
from dlworkshop.data.leaves import TEXT, as_arrays
from dlworkshop.data.rows import Rows, is_lazy
from dlworkshop.data.split import TEST_SHARE, VALIDATION_SHARE, stratified
from dlworkshop.data.targets import as_targets, described
from dlworkshop.errors import Range, UserError, check_number, check_whole
from dlworkshop.types import Array, Batch, Dataset, PyTree

Split = Sequence[Any]  # (x, y) or (x, y, weights)


def from_arrays(
    x: PyTree,
    y: PyTree = None,
    *,
    validation: Split | None = None,
    test: Split | None = None,
    weights: Array | None = None,
    groups: Array | None = None,
    classes: Sequence[str] | None = None,
    name: str = "data",
    seed: int = 0,
    validation_size: float = VALIDATION_SHARE,
    test_size: float = TEST_SHARE,
) -> Dataset:
    """Make a data set from arrays.

    y and `classes` decide what the targets are:

    - Text [N] names classes, which are sorted.
    - Integers [N] of any dtype, and bool [N], are classes 0 to K - 1, which must all
      occur in train. `classes` gives their names, and then some may be absent; classes
      are never renumbered. With `classes=()` the integers are numbers to predict, such
      as counts. [N, 1] is treated as [N].
    - Floats are values to predict (regression), and so is any other shape and any
      pytree: floats and integers keep their kind, and bool becomes 0.0 and 1.0
      (several labels for one example). uint8 of two axes or more is an image, and
      becomes a float in [0, 1] in the step, as in x.

    Args:
        x: inputs, an array [N, ...] or a pytree of arrays, such as a dict of several
            inputs. A list is one array. Arrays of JAX, PyTorch on the CPU, pandas and
            polars are converted by np.asarray; a data frame becomes [N, D] float32.
            Arrays on disk (memory-mapped, or of h5py or similar) stay there.
        y: targets, likewise; None if the objective needs none.
        validation, test: the other splits, as (x, y) or (x, y, weights). A missing
            split is cut off x and y at random by `seed`, stratified by class.
        weights: [N] >= 0, the share of each example of x in the loss. The weights of
            all splits are divided by the mean weight of train.
        groups: [N] numbers or text; examples of the same group, such as the pictures of
            one person, stay in one split and one fold. If a validation split is given,
            it must have none of these groups.
        classes: [K] names of the classes; () if y holds no classes.
        name: of the data set, for reports.
        seed: of the random cut.
        validation_size, test_size: shares of x that are cut off, in (0, 1).

    Returns:
        A `Dataset`. int64 becomes int32 and float64 float32, unless JAX uses 64 bits.

    Raises:
        UserError: if lengths, shapes or dtypes do not match, y has NaN, a split would
            be empty, or an argument has no effect.

    >>> x, y = np.random.rand(200, 4), np.arange(200) % 2
    >>> dataset = from_arrays(x, y)
    >>> dataset.classes, dataset.train.num_examples, dataset.test.inputs.shape
    (('0', '1'), 140, (30, 4))
    >>> dataset = from_arrays(x, x.sum(1), test=(x[:9], x[:9].sum(1)), name="sums")
    >>> dataset.classes, dataset.validation.targets.dtype, dataset.test.num_examples
    ((), dtype('float32'), 9)
    """
    check_whole("seed", seed, 0)
    shares = _shares(validation, test, validation_size, test_size)
    splits, names = _given_splits((x, y, weights), validation, test, classes)
    whole = splits["train"]
    size = whole.num_examples
    group = _groups(groups, size, bool(shares))
    index = {"train": np.arange(size)}
    if shares:
        label = whole.targets if names else np.zeros(size, int)
        index = _cut(label, group, shares, seed)
        for split, rows in index.items():
            splits[split] = jax.tree.map(functools.partial(_take, rows), whole)
    if names and classes is None:
        _check_classes(splits["train"], names)
    splits = _weighted(splits)
    together = None
    if groups is not None:
        others = size + np.arange(splits["validation"].num_examples)
        if "validation" in index:
            others = group[index["validation"]]
        together = group[index["train"]], others
    return Dataset(
        splits["train"],
        splits["validation"],
        splits["test"],
        names,
        str(name),
        groups=together,
        columns=columns_of(x),
    )


def _given_splits(
    train: Split,
    validation: Split | None,
    test: Split | None,
    classes: Sequence[str] | None,
) -> tuple[dict[str, Batch], tuple[str, ...]]:
    """Check and convert the splits that are given; also the names of the classes."""
    given = {"train": _split("train", train)}
    for split, parts in (("validation", validation), ("test", test)):
        if parts is not None:
            given[split] = _split(split, parts)
            _check_alike(given["train"], given[split], split)
            _check_columns(train[0], parts[0], split)
    targets, names = as_targets(
        {split: batch.targets for split, batch in given.items()}, classes
    )
    for split, y in targets.items():
        _check_dtypes(targets["train"], y, described(split, "y"))
        given[split] = given[split]._replace(targets=y)
    return given, names


def _check_columns(train: Any, other: Any, split: str) -> None:
    """Check that data frames have the same columns in the same order."""
    ours, theirs = (list(getattr(each, "columns", ())) for each in (train, other))
    if ours and theirs and ours != theirs:
        raise UserError(
            f"the columns of {described(split, 'x')} are {theirs!r:.80}, and of x "
            f"{ours!r:.80}: give the same in the same order"
        )


def _shares(
    validation: Split | None,
    test: Split | None,
    validation_size: float,
    test_size: float,
) -> dict[str, float]:
    """Split -> fraction cut off train, for missing splits."""
    shares = {}
    for split, given, share, default in (
        ("validation", validation, validation_size, VALIDATION_SHARE),
        ("test", test, test_size, TEST_SHARE),
    ):
        if given is None:
            check_number(f"{split}_size", share, Range(0, 1, closed=False))
            shares[split] = share
        elif share != default:
            raise UserError(
                f"{split}_size is {share}, and {split} is given too: leave one out"
            )
    if sum(shares.values()) >= 1:
        said = ", ".join(f"{split}_size is {share}" for split, share in shares.items())
        raise UserError(
            f"{said}: give shares whose sum is below 1, so that some examples are left "
            "to train"
        )
    return shares


def _split(split: str, parts: Split) -> Batch:
    """Check and convert the arrays of one split, all of one length."""
    if not isinstance(parts, tuple | list) or len(parts) not in (2, 3):
        raise UserError(
            f"{split} is a {type(parts).__name__} of another form than (x, y) or "
            "(x, y, weights): give such a tuple, with None for y if there are no "
            "targets"
        )
    x, y, weights = (*parts, None)[:3]
    said = described(split, "x")
    batch = Batch(as_arrays(x, said), as_arrays(y, described(split, "y")))
    if weights is not None:
        weights = checked_weights(weights, described(split, "weights"))
        batch = batch._replace(weights=weights)
    inputs = jax.tree.leaves_with_path(batch.inputs)
    if not inputs:
        raise UserError(f"{said} has no array in it: give one [N, ...]")
    for path, leaf in inputs:
        if leaf.dtype.kind in TEXT:
            raise UserError(
                f"{said}{keystr(path)} is text: encode it as numbers, or save a CSV "
                "for data.load, which encodes its columns"
            )
    first, one = inputs[0]
    for what, part in zip(("x", "y", "weights"), batch, strict=True):
        for path, leaf in jax.tree.leaves_with_path(part):
            if len(leaf) != len(one):
                raise UserError(
                    f"{described(split, what)}{keystr(path)} has {len(leaf)} examples "
                    f"and {said}{keystr(first)} {len(one)}: give as many of each"
                )
    return batch


def checked_weights(given: Array, what: str) -> np.ndarray:
    """Check example weights and convert them to [N] float32.

    Raises:
        UserError: if a weight is negative or not finite, or all are 0.
    """
    weights = as_arrays(given, what)
    if not isinstance(weights, np.ndarray) or weights.ndim != 1:
        raise UserError(f"{what} must be one array [N]: give a number for each example")
    if weights.dtype.kind not in "biuf":
        raise UserError(f"{what} is {weights.dtype}: give a number for each example")
    weights = weights.astype(np.float32)
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        at = int((~good).argmax())
        raise UserError(
            f"{what} has {weights[at]} at example {at}: wanted finite numbers of at "
            "least 0"
        )
    if not weights.any():
        raise UserError(
            f"{what} is 0 for every example, so nothing would be learnt: give some "
            "weights above 0"
        )
    return weights


def _check_alike(train: Batch, other: Batch, split: str) -> None:
    """Check that another split has the structure, shapes and dtypes of train."""
    for what, mine, theirs in (
        ("x", train.inputs, other.inputs),
        ("y", train.targets, other.targets),
    ):
        said = described(split, what)
        known, found = (str(jax.tree.structure(tree)) for tree in (mine, theirs))
        if known != found:
            raise UserError(
                f"{said} is {_structure(theirs)} and {what} is {_structure(mine)}: "
                "give the same structure"
            )
        for path, a, b in _pairs(mine, theirs):
            if a.shape[1:] != b.shape[1:]:
                raise UserError(
                    f"{said}{path} has examples of shape {list(b.shape[1:])} and "
                    f"{what}{path} of {list(a.shape[1:])}: give the same shape"
                )
    _check_dtypes(train.inputs, other.inputs, described(split, "x"))
    for path, a, b in _pairs(train.targets, other.targets):
        if a.dtype.kind in "iub" and b.dtype.kind == "f":
            raise UserError(
                f"{described(split, 'y')}{path} is {b.dtype} and that of train "
                f"{a.dtype}: give the same kind of numbers"
            )


def _check_dtypes(mine: PyTree, theirs: PyTree, said: str) -> None:
    for path, a, b in _pairs(mine, theirs):
        if a.dtype != b.dtype:
            raise UserError(
                f"{said}{path} is {b.dtype} and that of train {a.dtype}: give the same "
                "dtype, because only uint8 is scaled to [0, 1]"
            )


def _pairs(mine: PyTree, theirs: PyTree) -> Iterator[tuple[str, Array, Array]]:
    """Path, array and other array of two pytrees with the same structure."""
    others = jax.tree.leaves(theirs)
    for (path, leaf), other in zip(
        jax.tree.leaves_with_path(mine), others, strict=True
    ):
        yield keystr(path), leaf, other


def _structure(tree: PyTree) -> str:
    if tree is None:
        return "None"
    kind = "an array" if jax.tree_util.all_leaves([tree]) else type(tree).__name__
    return f"{kind} of {sorted(tree)}" if isinstance(tree, Mapping) else kind


def _groups(given: Array | None, size: int, used: bool) -> np.ndarray:
    """Group numbers [N]; equal numbers stay together."""
    if given is None:
        return np.arange(size)
    if not used:
        raise UserError(
            "groups are given, but so are all splits, and nothing is cut: leave groups "
            "out"
        )
    try:
        groups = np.asarray(given)
    except ValueError:
        raise UserError(
            "groups is no array: give one number or text for each example"
        ) from None
    if groups.shape != (size,):
        raise UserError(
            f"groups has shape {list(groups.shape)}: give one for each of the {size} "
            "examples of x"
        )
    values = given if isinstance(given, list) else groups  # NaN in a list may be "nan"
    missing = [i for i, value in enumerate(values) if _is_missing(value)]
    if missing:
        raise UserError(
            f"groups has no value for example {missing[0]} ({len(missing)} in all): "
            "give each such example a group of its own, or leave it out"
        )
    text = groups.astype(str) if groups.dtype.kind == "O" else groups
    return np.unique(text, return_inverse=True)[1]


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA."""
    try:
        return value is None or bool(value != value)  # noqa: PLR0124
    except TypeError:  # NA has no truth value
        return True


def _cut(
    label: np.ndarray, group: np.ndarray, shares: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Indices of train and of each split that is cut off."""
    size = len(label)
    if size <= len(shares):
        raise UserError(
            f"there {'is 1 example' if size == 1 else f'are {size} examples'}, too few "
            f"for train and {' and '.join(shares)}: give more, or the splits themselves"
        )
    rank = np.random.default_rng(seed).permutation(size)
    place = stratified(rank, label, group, list(shares.values()))
    index = {s: np.flatnonzero(place == i) for i, s in enumerate(["train", *shares])}
    for split, rows in index.items():
        if not len(rows):
            raise UserError(
                f"the {split} split that is cut off has no example: give more examples "
                f"of each class (or more groups), or give {split}=(x, y)"
            )
    return index


def _take(index: np.ndarray, leaf: Array) -> Array:
    return Rows(leaf, index) if is_lazy(leaf) else leaf[index]


def _check_classes(train: Batch, names: tuple[str, ...]) -> None:
    counts = np.bincount(train.targets, minlength=len(names))
    if not counts.all():
        raise UserError(
            f"the class '{names[int(counts.argmin())]}' has no example in train: give "
            "more examples of it, fewer classes, or the splits themselves"
        )


def _weighted(splits: Mapping[str, Batch]) -> dict[str, Batch]:
    """Divide weights by the mean weight of train."""
    own = splits["train"].weights
    mean = 1.0 if own is None else float(np.mean(own, dtype=np.float64))
    scaled = {}
    for split, batch in splits.items():
        weights = batch.weights
        if weights is not None:
            if not weights.any() or not mean:
                raise UserError(
                    f"the weights of {split} are all 0 after the cut: give the splits "
                    "yourself"
                )
            weights = (weights / mean).astype(np.float32)
        scaled[split] = batch._replace(weights=weights)
    return scaled
