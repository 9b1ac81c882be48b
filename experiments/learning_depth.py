"""Does training find what depth can do?

In `why_depth.py` a network made by hand folds a tent with two units for each fold: 4
layers of 2 units make 16 pieces. Here networks of 1 to 4 layers learn that curve from
points. All have about 300 weights, many more than a deep network needs, and enough for
a wide one too. Each depth uses its own learning rate, the one with the lowest training
error.

    python experiments/learning_depth.py

Expect errors of 0.19 to 0.20 on average at all depths although the networks have enough
pieces (the network by hand is exact), in about 50 seconds on 2 cores.

Source: Telgarsky (2016), Benefits of depth in neural networks, for the curve; Hanin &
Rolnick (2019), Complexity of linear regions in deep networks, for the pieces learnt.
"""

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from slides import learning_depth as slides

from dlworkshop import workshop
from dlworkshop.data import toy
from dlworkshop.learn.minimize import minimize
from dlworkshop.models import num_params
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

    seeds: int = 10
    """Number of networks of each depth that learn the folded tent."""
    folds: int = 4
    """Number of folds of the tent."""
    num_steps: int = 2000
    """Number of Adam updates, each on all points."""
    learning_rate: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    """Initial learning rates to choose from, rising; each falls to 0 along a cosine."""


SHAPES = {1: (100,), 2: (15, 15), 3: (11, 11, 11), 4: (9, 9, 9, 9)}  # about 300 weights
SEEN = np.linspace(0, 1, 257)  # training points
POINTS = np.linspace(0, 1, 1025)  # test points
FOUND = 0.05  # a smaller error means that a network has found the curve
MIDDLES = (np.arange(4096) + 0.5) / 4096  # of cells; slopes are measured there


def relu(z):  # max(0, z)
    return jax.nn.relu(z)


def network(params, x):  # a_0 = x; a_i = relu(a_i-1 W_i + b_i); output = a W + b
    a = x[None]  # [1]
    for w, b in params[:-1]:
        a = relu(a @ w + b)
    w, b = params[-1]
    return (a @ w + b)[0]


def begin(widths, key):
    """Weights of He et al. (2015); the units of the first layer bend in [0, 1]."""
    params, sizes = [], (1, *widths, 1)
    for layer, shape in enumerate(itertools.pairwise(sizes)):
        w_key, b_key = jax.random.split(jax.random.fold_in(key, layer))
        w = (2 / shape[0]) ** 0.5 * jax.random.normal(w_key, shape)
        bend = jax.random.uniform(b_key, shape[1:]) if layer == 0 else 0
        params.append((w, -w[0] * bend))
    return params


def learn(config, widths, learning_rate, key):
    """Training error of a network, its outputs at `POINTS`, its slopes at `MIDDLES`."""
    rate = optax.cosine_decay_schedule(learning_rate, config.num_steps)
    start = begin(widths, key)
    target = jnp.asarray(toy.tent(SEEN, config.folds), float)

    def loss(params, _):  # mean of (f(x) - y)^2
        return ((jax.vmap(partial(network, params))(SEEN) - target) ** 2).mean()

    params, _ = minimize(loss, start, optax.adam(rate), np.arange(config.num_steps))
    net = partial(network, params)
    error = loss(params, None) ** 0.5
    return error, jax.vmap(net)(POINTS), jax.vmap(jax.grad(net))(MIDDLES)


def main(config: Config) -> Lesson:
    """Networks of equal size and different depth, each at its best rate."""
    check_settings(config, seeds=claims.LEAST_SEEDS, folds=1, num_steps=1)
    check_positive(config, "learning_rate")
    check_rising(config, "learning_rate", 3)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    rates = np.array(config.learning_rate)
    tried, chosen, answers, error, pieces = {}, {}, {}, {}, {}
    truth = toy.tent(POINTS, config.folds)
    for depth, widths in SHAPES.items():
        train = vmap_grid(partial(learn, config, widths))
        tried[depth], *learnt = map(np.asarray, train(rates, keys))  # [R, P]
        mean = np.nan_to_num(tried[depth].mean(1), nan=np.inf)  # nan: diverged
        chosen[depth] = best = int(mean.argmin())  # by training error
        answers[depth], slopes = (found[best] for found in learnt)  # [P, ...]
        error[depth] = ((answers[depth] - truth) ** 2).mean(1) ** 0.5  # [P]
        pieces[depth] = np.array([toy.num_pieces(slope) for slope in slopes])  # [P]
    sizes = [num_params(begin(widths, keys[0])) for widths in SHAPES.values()]
    least = min(e.mean() for e in error.values())
    return Lesson(
        f"With a learning rate chosen for each depth, the mean error is {least:.2f} at "
        f"the best depth; {2 * config.folds} units by hand have error 0",
        claims=[
            claims.bounded(
                "Learnt networks of one layer have at most one piece more than units",
                pieces[1],
                at_most=1 + SHAPES[1][0],
                why="each unit bends the line at one place, wherever training puts it",
            ),
            claims.greater(
                "Learnt networks have at least as many pieces as the curve",
                np.mean(list(pieces.values()), 0),
                2**config.folds,
                why="this holds on average over the depths, so a lack of pieces does "
                "not explain the error",
            ),
            claims.bounded(
                "No depth chooses the smallest or the largest of the rates tried",
                [min(i, len(rates) - 1 - i) for i in chosen.values()],
                at_least=1,
                why="if the choice were at either end, which counts as 0, a rate "
                "beyond it might be better",
            ),
            claims.bounded(
                "The networks differ in size by 5 % at most",
                abs(np.array(sizes) / 300 - 1),
                at_most=0.05,
                why="numbers of parameters against 300; whole units allow no closer "
                "match",
            ),
            claims.greater(
                "On average, learning does not find what two units per fold can do",
                np.min(list(error.values()), 0),
                FOUND,
                why="the mean over the seeds, each at its best depth; the smaller "
                "network by hand is exact, always answering 1/2 has the error "
                "1 / sqrt(12) = 0.29, and 0.05 lies between; choosing the rates with "
                "the same seeds can only help learning",
            ),
        ],
        figures=[
            slides.fitted(POINTS, truth, answers, error, config.folds),
            slides.tuning(rates, tried, chosen),
            slides.errors(error, FOUND),
            slides.counts(pieces, config.folds),
        ],
        exercises=slides.exercises(),
        summary={"dataset": "folded tent", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
