"""What does a gradient cost?

Central differences take two forward passes for every weight, forward mode one pass with
a tangent. Back-propagation goes once more through the operations of a forward pass, in
reverse order, and gets all derivatives at once, however many there are. The operations
are counted, and the times are measured in turns.

    python experiments/gradient_cost.py

Expect a gradient to cost the operations of about two forward passes, and thousands of
derivatives to be computed hundreds of times faster than by differences, in about 10
seconds on 2 cores.

Source: course, "Back-propagation ... accelerated by matrix multiplication"; Griewank &
Walther (2008), Evaluating Derivatives, chapters 3 and 4, for both modes and their cost.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from slides import gradient_cost as slides

from dlworkshop import workshop
from dlworkshop.models import num_params
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_rising, check_settings
from dlworkshop.workshop.timing import in_turns


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Number of rounds of timing, in which the methods take turns."""
    widths: tuple[int, ...] = (4, 16, 64, 256)
    """Numbers of hidden units of the networks."""


def loss(weights, x, y):  # o = sigma(sigma(x W1) W2); L = sum_k (o_k - y_k)^2 / 2
    w1, w2 = weights
    o = jax.nn.sigmoid(jax.nn.sigmoid(x @ w1) @ w2)
    return ((o - y) ** 2).sum() / 2


def by_differences(weights, x, y, step=1e-3):
    """dL/dw = (L(w + h) - L(w - h)) / 2h: two forward passes for each weight w."""
    flat, unravel = ravel_pytree(weights)

    def slope(i):
        up, down = unravel(flat.at[i].add(step)), unravel(flat.at[i].add(-step))
        return (loss(up, x, y) - loss(down, x, y)) / (2 * step)

    return unravel(jax.lax.map(slope, jnp.arange(flat.size)))


def slope_along(weights, x, y):
    """Forward mode: dL/dt of L(w + t v), with v = w, in one pass."""
    return jax.jvp(lambda w: loss(w, x, y), (weights,), (weights,))[1]


def draw(key, hidden):
    """Weights of a 6-hidden-3 network, an input and a target."""
    w1_key, w2_key, x_key, y_key = jax.random.split(key, 4)
    w1 = jax.random.normal(w1_key, (6, hidden))
    w2 = jax.random.normal(w2_key, (hidden, 3)) * (4 / hidden) ** 0.5
    x = jax.random.normal(x_key, (6,))
    return (w1, w2), x, jax.random.uniform(y_key, (3,))


def operations(function, *args):
    """Arithmetic and transcendental operations, as XLA counts them."""
    cost: Any = jax.jit(function).lower(*args).compile().cost_analysis()
    return cost["flops"] + cost.get("transcendentals", 0)


def main(config: Config) -> Lesson:
    """Count the operations of each method, then measure their times in turns."""
    check_settings(config, seeds=claims.LEAST_TURNS, widths=1)
    check_rising(config, "widths")
    drawn = [draw(jax.random.key(0), width) for width in config.widths]
    num_weights = np.array([num_params(weights) for weights, _, _ in drawn])
    forward = np.array([operations(loss, *d) for d in drawn])
    reverse = np.array([operations(jax.grad(loss), *d) for d in drawn]) / forward
    tangent = np.array([operations(slope_along, *d) for d in drawn]) / forward
    roads = {
        "one forward pass": jax.jit(loss),
        "back-propagation": jax.jit(jax.grad(loss)),
        "central differences": jax.jit(by_differences),
    }
    taken = in_turns([(r, *d) for r in roads.values() for d in drawn], config.seeds)
    taken = taken.reshape(config.seeds, len(roads), -1)  # [turns, roads, widths]
    times = dict(zip(roads, np.moveaxis(taken, 1, 0), strict=True))
    ahead = times["central differences"] / times["back-propagation"]  # [turns, widths]
    return Lesson(
        f"Back-propagation computes {num_weights[-1]:,} derivatives "
        f"{np.median(ahead[:, -1]):,.0f} times as fast as central differences",
        claims=[
            claims.bounded(
                "A gradient costs at most 5 forward passes, counted in operations",
                reverse,
                at_most=5.0,
                why="the cheap gradient principle: every operation needs at most 4 "
                "more on the way back, however many weights there are",
            ),
            claims.turns(
                "Back-propagation takes less than half the time of central differences",
                ahead[:, -1],
                above=2,
                why="differences need two forward passes for each weight; this is the "
                "network with the most weights",
            ),
            claims.rises(
                "The more weights, the larger the lead of back-propagation",
                np.log2(ahead),
                why="for differences both the number of passes and the cost of each "
                "pass grow with the weights, for back-propagation only the cost",
            ),
        ],
        figures=[
            slides.passes(num_weights, reverse, tangent),
            slides.cost(num_weights, times),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "A slope along one direction costs at most 3 forward passes",
                tangent,
                at_most=3.0,
                why="a product and a sum, the work of a matrix, become three of each, "
                "and only two of each in the first layer, whose inputs are fixed; the "
                "difference leaves room for the derivatives of the sigmoids",
            )
        ),
        summary={"members": config.seeds, "parameters": num_weights},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
