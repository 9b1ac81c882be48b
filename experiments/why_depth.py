"""Why deep, if one hidden layer can draw any curve?

It can, but at what price? Folding the line in two makes a tent; folding it k times
makes 2^k straight pieces, and a deep network pays two units for each fold. One layer
pays a unit for each bend, and they double with every fold. Whether training finds what
depth can do is another question: networks of 1 to 4 layers and equal size try it.

    python experiments/why_depth.py

Expect exact counts: 16 units in depth against 255 in one layer; and learning that finds
little of it at any depth, off by some 0.2 where the network by hand is exact, in about
20 seconds on 2 cores.

Source: Telgarsky (2016), Benefits of depth in neural networks, sections 2 and 3;
Montufar et al. (2014), On the number of linear regions of deep neural networks.
"""

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlworkshop.data import toy
from dlworkshop.learn.descent import descend
from dlworkshop.models import num_params
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import fits
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """How many networks of each depth learn the folded tent."""
    folds: int = 8
    """How often the tent is folded by hand; one layer doubles with each."""
    learnt_folds: int = 4
    """How often what is learnt is folded."""
    num_steps: int = 2000
    """Updates by Adam, each on all points."""
    learning_rate: float = 0.01
    """At the start; it falls to 0 along a cosine."""


SHAPES = {1: (100,), 2: (15, 15), 3: (11, 11, 11), 4: (9, 9, 9, 9)}  # some 300 weights
SEEN = np.linspace(0, 1, 257)  # points to learn from
POINTS = np.linspace(0, 1, 1025)  # points to be judged on


def relu(z):  # max(0, z)
    return jax.nn.relu(z)


def network(params, x):  # a_0 = x; a_i = relu(a_i-1 W_i + b_i); output = a W + b
    a = jnp.reshape(x, 1)
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


def slopes(params, num_cells):
    """df / dx in the middle of each of the cells that [0, 1] is cut into."""
    middles = (np.arange(num_cells) + 0.5) / num_cells
    return jax.vmap(jax.grad(partial(network, params)))(middles)


def pieces(slope):
    """How many straight pieces there are, as far as the cells can tell."""
    same = 1e-4 * abs(slope).max()  # rounding in float32 is no bend
    return 1 + np.count_nonzero(abs(np.diff(slope)) > same)


def begin(widths, key):
    """He et al. (2015); the units of the first layer bend somewhere in [0, 1]."""
    params, sizes = [], (1, *widths, 1)
    for layer, shape in enumerate(itertools.pairwise(sizes)):
        w_key, b_key = jax.random.split(jax.random.fold_in(key, layer))
        w = (2 / shape[0]) ** 0.5 * jax.random.normal(w_key, shape)
        bend = jax.random.uniform(b_key, shape[1:]) if layer == 0 else 0
        params.append((w, -w[0] * bend))
    return params


def learn(config, widths, key):
    """What a network answers at `POINTS` after learning, and its slopes there."""
    rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    start = begin(widths, key)
    target = jnp.asarray(toy.tent(SEEN, config.learnt_folds), float)

    def loss(params, _):  # mean of (f(x) - y)^2
        return ((jax.vmap(partial(network, params))(SEEN) - target) ** 2).mean()

    params, _ = descend(loss, start, optax.adam(rate), np.arange(config.num_steps))
    return jax.vmap(partial(network, params))(POINTS), slopes(params, 4096)


def without(unit, folds):
    """`wide` with one unit taken out."""
    first, (turns, b) = wide(folds)
    fewer = tuple(np.delete(part, unit, -1) for part in first)
    return [fewer, (np.delete(turns, unit, 0), b)]


