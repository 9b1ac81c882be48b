"""Slides of why_convolution.py: accuracies, and numbers of parameters."""

from dlworkshop.report.lesson_figures import curves
from dlworkshop.report.marks import BAND
from dlworkshop.workshop.lesson import Exercise, Figure


def reads(sizes, found, num_params, side):
    """For each network accuracies [P, sizes], rates, and number of parameters."""

    def draw(axes):
        right = {
            f"{name}, {num_params[name]:,} parameters": 100 * share
            for name, (share, _) in found.items()
        }
        labels = {"xlabel": "training examples", "ylabel": "test accuracy (%)"}
        curves(axes, sizes, right, xscale="log", **labels)

    few = {name: share[:, 0].mean() for name, (share, _) in found.items()}
    rates = {name: rate.tolist() for name, (_, rate) in found.items()}
    return Figure(
        "reads",
        draw,
        f"After {sizes[0]} examples the CNN recognises {few['CNN']:.0%} of digits, the "
        f"MLP {few['MLP']:.0%}",
        f"Digits of 8x8 pixels anywhere on {side}x{side} pixels. Learning rates of the "
        f"CNN: {rates['CNN']}; of the MLP: {rates['MLP']}. {BAND}",
    )


def parameters(sides, counts):
    """For each layer the number of parameters [sides] for photos of these sides."""

    def draw(axes):
        labels = {"xlabel": "side of the photo (pixels)", "ylabel": "parameters"}
        curves(axes, sides, counts, xscale="log", yscale="log", **labels)

    dense, shared = (each[-1] for each in counts.values())
    return Figure(
        "parameters",
        draw,
        f"For {sides[-1]:,}x{sides[-1]:,} pixels a dense layer has {dense:,} "
        f"parameters, a convolution {shared:,}",
        "Photos in 3 colours. Counted from the shapes of real layers, with biases.",
    )


def exercises(dense_layers):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            'How many parameters does `NETWORKS["CNN"]` have for photos of 224x224x3, '
            "and where?",
            "1,205,890: 1,204,224 of them connect the 56x56x16 numbers that two "
            "poolings leave with 24 units. So a CNN that ends in dense layers grows "
            "with the image, too; feeding the dense layers the mean of each map avoids "
            "that.",
            dense_layers,
        ),
        Exercise(
            "Put each digit in the middle: `splits = toy.centred(data.load("
            '"digits"), CANVAS)[:3]`. What happens to the two curves?',
            "Their order is reversed, with 98 % for the MLP and 97 % for the CNN, and "
            "the claims about what the CNN reads fail: weights shared over places are "
            "of little use where there is only one place.",
        ),
    ]
