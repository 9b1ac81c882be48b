"""Slides of compiling.py: compile times of many networks, and when they pay."""

import numpy as np

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def growth(members, taken, longer):
    """Seconds to compile [turn, road, P], and lines relative to one [road, P]."""
    vmap, loop = np.median(taken[..., -1], axis=0)

    def draw(panels):
        left, right = panels
        roads = {"side by side": 0, "written out": 1}
        lines = {road: longer[k] for road, k in roads.items()}
        left_looks = {"xlabel": "networks", "ylabel": "lines / lines for one network"}
        curves(left, members, lines, **left_looks)
        times = {road: taken[:, k] for road, k in roads.items()}
        curves(right, members, times, ylabel="time to compile (s)", xlabel="networks")
        right.set_ylim(bottom=0)

    return Figure(
        "growth",
        draw,
        f"Side by side, {max(members)} networks compile in {vmap:.1f} s, written out "
        f"in {loop:.1f} s",
        "Left: length of the program that JAX hands to its compiler. Right: time from "
        f"Python to machine code. Members: rounds of timing. {BAND}",
        panels=2,
    )


def paid(most, lifted, called):
    """(Seconds to compile, seconds of a training) of both ways, [turn] each."""
    trainings = np.geomspace(1, 1e4, 60)

    def draw(axes):
        roads = {"side by side": lifted, "one program, called for each": called}
        totals = {
            road: compiling[:, None] + running[:, None] * trainings
            for road, (compiling, running) in roads.items()
        }  # [turn, T]
        labels = {"xlabel": "trainings", "ylabel": "time with compilation (s)"}
        curves(axes, trainings, totals, xscale="log", yscale="log", **labels)

    gain = np.median(called[1] / lifted[1])
    return Figure(
        "paid",
        draw,
        f"Once compiled, {most} networks train {gain:.1f} times as fast side by side",
        "On the left, compiling takes nearly all of the time. Members: rounds of "
        f"timing. {BAND}",
    )


def exercises(most, compiler, saved, does_not_pay):
    """A question about the time of the compiler, and the time each training saves."""
    return [
        Exercise(
            f"How many trainings of {most} small networks must follow until vmap "
            "pays for its compilation?",
            f"{compiler:.2f} s to compile, divided by {1e3 * saved:.1f} ms saved by "
            f"each training: {compiler / saved:,.0f}. The program of the loop has to "
            "be compiled as well, though.",
            does_not_pay,
        )
    ]
