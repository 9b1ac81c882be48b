"""Slides of gradient_cost.py: counted operations, and measured time."""

import numpy as np

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def passes(num_weights, reverse, tangent):
    """Operations of a gradient and of one tangent, in forward passes [networks]."""

    def draw(axes):
        roads = {
            "back-propagation": reverse,
            "forward mode": tangent * num_weights,
            "central differences": 2.0 * num_weights,
        }
        looks = {"xscale": "log", "yscale": "log", "xlabel": "weights"}
        curves(axes, num_weights, roads, ylabel="forward passes", **looks)

    return Figure(
        "passes",
        draw,
        f"All {num_weights[-1]:,} derivatives cost {reverse[-1]:.1f} forward passes in "
        f"reverse mode, {tangent[-1] * num_weights[-1]:,.0f} in forward mode",
        "Operations as XLA counts them. For each weight forward mode takes one pass "
        "with a tangent, central differences take two passes.",
    )


def cost(num_weights, times):
    """road -> seconds [turns, networks]."""
    back = np.median(times["back-propagation"] / times["one forward pass"], 0)[-1]

    def draw(axes):
        micro = {road: 1e6 * taken for road, taken in times.items()}
        looks = {"xscale": "log", "yscale": "log", "ylabel": "time (µs)"}
        curves(axes, num_weights, micro, xlabel="weights", **looks)

    return Figure(
        "cost",
        draw,
        f"Back-propagation computes {num_weights[-1]:,} derivatives in the time of "
        f"{back:.1f} forward passes",
        "One example. With few weights the call takes much of the time. Members: "
        f"rounds of timing. {BAND}",
    )


def exercises(one_direction):
    """Forward mode, and where it wins; the claim is the cost of one direction."""
    return [
        Exercise(
            "Let `back-propagation` be `jax.jit(jax.jacfwd(loss))`, forward mode. How "
            "far ahead is it, and for which functions would it be the better way?",
            "About five times, not hundreds of times: it also takes a pass for each "
            "weight, but computes them as a batch, while differences go one by one. It "
            "is the better choice for functions with fewer inputs than outputs: each "
            "input takes one pass.",
            one_direction,
        )
    ]
