"""Entries of the data card: splits, groups and copies."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlworkshop.data import split
from dlworkshop.data.content import SPLITS

LISTED = 20  # names in a message or in the data card


def splits_sentence(
    given: np.ndarray, splits: np.ndarray, in_proportion: bool = True
) -> str:
    """The origin of the splits [N] and their actual shares, in a sentence.

    >>> given, splits = np.array([0, 0, 0, 0, 2]), np.array([0, 1, 0, 0, 2])
    >>> splits_sentence(given, splits)
    'train and test as given; validation (25 % of train) drawn at random, classes in
    proportion'
    """
    named = [name for n, name in enumerate(SPLITS) if (given == n).any()]
    whole = (given == 0).sum()
    of_train = " of train" if len(named) > 1 else ""
    drawn = [
        f"{name} ({100 * (splits == number).sum() / whole:.3g} %{of_train})"
        for number, name in enumerate(SPLITS)
        if number and name not in named
    ]
    parts = [f"{' and '.join(named)} as given"] if len(named) > 1 else []
    if drawn:
        parts.append(
            f"{' and '.join(drawn)} drawn at random"
            + ", classes in proportion" * in_proportion
        )
    return "; ".join(parts)


def absent(classes: Sequence[str], label: np.ndarray, splits: np.ndarray) -> list[str]:
    """A sentence for each split that lacks a class."""
    said = []
    for number, name in enumerate(SPLITS):
        counts = np.bincount(label[splits == number], minlength=len(classes))
        if lost := [c for c, n in zip(classes, counts, strict=False) if not n]:
            said.append(f"There is no example of {quoted(lost)} in {name}.")
    return said


def groups_card(
    group: np.ndarray, group_by: str | None, splits: np.ndarray
) -> dict[str, Any] | None:
    """The number of groups, and of those spread over several splits."""
    if group_by is None:
        return None
    pairs = np.unique(np.stack([group, splits]), axis=1)[0]
    sides = np.unique(pairs, return_counts=True)[1]
    return {
        "by": group_by,
        "groups": len(sides),
        "in_several_splits": int((sides > 1).sum()),
        "largest": int(np.unique(group, return_counts=True)[1].max()),
    }


def copies_card(
    names: Sequence[str], label: np.ndarray, splits: np.ndarray, content: np.ndarray
) -> dict[str, Any]:
    """The number of exact copies, and those in several splits or classes."""
    found = split.copies(content)
    across = [rows for rows in found if np.ptp(splits[rows])]
    torn = [rows for rows in found if np.ptp(label[rows])]

    def said(rows: np.ndarray) -> list[str]:
        return [f"{names[i]} ({SPLITS[splits[i]]})" for i in rows]

    return {
        "examples": sum(len(rows) - 1 for rows in found),
        "across_splits": len(across),
        "across": [said(rows) for rows in across[:LISTED]],
        "of_several_classes": len(torn),
        "torn": [said(rows) for rows in torn[:LISTED]],
    }


def joined(parts: Sequence[tuple[str, int]]) -> list[str]:
    """A sentence for each split that has several files or folders.

    >>> joined([("train.csv", 0), ("train_2.csv", 0), ("test.csv", 2)])
    ["'train.csv', 'train_2.csv' together are train."]
    """
    names: dict[int, list[str]] = {}
    for name, number in parts:
        names.setdefault(number, []).append(name)
    return [
        f"{quoted(each)} together are {SPLITS[number]}."
        for number, each in names.items()
        if len(each) > 1
    ]


def spelled_alike(column: str, words: Sequence[str], kinds: str) -> list[str]:
    """A sentence for each group of words that differ in case or a full stop only.

    >>> spelled_alike("sex", ["Male", "female", "male"], "categories")
    ["'Male', 'male' in 'sex' are different categories: spell them alike if they are
    one."]
    """
    folded: dict[str, list[str]] = {}
    for word in words:
        folded.setdefault(word.casefold().rstrip("."), []).append(word)
    return [
        f"{quoted(same)} in '{column}' are different {kinds}: spell them alike if they "
        "are one."
        for same in folded.values()
        if len(same) > 1
    ]


def some(names: Sequence[str], most: int = LISTED) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def quoted(names: Sequence[str], most: int = LISTED) -> str:
    """The first few names in quotes, and the number of the others.

    >>> quoted(["a", "b", "c"], 2)
    "'a', 'b' and 1 more"
    """
    return some([f"'{name}'" for name in names], most)
