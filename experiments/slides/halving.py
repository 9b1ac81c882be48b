"""Slides of halving.py: what a search drops, what it finds, what early ranks say."""

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
    left[0] = left[0].replace(" after", " go on after")
    return Figure(
        "one_search",
        draw,
        f"Of {len(epochs)} settings {', '.join(left)}, which takes the updates of "
        f"{epochs.sum() / len(losses):.3g}",
        "The search of seed 0. A dot where a setting is dropped; its dotted line shows "
        "what it would have done.",
    )


def found(settings, count, everyone, kept, few):
    """Test losses [P] of the choice of each search."""

    def draw(axes):
        rows = {
            f"all {settings}": everyone,
            "halving": kept,
            f"{count} at random": few,
        }
        dots(axes, rows, "test loss of the choice (nats)")
        axes.set(xscale="log")

    return Figure(
        "found",
        draw,
        f"Halving loses {kept.mean() / everyone.mean() - 1:.0%} of the loss, chance "
        f"with as many updates {few.mean() / everyone.mean() - 1:.0%}",
        "A dot for each search, and the mean of each row. At random: the mean over all "
        f"choices of {count} settings.",
    )


def agreement(rungs, agree):
    """Rank correlations [P, R] of the losses at each rung with those at the end."""
    first, last = agree.mean(0)[[0, -1]]

    def draw(axes):
        labels = {"xlabel": "epoch of the rung", "ylabel": "rank correlation"}
        curves(axes, rungs, {"with the end": agree}, xscale="log", **labels)

    return Figure(
        "agreement",
        draw,
        f"Ranks after epoch {rungs[0]} agree with the last ones by {first:.2f}, after "
        f"epoch {rungs[-1]} by {last:.2f}",
        f"Spearman's correlation over all settings, for each search. {BAND}",
    )


def exercises(later_is_surer):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "Take `--min-epochs 3`. What does it cost, and what does it find?",
            "A quarter of the updates instead of a ninth, and in each of ten searches "
            "the setting that all would find: more was seen before any was dropped.",
            later_is_surer,
        ),
        Exercise(
            "A setting that begins slowly is lost at the first rung. What would "
            "Hyperband do about it, with these 27 settings?",
            "Divide them: 15 are halved after epochs 1, 3 and 9, 6 after 3 and 9, 4 "
            "after 9, and 2 train to the end. That takes 28 % of the updates.",
        ),
    ]
