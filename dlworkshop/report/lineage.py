"""The history of members, when some of them were replaced by copies of others."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def ancestors(lines: Iterable[Mapping[str, Any]], members: int) -> np.ndarray:
    """The ancestor of each final member at each entry of a log: [T, P].

    Args:
        lines: of `metrics.jsonl`; "source" [P] is the member that each member
            continues after this entry.
        members: the number of members P.

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
