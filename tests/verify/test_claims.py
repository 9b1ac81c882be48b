"""A claim holds where it is true, fails where it is false, refuses what is neither."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.verify import check_gradients, claims
from dlworkshop.verify.claims import EPS

RNG = np.random.default_rng(0)
SEEDS = RNG.normal(0, 1, 20)  # one number a seed, mean near 0


def exact(found, expected, **options):
    return claims.equal_up_to_rounding(
        "equal", found, expected, roundings=8, why="a test", **options
    )


@pytest.mark.parametrize(
    ("off", "verdict"), [(7, "holds"), (9, "fails"), (-7, "holds"), (-9, "fails")]
)
def test_exact_allows_the_roundings_and_no_more(off, verdict):
    claim = exact(np.array([1.0, 1 + off * EPS]), np.ones(2))
    assert claim.verdict == verdict and claim.n == 2
    assert claim.bound == 8 * EPS and claim.value == pytest.approx(abs(off) * EPS)


def test_exact_counts_errors_against_the_largest_term():
    small = np.array([1e-20, 1.0])
    assert exact(small + np.array([EPS, 0]), small).verdict == "holds"
    assert exact(1e3 * small + 1e3 * EPS, 1e3 * small).verdict == "holds"
    assert exact(1e-3 * small + EPS, 1e-3 * small).verdict == "fails"
    assert exact(small + 1e3 * EPS, small, scale=1e3).verdict == "holds"


def test_exact_compares_trees_of_any_structure():
    tree = {"w": np.eye(2), "b": [np.zeros(3), 4]}
    assert exact(tree, tree).n == 8


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (np.ones(2, np.float32), "needs float64"),
        (np.ones(3), r"shapes \[\(3,\)\] with \[\(2,\)\]"),
        (np.ones((2, 1)), "shapes"),
        ([np.ones(2)] * 2, r"shapes \[\(2,\), \(2,\)\] with \[\(2,\)\]"),
        ([], r"shapes \[\] with \[\(2,\)\]"),
    ],
)
def test_exact_refuses_what_cannot_be_compared(found, words):
    with pytest.raises(ValueError, match=words):
        exact(found, np.ones(2))


@pytest.mark.parametrize("scale", [-1.0, 0, np.inf, np.nan])
def test_exact_refuses_a_scale_by_which_anything_is_equal(scale):
    with pytest.raises(ValueError, match="has the scale"):
        exact(1.0, 2.0, scale=scale)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_holds_nothing(bad):
    assert exact(np.array([1.0, bad]), np.ones(2)).verdict == "fails"
    assert claims.bounded("b", [0, bad], at_most=1, why="w").verdict == "fails"
    values = np.append(SEEDS + 10, bad)
    assert claims.greater("g", values, 0, why="w").verdict == "fails"
    table = np.tile(np.arange(4.0), (5, 1))
    table[2, 3] = np.nan
    assert claims.rises("r", table, why="w").verdict == "fails"


def test_gradients_are_those_of_the_report():
    weights = jnp.arange(3.0)
    right = check_gradients(lambda w: jnp.sum(jnp.sin(w)), weights)
    wrong = check_gradients(
        lambda w: jnp.sum(jnp.sin(w)) + 1e-6 * jax.lax.stop_gradient(w).sum(), weights
    )
    claim = claims.gradients("right", right, why="w")
    assert claim.verdict == "holds" and claim.n == 5  # and two directions
    claim = claims.gradients("wrong", wrong, why="w")
    assert claim.verdict == "fails" and claim.value > claim.bound


@pytest.mark.parametrize(
    ("values", "bound", "worst", "verdict"),
    [
        ([1, 2, 3], {"at_most": 3}, 3, "holds"),
        ([1, 2, 4], {"at_most": 3}, 4, "fails"),
        ([1, 2, 4], {"at_least": 1}, 1, "holds"),
        ([1, 2, 4], {"at_least": 2}, 1, "fails"),
        ([5, 5], {"equal_to": 5}, 5, "holds"),
        ([5, 4, 5], {"equal_to": 5}, 4, "fails"),
    ],
)
def test_bounded_is_decided_by_the_worst(values, bound, worst, verdict):
    claim = claims.bounded("b", values, why="w", **bound)
    assert (claim.value, claim.verdict, claim.n) == (worst, verdict, len(values))
    assert claim.spread == (min(values), max(values))


@pytest.mark.parametrize("bounds", [{}, {"at_most": 1, "at_least": 0}])
def test_bounded_wants_one_bound(bounds):
    with pytest.raises(ValueError, match="exactly one"):
        claims.bounded("b", [1], why="w", **bounds)


def test_pairs_see_what_single_seeds_hide():
    better = SEEDS + 0.05 + 0.01 * RNG.normal(size=20)
    assert claims.greater("alone", better, SEEDS.mean(), why="w").verdict == "fails"
    claim = claims.greater("paired", better, SEEDS, why="w")
    assert claim.verdict == "holds" and claim.p < 1e-9
    assert claim.spread[0] < claim.value < claim.spread[1]
    assert claims.greater("too far", better, SEEDS, why="w", by=0.1).verdict == "fails"
    assert claims.less("backwards", SEEDS, better, why="w").verdict == "holds"
    assert claims.less("wrong way", better, SEEDS, why="w").verdict == "fails"
    assert claims.less("by", SEEDS, better, why="w", by=0.02).verdict == "holds"
    assert claims.less("by", SEEDS, better, why="w", by=0.1).verdict == "fails"


def test_pairs_without_a_difference_hold_nothing():
    assert claims.greater("same", SEEDS, SEEDS, why="w").verdict == "fails"
    assert claims.less("same", SEEDS, SEEDS, why="w").verdict == "fails"


def test_a_false_claim_passes_once_in_a_hundred():
    rng = np.random.default_rng(1)
    passed = sum(
        claims.greater("chance", rng.normal(size=10), 0, why="w").verdict == "holds"
        for _ in range(1000)
    )
    # binomial(1000, 0.01) is in 1 ... 25 but for 1 time in 20,000
    assert 1 <= passed <= 25


def test_ratios_of_turns_are_held_against_one_bound():
    ratios = np.array([2.2, 2.9, 2.4, 30.0, 2.1, 2.5, 2.3])  # a slow moment among them
    claim = claims.turns("above", ratios, above=2, why="w")
    assert claim.verdict == "holds" and claim.p == pytest.approx(2**-7)
    assert (claim.value, claim.spread) == (2.4, (2.1, 30.0))
    assert claims.turns("too far", ratios, above=2.35, why="w").verdict == "fails"
    assert claims.turns("wrong way", ratios, below=2, why="w").verdict == "fails"
    assert claims.turns("below", 1 / ratios, below=0.5, why="w").verdict == "holds"
    for bad in (np.ones(7), np.zeros(7), -ratios, np.append(ratios, np.nan)):
        assert claims.turns("bad", bad, above=1, why="w").verdict == "fails"


def test_turns_decide_by_their_order_whatever_the_machine_does():
    # two calls that take equally long, on a machine that is slower and slower, in
    # waves that last longer than a turn; always in one order, it is seen as a gain
    rng = np.random.default_rng(2)
    held = {"random": 0, "fixed": 0}
    for _ in range(1000):
        slowness = np.cumsum(rng.normal(0.05, 0.1, 20)).reshape(10, 2)
        swapped = np.where(rng.random(10) < 0.5, 1, -1)
        logs = slowness[:, 1] - slowness[:, 0]
        for order, signs in {"random": swapped, "fixed": 1}.items():
            claim = claims.turns("equal", np.exp(signs * logs), above=1, why="w")
            held[order] += claim.verdict == "holds"
    assert held["random"] <= 25  # binomial(1000, 0.01), see above
    assert held["fixed"] > 50


def test_turns_want_one_bound_and_enough_turns():
    for bounds in ({}, {"above": 1, "below": 2}):
        with pytest.raises(ValueError, match="either above or below"):
            claims.turns("t", np.ones(7), why="w", **bounds)
    with pytest.raises(ValueError, match="ratios are above 0"):
        claims.turns("t", np.ones(7), above=0, why="w")
    with pytest.raises(UserError, match=r"6 turns: .*--seeds 7"):
        claims.turns("t", np.ones(6), above=1, why="w")


def test_a_trend_compares_each_seed_with_itself():
    levels = 10 * RNG.normal(size=(12, 1))  # seeds differ far more than settings
    table = levels + np.arange(5) + 0.2 * RNG.normal(size=(12, 5))
    rising = claims.rises("up", table, why="w")
    assert rising.verdict == "holds" and rising.value > 0.9
    assert claims.falls("down", table, why="w").verdict == "fails"
    assert claims.falls("down", -table, why="w").verdict == "holds"
    assert claims.rises("flat", np.ones((12, 5)), why="w").verdict == "fails"


def test_a_trend_over_two_settings_is_a_sign_test():
    table = np.stack([np.zeros(12), np.arange(12.0)], 1)  # a tie, and 11 that rise
    claim = claims.rises("up", table, why="w")
    assert (claim.verdict, claim.p) == ("holds", 2.0**-11)
    assert claims.falls("down", table, why="w").p == 1
    assert claims.falls("down", table[:, ::-1], why="w").p == 2.0**-11
    assert claims.rises("flat", np.ones((12, 2)), why="w").verdict == "fails"
    with pytest.raises(UserError, match="give at least 7"):  # 2^-6 > 0.01
        claims.rises("up", table[:6], why="w")
    with pytest.raises(UserError, match="at least 2 settings"):
        claims.rises("up", table[:, :1], why="w")


@pytest.mark.parametrize(
    ("hits", "verdict"), [(64, "holds"), (57, "fails"), (9, "fails")]
)
def test_a_share_is_that_of_all_seeds_there_are(hits, verdict):
    claim = claims.share("s", np.arange(64) < hits, at_least=0.9, why="w")
    assert claim.verdict == verdict and claim.value == hits / 64
    assert claim.spread[0] < claim.value <= claim.spread[1]


@pytest.mark.parametrize(
    "decide",
    [
        lambda v: claims.greater("g", v, 0, why="w"),
        lambda v: claims.less("l", v, 0, why="w"),
        lambda v: claims.rises("r", v[:, None] + np.arange(3), why="w"),
        lambda v: claims.share("s", v > 0, at_least=0.5, why="w"),
    ],
)
def test_a_few_seeds_decide_nothing(decide):
    with pytest.raises(UserError, match="--seeds 5"):
        decide(SEEDS[:4])


@pytest.mark.parametrize(
    ("decide", "words"),
    [
        (lambda: claims.share("s", [0.3] * 64, at_least=0.9, why="w"), "True or False"),
        (lambda: claims.share("s", [np.nan] * 64, at_least=0.9, why="w"), "counts"),
        (
            lambda: claims.share("s", ["no"] * 64, at_least=0.9, why="w"),
            "counts a list",
        ),
        (lambda: claims.share("s", True, at_least=0.9, why="w"), "counts True"),
        (lambda: claims.greater("g", np.ones((5, 2)), 0, why="w"), "one per seed"),
        (lambda: claims.greater("g", SEEDS, "low", why="w"), "about 'low': give num"),
        (lambda: claims.turns("t", np.ones((7, 2)), above=1, why="w"), "one per turn"),
    ],
)
def test_what_decides_nothing_is_said(decide, words):
    with pytest.raises(UserError, match=words):
        decide()


def test_a_few_seeds_can_be_refused_before_the_work():
    claims.check_seeds(claims.LEAST_SEEDS)
    with pytest.raises(UserError, match="seeds is 4, too few"):
        claims.check_seeds(4)


def test_pairs_are_of_the_same_seeds():
    with pytest.raises(ValueError, match="same seeds"):
        claims.greater("g", SEEDS, SEEDS[1:], why="w")
