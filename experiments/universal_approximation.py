"""Can one hidden layer draw any curve?

The theorem of universal approximation says yes: with enough units, a network with one
hidden layer comes as close as you like to every continuous function. Here its proof is
built, a staircase in which each unit is one stair; then networks of 2 to 512 units find
their own weights for three curves. A curve with a jump shows what is not promised.

    python experiments/universal_approximation.py

Expect errors that fall with the width, on the wave from 1.1 to 0.02, in about 20
seconds on 2 cores.

Source: Cybenko (1989), Approximation by superpositions of a sigmoidal function; Hornik,
Stinchcombe & White (1989), Multilayer feedforward networks are universal approximators;
Leshno et al. (1993) for which activations will do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlworkshop.data import toy
from dlworkshop.learn.descent import descend
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves, fits
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson, crossed
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """How many networks of each width learn each curve."""
    widths: tuple[int, ...] = (2, 8, 32, 128, 512)
    """Hidden units."""
    num_steps: int = 2000
    """Updates by Adam, each on all points."""
    learning_rate: float = 0.03
    """At the start; it falls to 0 along a cosine."""


CURVES: dict[str, Callable] = {
    "wave": toy.wave,
    "tent": partial(toy.tent, folds=2),
    "bump": toy.bump,
}
TARGETS = CURVES | {"jump": toy.step}
SEEN = np.linspace(0, 1, 128)  # points to learn from
BEFORE = np.nextafter(np.float32(0.5), np.float32(0))  # the last point before the jump
POINTS = np.sort(np.append(np.linspace(0, 1, 1001), BEFORE))  # and to be judged on
STEEPEST = 4 * np.pi  # |wave'| is nowhere larger


def sigma(z):  # sigma(z) = 1 / (1 + e^-z)
    return jax.nn.sigmoid(z)


def network(params, x):  # f(x) = sum_j c_j sigma(w_j x + b_j) + d
    w, b, c, d = params
    return sigma(w * x + b) @ c + d


def staircase(curve, width):
    """By hand: unit j climbs from f(x_j-1) to f(x_j) half-way between the two."""
    height = curve(np.arange(width + 1) / width)  # f(x_j), x_j = j / width
    half_way = (np.arange(width) + 0.5) / width
    w = np.full(width, 20.0 * width)  # so steep that it is a stair
    return w, -w * half_way, np.diff(height), height[0]  # w, b, c, d


def begin(width, key):
    """At random: each unit bends somewhere in [0, 1]."""
    w_key, b_key, c_key = jax.random.split(key, 3)
    w = 20 * jax.random.normal(w_key, (width,))
    b = -w * jax.random.uniform(b_key, (width,))  # so that w x + b = 0 at a random x
    return w, b, jax.random.normal(c_key, (width,)) / width**0.5, jnp.zeros(())


def learn(config, width, target, key):
    """What a network answers at `POINTS` once it has learnt `target` [128]."""
    rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    start = begin(width, key)

    def loss(params, _):  # mean of (f(x) - y)^2
        return ((jax.vmap(partial(network, params))(SEEN) - target) ** 2).mean()

    params, _ = descend(loss, start, optax.adam(rate), np.arange(config.num_steps))
    return jax.vmap(partial(network, params))(POINTS.astype(np.float32))


def square(z):  # for the exercise
    return z**2


@jax.enable_x64(True)
def by_hand(widths):
    """The staircases of the wave, [W, points], and their largest errors, [W]."""
    stairs = [staircase(toy.wave, width) for width in widths]
    drawn = [jax.jit(jax.vmap(partial(network, s)))(POINTS) for s in stairs]
    return np.array(drawn), abs(np.array(drawn) - toy.wave(POINTS)).max(1)


@jax.enable_x64(True)
def bent_by_squares(width, keys):
    """Is sum_j c_j (w_j x + b_j)^2 + d more than one parabola?"""
    w, b, c, _ = jax.vmap(partial(begin, width))(keys)  # [P, W]
    x = jnp.arange(4) / 3
    y = (square(w * x[:, None, None] + b) * c).sum(-1)  # [4, P]
    return claims.exact(
        "A network of squares is one parabola, however wide",
        y[3] - 3 * y[2] + 3 * y[1] - y[0],
        np.zeros(len(keys)),
        roundings=width + 20,
        scale=8 * float(((abs(w) + abs(b)) ** 2 * abs(c)).sum(-1).max()),
        why="third differences of a parabola are 0; each y is a sum over all units, of "
        "some 4 roundings each, and here are 8 of them",
    )


def main(config: Config) -> Lesson:
    """The proof by hand, then a population for each width: all curves, all seeds."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    seen = np.array([curve(SEEN) for curve in TARGETS.values()], np.float32)  # [F, 128]
    truth = np.array([curve(POINTS) for curve in TARGETS.values()])  # [F, points]
    # every curve with every seed in one program for each width: [W, F, P, points]
    one = [crossed(partial(learn, config, width)) for width in config.widths]
    drawn = np.stack([np.asarray(learnt(seen, keys)) for learnt in one])
    worst = abs(drawn - truth[:, None]).max(-1).transpose(1, 2, 0)  # [F, P, W]
    error = dict(zip(TARGETS, worst, strict=True))  # sup over x of |f(x) - y|
    wave = drawn[:, 0]  # [W, P, points]
    missed = by_hand(config.widths)[1]
    few, many = config.widths[0], config.widths[-1]
    first, *_, last = error["wave"].mean(0)

    def proof(panels):
        curve, numbers = toy.wave(POINTS), (16, 64)
        stairs = dict(zip(("16 units", "64 units"), by_hand(numbers)[0], strict=True))
        fits(panels, POINTS, curve, stairs, ylim=(-2, 2))
        for axes, stair in zip(panels, STEEPEST / np.array(numbers), strict=True):
            axes.fill_between(POINTS, curve - stair, curve + stair, alpha=0.15)

    def wider(panels):
        shown = sorted({0, len(config.widths) // 2, len(config.widths) - 1})
        off = error["wave"].mean(0)
        learnt = {
            f"{config.widths[i]} units: off by {off[i]:.2g}": wave[i] for i in shown
        }
        fits(panels, POINTS, toy.wave(POINTS), learnt, ylim=(-1.7, 1.7))

    def errors(axes):
        values = error | {"wave, by hand": missed}
        labels = {"xlabel": "hidden units", "ylabel": "largest error on [0, 1]"}
        curves(axes, config.widths, values, xscale="log", yscale="log", **labels)

    return Lesson(
        f"From {few} to {many} units, the largest error on the wave falls from "
        f"{first:.2f} to {last:.3f}",
        claims=[
            claims.bounded(
                "By hand, a staircase misses the wave by no more than one stair",
                missed * config.widths / STEEPEST,
                at_most=1.001,
                why="between two steps f lies between their heights, and a stair of "
                "width 1 / N is at most max |f'| / N = 4 pi / N high; the others, half "
                "a stair away or more, add some e^-10 of that",
            ),
            *(
                claims.falls(
                    f"The wider the network, the closer it comes to the {name}",
                    error[name],
                    why="a wider network can be what a narrower one is, and more; that "
                    "Adam finds it is what could fail",
                )
                for name in CURVES
            ),
            claims.bounded(
                "At a jump no width brings the error below 1/2",
                error["jump"],
                at_least=0.499,
                why="the network is continuous: on both sides of the jump it says the "
                "same, up to rounding in float32, and is 1/2 from one of 0 and 1",
            ),
        ],
        figures=[
            Figure(
                "proof",
                proof,
                "The proof by hand: each unit is one stair, and more stairs are lower",
                "Shaded: one stair, 4 pi / N, to both sides of the curve, dashed.",
                panels=2,
            ),
            Figure(
                "wider",
                wider,
                f"{few} units cannot bend often enough; {many} follow the wave",
                f"Dashed: the curve to be learnt. {BAND}",
                panels=min(3, len(config.widths)),
            ),
            Figure(
                "errors",
                errors,
                "More units, smaller errors, but not at a jump, which is not promised",
                "The theorem says that weights exist, as those by hand do, not that "
                f"Adam finds them. {BAND}",
            ),
        ],
        exercises=[
            Exercise(
                "Let `sigma` return `z**2`. What do 512 units then learn?",
                "A parabola: a sum of squares of straight lines has no third power. "
                "With any polynomial the width is wasted; any other activation will "
                "do (Leshno et al. 1993).",
                bent_by_squares(many, keys),
            ),
        ],
        summary={"dataset": ", ".join(CURVES), "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
