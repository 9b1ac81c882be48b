"""Slides of learning_rate_finder.py: the loss of each rate, and the check."""

import numpy as np

from dlworkshop.report.lesson_figures import curves, dots
from dlworkshop.report.marks import BAND, COLOURS, band
from dlworkshop.workshop.lesson import Exercise, Figure


def side_by_side(rates, seen, last, large):
    """Losses of the batches [R, P, T], and the final validation losses [R, P].

    The rates are shown up to number `large`, which is too large a rate.
    """
    shown = range(large % 2, large + 1, 2)
    mean = np.exp(np.log(last).mean(1))  # [R]

    def all_rates(panels):
        panels[1].plot(rates, mean, color="black", linewidth=1)
        panels[1].set(xscale="log", yscale="log", xlabel="learning rate")
        panels[1].set_title("validation loss at the end")

    def draw(panels, i):
        rate = shown[i]
        band(panels[0], np.arange(seen.shape[-1]), seen[rate], "")
        panels[0].set(yscale="log", xlabel="updates", ylabel="loss (nats)")
        panels[0].set_title(f"rate {rates[rate]:.2g}: loss of each batch")
        panels[1].plot(rates[rate], mean[rate], "o", color=COLOURS[1], markersize=12)

    return Figure(
        "side_by_side",
        draw,
        "With too small a rate the loss creeps, with too large a rate it never settles",
        f"Left: {seen.shape[1]} networks with one rate. {BAND} Right: the geometric "
        "mean over networks for all rates; the dot is at the rate of the slider.",
        panels=2,
        frames=[f"{rates[rate]:.2g}" for rate in shown],
        control="learning rate",
        shared=all_rates,
    )


def rate_curve(num_steps, rates, looks, chosen):
    """Validation losses [R, P, looks] for each rate, and the suggested rate."""

    def draw(axes):
        after = {f"after {n} updates": looks[..., k].T for k, n in enumerate(num_steps)}
        axes.axvline(rates[chosen], color="black", linestyle=":", label="suggested")
        labels = {"xlabel": "learning rate", "ylabel": "validation loss (nats)"}
        curves(axes, rates, after, xscale="log", yscale="log", **labels)

    return Figure(
        "rate_curve",
        draw,
        f"After {num_steps[-1]} updates, the rate {rates[chosen]:.2g} has the lowest "
        f"loss of {len(rates)}",
        f"{looks.shape[1]} networks for each rate; the first half chose. {BAND}",
    )


def confirmed(rates, losses):
    """Test losses [3, P] of fresh seeds: a tenth of the rate, the rate, ten times."""
    slow, best, lost = losses.mean(1)

    def draw(axes):
        rows = {f"{k:.2g}": each for k, each in zip(rates, losses, strict=True)}
        dots(axes, rows, "test loss (nats)")
        axes.set(xscale="log", ylabel="learning rate")

    return Figure(
        "confirmed",
        draw,
        f"Fresh seeds reach a test loss of {best:.2f} with {rates[1]:.2g}, {slow:.2f} "
        f"with {rates[0]:.2g} and {lost:.2f} with {rates[2]:.2g}",
        "A dot for each seed that did not choose, and the mean of each row.",
    )


def exercises(catch_up):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "Set `--num-steps 20`. Which rate is suggested now?",
            "The same, 0.83. The upper limit comes from the curvature of the loss, not "
            "from the length of training. Which rates are too small does depend on the "
            "length: with more updates, small rates come closer. After so few "
            "updates the losses differ less than twofold in some networks, and the "
            "claims fail.",
            catch_up,
        ),
        Exercise(
            "Replace `optax.sgd(rate)` by `optax.adam(rate)`. Which rate is suggested?",
            "0.03, about a thirtieth: Adam divides by the size of the gradients, so "
            "each weight changes by about the rate in each update. A learning rate "
            "belongs to its optimizer. Two claims fail, since the curve is "
            "flatter: a tenth of the rate has only about 1.5 times the loss.",
        ),
    ]
