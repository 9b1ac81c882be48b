"""What is VGG16, and where are its parameters and its multiplications?

Thirteen convolutions of 3x3 with ReLU, in five blocks that end with max pooling of 2x2,
are written out with NumPy. All places of a map share the kernels: the first blocks have
few parameters that are used at many places, the last blocks have many parameters that
are used at few.

    python experiments/vgg16.py

Expect the same maps as from the library's module; 14,714,688 parameters, 88 % of them
in blocks 4 and 5; and 15.3 billion multiplications for a photo of 224x224 pixels, 61 %
of them in blocks 1 to 3. The lesson takes about 8 seconds on 2 cores.

Source: course, keras.applications.VGG16(include_top=False); Simonyan & Zisserman
(2015), Very deep convolutional networks, table 1, D; He et al. (2015), for the weights.
"""

from dataclasses import dataclass

import jax
import numpy as np
from slides import vgg16 as slides

from dlworkshop import models, workshop
from dlworkshop.data import toy
from dlworkshop.errors import UserError
from dlworkshop.models.convolution import computed_by
from dlworkshop.train.flops import update_flops
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions, kernels
MEAN = (103.939, 116.779, 123.68)  # of ImageNet's pixels: blue, green, red


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 2
    """Number of networks with random weights that get the photo."""
    image_size: int = 224
    """Height and width of the photo in pixels, a multiple of 32."""


def convolve(x, kernel, bias):
    """s_ijf = b_f + sum_abc x_(i+a-1)(j+b-1)c w_abcf, where x is 0 outside."""
    height, width, _ = x.shape
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    s = np.tile(bias, (height, width, 1))  # [H, W, F]
    for a, b in np.ndindex(3, 3):  # each a product of [H, W, C] and [C, F]
        s += np.tensordot(padded[a : a + height, b : b + width], kernel[a, b], 1)
    return s


def pool(a):
    """The largest number of each 2x2 window: [H, W, F] -> [H / 2, W / 2, F]."""
    return np.max([a[i::2, j::2] for i, j in np.ndindex(2, 2)], axis=0)


def by_hand(params, image):
    """RGB [H, W, 3] in [0, 1] -> the output maps of each block."""
    x = 255 * image[..., ::-1] - MEAN
    for block, (convolutions, _) in enumerate(BLOCKS, 1):
        for i in range(1, convolutions + 1):
            x = np.maximum(convolve(x, **params[f"block{block}_conv{i}"]), 0)  # ReLU
        x = pool(x)
        yield x


def count(side):
    """Layer -> its parameters and its multiplications, for an image [side, side, 3]."""
    found, channels = {}, 3
    for block, (convolutions, kernels) in enumerate(BLOCKS, 1):
        for i in range(1, convolutions + 1):
            weights = 3 * 3 * channels * kernels  # w_abcf
            products = side * side * weights  # each weight at each place
            found[f"block{block}_conv{i}"] = weights + kernels, products  # and b_f
            channels = kernels
        side //= 2
    return found


def draw(shapes, seed):
    """Random weights of He et al.; biases are not 0, so a forgotten one would show."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: rng.normal(0, (2 / np.prod(p.shape[:-1])) ** 0.5, p.shape), shapes
    )


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Compute the network twice; then compare its numbers with the formulas."""
    check_settings(config, seeds=1)
    if config.image_size < 32 or config.image_size % 32:
        raise UserError(f"image_size is {config.image_size}: give a multiple of 32")
    photo, key = toy.photo(config.image_size) / 255, jax.random.key(0)
    vgg16, with_top = models.vgg16(), models.vgg16(include_top=True)
    shapes = jax.eval_shape(vgg16.init, key, photo)
    shapes_with_top = jax.eval_shape(with_top.init, key, np.ones((224, 224, 3)))
    networks = [draw(shapes, seed) for seed in range(config.seeds)]
    maps = [list(by_hand(params, photo)) for params in networks]
    vgg16 = computed_by(vgg16, "patches")  # counts the padding, as by hand
    module = jax.jit(vgg16.apply)
    answers = np.array([module(params, photo) for params in networks])
    operations = update_flops(vgg16, photo) / 3  # of the forward pass
    layers = count(config.image_size)
    by_formula = np.array(list(layers.values()))  # [13, 2]
    parameters, products = by_formula.sum(0)
    held, made = by_formula[:7].sum(0) / by_formula.sum(0)  # by blocks 1 to 3
    found = [models.num_params(shapes[name]) for name in layers]
    return Lesson(
        f"Blocks 4 and 5 of VGG16 hold {1 - held:.0%} of {parameters:,} parameters, "
        f"blocks 1 to 3 make {made:.0%} of {products / 1e9:.1f} billion "
        "multiplications",
        claims=[
            claims.equal_up_to_rounding(
                "The network written out with NumPy gives the maps of the module",
                np.array([after_blocks[-1] for after_blocks in maps]),
                answers,
                roundings=13 * 68,
                why="a sum of up to 9 x 512 products has roundings of random signs, "
                "together about sqrt(9 x 512) = 68; 13 such sums follow each other",
            ),
            claims.bounded(
                "A layer has 3 x 3 x C x F + F parameters, all layers 14,714,688",
                [*(by_formula[:, 0] - found), sum(found) - 14_714_688],
                equal_to=0,
                why="each of F kernels has 3 x 3 x C weights and a bias",
            ),
            claims.bounded(
                "XLA counts twice as many operations as there are multiplications",
                abs(operations / (2 * products) - 1),
                at_most=0.01,
                why="each product is added to a sum; for each sum, mostly of 9 x 64 "
                "products and more, bias, ReLU and max take a few more operations",
            ),
            claims.bounded(
                "Blocks 1 to 3 hold at most an eighth of the parameters and make at "
                "least half of the multiplications",
                [1 / 8 - held, made - 1 / 2],
                at_least=0,
                why="up to block 4, a layer has four times as many weights as in the "
                "block before, at half the side",
            ),
        ],
        figures=[slides.by_layer(layers, held, made), slides.maps(photo, maps[0])],
        exercises=slides.exercises(
            claims.bounded(
                "With its top for 1,000 classes it has 138,357,544 parameters",
                models.num_params(shapes_with_top),
                equal_to=138_357_544,
                why="14,714,688, and 25,089 x 4,096, 4,097 x 4,096 and 4,097 x 1,000",
            )
        ),
        summary={"dataset": "a photo", "model": "vgg16", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
