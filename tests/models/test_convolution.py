"""A convolution as a matrix product is the convolution, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dlworkshop.models import convolution
from dlworkshop.models.convolution import HOWS, Conv, by_lax, computed, convolve
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


@pytest.mark.parametrize("how", [how for how in HOWS if how != "lax"])
@pytest.mark.parametrize("case", CASES)
def test_every_way_is_the_convolution(case, how, monkeypatch):
    monkeypatch.setattr(
        convolution, "WIDE", 0
    )  # every 3x3 layer by Winograd's products
    image, kernel, strides, padding, dilation = case
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, w = (jnp.asarray(rng.normal(size=size)) for size in (image, kernel))
        value, pull = jax.vjp(
            lambda x, w: by_lax(x, w, strides, padding, dilation), x, w
        )
        other, push = jax.vjp(
            lambda x, w: HOWS[how](x, w, strides, padding, dilation), x, w
        )
        assert value.shape == other.shape
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-12)
        if isinstance(padding, str):
            slow = references.conv2d(
                np.asarray(x)[None], np.asarray(w), strides, padding, dilation
            )
            np.testing.assert_allclose(other, slow[0], rtol=0, atol=1e-12)
        cotangent = jnp.asarray(rng.normal(size=value.shape))
        for exact, ours in zip(pull(cotangent), push(cotangent), strict=True):
            # sums of at most 300 products of size 1: rounding of some 1e-13
            np.testing.assert_allclose(exact, ours, rtol=0, atol=1e-12)


def test_the_layer_is_that_of_linen():
    image = jnp.asarray(np.random.default_rng(0).random((6, 5, 3)), jnp.float32)
    ours, theirs = Conv(4), nn.Conv(4, (3, 3))
    params = ours.init(jax.random.key(0), image)
    expected = theirs.init(jax.random.key(0), image)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(
        ours.apply(params, image), theirs.apply(params, image), atol=1e-6
    )


def test_winograd_multiplies_less_where_layers_are_wide():
    def flops(how, channels):
        image = jax.ShapeDtypeStruct((8, 8, channels), jnp.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), jnp.float32)
        traced = jax.jit(HOWS[how]).lower(image, kernel)
        return traced.compile().cost_analysis()["flops"]

    # 16 products instead of 36, and transforms that cost some channels less
    assert flops("winograd", 256) < 0.6 * flops("patches", 256)
    assert flops("winograd", 64) == flops("lax", 64)


def test_what_is_forced_is_what_is_traced(monkeypatch):
    monkeypatch.setattr(convolution, "WIDE", 0)
    x, w = jnp.ones((4, 4, 2)), jnp.ones((3, 3, 2, 4))
    traced = {}
    for how in HOWS:
        with computed(how):
            traced[how] = str(
                jax.make_jaxpr(jax.grad(lambda w: convolve(x, w).sum()))(w)
            )
    assert traced["lax"].count("conv_general_dilated") > 1
    assert "conv_general_dilated" not in traced["patches"] + traced["shifts"]
    assert len(set(traced.values())) == len(HOWS)
    outside = str(jax.make_jaxpr(jax.grad(lambda w: convolve(x, w).sum()))(w))
    assert outside == traced["patches"]  # the rule of thumb on a CPU
