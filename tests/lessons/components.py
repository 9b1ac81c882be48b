"""How each claim of the lesson is made false."""

import optax

from dlworkshop import data, models

FAST = {"seeds": 8, "num_steps": 150}


def meddling(train):
    """What is minimised depends on the metric."""

    def wrong(*args, metric, loss, **kwargs):
        def both(outputs, label):
            return loss(outputs, label) * (1 + 0.1 * metric(outputs, label))

        return train(*args, metric=metric, loss=both, **kwargs)

    return wrong


def drifting(population):
    """What it begins with depends on the hour; it ends with nothing."""
    hour = iter(range(99))

    def wrong(*args, **kwargs):
        found, late = population(*args, **kwargs), 1e-9 * next(hour)
        begun = {name: found[name] + late for name in ("first weights", "first loss")}
        return found | begun | {"last weights": 0 * found["last weights"]}

    return wrong


def unlike(exchanged):
    """Other components than the claims speak of."""
    return exchanged | {
        "data": lambda: data.load("digits"),
        "model": models.mlp((64,)),
        "loss": lambda outputs, label: 0.0 * outputs.sum(),
        "optimizer": optax.adam(0.01),
        "metric": lambda outputs, label: 0.5 * (outputs.argmax() == label),
    }


PLANTED = [
    ({"train": meddling}, ["Another metric"]),
    (
        {"population": drifting},
        [
            "Another optimizer",
            "Other labels and",
            "Other labels, another",
            "Trained on",
        ],
    ),
    ({"EXCHANGED": unlike}, ["Data:", "Model:", "Loss:", "Optimizer:", "Metric:"]),
]
