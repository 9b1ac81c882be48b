"""Each primitive of JAX does in an ONNX runtime what it does in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from dlworkshop.errors import UserError
from dlworkshop.serve import onnx

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 6, 4)).astype(np.float32)
V = RNG.normal(size=(5, 7)).astype(np.float32)
N = RNG.integers(-9, 9, (5, 7), np.int32)
INSIDE = RNG.integers(0, 6, (5, 3), np.int32)
OUTSIDE = np.array([[-9, 0, 3], [6, 5, 2], [-1, 7, 2], [1, 1, 1], [5, 5, 0]], np.int32)
IMAGE = RNG.normal(size=(5, 9, 8, 4)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 2, 4, 6)).astype(np.float32)


def file_of(function, *arrays):
    """The function of one example each, as a session with the inputs "0", "1", ..."""
    example = tuple(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in arrays)
    made = onnx.build(lambda inputs: jax.vmap(function)(*inputs), example, "y", {})
    return runtime.InferenceSession(made, providers=["CPUExecutionProvider"])


def convolved(x, kernel, strides=(1, 1), padding="SAME", **more):
    axes = more.pop("axes", ("NHWC", "HWIO", "NHWC"))
    return lax.conv_general_dilated(
        x[None], kernel, strides, padding, dimension_numbers=axes, **more
    )[0]


def window(x, start, function, sizes, steps=(1, 1, 1), padding="VALID", *dilations):
    return lax.reduce_window(x, start, function, sizes, steps, padding, *dilations)


def arithmetic(x):
    y, positive = x[::-1], abs(x)
    return (
        *(jnp.sin(x), jnp.tan(x), jnp.sinh(x), jnp.arcsinh(x), jnp.arctan2(x, y)),
        *(jnp.exp2(x), jnp.expm1(9 * x), jnp.expm1(1e-5 * x) * 1e5, lax.erfc(x)),
        *(jnp.log1p(positive * 1e6), jnp.log1p(positive * 1e-5) * 1e5),
        *(jnp.cbrt(x), lax.rsqrt(positive), x**3, x**-2, x**0, jnp.square(x)),
        *(jnp.log2(positive), jnp.polyval(jnp.arange(4.0), x), 1 - x * x),
        *(jnp.round(3 * x), lax.round(3 * x), jnp.floor(x), jnp.sign(x)),
        *(jnp.clip(x, -0.5, 0.5), lax.clamp(-0.1, x, 0.2), lax.rem(x, y)),
        *(jnp.isfinite(x / jnp.where(x > 0, 0, 1)), jnp.isnan(x), x != y),
    )


def activations(x):
    functions = (
        *(nn.softmax, nn.log_softmax, nn.gelu, nn.elu, nn.selu, nn.softplus, nn.silu),
        *(nn.relu6, nn.leaky_relu, nn.hard_swish, jax.nn.mish, nn.glu, nn.logsumexp),
        *(nn.standardize, jax.checkpoint(jnp.sin), nn.sigmoid, nn.hard_tanh),
    )
    return *(f(x) for f in functions), nn.gelu(x, approximate=False)


def integers(n):
    return (
        *(n % 4, n // 3, lax.rem(n, 4), lax.div(n, 3), n**2, abs(n), n.sum(), n.max()),
        *(n & 3, n | 4, n ^ 1, ~n, (n > 0) & (n < 5), ~(n > 0), (n > 0) ^ (n < 5)),
        *(jnp.cumsum(n), jnp.sort(n), jnp.argsort(n), n.astype(bool), n / 2),
        *(jnp.where(n > 0, n > 3, n < -3), jnp.maximum(n, 2), n != 3),
        lax.select_n(abs(n) % 3, n, 2 * n, 3 * n),
    )


def shapes(x):
    return (
        *(x.T, x.reshape(-1), x.reshape(3, 8)[1:], lax.reshape(x, (24,), (1, 0))),
        *(x[::2, 1:3], x[::-1], jnp.flip(x), jnp.roll(x, 2, 0), jnp.repeat(x, 2, 0)),
        *(jnp.concatenate([x, x], 1), jnp.stack([x, x], 1), *jnp.split(x, 3)),
        *(jnp.tile(x, (2, 1, 3)), jnp.pad(x, ((1, 0), (0, 2)), constant_values=3.0)),
        *(lax.pad(x, 7.0, ((-1, 2, 1), (1, -1, 2))), x[None], x[:1].squeeze(0)),
        *(jnp.broadcast_to(x[:, None], (6, 3, 4)), jnp.arange(6)[:, None] + x),
        *(jnp.tril(x), jnp.eye(4) + x[:4], jnp.ones(3), jnp.float32(2)),
    )


def reductions(x):
    return (
        *(x.sum(), x.mean(0), x.var(1), x.max(), x.min(0), x.prod(1)),
        *((x > 0).any(), (x > 0).all(1), x.argmax(), x.argmin(1)),
        *(jnp.cumsum(x, 0), lax.cumsum(x, 0, reverse=True), lax.cummax(x, 0)),
        *(lax.cumprod(x, 1), lax.cumlogsumexp(x, 0, reverse=True), lax.cummin(x, 1)),
        *(jnp.sort(x, 0), jnp.argsort(x, 1), *lax.top_k(x, 2), jnp.median(x, 0)),
    )


def products(x, v):
    ones = jnp.ones((4, 2, 3))
    return (
        *(x @ x.T, x.T @ x, jnp.outer(v, v), v @ v, x[0] @ ones[:, 0]),
        *(jnp.einsum("ij,kj->ik", x, x), jnp.einsum("ab,c->acb", x, v)),
        *(jnp.tensordot(x, ones, 1), jnp.einsum("ij,ij->i", x, x)),
        jnp.einsum("hd,hed->he", x.reshape(4, 6), ones.reshape(4, 1, 6)),
        jnp.ones((3, 7)) @ v,
    )


def convolutions(x):
    channels_first = {"axes": ("NCHW", "OIHW", "NCHW")}
    depthwise = KERNEL[:, :, :1].repeat(2, -1)
    return (
        *(convolved(x, KERNEL), convolved(x, KERNEL, (2, 3), "VALID")),
        convolved(x, KERNEL, padding=((2, 0), (-1, 1)), rhs_dilation=(2, 1)),
        convolved(x, KERNEL, padding=((1, 2), (0, 1)), lhs_dilation=(2, 3)),
        convolved(x, KERNEL[:, :, :2], feature_group_count=2),
        convolved(x, depthwise, feature_group_count=4),
        convolved(x.transpose(2, 0, 1), KERNEL.transpose(3, 2, 0, 1), **channels_first),
        convolved(x[0], KERNEL[:, 0], (1,), axes=("NWC", "WIO", "NWC")),
        lax.conv_transpose(x[None], KERNEL, (2, 2), "SAME")[0],
    )


def windows(x):
    low, high = -np.inf, np.inf
    apart = None, (3, 1, 2)
    return (
        *(nn.max_pool(x, (2, 2), (2, 2)), nn.max_pool(x, (3, 3), (1, 2), "SAME")),
        *(nn.avg_pool(x, (3, 2), (2, 2), "SAME"), window(x, 0.0, lax.add, (9, 8, 1))),
        nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False),
        window(x, high, lax.min, (2, 3, 1), padding="SAME"),
        window(x, low, lax.max, (2, 1, 2), (1, 1, 1), "VALID", *apart),
        window(x, 0.0, lax.add, (2, 2, 2), (1, 1, 1), "VALID", *apart),
        window(
            x, 0.0, lax.add, (2, 2, 1), (1, 1, 1), ((1, 1), (5, 0), (0, 0)), (2, 1, 1)
        ),
    )


def reads(x, i, j):
    return (
        *(x[i], x[:, i % 4], x[j], x[i, i % 4], x[i[0]], x[1, i % 4], x[j, 1]),
        *(jnp.take(x, j, axis=0), jnp.take(x, j, axis=1, mode="clip")),
        *(jnp.take_along_axis(x, i[:, None], 0), jnp.arange(12.0).reshape(6, 2)[i]),
        *(jnp.arange(6).take(j), (x > 0).take(j), lax.dynamic_index_in_dim(x, i[1], 0)),
        *(lax.dynamic_slice(x, (j[0], j[1]), (3, 2)), jnp.searchsorted(x[:, 0], x[0])),
    )


def writes(x, i, j):
    return (
        *(x.at[i[0]].set(0), x.at[:, 1].set(3), x.at[1:3].set(0), x.at[j[0]].set(7)),
        *(x.at[i].add(1), x.at[j].add(2), x.at[i, i % 4].multiply(2), x.at[i].max(0)),
        *(x.at[j].add(-2), x.at[i].subtract(x[:3])),
        *(x.at[i].min(x[:3]), x.at[jnp.array([5, 6])].set(jnp.ones((2, 4)))),
        *(jnp.zeros(6).at[i].add(1), lax.dynamic_update_slice(x, x[:2, :2], j[:2])),
    )


def control(x, i):
    def summed(carry, row):
        return carry / 2 + row, carry.sum()

    return (
        *(lax.scan(summed, jnp.zeros(4), x), lax.scan(summed, x[0], x, reverse=True)),
        lax.scan(lambda c, _: (c + x.sum(), None), 0.0, None, length=3)[0],
        lax.fori_loop(0, 3, lambda i, c: 2 * c + i, x),
        lax.while_loop(lambda c: abs(c).sum() < 90, lambda c: 1.5 * c, x),
        lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] * 2, c[1] + 1), (x, 0)),
        lax.map(jnp.sum, x),
        lax.switch(i[0], [jnp.sin, jnp.cos, jnp.tan], x),
        lax.cond(x.sum() > 0, lambda: x, lambda: -x),
    )


CASES = {
    arithmetic: (X,),
    activations: (X,),
    integers: (N,),
    shapes: (X,),
    reductions: (X,),
    products: (X, V),
    convolutions: (IMAGE,),
    windows: (IMAGE,),
    reads: (X, INSIDE, OUTSIDE),
    writes: (X, INSIDE, OUTSIDE),
    control: (X, INSIDE),
}


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_primitives(function):
    arrays = CASES[function]
    expected = jax.tree.leaves(jax.jit(jax.vmap(function))(*arrays))
    found = file_of(function, *arrays)
    for rows in (slice(0, 1), slice(None)):
        feed = {str(i): x[rows] for i, x in enumerate(arrays)}
        answers = found.run(None, feed)
        for i, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
            assert answer.dtype == wanted.dtype, i
            np.testing.assert_allclose(
                answer, wanted[rows], rtol=1e-5, atol=1e-5, err_msg=f"output {i}"
            )


def test_loops_and_branches_that_all_examples_share():
    def function(x):  # not under vmap, where a branch becomes a choice
        first = jnp.argmax(jnp.ones(2))
        turned = [
            lax.switch(first + i, [jnp.sin, jnp.cos, jnp.tan], x) for i in range(3)
        ]
        more = lambda c: (c[0] * 2, c[1] + 1)  # noqa: E731
        return *turned, lax.while_loop(lambda c: c[1] < 3, more, (x, 0))[0]

    example = jax.ShapeDtypeStruct(X.shape[1:], X.dtype)
    made = onnx.build(function, example, "y", {})
    answers = runtime.InferenceSession(made).run(None, {"inputs": X})
    expected = np.sin(X), np.cos(X), np.tan(X), 8 * X
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-5)


REFUSED = {
    "cholesky": lambda x: jnp.linalg.cholesky(x[:4]),
    "convert_element_type' of complex": lambda x: jnp.fft.fft(x).real,
    "random_": lambda x: x + jax.random.normal(jax.random.key(0), x.shape),
    "pure_callback": lambda x: jax.pure_callback(
        lambda x: x, x, x, vmap_method="sequential"
    ),
    "scatter": lambda x: x.at[1].apply(jnp.sin),
    "sort": lambda x: lax.sort((x, x), num_keys=2),
    "reduce_window_max": lambda x: nn.max_pool(x.astype(int)[..., None], (2, 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_form_is_refused_by_its_name(name):
    with pytest.raises(UserError, match=f"'{name}.* use the format stablehlo") as said:
        file_of(REFUSED[name], X)
    assert "\n" not in str(said.value)


def test_what_no_output_needs_is_not_in_the_way():
    def function(x):
        jnp.linalg.cholesky(x[:4])
        return x + 1

    (answer,) = file_of(function, X).run(None, {"0": X})
    np.testing.assert_allclose(answer, X + 1)
