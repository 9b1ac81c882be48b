"""Slides of backpropagation.py: gradients, and the best step of differences."""

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND, network
from dlworkshop.workshop.lesson import Exercise, Figure


def blame(values, slopes):
    """Values of the units (x [6], a [4], o [3]), and dL/dW ([6, 4], [4, 3])."""

    def draw(axes):
        network(axes, values, slopes, ["x", "a = sigma(x W1)", "o = sigma(a W2)"])

    return Figure(
        "blame",
        draw,
        f"The chain rule gives each of {sum(dw.size for dw in slopes)} weights its "
        "share of the error",
        "Lines: dL/dW; thick lines are large, blue ones positive, orange ones "
        "negative. Circles: the values of the units.",
    )


def steps(sizes, error):
    """Errors of the differences [P, steps], relative to the gradient."""
    mean = error.mean(0)

    def draw(axes):
        looks = {"xscale": "log", "yscale": "log", "ylabel": "relative error"}
        curves(axes, sizes, {"central differences": error}, **looks)
        axes.set(xlabel="step h", ylim=(mean.min() / 30, 30 * mean.max()))

    return Figure(
        "steps",
        draw,
        f"Differences are off by {mean.min():.0e} at the best step, h = "
        f"{sizes[mean.argmin()]:.0e}, and by more on both sides",
        "With large steps the secant differs from the tangent, an error proportional "
        "to h^2; with small ones L(w + h) - L(w - h) loses its digits, an error "
        f"proportional to 1e-16 / h. {BAND}",
    )


def exercises(named, claim):
    """Wrong gradients that the loss does not reveal; a check finds the second."""
    return [
        Exercise(
            "Leave `* (1 - o[k])` out of `do_ds`. Which claim fails, and would the "
            "network still learn?",
            "The first. The loss would still fall if only W2 were trained: 1 - o_k is "
            "positive, so every derivative with respect to W2 keeps its sign. Watching "
            "the loss does not reveal such a mistake.",
        ),
        Exercise(
            "`careless_loss` is the same network, but the slope of its output layer is "
            "written by hand, without the factor 1 - o. All its values are right. How "
            "does `check_gradients` look for the mistake, and what does it find?",
            "It takes the program of the loss apart and checks each operation by "
            f"itself. It finds: {'; '.join(named) or 'nothing'}. The derivative by "
            "autodiff is 1 / (1 - o) times that of differences.",
            claim,
        ),
    ]
