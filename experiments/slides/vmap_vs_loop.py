"""Slides of vmap_vs_loop.py: the gain of side by side, and the times of both."""

import numpy as np

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def gains(members, kinds, gain):
    """Time of the loop over that of vmap, [turn, kind, P]."""
    most = max(members)
    small, large = np.median(gain[..., -1], axis=0)

    def draw(axes):
        axes.axhline(1, color="black", linestyle=":")
        values = {kind: gain[:, k] for k, kind in enumerate(kinds)}
        labels = {"xlabel": "networks", "ylabel": "time of loop / time of vmap"}
        curves(axes, members, values, xscale="log", yscale="log", **labels)

    return Figure(
        "gains",
        draw,
        f"vmap is {small:.1f} times as fast as the loop with {most} small networks, "
        f"{large:.1f} times with large ones",
        "Dotted: vmap and loop take the same time; below it the loop wins. Compile "
        f"time is not counted. Members: rounds of timing. {BAND}",
    )


def durations(config, kinds, taken):
    """Seconds of vmap and loop [turn, kind, P, road]."""
    most = max(config.members)
    vmap, loop = np.median(taken[:, 0, -1] / taken[:, 0, 0], axis=0)  # small, most / 1

    def draw(panels):
        for k, (axes, kind) in enumerate(zip(panels, kinds, strict=True)):
            roads = {"vmap": 1e3 * taken[:, k, :, 0], "loop": 1e3 * taken[:, k, :, 1]}
            looks = {"xscale": "log", "yscale": "log", "xlabel": "networks"}
            curves(axes, config.members, roads, **looks)
            axes.set(title=kind, ylabel="time to train all (ms)")

    return Figure(
        "durations",
        draw,
        f"{most} small networks take {vmap:.0f} times as long as one with vmap, "
        f"{loop:.0f} times as long in a loop",
        f"{config.num_steps} updates of each network. Members: rounds of timing. "
        f"{BAND}",
        panels=2,
    )


def exercises():
    """A question about larger batches."""
    return [
        Exercise(
            "Give the small networks 256 examples per update instead of 4 (`SMALL, "
            "256` in `KINDS`). What does vmap gain now?",
            "About twofold instead of five- to sixfold: each instruction does more "
            "work, so a smaller part of the time is overhead. The claim about half the "
            "time fails.",
        )
    ]
