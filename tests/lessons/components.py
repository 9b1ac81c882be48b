"""How each claim of the lesson is made false."""

from dlworkshop import data, models

FAST = {"seeds": 8, "num_steps": 120}
SLOW = True


def meddling(train):
    """What is minimised depends on the metric."""

    def wrong(*args, metric, loss, **kwargs):
        def both(outputs, label):
            return loss(outputs, label) * (1 + 0.1 * metric(outputs, label))

        return train(*args, metric=metric, loss=both, **kwargs)

    return wrong


def drifting(population):
    """What a training begins with depends on the hour."""
    hour = iter(range(99))

    def wrong(*args, **kwargs):
        found, late = population(*args, **kwargs), 1e-9 * next(hour)
        return found | {"first weights": found["first weights"] + late}

    return wrong


def unlike(exchanged):
    """Other components than the claims speak of."""
    wrong = {
        "data": lambda: data.load("digits"),
        "model": models.mlp((64,)),
        "loss": lambda outputs, label: 0.0 * outputs.sum(),
    }
    return exchanged | {k: (v, *exchanged[k][1:]) for k, v in wrong.items()}


PLANTED = [
    ({"train": meddling}, ["Exchange the metric"]),
    (
        {"population": drifting},
        ["Exchange the data", "Exchange the loss", "Exchange the opt", "Trained on"],
    ),
    (
        {"EXCHANGED": unlike},
        ["Exchange the model", "With random labels", "With the squared"],
    ),
]
