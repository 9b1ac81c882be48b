"""A convolution as a matrix product is the convolution, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlworkshop.models.convolution import NHWC, by_patches, convolve

CASES = [  # image, kernel, strides, padding, dilation
    ((7, 6, 2), (3, 3, 2, 4), (1, 1), "SAME", None),
    ((7, 6, 2), (3, 3, 2, 4), (1, 1), "VALID", None),
    ((8, 9, 3), (3, 3, 3, 2), (2, 2), "SAME", None),
    ((9, 9, 2), (2, 2, 2, 3), (1, 1), "SAME", None),
    ((9, 8, 2), (4, 2, 2, 3), (2, 1), "SAME", (1, 1)),
    ((9, 9, 2), (3, 3, 2, 3), (1, 1), "SAME", (2, 2)),
    ((9, 9, 2), (3, 2, 2, 3), (2, 2), "VALID", (2, 3)),
    ((4, 4, 3), (1, 1, 3, 5), (1, 1), "SAME", None),
    ((2, 2, 9), (3, 3, 9, 4), (1, 1), "SAME", None),
    ((6, 6, 2), (3, 3, 2, 4), (1, 1), ((2, 1), (0, 2)), None),
]


@pytest.mark.parametrize("case", CASES)
def test_patches_are_the_convolution(case):
    image, kernel, strides, padding, dilation = case
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, w = (
            jnp.asarray(rng.normal(size=(2, *image))),
            jnp.asarray(rng.normal(size=kernel)),
        )

        def slow(x, w):
            return lax.conv_general_dilated(
                x, w, strides, padding, None, dilation, NHWC
            )

        def fast(x, w):
            return by_patches(x, w, strides, padding, dilation)

        value, pull = jax.vjp(slow, x, w)
        other, push = jax.vjp(fast, x, w)
        assert value.shape == other.shape
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-12)
        cotangent = jnp.asarray(rng.normal(size=value.shape))
        for exact, ours in zip(pull(cotangent), push(cotangent), strict=True):
            # sums of at most 300 products of size 1: rounding of some 1e-13
            np.testing.assert_allclose(exact, ours, rtol=0, atol=1e-12)


def test_what_patches_cannot_do_goes_to_lax():
    x, w = jnp.ones((1, 4, 4, 4)), jnp.ones((3, 3, 2, 4))
    out = convolve(x, w, (1, 1), "SAME", feature_group_count=2)
    expected = lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=2
    )
    np.testing.assert_allclose(out, expected)
