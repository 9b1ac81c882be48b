"""Slides of convolution.py: the matrix of a convolution, and what a unit sees."""

import numpy as np

from dlworkshop.report.lesson_figures import picture
from dlworkshop.workshop.lesson import Exercise, Figure


def tied_matrix(matrix):
    """W [36, 16] of a kernel of 9 different weights on an image of 6x6 pixels."""

    def draw(axes):
        shown = np.where(matrix, matrix, np.nan)
        picture(axes, shown, "W of the dense layer", "viridis", aspect="auto")

    weights = matrix[matrix != 0]
    return Figure(
        "tied_matrix",
        draw,
        f"A convolution is a dense layer: {weights.size} of {matrix.size} weights are "
        f"not 0, and only {len(np.unique(weights))} differ",
        "An image of 6x6 pixels and one 3x3 kernel. Equal colours: one shared weight; "
        "white: 0. A row: a pixel. A column: a unit.",
    )


def receptive_fields(seen, argued, depths):
    """|gradients| [P, 64, 64] and pixels each way, for each number of convolutions."""

    def draw(panels):
        for axes, each, depth in zip(panels, seen, depths, strict=True):
            mean = each.mean(0)
            picture(axes, mean / mean.max(), f"convolutions: {depth}", "viridis")

    return Figure(
        "receptive_fields",
        draw,
        f"{depths[0]} convolution with pooling sees {argued[0]} pixels each way, "
        f"{depths[-1]} see {argued[-1]}",
        "Images of 64x64 pixels. Light: |gradient| of a central unit with respect to a "
        f"pixel, mean of {len(seen[0])} random networks, over its largest.",
        panels=len(depths),
    )


def exercises(three_kernels):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "How far do three 3x3 kernels see, one after the other and without "
            "pooling? How many weights has one kernel that sees as far?",
            "7x7 pixels. One kernel for them has 49 weights, the three have 27 and an "
            "activation after each.",
            three_kernels,
        ),
        Exercise(
            "Let `inner` be `slice(2, -2)`. Which claim fails, and why?",
            "That a shifted image gives shifted features. Column 2 of the moved image "
            "was column 0, with zeros to its left; there the last column is now, "
            "rolled around.",
        ),
    ]
