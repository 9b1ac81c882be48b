"""What does pooling keep, and what does it let go?

Max pooling puts the largest number of each 2x2 window in the place of the four. A
quarter of the numbers is left, and where in its window the largest stood is forgotten.
So a small shift of the image should matter less. Four kinds of network learn digits in
the middle of the image, each at the rate that validation prefers, and are asked about
digits that are not: with the largest of each window, with its mean, with one pixel of
the four, and without pooling.

    python experiments/pooling.py

Expect that a pixel's shift moves the logits by 0.73 of their spread with max pooling,
by 0.88 without; the mean does as well as the maximum (0.74), and leaving pixels out
helps nothing (0.90). In about 50 seconds on 2 cores.

Source: course, "Pooling": max over 2x2 reduces the dimension; Zhang (2019), Making
convolutional networks shift-invariant again, ICML, for pixels that are left out.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop import data, models
from dlworkshop.data import toy
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves, table
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson, tuned
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """How many networks with each kind of pooling and each rate."""
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    """Of Adam; validation chooses one for each kind."""
    num_epochs: int = 10
    """Passes over 1,257 digits, all in the middle."""


EXAMPLE = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
ANSWER, MEANS = np.array([[6, 8], [3, 4]]), np.array([3.25, 5.25, 2, 2])
SIDE, DISTANCES = 12, range(3)  # an 8x8 digit moves by up to 2 pixels on 12x12
max_pool, mean_pool = models.max_pool, models.average_pool


def by_loops(x):
    """a_ijc = max of x_(2i)(2j)c, x_(2i)(2j+1)c, x_(2i+1)(2j)c, x_(2i+1)(2j+1)c."""
    height, width, channels = x.shape
    pooled = np.zeros((height // 2, width // 2, channels))
    for i, j, c in np.ndindex(pooled.shape):
        pooled[i, j, c] = max(x[2 * i + a, 2 * j + b, c] for a, b in np.ndindex(2, 2))
    return pooled


def every_second(x):  # as many numbers as pooling leaves, without a look at the others
    return x[::2, ::2]


def none(x):
    return x


POOLS = {"max": max_pool, "mean": mean_pool, "every second": every_second, "none": none}


def moved(images, distance):
    """Digits [N, 8, 8, 1] that lie so far up, down, left and right of the middle."""
    steps = (-distance, 0), (distance, 0), (0, -distance), (0, distance)
    places = [(2 + down, 2 + right) for down, right in steps]
    return np.concatenate([toy.placed(images, *place, SIDE) for place in places])


def answers(pool, config, digits):
    """By shifts of 0, 1, 2 pixels: change of the logits, % right [P, 3]; the rate.

    The change is the root mean square over digits, classes and directions, over the
    standard deviation of the logits between digits.
    """
    middle = [s._replace(image=toy.placed(s.image, 2, 2, SIDE)) for s in digits[:3]]
    dataset = digits._replace(train=middle[0], validation=middle[1], test=middle[2])
    model = models.cnn((8, 16), dense=(), pooling=pool)
    settings = config.learning_rates, config.seeds, config.num_epochs
    rate, params = tuned(model, dataset, *settings)  # [P, ...]
    images = np.stack([moved(digits.test.image, d) for d in DISTANCES])  # [3, 4 N, ...]

    @jax.jit
    def logits_of(params, images):  # one member after the other
        predict = jax.vmap(partial(models.predict, model), (None, 0))
        return jax.lax.map(lambda member: predict(member, images), params)

    logits = np.asarray(logits_of(params, images))  # [P, 3, 4 N, K]
    change = np.sqrt(((logits - logits[:, :1]) ** 2).mean((2, 3)))
    spread = logits[:, 0].std(1).mean(-1)  # [P]
    right = (logits.argmax(-1) == np.tile(digits.test.label, 4)).mean(-1)
    return change / spread[:, None], 100 * right, rate


@jax.enable_x64(True)
def identities(num_draws):
    """What pooling computes, and what it forgets."""
    images = np.random.default_rng(0).normal(size=(num_draws, 7, 8, 3))
    spots = np.eye(4).reshape(4, 2, 2, 1)  # one for each place in a window
    canvas = toy.placed(spots, 2, 0, 4)  # in the window below on the left
    sides, pooled = range(2, 34), jax.vmap(max_pool)
    sizes = [jax.eval_shape(max_pool, jnp.zeros((h, 33, 3))).shape for h in sides]
    return [
        claims.bounded(
            "The example of 4x4 numbers leaves the four that were found by hand",
            max_pool(jnp.array(EXAMPLE, float)[..., None])[..., 0] - ANSWER,
            equal_to=0,
            why="6, 8, 3 and 4 are the largest of their windows",
        ),
        claims.exact(
            "Loops over windows find the same",
            pooled(jnp.array(images)),
            np.array([by_loops(x) for x in images]),
            roundings=0,
            why="to choose the largest takes no arithmetic",
        ),
        claims.exact(
            "H x W numbers become H // 2 x W // 2, of each channel",
            np.array(sizes),
            np.array([(h // 2, 33 // 2, 3) for h in sides]),
            roundings=0,
            why="windows do not overlap, and an odd last row is left out",
        ),
        claims.bounded(
            "A spot that moves within its window leaves the maximum as it was",
            pooled(canvas) - pooled(canvas[:1]),
            equal_to=0,
            why="the largest of four is so in whatever order",
        ),
    ]


def main(config: Config) -> Lesson:
    """The identities, then four kinds of pooling, each in a population of networks."""
    digits = data.load("digits")
    found = {name: answers(pool, config, digits) for name, pool in POOLS.items()}
    names = {name: f"{name}, rate {rate:g}" for name, (*_, rate) in found.items()}
    one = {name: change[:, 1] for name, (change, *_) in found.items()}  # [P] each
    change = {name: values.mean() for name, values in one.items()}
    right = {name: values[:, 1].mean() for name, (_, values, _) in found.items()}

    def worked_example(panels):
        windows = np.arange(4).reshape(2, 2)
        table(panels[0], np.kron(windows, np.ones((2, 2))), EXAMPLE, "Pastel2")
        table(panels[1], windows, ANSWER, "Pastel2")
        for axes in panels:
            axes.set_axis_off()

    def by_shift(panels):
        labels = "change of the logits / their spread", "test accuracy (%)"
        for part, (axes, label) in enumerate(zip(panels, labels, strict=True)):
            values = {names[name]: each[part] for name, each in found.items()}
            curves(axes, DISTANCES, values, xlabel="shift (pixels)", ylabel=label)

    return Lesson(
        f"A pixel of shift moves logits by {change['max']:.2f} of their spread with "
        f"max pooling, by {change['none']:.2f} without pooling",
        claims=[
            *identities(config.seeds),
            claims.less(
                "With max pooling a shift moves the logits less than without pooling",
                one["max"],
                one["none"],
                why="two poolings forget up to 3 pixels of place; paired by seed",
            ),
            claims.less(
                "Less, too, than where three of four pixels are left out unseen",
                one["max"],
                one["every second"],
                why="as many numbers, but a shift changes which pixels are taken",
            ),
        ],
        figures=[
            Figure(
                "worked_example",
                worked_example,
                "Max over 2x2: 16 numbers become 4, the largest of each window",
                "Left: the numbers, a colour for each window. Right: what is left.",
                panels=2,
            ),
            Figure(
                "by_shift",
                by_shift,
                f"Moved by a pixel, {right['max']:.0f} % are read with max pooling, "
                f"{right['mean']:.0f} % with the mean, {right['none']:.0f} % without",
                "Change: root mean square over test digits, classes and 4 directions. "
                f"Spread: standard deviation between digits. {BAND}",
                panels=2,
            ),
        ],
        exercises=[
            Exercise(
                "What does the mean make of EXAMPLE, the 4x4 numbers of the figure?",
                "3.25 and 5.25 above, 2 and 2 below.",
                claims.bounded(
                    "The means of the four windows are 3.25, 5.25, 2 and 2",
                    mean_pool(jnp.array(EXAMPLE, float)[..., None]).ravel() - MEANS,
                    equal_to=0,
                    why="(1 + 1 + 5 + 6) / 4 and so on, all of them exact in binary",
                ),
            ),
        ],
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
