"""How each claim of the lesson is made false."""

import numpy as np

FAST = {"seeds": 12, "num_epochs": 8}
SLOW = True


def swapped(fit):
    """A and B change places."""

    def wrong(*args, hparams, **kwargs):
        rates = hparams["learning_rate"][::-1]
        return fit(*args, hparams={"learning_rate": rates}, **kwargs)

    return wrong


class Doubled:
    """A run whose B is A, with the seeds in another order."""

    def __init__(self, run):
        a = run.test_metric[: len(run.test_metric) // 2]
        half = len(a) // 2  # the seeds, and as many fresh ones
        self.test_metric = np.concatenate([a, a[half - 1 :: -1], a[: half - 1 : -1]])


def overconfident(paired):
    def wrong(differences):
        found = paired(differences)
        return found._replace(p=found.p / 9)

    return wrong


def forgetful(fooled):
    """Each look forgets those before it."""

    def wrong(lots, looks):
        ones = [fooled(lots, looks[k : k + 1]) for k in range(len(looks))]
        return np.concatenate(ones, axis=1)

    return wrong


PLANTED = [
    ({"fit": swapped}, ["A recognises", "Fresh seeds"]),
    (
        {
            "fit": lambda fit: lambda *args, **kwargs: Doubled(fit(*args, **kwargs)),
            "paired": overconfident,
        },
        ["A permutation", "Fresh seeds", "The formulas", "With A and B assigned"],
    ),
    ({"fooled": forgetful}, ["Looking after"]),
]
