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
        f"not 0, with only {len(np.unique(weights))} different values",
        "An image of 6x6 pixels and one 3x3 kernel. Rows: pixels. Columns: units. "
        "Cells of equal colour share one weight; white cells are 0.",
    )


def receptive_fields(seen, argued, depths):
    """|gradients| [P, 64, 64] and side of the field, for each number of layers."""

    def draw(panels):
        for axes, each, depth in zip(panels, seen, depths, strict=True):
            mean = each.mean(0)
            picture(axes, mean / mean.max(), f"convolutions: {depth}", "viridis")

    return Figure(
        "receptive_fields",
        draw,
        f"After {depths[0]} convolution with pooling a unit sees "
        f"{argued[0]}x{argued[0]} pixels, after {depths[-1]} it sees "
        f"{argued[-1]}x{argued[-1]}",
        "Images of 64x64 pixels. Light: large |gradient| of a central unit with "
        f"respect to the pixel, mean of {len(seen[0])} random networks, relative to "
        "its largest value.",
        panels=len(depths),
    )


def exercises(three_kernels):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "How far do three 3x3 kernels see, one after the other and without "
            "pooling? How many weights has one kernel that sees as far?",
            "They see 7x7 pixels. One kernel of that size has 49 weights; the three "
            "have 27 together, and an activation after each.",
            three_kernels,
        ),
        Exercise(
            "Let `inner` be `slice(2, -2)`. Which claim fails, and why?",
            "The claim that a shifted image gives shifted features. Column 2 of the "
            "moved image was column 0, which had zeros to its left; now the last "
            "column is there, because `roll` wraps around.",
        ),
    ]
