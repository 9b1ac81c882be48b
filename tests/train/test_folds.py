"""Cross-validation as a population: what a member holds out it never learns from."""

import numpy as np
import pytest

from dlworkshop import data, fit, metrics, models
from dlworkshop.errors import UserError
from dlworkshop.learn.step import Evaluated
from dlworkshop.train import folds
from dlworkshop.train.evaluation import HeldOut
from dlworkshop.train.orders import EndlessOrder
from dlworkshop.types import Batch


def dataset(size=60):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    return data.from_arrays(x, (x[:, 0] > 0.5).astype(int))


def test_nothing_is_left_out_and_passes_follow_one_another():
    order = EndlessOrder([3, 4], size=10, batch_size=4, steps_per_epoch=3)
    seen = np.concatenate(
        [order.steps(first, 3)[:, 0].ravel() for first in range(0, 15, 3)]
    )
    assert len(seen) == 60
    for first in range(0, 60, 10):  # each pass has every example once
        assert sorted(seen[first : first + 10]) == list(range(10))
    assert (order.steps(0, 3)[:, 0] != order.steps(0, 3)[:, 1]).any()


def test_a_batch_may_be_larger_than_a_pass():
    order = EndlessOrder([0], size=3, batch_size=7, steps_per_epoch=3)
    assert np.bincount(order.steps(0, 3).ravel()).tolist() == [7, 7, 7]


def test_members_never_see_what_they_hold_out():
    held_out = np.eye(5, dtype=bool)[[0, 1, 1]]
    order = EndlessOrder([0, 0, 0], 5, 4, 20, held_out)
    seen = order.steps(0, 20)
    for member, fold in enumerate((0, 1, 1)):
        assert set(seen[:, member].ravel()) == set(range(5)) - {fold}
    assert (seen[:, 1] == seen[:, 2]).all()  # the same seed and fold: same batches


def test_folds_are_stratified_disjoint_and_anew_for_each_seed():
    pooled = folds.pooled(dataset())
    pool, held = pooled.train, folds.held_out(pooled, 4, [0, 1])  # [8, N]
    for seed in (0, 1):
        own = held[4 * seed : 4 * seed + 4]
        assert (own.sum(0) == 1).all()
        of_class = [pool.targets[fold].sum() for fold in own]
        assert max(of_class) - min(of_class) <= 1
    assert (held[:4] != held[4:]).any()


def test_copies_are_in_one_fold():
    x = np.repeat(np.arange(30.0), 1 + (np.arange(30) < 10))[:, None]
    pool = data.from_arrays(x.astype(np.float32), x[:, 0]).train
    part = folds.parts(pool, 5, seed=0)
    for value in np.unique(pool.inputs):
        assert len(set(part[pool.inputs[:, 0] == value])) == 1


def test_each_member_is_validated_by_its_own_fold():
    found = dataset()
    measured = {"accuracy": metrics.accuracy, "f1": metrics.f1_macro}
    run = fit(
        models.logistic(2),
        found,
        hparams={"learning_rate": [0.01, 0.1]},
        seeds=2,
        folds=3,
        steps_per_epoch=4,
        num_epochs=2,
        batch_size=8,
        metrics=measured,
        quiet=True,
    )
    pooled = folds.pooled(found)
    pool, held = pooled.train, np.tile(folds.held_out(pooled, 3, [0, 1]), (2, 1))
    assert run.summary["members"] == 12 == len(held)
    outputs = run.predict(pool.inputs)
    for row, said, mine in zip(run.summary["population"], outputs, held, strict=True):
        assert row["fold"] == row["member"] % 3
        right = said[mine].argmax(-1) == pool.targets[mine]
        assert row["validation"]["accuracy"] == pytest.approx(right.mean())
        likely = said[mine] - np.log(np.exp(said[mine]).sum(-1, keepdims=True))
        loss = -likely[np.arange(mine.sum()), pool.targets[mine]].mean()
        assert row["validation"]["loss"] == pytest.approx(loss, rel=1e-5)
        f1 = metrics.f1_macro.function(said[mine], pool.targets[mine])
        assert row["validation"]["f1"] == pytest.approx(f1)
        classes = [right[pool.targets[mine] == k].mean() for k in (0, 1)]
        assert row["validation"]["balanced_accuracy"] == pytest.approx(np.mean(classes))


def test_the_mean_over_weighted_examples_is_one_of_64_bits():
    weights = np.random.default_rng(0).random((2, 10_001)).astype(np.float32)
    held = HeldOut(weights)
    held([0, 1], 0, Evaluated({"loss": np.ones(weights.shape)}, None))
    np.testing.assert_allclose(held.means()["loss"], 1, rtol=1e-13)


@pytest.mark.parametrize("asked", [1, 2.5, 100])
def test_folds_that_cannot_be_are_refused(asked):
    with pytest.raises(UserError, match="folds is"):
        fit(models.logistic(2), dataset(), folds=asked, batch_size=8, quiet=True)


def test_groups_are_in_one_fold_and_folds_have_groups_of_all_sizes():
    size = np.repeat([1, 6], 24)  # of groups
    group = np.repeat(np.arange(48), size)
    x = np.random.default_rng(0).normal(size=(len(group), 2)).astype(np.float32)
    found = data.from_arrays(x, group % 2, groups=group)
    pooled = folds.pooled(found)
    held = folds.held_out(pooled, 4, [0, 1])
    for fold in held:
        own = pooled.groups[0][fold]
        assert not set(own) & set(pooled.groups[0][~fold])
        large = np.unique(own, return_counts=True)[1] > 1
        assert 1 <= large.sum() < len(large)
    sizes = [fold.sum() for fold in held]
    assert max(sizes) - min(sizes) <= 14


def test_groups_of_another_length_are_refused():
    found = dataset()._replace(groups=(np.arange(5), np.arange(3)))
    with pytest.raises(UserError, match="8 groups for 51 examples"):
        fit(models.logistic(2), found, folds=3, quiet=True)
    few = data.from_arrays(np.eye(40, dtype=np.float32), np.arange(40) % 2)
    few = few._replace(groups=(np.arange(28) % 2, np.arange(6) % 2))
    with pytest.raises(UserError, match="too few groups"):
        fit(models.logistic(2), few, folds=3, batch_size=8, quiet=True)


def test_one_rule_tells_copies_from_observations():
    pairs = np.repeat(np.arange(20.0), 2)[:, None].astype(np.float32)
    part = folds.parts(Batch(pairs, np.zeros(40, int)), 4, seed=0)
    assert (part[::2] == part[1::2]).all()  # each thing twice: copies
    flags = np.tile(np.arange(4.0), 10)[:, None].astype(np.float32)
    part = folds.parts(Batch(flags, np.zeros(40, int)), 4, seed=0)
    assert len(set(part[::4])) > 1  # each thing ten times: it was seen so often
    images = flags[:, :, None, None]
    part = folds.parts(Batch(images, np.zeros(40, int)), 4, seed=0)
    assert len(set(part[::4])) == 1  # but no picture is taken twice
