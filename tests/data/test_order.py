"""The order of examples is a pure function of (seed, epoch)."""

import jax
import numpy as np
import pytest

from dlworkshop.data import order as orders
from dlworkshop.data.order import (
    Order,
    device_order,
    device_permutation,
    permutation,
    philox,
)


def test_every_example_comes_once_an_epoch():
    order = Order([5, 9], size=103, batch_size=10)
    steps = order.steps(0, 10)
    assert steps.shape == (10, 2, 10)
    for member in range(2):
        seen = steps[:, member].ravel()
        assert len(set(seen)) == 100 and seen.max() < 103


def test_a_position_alone_gives_the_batches():
    whole = Order([1, 2], 64, 8)
    straight = np.concatenate([whole.steps(s, 4) for s in (0, 4, 8, 12)])
    for first in (12, 3, 8):  # in any order, from a fresh start
        count = min(4, 8 - first % 8)
        there = Order([1, 2], 64, 8).steps(first, count)
        np.testing.assert_array_equal(there, straight[first : first + count])


def test_seeds_and_epochs_differ_and_equal_seeds_agree():
    steps = Order([4, 4, 7], 64, 8).steps(0, 8)
    np.testing.assert_array_equal(steps[:, 0], steps[:, 1])
    assert (steps[:, 0] != steps[:, 2]).any()
    assert (permutation(0, 0, 50) != permutation(0, 1, 50)).any()


def test_the_order_is_the_same_for_ever():
    # pinned: a resumed run must find the order that it left
    assert permutation(3, 2, 8).tolist() == [2, 4, 1, 3, 6, 5, 0, 7]


@pytest.mark.parametrize("size", [1, 5, 16, 17, 1437, 55000])
def test_the_order_is_that_of_a_stable_sort(size):
    # with which runs were begun that may be resumed
    for seed in range(8):
        stream = np.random.Philox(key=np.array([seed, 1], np.uint64))
        stable = np.argsort(stream.random_raw(size), kind="stable")
        np.testing.assert_array_equal(permutation(seed, 1, size), stable)


@pytest.mark.parametrize("size", [1, 5, 103, 1437])
def test_a_device_draws_the_same_order(size):
    draw = jax.jit(device_permutation, static_argnums=2)
    for seed, epoch in ((0, 0), (3, 2), (2**32 - 1, 70_000)):
        there = draw(np.uint32(seed), np.uint32(epoch), size)
        np.testing.assert_array_equal(there, permutation(seed, epoch, size))


def test_a_device_draws_the_same_numbers():
    stream = np.random.Philox(key=np.array([12345, 678], np.uint64))
    halves = jax.jit(philox, static_argnums=2)(12345, 678, 250)
    high, low = (np.stack(half, -1).ravel().astype(np.uint64) for half in halves)
    np.testing.assert_array_equal(high << 32 | low, stream.random_raw(1000))


def test_a_device_draws_the_batches_of_all_members(monkeypatch):
    monkeypatch.setattr(orders, "AT_ONCE", 2 * 67)  # two seeds of five
    seeds = [4, 9, 4, 7, 2**32 - 1]
    there = jax.jit(device_order, static_argnums=(2, 3))(
        np.array(seeds, np.uint32), 3, 67, 8
    )
    host = Order(seeds, 67, 8)
    np.testing.assert_array_equal(there, host.steps(3 * host.steps_per_epoch, 8))


def test_threads_draw_the_same_order(monkeypatch):
    alone = Order([4, 9, 7], 64, 8).steps(8, 8)
    monkeypatch.setattr(orders, "MANY", 0)
    np.testing.assert_array_equal(Order([4, 9, 7], 64, 8).steps(8, 8), alone)
