"""Splitting of examples into train, validation and test."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from dlworkshop.errors import UserError

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15  # of all examples
# Mean count of each distinct vector, from which equal ones are no copies.
SEEN_OFTEN = 5


def keys(names: Iterable[str]) -> np.ndarray:
    """A pseudo-random number for each name: [N] uint64, which depends on it alone.

    >>> first, second = keys(["a", "b"]), keys(["b", "c", "a"])
    >>> bool(first[0] == second[2]), bool(first[0] == first[1])
    (True, False)
    """
    digests = b"".join(
        hashlib.sha256(name.encode("utf-8", "backslashreplace")).digest()[:8]
        for name in names
    )
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def stratified(
    key: np.ndarray, label: np.ndarray, group: np.ndarray, shares: Sequence[float]
) -> np.ndarray:
    """Assign whole groups to splits, stratified by class and by size of the group.

    The groups of a class are sorted by size, and every n-th one is drawn, starting at
    random. So the probability of a group does not depend on its size, and every split
    has groups of all sizes. Among groups of the same size, those with the lowest and
    the highest keys are drawn, so that adding an example moves few others. A group of
    several classes counts for its rarest class. A group that holds more than half of
    its class is never drawn, because train must have examples of each class.

    Args:
        key: [N] random integers; a group has the key of its first example.
        label: [N] int in [0, K).
        group: [N] int; examples with the same number stay in one split.
        shares: of all splits but the first, which takes the rest; one or two.

    Returns:
        [N] int8: 0 for the rest, i for shares[i - 1]. A class with at least as many
        groups as there are splits is in each of them.

    Raises:
        UserError: if there are fewer groups than splits.

    Source: systematic sampling, Madow and Madow (1944), On the theory of systematic
    sampling. (scikit-learn's StratifiedGroupKFold assigns the largest groups first, so
    a split of 15 % would have other groups than one of 70 %.)

    >>> label = np.arange(20) % 2
    >>> split = stratified(keys([str(i) for i in label]), label, np.arange(20), [0.2])
    >>> np.bincount(split).tolist(), np.bincount(label[split == 1]).tolist()
    ([16, 4], [2, 2])
    """
    _, first, group, size = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    if len(size) <= len(shares):
        raise UserError(
            f"all {len(label)} examples are in {len(size)} group"
            f"{'s' if len(size) > 1 else ''}, too few for {len(shares) + 1} splits: "
            "group by something that has more values"
        )
    total = np.bincount(label)  # [K]
    rarity = np.argsort(np.argsort(total, kind="stable"))  # [K], 0 is the rarest
    kind = np.full(len(size), len(total))  # [G], the rarity of its rarest class
    np.minimum.at(kind, group, rarity[label])
    own = np.bincount(group, rarity[label] == kind[group], len(size))  # [G], size in it
    line = np.lexsort((key[first], size, own, kind))  # [G]
    drawn = np.zeros(len(size), np.int8)
    for groups in np.split(line, np.flatnonzero(np.diff(kind[line])) + 1):
        wanted = _counts(len(groups), shares)
        is_giant = 2 * own[groups[-1]] > np.sort(total)[kind[groups[0]]]
        some = groups[: len(groups) - (is_giant and len(groups) > 1)]
        same = np.unique(np.stack([own, size])[:, some], axis=1, return_inverse=True)
        start = np.random.default_rng(int(key[first[groups].min()])).random()
        drawn[some] = _draw(same[1], wanted, start)
    return drawn[group]


def _counts(groups: int, shares: Sequence[float]) -> np.ndarray:
    """The number of groups of a class in each split: [S], fewer than all in sum."""
    wanted = np.round(np.array(shares) * groups).astype(int)
    if groups > len(shares):
        wanted = np.maximum(wanted, 1)
    return wanted if wanted.sum() < groups else (np.array(shares) * groups).astype(int)


def _draw(stratum: np.ndarray, wanted: np.ndarray, start: float) -> np.ndarray:
    """Draw `wanted` [S] of the sorted groups: [G] int8, 0 or the number of a split.

    Groups with the same `stratum` [G], ascending integers, are interchangeable; `start`
    in [0, 1) is the position where the systematic sample begins.
    """
    size, total = len(stratum), int(wanted.sum())
    # the splits take turns: 1, 2, 1, 2, ...
    turns = [(np.arange(n) + 0.5) / n for n in wanted if n]
    which = np.repeat(np.flatnonzero(wanted), wanted[wanted > 0])
    which = which[np.argsort(np.concatenate([*turns, []]), kind="stable")]
    at = (start + np.arange(total) / max(total, 1)) % 1 * size
    taken = np.zeros((stratum[-1] + 1, 2), int)
    np.add.at(taken, (stratum[np.minimum(at.astype(int), size - 1)], which), 1)
    begin = np.searchsorted(stratum, stratum)
    end = np.searchsorted(stratum, stratum, "right")
    from_low, from_high = np.arange(size) - begin, end - 1 - np.arange(size)
    is_first, is_second = (from_low, from_high) < taken[stratum].T
    return np.where(is_first, 1, np.where(is_second, 2, 0)).astype(np.int8)


def complete(
    names: Sequence[str] | np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    given: np.ndarray,
    classes: Sequence[str] = (),
    advice: str = "add more, or join rare classes",
) -> np.ndarray:
    """The given splits [N], with the missing ones cut off train.

    Args:
        names: [N] of the examples or of their groups; the same names give the same
            splits.
        label, group: as for `stratified`.
        given: [N] int, 0 train, 1 validation, 2 test; all 0 if no split is given.
        classes: [K] names; () if the labels are no classes.
        advice: for a class with too few examples.

    Raises:
        UserError: if a class has fewer examples than splits, or no class has enough
            groups.
    """
    missing = [number for number in (1, 2) if not (given == number).any()]
    split = given.astype(np.int8)
    train = np.flatnonzero(split == 0)
    if classes:
        counts = np.bincount(label[train], minlength=len(classes))
        if counts.min() <= len(missing):
            count = int(counts.min())
            if not count and (given > 0).any():
                raise UserError(
                    f"the class '{classes[int(counts.argmin())]}' is not in train, but "
                    "in another split: spell it as in train, or add examples of it"
                )
            raise UserError(
                f"the class '{classes[int(counts.argmin())]}' has {count} example"
                f"{'s' if count != 1 else ''} to learn from, wanted at least "
                f"{len(missing) + 1}{', one for each split' * bool(missing)}: {advice}"
            )
    if not missing:
        return split
    shares = [(VALIDATION_SHARE, TEST_SHARE)[number - 1] for number in missing]
    key = keys([names[int(i)] for i in train])
    cut = stratified(key, label[train], group[train], shares)
    split[train] = np.array([0, *missing], np.int8)[cut]
    if not all((split == number).any() for number in missing):
        raise UserError(
            f"no class has {len(missing) + 1} groups, one for each split (equal "
            "examples are one group): add other examples, or group by something that "
            "has more values"
        )
    return split


def are_observations(content: np.ndarray, each: Sequence[int]) -> bool:
    """Whether equal examples are separate observations, not copies.

    They are if the examples are vectors and each distinct one occurs `SEEN_OFTEN` times
    on average, as with few categories. Otherwise they are copies of one example, which
    stay together in splits and folds.

    Args:
        content: [N] int, equal for equal examples.
        each: shape of one example.

    >>> seen_often, twice = np.arange(20) % 4, np.arange(8) % 4
    >>> are_observations(seen_often, [3]), are_observations(twice, [3])
    (True, False)
    """
    return len(each) <= 1 and len(np.unique(content)) * SEEN_OFTEN <= len(content)


def merge(group: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Merge the groups [N] that share examples of the same content [N].

    >>> merge(np.array([0, 1, 2, 2]), np.array(["a", "b", "b", "c"])).tolist()
    [0, 1, 1, 1]
    """
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    _, group = np.unique(group, return_inverse=True)
    _, same = np.unique(content, return_inverse=True)
    size = int(group.max()) + 1
    links = coo_array(
        (np.ones(len(group), bool), (group, size + same)),
        shape=[size + int(same.max()) + 1] * 2,
    )
    return connected_components(links, directed=False)[1][group]


def copies(content: np.ndarray) -> list[np.ndarray]:
    """The row numbers of the examples with each content [N] that recurs.

    >>> [rows.tolist() for rows in copies(np.array(["a", "b", "a", "c"]))]
    [[0, 2]]
    """
    _, same, count = np.unique(content, return_inverse=True, return_counts=True)
    order = np.argsort(same, kind="stable")
    order = order[count[same[order]] > 1]
    found = np.split(order, np.cumsum(count[count > 1])[:-1]) if len(order) else []
    return sorted(found, key=lambda rows: rows[0])
