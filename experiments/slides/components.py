"""Slides of components.py: what each exchange changes, and the scores."""

import numpy as np

from dlworkshop.report.lesson_figures import dots, table
from dlworkshop.workshop.lesson import Exercise, Figure

ROWS = (
    "data: random labels",
    "model: no hidden layer",
    "loss: squared error",
    "optimizer: plain descent",
    "metric: among the top 3",
)


def what_changes(looks, kept, num_seeds):
    """Whether each quantity is unchanged: component -> a bool for each."""

    def draw(axes):
        same = np.array(list(kept.values()))
        texts = np.where(same, "the same", "changes")
        table(axes, same, texts, "Blues", vmin=0, vmax=1.5, aspect="auto")
        axes.set_xticks(range(len(looks)), looks)
        axes.set_yticks(range(len(ROWS)), ROWS)

    return Figure(
        "what_changes",
        draw,
        "The metric changes only the score, the optimizer what follows the first loss",
        "Rows: the exchanged component. Columns: the quantity that was compared with "
        f"the reference training, to the last bit, for {num_seeds} seeds.",
    )


def scores(found):
    """[P] of the reference training, and of each with a component exchanged."""

    def draw(axes):
        values = [100 * each for each in found]
        rows = dict(zip(("reference", *ROWS), values, strict=True))
        dots(axes, rows, "score on test digits (%)")

    return Figure(
        "scores",
        draw,
        f"{found[0].mean():.1%} for the reference, {found[1].mean():.1%} with random "
        "labels",
        "A dot for each seed, and the mean of each row. All rows use a learning rate "
        "of 0.003, which suits Adam; plain descent needs another one.",
    )


def exercises(stays_as_it_is):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            'Use the metric as the loss: `"loss": lambda o, k: '
            "-metrics.accuracy(o, k)`. What is learnt?",
            "Nothing: accuracy is a step function, and its gradient is 0 wherever it "
            "exists. That is why the loss and the metric are separate components.",
            stays_as_it_is,
        ),
        Exercise(
            "Give `optax.sgd` a rate of 0.8, which `learning_rate_finder.py` suggests. "
            "What happens to its row?",
            "97 % of digits are recognised instead of 22 %, more than with Adam. A "
            "learning rate belongs to an optimizer: compare two optimizers at the best "
            "rate of each.",
        ),
    ]
