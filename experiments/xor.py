"""Why does a network need a bend?

Without an activation, layers collapse into a single matrix, and the decision border of
a single matrix is a straight line. XOR has four clouds of points, and opposite clouds
form one class: no straight line separates the classes. Networks with and without an
activation try to learn it.

    python experiments/xor.py

Expect at most 75 % from networks without a bend, 100 % from all others with 8 hidden
units, and 100 % from some with a single unit whose activation dips before it rises, in
about 12 seconds on 2 cores.

Source: Minsky & Papert (1969), Perceptrons, for XOR; course, "Activation functions".
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import nn
from slides import xor as slides

from dlworkshop import workshop
from dlworkshop.data import toy
from dlworkshop.learn.minimize import trajectory
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings, vmap_grid


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 32
    """Number of networks of each kind and size."""
    num_steps: int = 600
    """Number of Adam updates, each on all points."""


FLAT = "no activation"
RISING: dict[str, Callable] = {  # their formulas are in activations.py
    "sigmoid": nn.sigmoid,
    "tanh": jnp.tanh,
    "ReLU": nn.relu,
    "leaky ReLU": nn.leaky_relu,
}
GELU = partial(nn.gelu, approximate=False)
DIPPING: dict[str, Callable] = {"GELU": GELU, "SiLU": nn.silu}
ACTIVATIONS = {FLAT: lambda z: z, **RISING, **DIPPING}
UNITS = np.array([1, 2, 4, 8])  # hidden units in use, out of 8
LOOKS = np.array([0, 1, 2, 4, 6, 9, 15, 30, 60, 100])  # percent of the updates


def network(kind, units, params, x):  # a = f(x W1 + b1); output = a W2 + b2
    w1, b1, w2, b2 = params
    a = jax.lax.switch(kind, tuple(ACTIVATIONS.values()), x @ w1 + b1)  # [8]
    return jnp.where(np.arange(8) < units, a, 0) @ w2 + b2


def learn(config, points, kind, units, key):
    """The parameters [looks, ...] during Adam, each update on all points."""
    w1_key, w2_key = jax.random.split(key)
    w1, w2 = jax.random.normal(w1_key, (2, 8)), jax.random.normal(w2_key, (8,))
    start = w1, jnp.zeros(8), w2, jnp.zeros(())

    def loss(params, _):
        z = jax.vmap(partial(network, kind, units, params))(points.inputs)  # [N]
        return (nn.softplus(z) - points.targets * z).mean()

    steps, looks = np.arange(config.num_steps), config.num_steps * LOOKS // 100
    return trajectory(loss, start, optax.adam(0.05), steps, looks)


@jax.enable_x64(True)
def one_matrix():
    """Three layers without an activation against the product of their matrices."""
    w1, w2, w3, x = jax.random.normal(jax.random.key(0), (4, 6, 6))
    flat = ACTIVATIONS[FLAT]
    return claims.equal_up_to_rounding(
        "Three layers without a bend are one matrix",
        flat(flat(x @ w1) @ w2) @ w3,
        x @ (w1 @ w2 @ w3),
        roundings=6 + 6 + 6,
        scale=float((abs(x) @ abs(w1) @ abs(w2) @ abs(w3)).max()),
        why="three sums of 6 products, in another order",
    )


def main(config: Config) -> Lesson:
    """Check an identity, then train a population for each activation and size."""
    check_settings(config, seeds=claims.LEAST_SEEDS, num_steps=1)
    points, side = toy.xor(200), np.linspace(-2, 2, 48)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)  # [G, 2]

    def answers(units, key, kind):  # to the points and to the grid, [looks, N or G]
        params = learn(config, points, kind, units, key)
        net = jax.vmap(partial(network, kind, units), (None, 0))
        over = jax.vmap(net, (0, None))
        return over(params, points.inputs), over(params, grid)

    learnt, learning, right, heights = vmap_grid(answers), {}, {}, {}
    keys = jax.random.split(jax.random.key(0), config.seeds)
    for kind, name in enumerate(ACTIVATIONS):
        z, drawn = learnt(UNITS, keys, kind)  # [U, P, looks, N or G]
        learning[name] = np.asarray(((z > 0) == points.targets).mean(-1))
        right[name] = learning[name][..., -1]  # [U, P]
        heights[name] = np.asarray(drawn[-1, : slides.DRAWN])  # of all units
    solved = np.mean([right[name][-1] == 1 for name in (*RISING, *DIPPING)])
    return Lesson(
        f"Without a bend no network gets all of XOR right; with a bend {solved:.0%} do",
        claims=[
            one_matrix(),
            claims.bounded(
                "Without a bend no network gets more than 3 of 4 clouds of XOR right",
                right[FLAT],
                at_most=0.75,
                why="its border is a line, and of four points, one from each cloud, a "
                "line has at most three on the right sides",
            ),
            *(
                claims.share(
                    f"With {name} most networks get all of XOR right",
                    right[name][-1] == 1,
                    at_least=0.5,
                    why="if more than half do, XOR can be learnt with this activation",
                )
                for name in (*RISING, *DIPPING)
            ),
            claims.bounded(
                "A single unit that only rises does no better",
                [right[name][0] for name in RISING],
                at_most=0.75,
                why="it passes a level along at most one line w x + b = z",
            ),
            claims.bounded(
                "A single unit that dips before it rises can learn all of it",
                [right[name][0].max() for name in DIPPING],
                equal_to=1,
                why="it passes some levels along two lines, which is enough; one "
                "network that finds them shows it",
            ),
        ],
        figures=[
            slides.border(points, side, heights, learning, config.num_steps * LOOKS),
            slides.members(points, side, heights),
            slides.units(UNITS, right),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "One unit that folds the plane tells the two classes apart",
                (1 - abs(points.inputs.sum(-1)) > 0) == points.targets,
                equal_to=1,
                why="|x_1 + x_2| is 2 in the clouds of class 0, 0 in the others",
            )
        ),
        summary={"dataset": "xor", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
