"""Every way to compute a convolution is the convolution, in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.models import conv_impls
from dlworkshop.models.conv_impls import CONV_IMPLS, by_lax
from tests import references

CASES = [  # image, kernel, strides, padding, dilation
    ((7, 6, 2), (3, 3, 2, 4), (1, 1), "SAME", (1, 1)),
    ((7, 6, 2), (3, 3, 2, 4), (1, 1), "VALID", (1, 1)),
    ((8, 9, 3), (3, 3, 3, 2), (2, 2), "SAME", (1, 1)),
    ((9, 9, 2), (2, 2, 2, 3), (1, 1), "SAME", (1, 1)),
    ((9, 8, 2), (4, 2, 2, 3), (2, 1), "SAME", (1, 1)),
    ((9, 9, 2), (3, 3, 2, 3), (1, 1), "SAME", (2, 2)),
    ((9, 9, 2), (3, 2, 2, 3), (2, 2), "VALID", (2, 3)),
    ((4, 4, 3), (1, 1, 3, 5), (1, 1), "SAME", (1, 1)),
    ((2, 2, 9), (3, 3, 9, 4), (1, 1), "SAME", (1, 1)),
    ((6, 6, 2), (3, 3, 2, 4), (1, 1), ((2, 1), (0, 2)), (1, 1)),
    ((3, 8, 2), (3, 3, 2, 4), (1, 1), "VALID", (1, 1)),
]


@functools.partial(jax.jit, static_argnums=(0, 4))
def value_and_gradients(convolve, x, w, cotangent, window):
    """Compiled once for each case: `by_lax` is asked again for every other way."""
    value, pull = jax.vjp(lambda x, w: convolve(x, w, *window), x, w)
    return value, *pull(cotangent)


@pytest.mark.parametrize("how", [how for how in CONV_IMPLS if how != "lax"])
@pytest.mark.parametrize("case", CASES)
def test_every_way_is_the_convolution(case, how, monkeypatch):
    monkeypatch.setattr(conv_impls, "WIDE", 0)  # Winograd's products for all 3x3
    image, kernel, *window = case
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=image), rng.normal(size=kernel)
    with jax.enable_x64(True):
        size = jax.eval_shape(lambda x, w: by_lax(x, w, *window), x, w).shape
        given = x, w, rng.normal(size=size), tuple(window)
        expected = value_and_gradients(by_lax, *given)
        found = value_and_gradients(CONV_IMPLS[how], *given)
    for ours, exact in zip(found, expected, strict=True):
        assert ours.shape == exact.shape and ours.dtype == np.float64
        # sums of at most 300 products of size 1: rounding of some 1e-13
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-12)
    if isinstance(window[1], str):
        slow = references.conv2d(x[None], w, *window)
        np.testing.assert_allclose(found[0], slow[0], rtol=0, atol=1e-12)


def test_winograd_multiplies_less_where_layers_are_wide():
    def flops(how, channels):
        image = jax.ShapeDtypeStruct((8, 8, channels), jnp.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), jnp.float32)
        traced = jax.jit(CONV_IMPLS[how]).lower(image, kernel)
        return traced.compile().cost_analysis()["flops"]

    # 16 products instead of 36, and transforms that cost some channels less
    assert flops("winograd", 256) < 0.6 * flops("patches", 256)
    assert flops("winograd", 64) == flops("lax", 64)
