"""Can one hidden layer approximate any curve?

The universal approximation theorem says yes: with enough units, a network with one
hidden layer comes as close as you like to every continuous function on a closed and
bounded set, here the interval [0, 1]. The proof is built as a staircase in which each
unit is one step; then networks of 2 to 512 units learn three continuous curves. A
fourth curve, with a jump, shows what the theorem does not promise.

    python experiments/universal_approximation.py

Expect errors that tend to fall with the width, on the wave from 1.1 to 0.02, in about
20 seconds on 2 cores.

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
from slides import universal_approximation as slides

from dlworkshop import workshop
from dlworkshop.data import toy
from dlworkshop.learn.minimize import minimize
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import (
    Lesson,
    check_positive,
    check_rising,
    check_settings,
    vmap_grid,
)


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """Number of networks of each width that learn each curve."""
    widths: tuple[int, ...] = (2, 8, 32, 128, 512)
    """Numbers of hidden units."""
    num_steps: int = 2000
    """Number of Adam updates, each on all points."""
    learning_rate: float = 0.03
    """Initial learning rate; it falls to 0 along a cosine."""


CURVES: dict[str, Callable] = {
    "wave": toy.wave,
    "tent": partial(toy.tent, folds=2),
    "bump": toy.bump,
    "jump": toy.step,
}
SEEN = np.linspace(0, 1, 128)  # training points
BEFORE = np.nextafter(np.float32(0.5), np.float32(0))  # the last point before the jump
POINTS = np.sort(np.append(np.linspace(0, 1, 1001), BEFORE))  # test points
STEEPEST = 4 * np.pi  # |wave'| is nowhere larger


def sigma(z):  # sigma(z) = 1 / (1 + e^-z)
    return jax.nn.sigmoid(z)


def network(params, x):  # f(x) = sum_j c_j sigma(w_j x + b_j) + d
    w, b, c, d = params
    return sigma(w * x + b) @ c + d


along = jax.vmap(network, in_axes=(None, 0))  # at all of x, [T]


def staircase(curve, width):
    """By hand: unit j steps from f(x_j-1) to f(x_j) half-way between x_j-1 and x_j."""
    height = curve(np.arange(width + 1) / width)  # f(x_j), x_j = j / width
    half_way = (np.arange(width) + 0.5) / width
    w = np.full(width, 20.0 * width)  # so steep that the sigmoid is almost a step
    return w, -w * half_way, np.diff(height), height[0]  # w, b, c, d


def begin(width, key):
    """Random weights: each unit bends somewhere in [0, 1]."""
    w_key, b_key, c_key = jax.random.split(key, 3)
    w = 20 * jax.random.normal(w_key, (width,))
    b = -w * jax.random.uniform(b_key, (width,))  # so that w x + b = 0 at a random x
    return w, b, jax.random.normal(c_key, (width,)) / width**0.5, jnp.zeros(())


def learn(config, width, target, key):
    """Outputs at `POINTS` of a network that has learnt `target` [128]."""
    rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)

    def loss(params, _):  # mean of (f(x) - y)^2
        return ((along(params, SEEN) - target) ** 2).mean()

    steps = np.arange(config.num_steps)
    params, _ = minimize(loss, begin(width, key), optax.adam(rate), steps)
    return along(params, POINTS)


def main(config: Config) -> Lesson:
    """The proof by hand, then a population of all curves and seeds for each width."""
    check_settings(config, seeds=claims.LEAST_SEEDS, widths=1, num_steps=1)
    check_rising(config, "widths")
    check_positive(config, "learning_rate")
    keys = jax.random.split(jax.random.key(0), config.seeds)
    seen = np.array([curve(SEEN) for curve in CURVES.values()], np.float32)  # [F, 128]
    truth = np.array([curve(POINTS) for curve in CURVES.values()])  # [F, points]
    # every curve with every seed in one program for each width: [W, F, P, points]
    learnt = [vmap_grid(partial(learn, config, width)) for width in config.widths]
    drawn = np.stack([one(seen, keys) for one in learnt])
    worst = abs(drawn - truth[:, None]).max(-1).transpose(1, 2, 0)  # [F, P, W]
    error = dict(zip(CURVES, worst, strict=True))  # sup over x of |f(x) - y|
    numbers = (16, 64, *config.widths)  # the first two are drawn
    stairs = {n: np.asarray(along(staircase(toy.wave, n), POINTS)) for n in numbers}
    missed = np.array([abs(stairs[n] - truth[0]).max() for n in config.widths])
    few, many = config.widths[0], config.widths[-1]
    first, *_, last = error["wave"].mean(0)
    return Lesson(
        f"From {few} to {many} units, the largest error on the wave falls from "
        f"{first:.2f} to {last:.3f}",
        claims=[
            claims.bounded(
                "By hand, a staircase misses the wave by no more than half a step",
                missed * config.widths / STEEPEST,
                at_most=0.501,
                why="it is as high as the wave at most half a width 1 / N away, where "
                "the wave differs by at most half of max |f'| / N = 4 pi / N, a step; "
                "steps half a width away or more add about e^-10 of that",
            ),
            *(
                claims.falls(
                    f"Over all widths, the error on the {name} tends to fall",
                    error[name],
                    why="a wider network can represent all that a narrower one can; "
                    "the claim fails if Adam does not find it. A trend in the ranks of "
                    "the errors allows exceptions from one width to the next",
                )
                for name in CURVES
                if name != "jump"
            ),
            claims.bounded(
                "At a jump no width brings the error below 1/2",
                error["jump"],
                at_least=0.499,
                why="the network is continuous: on both sides of the jump it gives the "
                "same answer, up to rounding in float32, which is at least 1/2 away "
                "from 0 or from 1",
            ),
        ],
        figures=[
            slides.proof(POINTS, truth[0], stairs, STEEPEST),
            slides.wider(config.widths, POINTS, truth, drawn, error),
            slides.errors(config.widths, error, missed),
        ],
        exercises=slides.exercises(),
        summary={"dataset": ", ".join(CURVES), "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
