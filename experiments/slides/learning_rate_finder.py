"""Slides of learning_rate_finder.py: the loss of each rate, and what the seeds say."""

from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves, dots
from dlworkshop.workshop.lesson import Exercise, Figure


def rate_curve(num_steps, rates, looks, chosen):
    """Validation losses [R, P, looks], for each rate, and which rate is suggested."""

    def draw(axes):
        after = {f"after {n} updates": looks[..., k].T for k, n in enumerate(num_steps)}
        axes.axvline(rates[chosen], color="black", linestyle=":", label="suggested")
        labels = {"xlabel": "learning rate", "ylabel": "validation loss (nats)"}
        curves(axes, rates, after, xscale="log", yscale="log", **labels)

    return Figure(
        "rate_curve",
        draw,
        f"The loss falls with the rate, and rises steeply beyond {rates[chosen]:.2g}",
        f"{looks.shape[1]} networks for each of {len(rates)} rates. {BAND}",
    )


def confirmed(rates, losses):
    """Test losses [3, P] of fresh seeds: at a tenth of a rate, at it, at ten times."""
    slow, best, lost = losses.mean(1)

    def draw(axes):
        rows = {f"{k:.2g}": each for k, each in zip(rates, losses, strict=True)}
        dots(axes, rows, "test loss (nats)")
        axes.set(xscale="log", ylabel="learning rate")

    return Figure(
        "confirmed",
        draw,
        f"Seeds without a say confirm {rates[1]:.2g}: a test loss of {best:.2f}, with "
        f"a tenth {slow:.2f}, with ten times {lost:.2f}",
        "A dot for each seed that did not choose, and the mean of each row.",
    )


def exercises(catch_up):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "Take `--num-steps 20`. Which rate is suggested now?",
            "About as large a one: what limits it from above is how curved the "
            "loss is, and that does not depend on how long one trains. What is "
            "too small depends on it: with more time small rates get there too.",
            catch_up,
        ),
        Exercise(
            "Take `optax.adam(rate)` for `optax.sgd(rate)`. Which rate is suggested?",
            "0.03, a thirtieth: Adam divides by the size of the gradients, so that a "
            "step is about as long as the rate. A rate belongs to its optimizer.",
        ),
    ]
