"""Slides of vmap_vs_loop.py: what side by side gains, and how long both roads take."""

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
        labels = {"xlabel": "networks", "ylabel": "time of the loop / of vmap"}
        curves(axes, members, values, xscale="log", yscale="log", **labels)

    return Figure(
        "gains",
        draw,
        f"vmap gains {small:.1f}-fold with {most} small networks, {large:.1f}-fold "
        "with large ones",
        "Dotted: vmap and loop take the same time; below it the loop wins. Compiling "
        f"is not counted. Members are turns. {BAND}",
    )


def durations(config, kinds, taken):
    """Seconds of both roads [turn, kind, P, road]."""
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
        f"{most} small networks take {vmap:.0f} times as long as one side by side, "
        f"{loop:.0f} times in a loop",
        f"{config.num_steps} updates of each network. Members: turns. {BAND}",
        panels=2,
    )


def exercises():
    """A question."""
    return [
        Exercise(
            "Give the small networks 256 examples an update instead of 4 (`SMALL, 256` "
            "in `KINDS`). What does vmap gain now?",
            "Some twofold instead of five- to sixfold: each instruction has more work, "
            "so that less time is overhead. The claim on half the time fails.",
        )
    ]
