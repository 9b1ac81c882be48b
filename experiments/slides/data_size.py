"""Slides of data_size.py: accuracy on seen and unseen examples, and the gap."""

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def learning_curve(sizes, seen, unseen, tested):
    """Percent right of three kinds of examples, [seeds, sizes] each."""

    def draw(axes):
        shares = {"seen": seen, "not seen, same source": unseen, "test": tested}
        labels = {"xlabel": "training examples", "ylabel": "right (%)"}
        curves(axes, sizes, shares, xscale="log", **labels)

    few, *_, many = tested.mean(0)
    return Figure(
        "learning_curve",
        draw,
        f"With {sizes[0]} examples all is known and {few:.0f} % of the test right; "
        f"with {sizes[-1]:,}, {many:.0f} %",
        f"Not seen: the rest of the training split. {BAND}",
    )


def gaps(sizes, gap, noise_gap):
    """Points between seen and unseen [seeds, sizes], with right and shuffled labels."""

    def draw(axes):
        both = {"right labels": gap, "shuffled labels": noise_gap}
        labels = {"xlabel": "training examples", "ylabel": "gap (points)"}
        curves(axes, sizes, both, xscale="log", **labels)

    return Figure(
        "gaps",
        draw,
        f"Examples close the gap ({gap[:, -1].mean():.1f} points) only where there is "
        f"something to learn ({noise_gap[:, -1].mean():.0f})",
        "Share right of the seen, minus that of the unseen examples. Shuffled: images "
        f"with the labels of others. {BAND}",
    )


def exercises(shuffled_gap):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "Shuffle the labels, so that none belongs to its image. Does the gap close "
            "as well?",
            "No. What is memorised is worth nothing elsewhere, and the gap is "
            "all but chance, 90 points, as long as the updates suffice to learn it. "
            "The network could overfit the right labels as well.",
            shuffled_gap,
        ),
        Exercise(
            "Take `--hidden 4`. Do fewer parameters close the gap?",
            "No, it is wider: 55 points with 16 examples and 4.6 with 1,024. A network "
            "too small also fails to learn some of what it sees, so that the first "
            "claim fails. Size alone does not decide overfitting.",
        ),
    ]
