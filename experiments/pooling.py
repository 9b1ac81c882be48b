"""What does pooling keep, and what does it let go?

Max pooling puts the largest number of each 2x2 window in the place of the four. A
quarter of the numbers is left, and where in its window the largest stood is forgotten.
So a small shift of the image should matter less; whether it does depends on what
pooling is compared with: on the mean, on one pixel of the four, or on none at all.

    python experiments/pooling.py

Expect that a pixel's shift moves the logits by some 0.8 of their spread with max
pooling and by 0.9 without; with the mean, whose networks have learnt less by then, the
shift matters more. In about 15 seconds on 2 cores.

Source: course, "Pooling": max over 2x2 reduces the dimension; Zhang (2019), Making
convolutional networks shift-invariant again, ICML, for pixels that are left out.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.patches import Rectangle

from dlworkshop import data, fit, models, schedules
from dlworkshop.report.figures import BAND, COLOURS, band
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import check_gradients, claims

EXAMPLE = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4.0]])
ANSWER = np.array([[6, 8], [3, 4.0]])
MARGIN = 2  # empty pixels around a digit, into which it can move


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """How many networks with each kind of pooling."""
    num_epochs: int = 10
    """Passes over 1,257 digits, all in the middle."""


def by_loops(image):
    """The largest of x_(2i)(2j), x_(2i)(2j+1), x_(2i+1)(2j), x_(2i+1)(2j+1)."""
    height, width, channels = image.shape
    pooled = np.zeros((height // 2, width // 2, channels))
    for i, j, c in np.ndindex(pooled.shape):
        pooled[i, j, c] = max(
            image[2 * i + a, 2 * j + b, c] for a, b in np.ndindex(2, 2)
        )
    return pooled


max_pool, mean_pool = models.max_pool, models.average_pool


def by_xla(image):
    return lax.reduce_window(image, -jnp.inf, lax.max, (2, 2, 1), (2, 2, 1), "VALID")


def every_second(image):  # as many numbers as pooling leaves, without a look at others
    return image[::2, ::2]


POOLS = {
    "max": max_pool,
    "mean": mean_pool,
    "every second": every_second,
    "none": lambda image: image,
}


def moved(images, distance):
    """Images [N, H, W, 1] up, down, left and right: [4 * N, H, W, 1]."""
    steps = [(d, axis) for axis in (1, 2) for d in (-distance, distance)]
    return np.concatenate([np.roll(images, d, axis) for d, axis in steps])


def shift_change(pool, images):
    """How far a pixel's shift moves pooled images [N, H, W, 1], over their size."""
    pooled = np.asarray(jax.vmap(pool)(jnp.asarray(images, float)))
    shifted = np.asarray(jax.vmap(pool)(jnp.asarray(np.roll(images, 1, 2), float)))
    size = np.sqrt((pooled**2).sum((1, 2, 3)))
    return np.sqrt(((shifted - pooled) ** 2).sum((1, 2, 3))) / size  # [N]


