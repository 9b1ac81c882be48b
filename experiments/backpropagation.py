"""How does a network find out which weight to blame?

The loss depends on a weight only through a chain of quantities, so its derivative is a
product along the chain, summed over the ways that the chain can go. That is written out
here weight by weight, then as matrix products, and compared with `jax.grad` and with
moving each weight a little. Then it is timed, as that is why it is used.

    python experiments/backpropagation.py

Expect four equal gradients, each for the operations of some two forward passes however
many weights there are, in about 12 seconds on 2 cores.

Source: course, "Back-propagation": dL/dW1_12 = sum_k dL/do_k do_k/ds_k ds_k/da_2
da_2/dz_2 dz_2/dW1_12; Griewank & Walther (2008), Evaluating Derivatives, section 4.4.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.models import num_params
from dlworkshop.report.figures import BAND, network
from dlworkshop.report.lesson_figures import curves
from dlworkshop.run import experiment
from dlworkshop.run.clock import seconds
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import check_gradients, claims

INPUTS, HIDDEN, OUTPUTS = 6, 4, 3  # W1 is 6x4, W2 is 4x3


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """How many networks are compared, and how often times are taken."""
    widths: tuple[int, ...] = (4, 16, 64, 256)
    """Hidden units of the networks that are timed."""


def sigma(z):
    return 1 / (1 + jnp.exp(-z))


def forward(weights, x):
    """One example [6] -> all that happens on the way to its outputs [3]."""
    w1, w2 = weights
    z = x @ w1  # z_j = sum_i x_i W1_ij
    a = sigma(z)  # a_j = sigma(z_j)
    s = a @ w2  # s_k = sum_j a_j W2_jk
    o = sigma(s)  # o_k = sigma(s_k)
    return z, a, s, o


def loss(weights, x, y):  # L = sum_k (o_k - y_k)^2 / 2
    return ((forward(weights, x)[-1] - y) ** 2).sum() / 2


def by_chain_rule(weights, x, y):
    """The sum of the course, one weight at a time."""
    w1, w2 = weights
    _, a, _, o = forward(weights, x)
    dw1, dw2 = np.zeros(w1.shape), np.zeros(w2.shape)
    for j, k in np.ndindex(w2.shape):
        dl_do, do_ds = o[k] - y[k], o[k] * (1 - o[k])
        dw2[j, k] = dl_do * do_ds * a[j]  # ds_k / dW2_jk = a_j
        for i in range(len(x)):
            ds_da, da_dz, dz_dw = w2[j, k], a[j] * (1 - a[j]), x[i]
            dw1[i, j] += dl_do * do_ds * ds_da * da_dz * dz_dw  # sum over k
    return dw1, dw2


def by_matrices(weights, x, y):
    """The same, layer by layer: each delta is computed once, and used by all below."""
    _, w2 = weights
    _, a, _, o = forward(weights, x)
    delta_s = (o - y) * o * (1 - o)  # dL/ds [3]
    delta_z = (w2 @ delta_s) * a * (1 - a)  # dL/dz [4]
    return jnp.outer(x, delta_z), jnp.outer(a, delta_s)


def by_differences(weights, x, y, step=1e-6):
    """Move each weight up and down: two forward passes for every one of them."""
    flat, unravel = jax.flatten_util.ravel_pytree(weights)

    def slope(i):
        up, down = unravel(flat.at[i].add(step)), unravel(flat.at[i].add(-step))
        return (loss(up, x, y) - loss(down, x, y)) / (2 * step)

    return unravel(jax.lax.map(slope, jnp.arange(flat.size)))


def draw(key, hidden):
    """Weights, an input and a target."""
    keys = jax.random.split(key, 4)
    w1 = jax.random.normal(keys[0], (INPUTS, hidden))
    w2 = jax.random.normal(keys[1], (hidden, OUTPUTS)) * (HIDDEN / hidden) ** 0.5
    x = jax.random.normal(keys[2], (INPUTS,))
    return (w1, w2), x, jax.random.uniform(keys[3], (OUTPUTS,))


def operations(function, *args):
    """Arithmetic and transcendental operations, as XLA counts them."""
    cost: Any = jax.jit(function).lower(*args).compile().cost_analysis()
    return cost["flops"] + cost.get("transcendentals", 0)


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Four roads to the gradient, then what two of them cost."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    drawn = [draw(key, HIDDEN) for key in keys]
    by_jax = [jax.grad(loss)(*d) for d in drawn]
    chain = [by_chain_rule(*jax.device_get(d)) for d in drawn]

    wide = [draw(keys[0], width) for width in config.widths]
    num_weights = np.array([num_params(weights) for weights, _, _ in wide])
    ratio = [operations(jax.grad(loss), *d) / operations(loss, *d) for d in wide]
    roads = {
        "one forward pass": jax.jit(loss),
        "back-propagation": jax.jit(jax.grad(loss)),
        "central differences": jax.jit(by_differences),
    }
    taken = np.zeros((config.seeds, len(roads), len(wide)))
    for turn in range(config.seeds):  # in turns: a slow moment hits all alike
        taken[turn] = [[seconds(road, *d) for d in wide] for road in roads.values()]
    _, back, differences = np.moveaxis(taken, 1, 0)  # [turn, widths] each
    faster = np.median(differences[:, -1] / back[:, -1])
    passed = [forward(weights, x) for weights, x, _ in drawn]
    left_out = [
        (o - y) * o * a[:, None]
        for (_, a, _, o), (*_, y) in zip(passed, drawn, strict=True)
    ]
    weights, x, _ = drawn[0]
    _, a, _, o = passed[0]
    shown = jax.device_get((x, a, o)), jax.device_get(by_jax[0])

    def every(weights):
        return sum(loss(weights, *d[1:]) for d in drawn)

    def blame(axes):
        network(axes, *shown, ["x", "a = sigma(x W1)", "o = sigma(a W2)"])

    def cost(axes):
        times = dict(zip(roads, 1e6 * np.moveaxis(taken, 1, 0), strict=True))
        looks = {"xscale": "log", "yscale": "log", "ylabel": "time (µs)"}
        curves(axes, num_weights, times, xlabel="weights", **looks)

    return Lesson(
        f"Back-propagation finds {num_weights[-1]:,} slopes {faster:,.0f} times faster "
        "than trying each weight",
        claims=[
            claims.exact(
                "The chain rule written out, weight by weight, is what jax.grad finds",
                chain,
                by_jax,
                roundings=60,
                why="6 + 4 products forward, two sigmoids of 10, 5 factors, 3 terms; "
                "1 - o passes roundings on",
            ),
            claims.exact(
                "The matrix products of the lecture are what jax.grad finds",
                [by_matrices(*d) for d in drawn],
                by_jax,
                roundings=60,
                why="the same operations in another order",
            ),
            claims.gradients(
                "Central differences agree with jax.grad to nine digits",
                check_gradients(every, weights, tolerance=1e-9),
            ),
            claims.bounded(
                "A gradient costs at most 5 forward passes, counted in operations",
                ratio,
                at_most=5.0,
                why="the cheap gradient principle: every operation has at most 4 more "
                "on the way back, however many weights there are",
            ),
            claims.less(
                "Back-propagation takes less time than central differences",
                np.log2(back[:, -1]),
                np.log2(differences[:, -1]),
                by=1.0,
                why="differences need two forward passes a weight; twice as fast is "
                "asked for, in log2, paired turn by turn",
            ),
        ],
        figures=[
            Figure(
                "blame",
                blame,
                f"The chain rule gives each of {num_weights[0]} weights its share of "
                "the blame",
                "Lines: dL/dW, thick where large, blue where positive, orange where "
                "negative. Circles: the values of the units.",
            ),
            Figure(
                "cost",
                cost,
                f"A gradient of {num_weights[-1]:,} weights costs {max(ratio):.1f} "
                "forward passes in operations, not one a weight",
                f"With {config.widths} hidden units. Members are turns. {BAND}",
            ),
        ],
        exercises=[
            Exercise(
                "Leave `* (1 - o[k])` out of `do_ds`. Which claim tells you?",
                "The first. The network would still learn, only worse, as the sign of "
                "each slope is right: a wrong gradient is not seen by watching a loss.",
                claims.bounded(
                    "A factor left out keeps the sign of every slope of W2",
                    np.sign(left_out) - np.sign([dw2 for _, dw2 in by_jax]),
                    equal_to=0,
                    why="1 - o is positive, and so is a",
                ),
            )
        ],
        summary={"members": config.seeds, "parameters": num_weights},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
