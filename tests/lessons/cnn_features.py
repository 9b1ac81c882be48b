"""How each claim of the lesson is made false."""

import jax

FAST = {"seeds": 8, "num_epochs": 10}


def half_hidden(log_probability):
    def wrong(params, x, label):
        moved = log_probability(params, x, label)
        return moved + 1e-5 * jax.lax.stop_gradient((x**2).sum())

    return wrong


def fit_backwards(fit):
    """The network learns nothing; one layer learns."""

    def wrong(model, *args, **kwargs):
        if model.config["name"] == "cnn":
            kwargs["hparams"] = {"learning_rate": 1e-9}
        return fit(model, *args, **kwargs)

    return wrong


PLANTED = [
    (
        {
            "pool": lambda pool: lambda a: pool(a) * (1 + 1e-9),
            "log_probability": half_hidden,
            "fit": fit_backwards,
            "saliency": lambda saliency: lambda *args: -abs(saliency(*args)),
        },
        [
            "The stages written out",
            "The answer changes",
            "The network reads more",
            "The later the stage",
            "Without its most salient",
        ],
    ),
]
