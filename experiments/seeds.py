"""Is network A better than network B?

One run of each proves little: other seeds may give the opposite result. Train both with
the same seeds and look at the differences: how large they are, how certain that is, and
whether a second test and as many fresh seeds agree. A and B are the same network,
trained on the digits with learning rates of 0.003 and 0.002.

    python experiments/seeds.py

Expect A to be better by 0.7 ± 0.1 percentage points, a difference that a single run of
each would miss in a fifth of all cases, in about 9 seconds on 2 cores.

Source: Student (1908), The probable error of a mean; Fisher (1935), The design of
experiments, for permutation; Armitage, McPherson & Rowe (1969), for repeated tests.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats
from slides import seeds as slides

from dlworkshop import data, fit, models, workshop
from dlworkshop.errors import UserError
from dlworkshop.types import Array
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings

LOTS = 4000  # comparisons in which chance alone decides


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 20
    """Number of pairs of networks; as many fresh pairs repeat the comparison."""
    learning_rate: tuple[float, float] = (0.003, 0.002)
    """Learning rates of A and of B."""
    num_epochs: int = 20
    """Passes over the training split."""


class Comparison(NamedTuple):
    """Result of the paired test on n differences; each [...]."""

    mean: Array  # in the units of the differences, as are low and high
    low: Array  # of the 95 % interval
    high: Array
    p: Array  # how often chance alone gives as large a mean, two-sided
    effect: Array  # the mean in standard deviations of a difference (Cohen's d_z)


def paired(differences: np.ndarray) -> Comparison:
    """Student's test on differences [..., n], one for each seed."""
    n = differences.shape[-1]
    mean = differences.mean(-1)  # d = sum_i d_i / n
    deviation = differences.std(-1, ddof=1)  # s^2 = sum_i (d_i - d)^2 / (n - 1)
    error = deviation / n**0.5  # of the mean
    p = 2 * stats.t.sf(abs(mean / error), n - 1)
    reach = stats.t.isf(0.025, n - 1) * error
    return Comparison(mean, mean - reach, mean + reach, p, mean / deviation)


def by_lot(differences: np.ndarray) -> np.ndarray:
    """Differences [LOTS, n] where a coin for each seed says which network is A."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (LOTS, len(differences)))
    return signs * differences


def fooled(lots: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """[..., k]: whether p < 0.05 at one of the looks so far, after looks[k] seeds."""
    found = [paired(lots[..., :seeds]).p < 0.05 for seeds in looks]
    return np.logical_or.accumulate(found).T


def main(config: Config) -> Lesson:
    """Train A and B as one population, compare them, and check the comparison."""
    check_settings(config, seeds=claims.LEAST_TURNS)
    if config.learning_rate[0] == config.learning_rate[1]:
        raise UserError(
            f"learning_rate is {config.learning_rate}, so A and B are the same: give "
            "two different rates"
        )
    n = config.seeds
    run = fit(
        models.mlp((64,)),
        data.load("digits"),
        hparams={"learning_rate": config.learning_rate},
        seeds=2 * n,
        num_epochs=config.num_epochs,
        batch_size=64,
    )
    a, b = run.test_metric.reshape(2, 2 * n)  # [2 n] each; the same seeds in order
    difference = (a - b)[:n]
    found = paired(difference)
    library = stats.ttest_rel(a[:n], b[:n])
    lots = by_lot(difference)
    as_far = lots.mean(-1) >= found.mean - 1e-12  # one-sided, as the claim
    chance = (1 + as_far.sum()) / (1 + LOTS)  # the measured signs count as one toss
    looks = np.arange(5, n + 1)
    alarms = fooled(lots, looks)  # [LOTS, looks]
    honest = np.stack([paired(lots[:, :k]).p < 0.05 for k in looks], 1)
    wrong = (a[:, None] <= b).mean()  # any run of A against any of B

    return Lesson(
        f"A - B is {100 * found.mean:.2f} points (95 % interval {100 * found.low:.2f} "
        f"to {100 * found.high:.2f}, effect {found.effect:.1f} standard deviations, "
        f"n = {n}); with a single run of each, A is not ahead in {wrong:.0%} of cases",
        claims=[
            claims.greater(
                "A recognises more test digits than B",
                a[:n],
                b[:n],
                why="both networks of a pair share their seed: initial weights, and "
                "the order of the examples",
            ),
            claims.bounded(
                "A permutation test, without normality, agrees",
                chance,
                at_most=claims.LEVEL,
                why="if A were as good as B, each difference could just as well have "
                "the other sign; p is the share of assignments with as large a mean",
            ),
            claims.greater(
                "Fresh seeds agree", a[n:], b[n:], why="the same test on other seeds"
            ),
            claims.equal_up_to_rounding(
                "The formulas of the test agree with the library",
                np.array([found.p, found.low, found.high]),
                np.array([library.pvalue, *library.confidence_interval(0.95)]),
                roundings=20 * n,
                why="two sums of n terms, which may be 10 times as large as their mean",
            ),
            claims.share(
                "With A and B assigned at random, false alarms are as rare as promised",
                ~honest[:, -1],
                at_least=0.93,
                why="for normal differences there is no alarm in 95 % of cases; a few "
                "seeds with ties are not quite normal",
            ),
        ],
        figures=[
            slides.pairs(a[:n], b[:n], found),
            slides.looking(looks, alarms, honest),
        ],
        exercises=slides.exercises(
            claims.share(
                "Looking after every seed at least doubles the false alarms",
                alarms[:, -1],
                at_least=0.1,
                why="twice the 5 % of a single look; for 10 looks at normal data "
                "Armitage et al. find 19 %",
            )
        ),
        summary={"dataset": "digits", "members": 2 * n},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
