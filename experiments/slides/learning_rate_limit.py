"""Slides of learning_rate_limit.py: which rates diverge, and along which direction."""

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure

LEAST = 1e-6  # of a share, and of the largest curvature, that is drawn


def flying_off(rates, growth, limit):
    """The last loss over the first [R, P], for each rate [R]; the limit."""

    def draw(axes):
        axes.axvline(limit, color="black", linestyle=":", label="2 / lambda")
        values = {"last loss / first loss": growth.T.clip(max=1e9)}
        labels = {"xlabel": "learning rate", "ylabel": "growth of the loss"}
        curves(axes, rates, values, yscale="log", **labels)

    return Figure(
        "flying_off",
        draw,
        f"For a squared error the limit is 2 / lambda = {limit:.3f}",
        "lambda: the largest curvature of the loss. Above 1 the loss has grown during "
        f"training. Values are cut off at a billion. {BAND}",
    )


def parts(lambdas, ratios, shares):
    """Distances left [R, P, D] along directions with curvatures lambdas [D].

    `ratios` [R] are the rates in units of 2 / lambda.
    """
    seen = lambdas > LEAST * lambdas[-1]
    half = len(shares) // 2

    def draw(axes):
        three = {f"{ratios[i]:.2f} of 2 / lambda": i for i in (0, half - 1, half)}
        values = {k: shares[i][:, seen].clip(LEAST) for k, i in three.items()}
        labels = {"xlabel": "curvature", "ylabel": "distance left / initial distance"}
        curves(axes, lambdas[seen], values, xscale="log", yscale="log", **labels)

    slow = (shares[half - 1][:, seen].mean(0) > 0.5).sum()
    return Figure(
        "parts",
        draw,
        f"One direction sets the limit; just below it, {slow} of {seen.sum()} "
        "directions have more than half of the distance left",
        "Fractions of the distance to the minimum that are left along each direction "
        f"after all updates, for three rates. Left out: {(~seen).sum()} of "
        f"{len(lambdas)} directions, with less than a millionth of the largest "
        f"curvature. Fractions are cut off at a millionth. {BAND}",
    )


def exercises(four_times, centred):
    """Two questions, and the claims that check the answers."""
    return [
        Exercise(
            "Divide the images by 2. By how much does 2 / lambda change?",
            "By a factor of 4: lambda is proportional to the squares of the inputs. So "
            "a rate belongs to its data, and it helps to scale all inputs alike.",
            four_times,
        ),
        Exercise(
            "Subtract from each pixel its mean: `xs - xs.mean(0)`. How large may the "
            "rate be now?",
            "2.86, which is 15 times as much: the steepest direction was close to the "
            "mean of all images, along which every example pulls the same way.",
            centred,
        ),
    ]
