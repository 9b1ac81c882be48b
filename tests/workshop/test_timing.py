"""Calls are timed in turns, each turn in an order of its own."""

from collections import Counter

from dlworkshop.workshop.timing import in_turns, time_call


def test_every_turn_takes_each_call_once_in_a_random_order():
    said = []

    def take(name, number):
        said.append(name)
        return number, len(said)

    taken = in_turns([("a", 1), ("b", 2), ("c", 3)], 600, take)
    assert taken.shape == (600, 3, 2)
    assert (taken[..., 0] == [1, 2, 3]).all()  # in the order of the calls
    orders = Counter("".join(said[i : i + 3]) for i in range(0, len(said), 3))
    # binomial(600, 1/6) is in 62 ... 142 but for 1 time in 100,000
    assert len(orders) == 6 and all(62 <= n <= 142 for n in orders.values())


def test_what_takes_longer_takes_longer():
    def work(size):
        return sum(range(size))

    taken = in_turns([(work, 10), (work, 100_000)], 3)
    assert (taken[:, 0] < taken[:, 1]).all()
    assert time_call(work, 10) > 0
