"""Why deep, if one hidden layer can approximate any curve?

It can, but at what price? Folding the line in two makes a tent; folding it k times
makes 2^k straight pieces, and a deep network needs two units for each fold. One layer
needs a unit for each bend, and the bends double with every fold. Here both networks are
made by hand; `learning_depth.py` asks whether training finds them.

    python experiments/why_depth.py

Expect exact counts: 16 units in 8 layers against 255 in one layer, in about 8 seconds
on 2 cores.

Source: Telgarsky (2016), Benefits of depth in neural networks, theorem 1.1;
Montufar et al. (2014), On the number of linear regions of deep neural networks.
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from slides import why_depth as slides

from dlworkshop import workshop
from dlworkshop.data import toy
from dlworkshop.errors import Range, check_number
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings

MOST = 12  # folds; one layer then has 4,096 units, and its outputs take 0.5 GB


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 5
    """Number of random points for the comparison, in units of 200."""
    folds: int = 8
    """Largest number of folds; the units of one layer double with each fold.
    At most 12."""


def relu(z):  # max(0, z)
    return jax.nn.relu(z)


def network(params, x):  # a_0 = x; a_i = relu(a_i-1 W_i + b_i); output = a W + b
    a = x[None]  # [1]
    for w, b in params[:-1]:
        a = relu(a @ w + b)
    w, b = params[-1]
    return (a @ w + b)[0]


def deep(folds):
    """By hand, again and again: tent(a) = 2 relu(a) - 4 relu(a - 1/2), 2 units."""
    weigh, bend = np.array([[2.0], [-4.0]]), np.array([0, -0.5])
    first, again = (np.ones((1, 2)), bend), (weigh @ np.ones((1, 2)), bend)
    return [first, *[again] * (folds - 1), (weigh, np.zeros(1))]


def wide(folds):
    """By hand, in one layer: the slope turns at every j / 2^k, from +-2^k to -+2^k."""
    bends = np.arange(2**folds) / 2**folds  # the first, at 0, begins the climb
    turns = 2.0 ** (folds + 1) * (-1) ** np.arange(2**folds)
    turns[0] /= 2
    return [(np.ones((1, 2**folds)), -bends), (turns[:, None], np.zeros(1))]


def without(unit, folds):
    """`wide` without one of its units."""
    first, (turns, b) = wide(folds)
    fewer = tuple(np.delete(part, unit, -1) for part in first)
    return [fewer, (np.delete(turns, unit, 0), b)]


def num_units(params):
    return sum(len(b) for _, b in params[:-1])


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Outputs and sizes of the networks made by hand, for 1 to `folds` folds."""
    check_settings(config, seeds=1, folds=1)
    check_number("folds", config.folds, Range(1, MOST + 1))
    most, folds = config.folds, np.arange(1, config.folds + 1)
    in_depth, in_width = [deep(k) for k in folds], [wide(k) for k in folds]
    anywhere = np.random.default_rng(0).uniform(size=200 * config.seeds)
    x = np.append(np.linspace(0, 1, 1025), anywhere)

    def values(params):  # f(x)
        return jax.vmap(partial(network, params))(x)

    def slopes(params, num_cells):  # df / dx in the middle of each cell of [0, 1]
        middles = (np.arange(num_cells) + 0.5) / num_cells
        return jax.vmap(jax.grad(partial(network, params)))(middles)

    @jax.jit
    def measured():
        cells = 4 * 2**most  # four per shortest piece; no bend is inside a cell
        return (
            [[values(p) for p in made] for made in (in_depth, in_width)],
            [[slopes(p, cells) for p in made] for made in (in_depth, in_width)],
            [slopes(without(i, 4), 64) for i in range(1, 16)],
        )

    (deep_y, wide_y), straight, fewer = jax.device_get(measured())
    pieces = np.array([[toy.num_pieces(s) for s in made] for made in straight])
    units = np.array([num_units(params) for params in in_depth])
    return Lesson(
        f"{units[-1]} units in {most} layers make {pieces[0, -1]:,} straight pieces; "
        f"one layer needs {pieces[0, -1] - 1:,} units for that",
        claims=[
            claims.equal_up_to_rounding(
                "Layers of 2 units, one for each fold, are the folded tent",
                deep_y,
                [toy.tent(x, int(k)) for k in folds],
                roundings=2 ** (most + 1),
                why="each fold adds a rounding or two and doubles the earlier ones",
            ),
            claims.equal_up_to_rounding(
                "One layer of 2^k units is the same function",
                wide_y,
                deep_y,
                roundings=2 ** (most + 1),
                scale=4.0**most,
                why="a sum of 2^k terms, each up to 2^(k+1) and with few roundings",
            ),
            claims.bounded(
                "k folds have 2^k straight pieces, deep or wide",
                pieces / 2.0**folds,
                equal_to=1,
                why="a fold maps each half of [0, 1] onto all of it, which doubles the "
                "pieces",
            ),
            claims.bounded(
                "In one layer each unit is needed: without it there is one piece fewer",
                [toy.num_pieces(s) for s in fewer],
                equal_to=15,
                why="a unit of one layer bends the line at one place, so 16 pieces "
                "take 15 bends; the 16th unit makes the first climb",
            ),
        ],
        figures=[
            slides.tents(x[:1025], [y[:1025] for y in deep_y], pieces[0]),
            slides.units(folds, units, pieces[0] - 1),
        ],
        exercises=slides.exercises(),
        summary={"dataset": "folded tent"},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
