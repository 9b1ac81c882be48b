"""Names of splits, in those of folders, arrays and files."""

import re

import numpy as np

# Name -> index in SPLITS.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}


def split_of(name: str) -> int | None:
    """The index in SPLITS that is meant by the name of a folder or file, if any.

    >>> split_of("Train_png"), split_of("adult-test"), split_of("contest")
    (0, 2, None)
    """
    words = re.split(r"[\W_]+", name.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def tested(given: np.ndarray) -> np.ndarray:
    """Mask [N] of the test split; all if there is none."""
    test = given == SPLIT_NAMES["test"]
    return test if test.any() else np.ones_like(test)
