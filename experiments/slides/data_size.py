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


def gaps(sizes, gap, noise_gap, by_heart):
    """Gaps in points with right and with shuffled labels [seeds, sizes].

    `by_heart` [seeds, sizes] is the accuracy on seen shuffled labels in percent.
    """

    def draw(axes):
        both = {"right labels": gap, "shuffled labels": noise_gap}
        labels = {"xlabel": "training examples", "ylabel": "gap (percentage points)"}
        curves(axes, sizes, both, xscale="log", **labels)

    *most, last = (f"{share:.0f}" for share in by_heart.mean(0))
    return Figure(
        "gaps",
        draw,
        f"With {sizes[-1]:,} examples the gap is {gap[:, -1].mean():.1f} points; what "
        f"can only be memorised leaves one of {noise_gap[:, -1].mean():.0f}",
        "Accuracy on seen minus accuracy on unseen examples. Shuffled: images with the "
        f"labels of others; from left to right, {', '.join(most)} and {last} % of the "
        f"seen ones are learnt. {BAND}",
    )


def exercises():
    """Two questions: what can be memorised, and by how small a network."""
    return [
        Exercise(
            "Shuffle the labels, so that none belongs to its image. Does the gap close "
            "as well? What changes with `--num-epochs 240`?",
            "What is memorised does not help elsewhere, so accuracy on unseen examples "
            "stays at chance. Up to 256 examples all labels are memorised, and the gap "
            "is 90 points. With 1,024 the updates suffice to learn 64 % of the labels, "
            "and the gap is 54. With four times as many updates it is 99.9 %: the "
            "network is large enough to learn this set by heart. Trained equally long "
            "on the right labels it has a gap of 3 points.",
        ),
        Exercise(
            "Set `--hidden 4`. Do fewer parameters close the gap?",
            "No: with 16 examples it is wider, 56 points instead of 40, and with 1,024 "
            "about as wide as before. A network that is too small is wrong about more "
            "of the seen and of the new examples: 95 % of 16 seen ones are right "
            "instead of 100 %, and 39 % of the new ones instead of 60 %. So the first "
            "claim fails. The one about shuffled labels may fail too: such a network "
            "learns only 16 % of 1,024. Size alone does not decide overfitting.",
        ),
    ]
