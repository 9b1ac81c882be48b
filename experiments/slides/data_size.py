"""Slides of data_size.py: accuracy on seen and unseen examples, and the gap."""

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def learning_curve(sizes, seen, unseen, tested):
    """Accuracy in percent on three kinds of examples, [seeds, sizes] each."""

    def draw(axes):
        shares = {"seen": seen, "not seen, same source": unseen, "test": tested}
        labels = {"xlabel": "training examples", "ylabel": "accuracy (%)"}
        curves(axes, sizes, shares, xscale="log", **labels)

    few, *_, many = tested.mean(0)
    return Figure(
        "learning_curve",
        draw,
        f"With {sizes[0]} training examples {few:.0f} % of the test digits are right, "
        f"with {sizes[-1]:,} {many:.0f} %",
        f"Not seen: the rest of the training split. {BAND}",
    )


def gaps(sizes, gap, noise_gap):
    """Gaps in percentage points [seeds, sizes], with right and shuffled labels."""

    def draw(axes):
        both = {"right labels": gap, "shuffled labels": noise_gap}
        labels = {"xlabel": "training examples", "ylabel": "gap (percentage points)"}
        curves(axes, sizes, both, xscale="log", **labels)

    return Figure(
        "gaps",
        draw,
        f"Examples close the gap ({gap[:, -1].mean():.1f} points) only where there is "
        f"something to learn ({noise_gap[:, -1].mean():.0f})",
        "Accuracy on seen minus accuracy on unseen examples. Shuffled: images with the "
        f"labels of others. {BAND}",
    )


def exercises(shuffled_gap):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "Shuffle the labels, so that none belongs to its image. Does the gap close "
            "as well?",
            "No. What is memorised does not help elsewhere, so accuracy on unseen "
            "examples stays at chance and the gap near 90 points, as long as there are "
            "enough updates to memorise the labels. So the network could overfit the "
            "right labels as well.",
            shuffled_gap,
        ),
        Exercise(
            "Set `--hidden 4`. Do fewer parameters close the gap?",
            "No, the gap is wider: 55 points with 16 examples and 4.6 with 1,024. A "
            "network that is too small also fails to learn some of what it sees, so "
            "the first claim fails. Size alone does not decide overfitting.",
        ),
    ]