@jax.enable_x64(True)
def by_hand(most):
    """What the networks made by hand compute and cost, for 1 to `most` folds."""
    folds = np.arange(1, most + 1)
    x = np.append(np.random.default_rng(0).uniform(size=1000), np.arange(5) / 4)

    @jax.jit
    def measured(x):
        made = [[make(k) for k in folds] for make in (deep, wide)]
        values = [[jax.vmap(partial(network, p))(x) for p in ps] for ps in made]
        cells = 4 * 2**most  # four to the shortest piece; no bend is inside a cell
        straight = [slopes(p, cells) for ps in made for p in ps]
        return values, straight, [slopes(without(i, 4), 64) for i in range(1, 16)]

    (in_depth, in_width), straight, fewer = jax.device_get(measured(x))
    return [
        claims.exact(
            "Layers of 2 units, one for each fold, are the folded tent",
            in_depth,
            [toy.tent(x, k) for k in folds],
            roundings=2 ** (most + 1),
            why="each fold has a rounding or two and doubles those before it",
        ),
        claims.exact(
            "One layer of 2^k units is the same function",
            in_width,
            in_depth,
            roundings=2 ** (most + 1),
            scale=4.0**most,
            why="a sum of 2^k terms, each up to 2^(k+1) and of few roundings",
        ),
        claims.bounded(
            "k folds have 2^k straight pieces, deep or wide",
            np.array(list(map(pieces, straight))) / 2.0 ** np.append(folds, folds),
            equal_to=1,
            why="a fold lays each half of [0, 1] over all of it: it doubles the pieces",
        ),
        claims.bounded(
            "In one layer each unit is needed: without it there is a piece less",
            list(map(pieces, fewer)),
            equal_to=15,
            why="a unit of one layer bends the line at one place only, so that 16 "
            "pieces take 15 bends, and the 16th unit makes the first climb",
        ),
    ]


def main(config: Config) -> Lesson:
    """Counts by hand, then populations of equal size and different depth."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    answers, bends = {}, {}
    for depth, widths in SHAPES.items():
        learnt = jax.jit(jax.vmap(partial(learn, config, widths)))(keys)
        answers[depth], bends[depth] = map(np.asarray, learnt)  # [P, 1025], [P, 4096]
    truth = toy.tent(POINTS, config.learnt_folds)
    error = {d: ((a - truth) ** 2).mean(1) ** 0.5 for d, a in answers.items()}  # [P]
    sizes = [num_params(begin(widths, keys[0])) for widths in SHAPES.values()]
    k = config.folds

    def tents(panels):
        for axes, folds in zip(panels, (1, 3, 5), strict=True):
            axes.plot(POINTS, jax.vmap(partial(network, deep(folds)))(POINTS))
            axes.set(title=f"{folds} x 2 units: {2**folds} pieces", xlabel="x")

    def learnt_fits(panels):
        titles = [f"depth {d}: off by {e.mean():.2f}" for d, e in error.items()]
        learnt = dict(zip(titles, answers.values(), strict=True))
        fits(panels, POINTS, truth, learnt, ylim=(-0.3, 1.3))

    return Lesson(
        f"{2 * k} units in {k} layers make {2**k:,} straight pieces; one layer "
        f"needs {2**k - 1:,} units for them",
        claims=[
            *by_hand(config.folds),
            claims.bounded(
                "What learns in one layer has at most one piece more than units",
                list(map(pieces, bends[1])),
                at_most=1 + SHAPES[1][0],
                why="each unit bends the line at one place, wherever learning puts it",
            ),
            claims.bounded(
                "The networks that learn differ in size by 5 % at most",
                abs(np.array(sizes) / 300 - 1),
                at_most=0.05,
                why="parameters against 300; whole units allow no closer match",
            ),
            claims.greater(
                "Learning finds at no depth what two units a fold can do",
                np.min(list(error.values()), 0),
                0.05,
                why="the network made by hand is smaller and exact; whoever answers "
                "1/2 is off by 1 / sqrt(12) = 0.29, and 0.05 is far from both",
            ),
        ],
        figures=[
            Figure(
                "tents",
                tents,
                "Each fold doubles the pieces and costs a layer of 2 units",
                "The tent map applied 1, 3 and 5 times, by a network made by hand.",
                panels=3,
            ),
            Figure(
                "learnt_fits",
                learnt_fits,
                "What depth can do, learning hardly finds: off by "
                f"{min(e.mean() for e in error.values()):.2f} at best, by hand 0",
                f"Dashed: {config.learnt_folds} folds, to be learnt with some 300 "
                f"parameters. {BAND}",
                panels=len(SHAPES),
            ),
        ],
        exercises=[
            Exercise(
                "Take `--learnt-folds 3`. Does depth help now?",
                "All depths come close, and one layer as close as four: 100 units "
                "have bends enough for 8 pieces. That depth needs fewer units says "
                "nothing about how easily they are found.",
            ),
        ],
        summary={"dataset": "folded tent", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
