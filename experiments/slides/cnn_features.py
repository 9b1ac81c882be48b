"""Slides of cnn_features.py: kernels, the maps after each stage, and saliency."""

import numpy as np

from dlworkshop.report.lesson_figures import picture
from dlworkshop.workshop.lesson import Exercise, Figure


def filters(kernel, found, updates):
    """Of a network that learns its first kernels [looks, 3, 3, 1, F].

    `found` is what its stages find in an image, name -> [looks, H, W, C], after so many
    `updates` [looks].
    """
    kernels = np.moveaxis(kernel[:, :, :, 0], -1, 1)  # [looks, F, 3, 3]
    number, most = kernels.shape[1], abs(kernels).max()

    def image(panels):
        picture(panels[0], found["image"][0, ..., 0], "image")

    def draw(panels, i):
        shown, look = f"{number} kernels", {"vmin": -most, "vmax": most}
        picture(panels[1], kernels[i], shown, "PuOr", **look)
        maps = np.moveaxis(found["convolution 1"][i], -1, 0)
        picture(panels[2], maps, "their responses")

    return Figure(
        "filters",
        draw,
        f"{number} kernels of 3x3 shared weights, and where each responds in the image",
        "One network, one test image. Kernels: purple is positive, orange negative. "
        "Right: the maps after ReLU, in the same order.",
        panels=3,
        frames=[str(n) for n in updates],
        control="updates",
        shared=image,
    )


def feature_maps(found, updates):
    """Outputs of the later stages for the image, [looks, H, W, C] each."""

    def draw(panels, i):
        names = "pooling 1", "convolution 2", "pooling 2"
        for axes, name in zip(panels, names, strict=True):
            maps = np.moveaxis(found[name][i], -1, 0)  # [C, H, W]
            picture(axes, maps, "{}: {} of {} x {}".format(name, *maps.shape))

    return Figure(
        "feature_maps",
        draw,
        "Each stage has more maps or fewer pixels, and ends in one answer",
        "The same network and image; light is large, after ReLU.",
        panels=3,
        frames=[str(n) for n in updates],
        control="updates",
    )


def where_it_looks(test, salient, kept, num_erased):
    """Images, their saliency [P, N, 8, 8, 1]; shares read without pixels [P, 2]."""
    ten = np.unique(test.targets, return_index=True)[1]  # the first of each class

    def images(panels):
        picture(panels[0], test.inputs[ten, ..., 0], "images")

    def draw(panels, i):
        shown = salient[i][ten, ..., 0]  # [10, 8, 8]
        shown = shown / abs(shown).max((1, 2), keepdims=True)
        picture(panels[1], shown, "saliency", "PuOr", vmin=-1, vmax=1)

    without_salient, without_bright = kept.mean(0)
    return Figure(
        "where_it_looks",
        draw,
        f"Without {num_erased} salient pixels {without_salient:.0%} are read, without "
        f"the {num_erased} brightest {without_bright:.0%}",
        "Right: purple pixels support the true class, orange ones oppose it (x "
        "dS/dx, S the log-probability, over its largest), of one network.",
        panels=2,
        frames=[str(i) for i in range(len(salient))],
        control="seed",
        shared=images,
    )


def exercises():
    """A question."""
    return [
        Exercise(
            "Let `saliency` return dS/dx, without x. What can it say of black pixels "
            "that x dS/dx cannot?",
            "That ink is missing there. x dS/dx is 0 on them, whatever the slope: "
            "erased, they stay as they are. So six pixels chosen by dS/dx matter less: "
            "36 % of digits are read without them.",
        ),
    ]
