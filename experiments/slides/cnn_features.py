"""Slides of cnn_features.py: kernels, the maps after each stage, and saliency."""

import numpy as np

from dlworkshop.report.lesson_figures import picture
from dlworkshop.workshop.lesson import Exercise, Figure


def filters(kernel, found, updates):
    """The first kernels of a network during training, [looks, 3, 3, 1, F].

    `found` has the outputs of its stages for an image, name -> [looks, H, W, C], after
    each number of `updates` [looks].
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
        "One network and one test image. Kernels: purple is positive, orange is "
        "negative. Right: the maps after ReLU, in the same order.",
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
        "Each stage has more maps or fewer pixels than the one before",
        "The same network and image, after ReLU. Light: large values.",
        panels=3,
        frames=[str(n) for n in updates],
        control="updates",
    )


def where_it_looks(test, salient, kept, num_erased):
    """Images, their saliency [P, N, 8, 8, 1]; accuracy without pixels [P, 2]."""
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
        f"Without {num_erased} salient pixels {without_salient:.0%} of digits are "
        f"recognised, without the {num_erased} brightest {without_bright:.0%}",
        "Right: saliency in one network. Purple pixels support the true class, orange "
        "ones oppose it (x dS/dx, where S is the log-probability, divided by its "
        "largest absolute value in the image).",
        panels=2,
        frames=[str(i) for i in range(len(salient))],
        control="seed",
        shared=images,
    )


def exercises():
    """A question about black pixels."""
    return [
        Exercise(
            "Let `saliency` return dS/dx, without x. What can it say of black pixels "
            "that x dS/dx cannot?",
            "That ink is missing there. On black pixels x dS/dx is 0, whatever the "
            "derivative, because erasing them changes nothing. Therefore six pixels "
            "chosen by dS/dx matter less: without them 36 % of digits are recognised.",
        ),
    ]
