"""Slides of vgg16.py: layers, their parameters and multiplications, maps."""

import numpy as np

from dlworkshop.report.lesson_figures import picture
from dlworkshop.report.marks import COLOURS
from dlworkshop.workshop.lesson import Exercise, Figure


def by_layer(layers, held, made):
    """Layer -> parameters and multiplications; the shares of blocks 1 to 3."""
    parameters, products = np.array(list(layers.values())).T  # [13] each

    def draw(panels):
        colours = [COLOURS[int(name[5]) - 1] for name in layers]  # a block's
        for axes, values in zip(
            panels, (parameters / 1e6, products / 1e9), strict=True
        ):
            axes.barh(range(len(layers)), values, color=colours)
            axes.set_yticks(range(len(layers)), layers)
            axes.invert_yaxis()  # the first layer on top
        panels[0].set_xlabel("parameters (million)")
        panels[1].set_xlabel("multiplications (billion)")

    return Figure(
        "by_layer",
        draw,
        f"Blocks 4 and 5 hold {1 - held:.0%} of the parameters, blocks 1 to 3 make "
        f"{made:.0%} of the multiplications",
        f"The {len(layers)} convolutions, from the image to the last maps, with a "
        f"colour for each block. Together they have {parameters.sum():,} parameters "
        f"and {products.sum():,} multiplications for one image.",
        panels=2,
    )


def maps(photo, after_blocks):
    """A photo [H, W, 3], and the output maps of the five blocks."""
    size, last = len(photo), after_blocks[-1]

    def draw(axes):
        varied = [x[..., x.std((0, 1)).argmax()] for x in after_blocks]  # [H, W] each
        shown = [photo.mean(-1), *varied]
        large = [np.kron(x / x.max(), np.ones([size // len(x)] * 2)) for x in shown]
        picture(axes, np.stack(large), "photo, blocks 1 and 2; blocks 3, 4 and 5")

    return Figure(
        "maps",
        draw,
        f"The side is halved five times: {size} x {size} pixels of 3 colours become "
        f"{len(last)} x {len(last)} places with {last.shape[-1]} maps",
        "Top: the photo, and outputs of blocks 1 and 2; bottom: of blocks 3, 4 and 5. "
        "Of each block, the map that varies most is shown; weights are random. Light: "
        "large values. Photo: danielbuechele, CC BY 2.0, from scikit-learn.",
    )


def exercises(with_top):
    """Two questions; the claim checks the first."""
    return [
        Exercise(
            "With `include_top=True`, 7 x 7 x 512 numbers go through fully connected "
            "layers of 4,096, 4,096 and 1,000 units. How many parameters do they have? "
            "And how many does a linear head for 10 classes have, on the 512 means of "
            "the maps?",
            "123,642,856, which is 89 % of 138,357,544. The head has (512 + 1) x 10 = "
            "5,130. `vgg16_transfer.py` trains such heads.",
            with_top,
        ),
        Exercise(
            "Set `--image-size 448`. Which numbers change?",
            "Not the parameters, because all places share the kernels. There are four "
            "times as many multiplications, 61.4 billion, in the same proportions.",
        ),
    ]
