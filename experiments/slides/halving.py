"""Slides of halving.py: what a search drops and finds, and how ranks change."""

import numpy as np

from dlworkshop.report.lesson_figures import curves, dots
from dlworkshop.report.marks import BAND, COLOURS
from dlworkshop.workshop.lesson import Exercise, Figure


def one_search(losses, epochs):
    """Validation losses [E, S] of one search, and the epochs [S] each is trained."""
    time = 1 + np.arange(len(losses))
    stages = np.unique(epochs)

    def draw(axes):
        for colour, stage in zip(COLOURS, stages, strict=False):
            for setting in np.flatnonzero(epochs == stage):
                curve = losses[:, setting]
                axes.plot(time, curve, ":", color=colour, linewidth=0.8, alpha=0.6)
                axes.plot(time[:stage], curve[:stage], color=colour, linewidth=1.8)
                axes.plot(stage, curve[stage - 1], "o", color=colour, markersize=4)
            axes.plot([], [], color=colour, label=f"until epoch {stage}")
        axes.set(xscale="log", yscale="log", xlabel="epoch")
        axes.set(ylabel="validation loss (nats)")
        axes.set_xticks(stages, [f"{stage}" for stage in stages])
        axes.minorticks_off()
        axes.legend(fontsize=12)

    left = [f"{(epochs > stage).sum()} after epoch {stage}" for stage in stages[:-1]]
    left[0] = left[0].replace(" after", " continue after")
    return Figure(
        "one_search",
        draw,
        f"Of {len(epochs)} settings {', '.join(left)}; that takes the updates of "
        f"{epochs.sum() / len(losses):.3g} settings",
        "The search of seed 0. A dot marks where a setting is dropped; the dotted line "
        "shows how it would have continued.",
    )


def found(settings, count, everyone, kept, few):
    """Test losses [P] of the settings that each search chose."""

    def draw(axes):
        rows = {
            f"all {settings}": everyone,
            "halving": kept,
            f"{count} at random": few,
        }
        dots(axes, rows, "test loss of the chosen setting (nats)")
        axes.set(xscale="log")

    return Figure(
        "found",
        draw,
        f"Halving has a {kept.mean() / everyone.mean() - 1:.0%} higher loss, random "
        f"choice with as many updates {few.mean() / everyone.mean() - 1:.0%}",
        "A dot for each search, and the mean of each row. At random: the mean over all "
        f"choices of {count} settings.",
    )


def agreement(rungs, agree):
    """Rank correlations [P, R] of the losses at each rung with those at the end."""
    first, last = agree.mean(0)[[0, -1]]

    def draw(axes):
        labels = {"xlabel": "epoch of the rung", "ylabel": "rank correlation"}
        curves(axes, rungs, {"with the last epoch": agree}, xscale="log", **labels)

    return Figure(
        "agreement",
        draw,
        f"The rank correlation with the last epoch is {first:.2f} after epoch "
        f"{rungs[0]} and {last:.2f} after epoch {rungs[-1]}",
        f"Spearman's correlation over all settings, for each search. {BAND}",
    )


def exercises(later_is_surer):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "Set `--min-epochs 3`. What does it cost, and what does it find?",
            "The updates of 7 settings, a quarter of all instead of a ninth, so the "
            "first claim fails. In each of ten searches it finds the setting that "
            "training all would find: later losses rank the settings better.",
            later_is_surer,
        ),
        Exercise(
            "A setting that begins slowly is lost at the first rung. What would "
            "Hyperband do about it, with these 27 settings?",
            "It would divide them into groups: for instance 15 halved after epochs 1, "
            "3 and 9; 6 after epochs 3 and 9; 4 after epoch 9; and 2 trained to the "
            "end. That takes 28 % of the updates.",
        ),
    ]