@jax.enable_x64(True)
def identities(num_draws):
    """What pooling computes, what comes back through it, and what it forgets."""
    images = jax.random.normal(jax.random.key(0), (num_draws, 7, 8, 3))
    roads = [jax.vmap(max_pool)(images), jax.vmap(by_xla)(images)]
    loops = np.array([by_loops(image) for image in np.asarray(images)])
    rows = []
    for side in range(2, 34):
        shape = jax.eval_shape(max_pool, jnp.zeros((side, 33, 3))).shape
        rows.append(np.subtract(shape, (side // 2, 33 // 2, 3)))
    spots = [
        max_pool(jnp.zeros((4, 4, 1)).at[2 + a, b].set(1.0))
        for a, b in np.ndindex(2, 2)
    ]
    report = check_gradients(
        lambda x: (max_pool(x) ** 2).sum() + (mean_pool(x) ** 2).sum(), images[0]
    )
    return [
        claims.bounded(
            "The example of 4x4 numbers leaves the four that were found by hand",
            max_pool(jnp.asarray(EXAMPLE)[..., None])[..., 0] - ANSWER,
            equal_to=0,
            why="6, 8, 3 and 4 are the largest of their windows",
        ),
        claims.exact(
            "Loops over windows, max_pool and XLA's reduce_window agree",
            roads,
            [loops, loops],
            roundings=0,
            why="to choose the largest takes no arithmetic",
        ),
        claims.bounded(
            "H x W numbers become H // 2 x W // 2, of each channel",
            np.array(rows),
            equal_to=0,
            why="windows do not overlap, and an odd last row is left out",
        ),
        claims.gradients(
            "The gradient goes back to the largest, or to all four of a mean",
            report,
            why="central differences in float64 resolve eps^(2/3), some 4e-11",
        ),
        claims.bounded(
            "A spot that moves within its window leaves the maximum as it was",
            np.array(spots) - np.array(spots[0]),
            equal_to=0,
            why="the largest of four is so in whatever order",
        ),
    ]


def main(config: Config) -> Lesson:
    """The identities, then four kinds of pooling, each in a population of networks."""
    digits = data.load("digits")
    around = [(0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)]
    splits = [s._replace(image=np.pad(s.image, around)) for s in digits[:3]]
    digits = digits._replace(train=splits[0], validation=splits[1], test=splits[2])
    image, truth = digits.test.image, digits.test.label
    distances = np.arange(MARGIN + 1)
    change, right, sizes = {}, {}, {}
    for name, pool in POOLS.items():
        run = fit(
            models.cnn((8, 16), dense=(), pooling=pool),
            digits,
            hparams={"learning_rate": 0.005},
            seeds=config.seeds,
            num_epochs=config.num_epochs,
            batch_size=64,
            schedule=schedules.cosine,
        )
        logits = [run.predict(moved(image, d)) for d in distances]  # [P, 4 * N, K] each
        spread = logits[0].std(1).mean(-1)  # [P]
        off = [np.sqrt(((z - logits[0]) ** 2).mean((1, 2))) / spread for z in logits]
        change[name] = np.stack(off, 1)  # [P, distances]
        answers = np.stack([z.argmax(-1) == np.tile(truth, 4) for z in logits], 1)
        right[name] = 100 * answers.mean(-1)  # [P, distances]
        sizes[name] = run.summary["parameters"]
    by_one = {name: values[:, 1] for name, values in change.items()}  # [P] each

    def worked_example(panels):
        for axes, numbers, window in zip(
            panels, (EXAMPLE, ANSWER), (2, 1), strict=True
        ):
            axes.set(xlim=(0, len(numbers)), ylim=(len(numbers), 0), aspect="equal")
            axes.set_axis_off()
            for i, j in np.ndindex(2, 2):
                corner, colour = (window * j, window * i), COLOURS[2 * i + j]
                box = Rectangle(corner, window, window, color=colour, alpha=0.35)
                axes.add_patch(box)
            for (i, j), number in np.ndenumerate(numbers):
                look = {"ha": "center", "va": "center", "fontsize": 26}
                axes.text(j + 0.5, i + 0.5, f"{number:.0f}", **look)

    def lines(axes, values, label):
        for (name, each), colour in zip(values.items(), COLOURS, strict=False):
            band(axes, distances, each, f"{name} ({sizes[name]:,} parameters)", colour)
        axes.set(xlabel="shift of the image (pixels)", ylabel=label, xticks=distances)
        axes.legend(fontsize=12)

    def logits_by_shift(axes):
        lines(axes, change, "change of the logits / their spread")

    def accuracy_by_shift(axes):
        lines(axes, right, "test accuracy (%)")

    mean = {name: values.mean() for name, values in by_one.items()}
    after = {name: values[:, 1].mean() for name, values in right.items()}
    return Lesson(
        f"A pixel of shift moves logits by {mean['max']:.2f} of their spread with "
        f"max pooling, by {mean['none']:.2f} without pooling",
        claims=[
            *identities(config.seeds),
            claims.less(
                "With max pooling a shift moves the logits less than without pooling",
                by_one["max"],
                by_one["none"],
                why="two poolings forget up to 3 pixels of place; by one pixel, in "
                "four directions, paired by seed",
            ),
            claims.less(
                "A shift changes the mean of 2x2 pixels less than every second pixel",
                shift_change(mean_pool, image),
                shift_change(every_second, image),
                why="a shift changes fine detail most, and a mean smoothes it before "
                "pixels are left out (Zhang 2019); paired by test image, no training",
            ),
        ],
        figures=[
            Figure(
                worked_example,
                "Max over 2x2: 16 numbers become 4, the largest of each window",
                "Left: the numbers, a colour for each window. Right: what is left.",
                panels=2,
            ),
            Figure(
                logits_by_shift,
                f"One pixel moves the logits by {mean['max']:.2f} of their spread with "
                f"max pooling, {mean['none']:.2f} without",
                "Root mean square over test digits, classes and 4 directions, over the "
                f"standard deviation of the logits. {BAND}",
            ),
            Figure(
                accuracy_by_shift,
                f"Moved by a pixel, {after['max']:.0f} % are read with max pooling, "
                f"{after['none']:.0f} % without",
                f"All networks learnt from digits in the middle. {BAND}",
            ),
        ],
        exercises=[
            Exercise(
                "Let `every_second` begin at pixel 1: `image[1::2, 1::2]`. What "
                "changes?",
                "Little: which of the four is taken does not matter, that the others "
                "are not looked at does.",
            ),
        ],
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
