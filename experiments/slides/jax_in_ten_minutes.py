"""Slides of jax_in_ten_minutes.py: a population learns, and the time it takes."""

import numpy as np

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def learning(losses):
    """[P, steps] of members."""
    num_members, num_steps = losses.shape

    def draw(axes):
        lines = {f"mean of {num_members}": losses}
        labels = {"xlabel": "step", "ylabel": "loss (half the squared error)"}
        curves(axes, range(num_steps), lines, yscale="log", **labels)

    return Figure(
        "learning",
        draw,
        f"{num_members} networks learn in one program: vmap of scan of grad of vmap",
        BAND,
    )


def population(sizes, taken):
    """Training times of populations in seconds [turns, sizes]."""
    times = np.median(taken[:, -1] / taken[:, 0])

    def draw(axes):
        milli = 1e3 * taken
        lines = {"vmap": milli, "one after the other": milli[:, 0].mean() * sizes}
        looks = {"xscale": "log", "yscale": "log", "xlabel": "members"}
        curves(axes, sizes, lines, ylabel="time (ms)", **looks)

    return Figure(
        "population",
        draw,
        f"{sizes[-1]} members take {times:.0f} times as long to train as one",
        f"100 steps. Members in this figure: rounds of timing. {BAND}",
    )


def exercises():
    """A question about tracing, and one about the functions that grad accepts."""
    return [
        Exercise(
            "Put `print(x)` into `forward` and call `jax.jit(forward)` twice. What is "
            "printed?",
            "One line, which shows a tracer with a shape instead of numbers. Python "
            "runs only while JAX traces; afterwards the compiled program runs.",
        ),
        Exercise(
            "Why does `jax.grad(jax.grad(forward))` fail?",
            "grad needs a function that returns a scalar, and a gradient is a tree of "
            "arrays. Use `jax.hessian(forward)`.",
        ),
    ]
