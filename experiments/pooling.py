"""What does pooling keep, and what does it discard?

Max pooling replaces each 2x2 window by its largest number: a quarter of the numbers is
left, and the position of the largest in its window is forgotten. So a small shift
should matter less. Four kinds of network learn digits in the middle of the image, each
at the rate that is best on validation, and are tested on shifted digits: with the
largest of each window, with its mean, with one pixel of the four, and without pooling.

    python experiments/pooling.py

Expect a shift by one pixel to change the logits by 0.72 of their spread with max
pooling, 0.74 with means, 0.88 without pooling and 0.90 with skipped pixels, in about 40
seconds on 2 cores.

Source: course, "Pooling": max over 2x2 reduces the dimension; Zhang (2019), Making
convolutional networks shift-invariant again, ICML, for skipped pixels.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from slides import pooling as slides

from dlworkshop import data, models, workshop
from dlworkshop.data import toy
from dlworkshop.models.convolution import computed_by
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings, fit_best_rate


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """Number of networks for each kind of pooling and each rate."""
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    """Learning rates of Adam; validation chooses one for each kind of pooling."""
    num_epochs: int = 10
    """Passes over 1,257 digits, all in the middle of the image."""


EXAMPLE = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
ANSWER, MEANS = np.array([[6, 8], [3, 4]]), np.array([[3.25, 5.25], [2, 2]])
SIDE, DISTANCES = 12, range(3)  # an 8x8 digit moves by up to 2 pixels on 12x12
max_pool, mean_pool = models.max_pool, models.average_pool


def by_loops(x):
    """a_ijc = max of x_(2i)(2j)c, x_(2i)(2j+1)c, x_(2i+1)(2j)c, x_(2i+1)(2j+1)c."""
    height, width, channels = x.shape
    pooled = np.zeros((height // 2, width // 2, channels))
    for i, j, c in np.ndindex(pooled.shape):
        pooled[i, j, c] = max(x[2 * i + a, 2 * j + b, c] for a, b in np.ndindex(2, 2))
    return pooled


def every_second(x):  # keeps as many numbers as pooling, ignores the others
    return x[::2, ::2]


def none(x):
    return x


POOLS = {"max": max_pool, "mean": mean_pool, "every second": every_second, "none": none}


def answers(pool, config):
    """For shifts of 0, 1, 2 pixels: change of logits, accuracy (%) [P, 3]; rate."""
    digits = data.load("digits")
    model = models.cnn((8, 16), dense=(), pooling=pool)
    settings = config.learning_rates, config.seeds, config.num_epochs
    rate, params = fit_best_rate(
        model, toy.centred(digits, SIDE), *settings
    )  # [P, ...]
    images = [toy.moved(digits.test.inputs, d, SIDE) for d in DISTANCES]
    quick = computed_by(model, None)  # computed inside the loop over members
    each = jax.vmap(partial(models.predict, quick), (None, 0))  # distance
    by_member = jax.jit(lambda p, x: jax.lax.map(lambda member: each(member, x), p))
    logits = np.asarray(by_member(params, np.stack(images)))  # [P, 3, 4 N, K]
    change = np.sqrt(((logits - logits[:, :1]) ** 2).mean((2, 3)))  # [P, 3]
    spread = logits[:, :1].std(2).mean(-1)  # [P, 1], between digits in the middle
    right = (logits.argmax(-1) == np.tile(digits.test.targets, 4)).mean(-1)
    return change / spread, 100 * right, rate


@jax.enable_x64(True)
def identities(num_draws):
    """What pooling computes, and what it discards."""
    pooled, sides = jax.vmap(max_pool), range(2, 34)
    images = jnp.array(np.random.default_rng(0).normal(size=(num_draws, 8, 7, 3)))
    return [
        claims.equal_up_to_rounding(
            "The largest of each window is the same by hand and by loops",
            [max_pool(jnp.array(EXAMPLE, float)[..., None])[..., 0], pooled(images)],
            [ANSWER, np.array([by_loops(x) for x in np.array(images)])],
            roundings=0,
            why="choosing the largest number takes no arithmetic",
        ),
        claims.equal_up_to_rounding(
            "H x W numbers become H // 2 x W // 2 in each channel",
            [jax.eval_shape(max_pool, jnp.zeros((h, 33, 3))).shape for h in sides],
            [(h // 2, 33 // 2, 3) for h in sides],
            roundings=0,
            why="windows do not overlap, and an odd last row is left out",
        ),
        claims.bounded(
            "What moves within its window does not change the maximum",
            pooled(images[:, [1, 0, 3, 2, 5, 4, 7, 6]]) - pooled(images),
            equal_to=0,
            why="the rows of each window are swapped, and the largest of four numbers "
            "does not depend on their order",
        ),
    ]


def main(config: Config) -> Lesson:
    """The identities, then a population of networks for each kind of pooling."""
    check_settings(config, seeds=claims.LEAST_SEEDS)
    found = {name: answers(pool, config) for name, pool in POOLS.items()}
    change = {name: values[:, 1] for name, (values, *_) in found.items()}  # [P] each

    return Lesson(
        f"A shift by a pixel changes logits by {change['max'].mean():.2f} of their "
        f"spread with max pooling, by {change['none'].mean():.2f} without pooling",
        claims=[
            *identities(config.seeds),
            claims.less(
                "With max pooling a shift moves the logits less than without pooling",
                change["max"],
                change["none"],
                why="two poolings forget the position within windows of 4x4 pixels; "
                "networks are paired by seed",
            ),
            claims.less(
                "It also moves them less than when three of four pixels are skipped",
                change["max"],
                change["every second"],
                why="equally many numbers are kept, but a shift changes which pixels "
                "they come from",
            ),
        ],
        figures=[
            slides.worked_example(EXAMPLE, ANSWER),
            slides.by_shift(DISTANCES, found),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "The means of the four windows are 3.25, 5.25, 2 and 2",
                mean_pool(jnp.array(EXAMPLE, float)[..., None])[..., 0] - MEANS,
                equal_to=0,
                why="(1 + 1 + 5 + 6) / 4 and so on; all are exact in binary",
            )
        ),
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
