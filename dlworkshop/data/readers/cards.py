"""What the card of one's own data says: of splits, groups and copies."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dlworkshop.data import split
from dlworkshop.data.readers import store

LISTED = 20  # names in a message or in the card


def splits_sentence(given: np.ndarray, in_proportion: bool = True) -> str:
    """Where the splits come from.

    >>> splits_sentence(np.array([0, 0, 2]))
    'train and test as given; validation cut off train (15 %), classes in proportion'
    """
    named = [name for n, name in enumerate(store.SPLITS) if (given == n).any()]
    source = "train" if len(named) > 1 else "at random"
    shares = {"validation": split.VALIDATION_SHARE, "test": split.TEST_SHARE}
    cut = [
        f"{name} cut off {source} ({100 * share:.0f} %)"
        for name, share in shares.items()
        if name not in named
    ]
    whole = [f"{' and '.join(named)} as given"] if len(named) > 1 else []
    return "; ".join(whole + cut) + (
        ", classes in proportion" if cut and in_proportion else ""
    )


def groups_card(
    group: np.ndarray, group_by: str | None, splits: np.ndarray
) -> dict[str, Any] | None:
    """How many groups there are and how many have parts in several splits."""
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
    names: Sequence[str],
    label: np.ndarray,
    splits: np.ndarray,
    content: Sequence[str],
) -> dict[str, Any]:
    """Examples of exactly the same content: how many, and which in several splits."""
    found = split.copies(content)
    across = [rows for rows in found if len({int(splits[i]) for i in rows}) > 1]
    torn = [rows for rows in found if len({int(label[i]) for i in rows}) > 1]

    def said(rows: Sequence[int]) -> list[str]:
        return [f"{names[i]} ({store.SPLITS[splits[i]]})" for i in rows]

    return {
        "examples": sum(len(rows) - 1 for rows in found),
        "across_splits": len(across),
        "across": [said(rows) for rows in across[:LISTED]],
        "of_several_classes": len(torn),
        "torn": [said(rows) for rows in torn[:LISTED]],
    }


def some(names: Sequence[str], most: int = LISTED) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
