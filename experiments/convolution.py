"""What does a convolution compute?

A kernel, for instance of 3x3 weights, is put on each place of the image in turn; the
pixels under it are multiplied by its weights and summed up. Each unit sees a few pixels
only (local receptive field), and all units use the same weights (shared weights). So a
convolution is a dense layer in which most weights are 0 and the others are equal in
groups, and its features move with the image. Each further layer sees a few pixels more,
and after a pooling twice as many more.

    python experiments/convolution.py

Expect loops, the library and a dense layer to agree, and units to see 4x4 pixels after
one convolution with pooling and 46x46 after four, in about 8 seconds on 2 cores.

Source: course, "Convolutional networks": local receptive field + shared weights; Araujo
et al. (2019), Computing receptive fields of convolutional neural networks, Distill.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from slides import convolution as slides

from dlworkshop import workshop
from dlworkshop.models import average_pool
from dlworkshop.models.conv_impls import by_patches as convolve
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """Number of random images, kernels and networks."""


DEPTHS = 1, 2, 4  # convolutions, each with pooling, before the unit that is examined
CONVOLUTION, POOLING = (3, 1), (2, 2)  # extent k and stride s of a layer


def by_loops(x, kernel):
    """s_ijf = sum_abc x_(i+a)(j+b)c K_abcf: the same K at every place i, j."""
    h, w, _, num_kernels = kernel.shape
    s = np.zeros((len(x) - h + 1, len(x[0]) - w + 1, num_kernels))
    for i, j, f in np.ndindex(s.shape):
        for a, b, c in np.ndindex(kernel.shape[:3]):
            s[i, j, f] += x[i + a, j + b, c] * kernel[a, b, c, f]
    return s


def tied(kernel, shape):
    """W [inputs, units] of the dense layer x W that is this convolution."""
    h, w, _, num_kernels = kernel.shape
    rows, columns = shape[0] - h + 1, shape[1] - w + 1
    matrix = np.zeros((*shape, rows, columns, num_kernels))
    for i, j in np.ndindex(rows, columns):
        matrix[i : i + h, j : j + w, :, i, j] = kernel  # local, and shared
    return matrix.reshape(np.prod(shape), -1)


def layer(x, kernel):
    return jnp.tanh(convolve(x, kernel))  # [H, W, F]: zeros around the image


def shifted(x, kernel):
    """Features of a moved image, and moved features, away from the borders."""
    move = partial(jnp.roll, shift=(1, 2), axis=(0, 1))  # 1 row down, 2 columns right
    inner = slice(3, -3)  # 1 pixel of receptive field, 2 of the shift
    return layer(move(x), kernel)[inner, inner], move(layer(x, kernel))[inner, inner]


def receptive_field(layers):
    """r = 1 + sum_l (k_l - 1) prod_(m < l) s_m: a unit sees r x r pixels."""
    r, strides = 1, 1
    for extent, stride in layers:
        r += (extent - 1) * strides
        strides *= stride
    return r


def sight(layers, x, kernels):
    """|d unit / d x_ij| [H, W] of a central unit after these layers."""

    def unit(x):
        for kind, kernel in zip(layers, kernels, strict=False):
            x = average_pool(x) if kind == POOLING else layer(x, kernel)
        return x[len(x) // 2, len(x) // 2, 0]

    return abs(jax.grad(unit)(x))[..., 0]


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Compute one sum in three ways, move the image, and measure what a unit sees."""
    check_settings(config, seeds=1)
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(7, 6, 2)), rng.normal(size=(3, 3, 2, 2))
    s = by_loops(x, kernel)  # [5, 4, 2]
    dense = (x.ravel() @ tied(kernel, x.shape)).reshape(s.shape)
    images = rng.normal(size=(config.seeds, 64, 64, 1))
    kernels = rng.normal(0, 1 / 3, (config.seeds, 8, 3, 3, 1, 1))
    of_moved, moved = jax.vmap(shifted)(images, kernels[:, 0])
    networks = [[CONVOLUTION, POOLING] * depth for depth in DEPTHS]
    argued = [receptive_field(layers) for layers in networks]
    *seen, by_three = (
        np.array(jax.jit(jax.vmap(partial(sight, layers)))(images, kernels))
        for layers in [*networks, [CONVOLUTION] * 3]
    )  # [P, 64, 64] each

    return Lesson(
        f"A convolution is a dense layer with shared weights; after {DEPTHS[-1]} of "
        f"them with pooling a unit sees {argued[-1]}x{argued[-1]} pixels",
        claims=[
            claims.equal_up_to_rounding(
                "A convolution is a dense layer with shared weights",
                [dense, convolve(x, kernel, padding="VALID")],
                [s, s],
                roundings=18 + 1,
                scale=by_loops(abs(x), abs(kernel)).max(),
                why="a sum of 18 products in three orders; the scale is the sum of "
                "their absolute values",
            ),
            claims.equal_up_to_rounding(
                "A shifted image gives shifted features",
                of_moved,
                moved,
                roundings=9 + 10,
                scale=1.0,
                why="9 products of total size about 1, and tanh; borders are left out",
            ),
            claims.bounded(
                "A unit sees as many pixels as the formula of the receptive field says",
                np.count_nonzero(seen, (-1, -2)).T - np.square(argued),
                equal_to=0,
                why="in a random network the gradient is not 0 for each pixel that the "
                "unit sees, and 0 for all others",
            ),
        ],
        figures=[
            slides.tied_matrix(tied(np.arange(1, 10).reshape(3, 3, 1, 1), (6, 6, 1))),
            slides.receptive_fields(seen, argued, DEPTHS),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "Three kernels of 3x3 see as far as one of 7x7",
                np.count_nonzero(by_three, (-1, -2)),
                equal_to=7 * 7,
                why="1 + 2 + 2 + 2: each kernel adds a pixel on each side",
            )
        ),
        summary={"members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
