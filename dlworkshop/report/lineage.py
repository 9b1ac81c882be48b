"""Which members those at the end were, where members go on as copies of others."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def ancestors(lines: Iterable[Mapping[str, Any]], members: int) -> np.ndarray:
    """The member that each of those at the end was in each entry of a log: [T, P].

    Args:
        lines: of `metrics.jsonl`; "source" [P] says which member each one continues
            after it.
        members: their number P.

    >>> lines = [{}, {"source": [1, 1, 2]}, {"source": [0, 0, 2]}, {}]
    >>> ancestors(lines, 3).tolist()
    [[1, 1, 2], [1, 1, 2], [0, 0, 2], [0, 1, 2]]
    """
    index, found = np.arange(members), []
    for line in reversed(list(lines)):
        if "source" in line:
            index = np.asarray(line["source"], int)[index]
        found.append(index)
    return np.array(found[::-1], int).reshape(len(found), members)
