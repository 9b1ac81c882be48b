"""Which examples are for training, which for choosing, and which for the last test."""

import hashlib
from collections.abc import Sequence

import numpy as np

from dlworkshop.errors import UserError

# Of all examples; the rest is train.
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15


def ranks(names: Sequence[str]) -> np.ndarray:
    """The place of each name in a random order: [N] int64.

    The order comes from the names themselves, so that an example that is added leaves
    those that were there in their places.

    >>> ranks(["b", "a", "c"]).tolist(), ranks(["a", "b"]).tolist()
    ([1, 2, 0], [1, 0])
    """
    digests = [
        hashlib.sha256(name.encode("utf-8", "replace")).digest() for name in names
    ]
    order = sorted(range(len(names)), key=lambda i: digests[i])
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    return place


def stratified(
    rank: np.ndarray, label: np.ndarray, group: np.ndarray, shares: Sequence[float]
) -> np.ndarray:
    """A split of every example, with the same share of each class in each.

    Args:
        rank: [N] a number for each example, no two the same: the lowest go into the
            splits first. See `ranks`.
        label: [N] int in [0, K).
        group: [N] int; what has the same number stays on one side.
        shares: of all splits but the first, which takes the rest.

    Returns:
        [N] int8: 0 for the rest, i for shares[i - 1].

    Raises:
        UserError: if there are fewer groups than splits.

    Groups of more than one example are placed first, the largest first, each where it
    leaves the counts of classes closest to their shares of what is placed so far (as
    in scikit-learn's StratifiedGroupKFold, which compares folds of one size); examples
    of their own then fill each class up. So groups of any size are in every split.

    >>> label = np.arange(20) % 2
    >>> split = stratified(np.arange(20), label, np.arange(20), [0.2, 0.2])
    >>> np.bincount(split).tolist(), np.bincount(label[split == 1]).tolist()
    ([12, 4, 4], [2, 2])
    """
    num_classes = int(label.max()) + 1
    total = np.bincount(label, minlength=num_classes)  # [K]
    wanted = np.stack([np.round(share * total) for share in shares])
    # a class of three examples or more is in every split
    wanted = np.where(total >= len(shares) + 1, np.maximum(wanted, 1), wanted)
    wanted = np.concatenate([[total - wanted.sum(0)], wanted])  # [splits, K]
    _, group, size = np.unique(group, return_inverse=True, return_counts=True)
    if len(size) < len(wanted):
        raise UserError(
            f"all {len(label)} examples are in {len(size)} group"
            f"{'s' if len(size) > 1 else ''}, too few for {len(wanted)} splits: group "
            "by something that has more values"
        )
    split = np.full(len(label), -1, np.int8)
    have = np.zeros_like(wanted)
    first = np.full(len(size), len(label))
    np.minimum.at(first, group, rank)
    members = np.argsort(group, kind="stable")
    ends = np.cumsum(size)
    share = np.array([[1 - sum(shares)], *([share] for share in shares)])  # [splits, 1]
    placed = np.zeros(num_classes)
    for g in sorted(np.flatnonzero(size > 1), key=lambda g: (-size[g], first[g])):
        rows = members[ends[g] - size[g] : ends[g]]
        counts = np.bincount(label[rows], minlength=num_classes)  # [K]
        # Each split has its share of what is placed so far, not of all: or the large
        # groups would all be in one split, and the others would have none of them.
        placed += counts
        missing = (share * placed - have) / np.sqrt(share)
        now = (missing**2).sum(1)
        then = ((missing - counts / np.sqrt(share)) ** 2).sum(1)
        best = int(np.argmin(then - now))
        split[rows] = best
        have[best] += counts
    for k in range(num_classes):
        rows = np.flatnonzero((label == k) & (split < 0))
        rows = rows[np.argsort(rank[rows])]
        for number in range(1, len(wanted)):
            take = int(max(0, wanted[number, k] - have[number, k]))
            split[rows[:take]] = number
            rows = rows[take:]
        split[rows] = 0
    return split


def complete(
    names: Sequence[str], label: np.ndarray, group: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """The splits [N] that were given, with those missing cut off train.

    Args:
        names: [N] of the examples; the same names give the same splits.
        label, group: as for `stratified`.
        given: [N] int, 0 train, 1 validation, 2 test; all 0 where none was given.
    """
    missing = [number for number in (1, 2) if not (given == number).any()]
    split = given.astype(np.int8)
    train = np.flatnonzero(split == 0)
    if not missing:
        return split
    shares = [(VALIDATION_SHARE, TEST_SHARE)[number - 1] for number in missing]
    rank = ranks([names[int(i)] for i in train])
    cut = stratified(rank, label[train], group[train], shares)
    split[train] = np.array([0, *missing], np.int8)[cut]
    return split


def merge(group: np.ndarray, content: Sequence[str]) -> np.ndarray:
    """Groups [N] in which examples of the same content are together too.

    >>> merge(np.array([0, 1, 2, 2]), ["a", "b", "b", "c"]).tolist()
    [0, 1, 1, 1]
    """
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    _, group = np.unique(group, return_inverse=True)
    _, same = np.unique(np.asarray(content), return_inverse=True)
    size = int(group.max()) + 1
    links = coo_array(
        (np.ones(len(group), bool), (group, size + same)),
        shape=[size + int(same.max()) + 1] * 2,
    )
    return connected_components(links, directed=False)[1][group]


def copies(content: Sequence[str]) -> list[list[int]]:
    """The numbers of examples that have the same content, for each that recurs.

    >>> copies(["a", "b", "a", "c"])
    [[0, 2]]
    """
    places: dict[str, list[int]] = {}
    for i, value in enumerate(content):
        places.setdefault(value, []).append(i)
    return [rows for rows in places.values() if len(rows) > 1]
