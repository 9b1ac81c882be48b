"""Splits: whole groups, each drawn by chance alone, whatever its size."""

import numpy as np
import pytest
from scipy import stats

from dlworkshop.data import split
from dlworkshop.errors import UserError

SHARES = [split.VALIDATION_SHARE, split.TEST_SHARE]


def cut(label, group=None, names=None):
    group = np.arange(len(label)) if group is None else group
    names = [f"p{g}" for g in group] if names is None else names
    return split.stratified(split.keys(names), label, group, SHARES)


def made(seed):
    """A data set's labels, groups and names: copies, large groups, rare classes."""
    rng = np.random.default_rng(seed)
    size = {
        0: 1 + (rng.random(400) < rng.uniform(0, 0.5)) * rng.geometric(0.5, 400),
        1: np.minimum(rng.zipf(1.8, 300), 60),
        2: np.maximum(1, rng.lognormal(1, 1.2, 150)).astype(int),
    }[seed % 3]
    share = rng.dirichlet(np.full(rng.integers(2, 8), 0.5))
    own = rng.choice(len(share), len(size), p=share)
    group = np.repeat(np.arange(len(size)), size)
    other = rng.choice(len(share), len(group), p=share)
    mixed = seed % 2 * 0.2  # of the examples are of another class than their group
    label = np.where(rng.random(len(group)) < mixed, other, own[group])
    order = rng.permutation(len(group))
    label = np.unique(label, return_inverse=True)[1]
    return label[order], group[order], [f"{seed}-{g}" for g in group[order]]


def scores(values, kind, side, number):
    """The excess of a quantity of groups in a split, over chance, and its variance.

    Of each kind a number of groups is drawn; which, is to be chance: the sum over those
    that are drawn is compared with that of simple draws without replacement.
    """
    excess = variance = 0.0
    for k in np.unique(kind):
        own = values[kind == k]
        drawn = side[kind == k] == number
        size, count = len(own), drawn.sum()
        if size > 1:
            excess += own[drawn].sum() - count * own.mean()
            variance += count * (size - count) / size * own.var(ddof=1)
    return excess, variance


def test_the_groups_of_a_split_are_those_of_the_whole():
    """z of the mean bias over 200 data sets, and of the largest within one.

    Both are N(0, 1) at most: lining up by size makes the second smaller.
    """
    quantities = {
        "copies": lambda size: size > 1,
        "log size": np.log,
        "the largest": lambda size: (size == size.max()) & (size > 1),
    }
    z = {(name, number): [] for name in quantities for number in (1, 2)}
    for seed in range(200):
        label, group, names = made(seed)
        side_of = cut(label, group, names)
        _, first, index, size = np.unique(
            group, return_index=True, return_inverse=True, return_counts=True
        )
        side = side_of[first]
        np.testing.assert_array_equal(side[index], side_of)  # groups are whole
        rarity = stats.rankdata(np.bincount(label), method="ordinal")
        kind = np.full(len(size), len(rarity) + 1)
        np.minimum.at(kind, index, rarity[label].astype(int))
        for (name, number), found in z.items():
            values = quantities[name](size) * 1.0
            excess, variance = scores(values, kind, side, number)
            if variance > 0:
                found.append(excess / variance**0.5)
    for name, found in z.items():
        assert abs(np.sum(found)) / len(found) ** 0.5 < 3.5, name
        assert np.max(np.abs(found)) < stats.norm.isf(1e-3 / len(found)), name


def test_classes_are_in_proportion_as_far_as_chance_allows():
    """Chi-squared of each class in each split; its mean is 1 for simple draws."""
    found = []
    for seed in range(100):
        label, group, names = made(seed)
        side, total = cut(label, group, names), np.bincount(label)
        squares = np.bincount(label, np.bincount(group)[group])  # of examples in groups
        for number in (1, 2):
            share = np.mean(side == number)
            there = np.bincount(label[side == number], minlength=len(total))
            large = total >= 40
            error = (there - share * total)[large] ** 2
            found += (error / (share * (1 - share) * squares[large])).tolist()
    assert np.mean(found) < 1


@pytest.mark.parametrize("grouped", [False, True])
def test_splits_are_deterministic_stratified_and_whole(grouped):
    rng = np.random.default_rng(0)
    label = rng.choice(3, 3000, p=[0.7, 0.25, 0.05])
    group = rng.integers(0, 300, 3000) if grouped else np.arange(3000)
    found = cut(label, group)
    np.testing.assert_array_equal(found, cut(label, group))
    for k in range(3):
        shares = np.bincount(found[label == k], minlength=3) / (label == k).sum()
        slack = 0.04 if grouped else 1 / (label == k).sum()
        assert abs(shares - [0.7, 0.15, 0.15]).max() <= slack
    if grouped:
        assert all(len(set(found[group == g])) == 1 for g in range(300))


@pytest.mark.parametrize("sizes", [[1] * 300, [1] * 150 + [3] * 60 + [8] * 20])
def test_an_added_group_moves_few_others(sizes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    before = cut(group % 2, group)
    for new in range(10):
        more = np.append(group, len(sizes))
        names = [f"p{g}" for g in group] + [f"new{new}"]
        after = cut(np.append(group % 2, 0), more, names)[:-1]
        assert len(np.unique(group[before != after])) <= 4


def test_a_class_of_three_is_in_every_split():
    label = np.array([0] * 90 + [1] * 3)
    assert sorted(cut(label)[label == 1].tolist()) == [0, 1, 2]


def test_most_of_a_class_stays_to_learn_from():
    group = np.repeat(np.arange(13), [61] + [5] * 12)
    for name in "abcdefgh":
        side = cut(np.zeros(len(group), int), group, [f"{name}{g}" for g in group])
        assert (side[group == 0] == 0).all()
        assert set(side.tolist()) == {0, 1, 2}


def test_one_group_cannot_be_split():
    with pytest.raises(UserError, match="in 1 group, too few for 3"):
        cut(np.array([0, 1, 0, 1]), np.zeros(4, int))


def test_a_class_that_is_too_rare_is_named():
    label = np.array([0, 0, 0, 0, 1, 1])
    with pytest.raises(UserError, match="'rare' has 2 examples to learn from, wanted"):
        split.complete(
            list("abcdef"), label, np.arange(6), np.zeros(6, int), ("often", "rare")
        )
    given = np.array([0, 0, 0, 2, 0, 0])  # one split less to be cut
    split.complete(list("abcdef"), label, np.arange(6), given, ("often", "rare"))
