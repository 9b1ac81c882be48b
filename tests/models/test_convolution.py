"""Any model's convolutions are exchanged, and what it computes stays what it was."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from jax import lax

from dlworkshop import models
from dlworkshop.jaxprs import all_equations
from dlworkshop.models import conv_impls
from dlworkshop.models.convolution import (
    CONV_IMPLS,
    STANDARD,
    computed_by,
    for_cpu,
    has_convolutions,
    with_convolutions,
)

LAYERS = {
    "same": nn.Conv(6, (3, 3)),
    "valid": nn.Conv(6, (3, 2), padding="VALID"),
    "strided": nn.Conv(6, (3, 3), strides=2),
    "explicit": nn.Conv(6, (3, 3), padding=((2, 0), (1, 3)), use_bias=False),
    "circular": nn.Conv(6, (3, 3), padding="CIRCULAR"),
    "dilated": nn.Conv(6, (2, 3), kernel_dilation=(2, 3)),
    "groups": nn.Conv(6, (3, 3), feature_group_count=2),
    "depthwise": nn.Conv(8, (3, 3), strides=2, feature_group_count=4),
    "transposed": nn.ConvTranspose(6, (3, 3), strides=(2, 2)),
    "transposed valid": nn.ConvTranspose(6, (2, 2), strides=(2, 3), padding="VALID"),
    "input dilated": nn.Conv(6, (3, 3), input_dilation=2, padding=1),
    "cropped": nn.Conv(6, (3, 3), padding=((-1, 2), (1, -2))),
    "pixels": nn.Conv(6, (1, 1)),
    "larger than the image": nn.Conv(6, (9, 9)),
}


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def primitives_of(function, *args):
    """The program as text, in which a convolution would be seen at any depth."""
    return str(jax.make_jaxpr(function)(*args))


def assert_same(apply, params, *inputs, how="patches", left=0, **more):
    """Values, gradients and slopes of `apply` are those of XLA's own, in float64."""
    ours = with_convolutions(apply, how, "cpu")

    @functools.partial(jax.jit, static_argnums=0)
    def both(apply, params, inputs):
        call = functools.partial(apply, **more)
        value, pull = jax.vjp(call, params, *inputs)
        cotangent = jax.tree.map(lambda v: jnp.cos(jnp.arange(v.size)), value)
        reshaped = jax.tree.map(lambda c, v: c.reshape(v.shape), cotangent, value)
        return value, pull(reshaped)

    found, exact = both(ours, params, inputs), both(apply, params, inputs)
    assert jax.tree.structure(found) == jax.tree.structure(exact)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == np.float64
        # sums of at most 400 products of size 1: rounding of some 1e-13
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)
    call = functools.partial(ours, **more)
    text = primitives_of(call, params, *inputs)
    assert text.count("conv_general_dilated[") == left
    assert primitives_of(functools.partial(apply, **more), params, *inputs) != text


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("how", ["patches", "shifts"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_linen(name, how):
    layer = LAYERS[name].copy(param_dtype=jnp.float64)
    x = draw((7, 6, 4))
    params = layer.init(jax.random.key(0), x)
    assert_same(layer.apply, params, x, how=how)


@pytest.mark.parametrize("how", [how for how in CONV_IMPLS if how != "lax"])
def test_every_way_in_groups(how, monkeypatch):
    monkeypatch.setattr(conv_impls, "WIDE", 0)
    layer = nn.Conv(6, (3, 3), feature_group_count=2, param_dtype=jnp.float64)
    x = draw((7, 6, 4))
    params = layer.init(jax.random.key(0), x)
    ours = with_convolutions(layer.apply, how)
    for f, g in (
        (ours, layer.apply),
        tuple(jax.grad(lambda p, x, f=f: f(p, x).sum()) for f in (ours, layer.apply)),
    ):
        found, exact = jax.jit(f)(params, x), jax.jit(g)(params, x)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("axes", "image", "kernel"),
    [
        (("NCHW", "OIHW", "NCHW"), (1, 3, 7, 6), (4, 3, 3, 2)),  # as in Equinox
        (("NHWC", "OIHW", "NCHW"), (1, 7, 6, 3), (4, 3, 3, 2)),
        (("HWCN", "IHWO", "CWNH"), (7, 6, 3, 1), (3, 3, 2, 4)),
        (("NCHW", "OIHW", "NCHW"), (5, 3, 7, 6), (4, 3, 3, 2)),  # five images
        (("NWC", "WIO", "NWC"), (1, 9, 3), (4, 3, 5)),  # a sequence
        (("CWN", "OIW", "CWN"), (3, 9, 2), (5, 3, 4)),
    ],
)
def test_any_layout(axes, image, kernel):
    def apply(w, x):
        window = (2,) * (len(image) - 2)
        return lax.conv_general_dilated(
            x, w, window, "SAME", rhs_dilation=window, dimension_numbers=axes
        )

    assert_same(apply, draw(kernel), draw(image, 1))


def test_a_layer_of_nnx():
    split = nnx.split(
        nnx.Conv(3, 4, (3, 3), strides=2, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    )

    def apply(params, x):
        return nnx.merge(split[0], params)(x)

    assert_same(apply, split[1], draw((7, 6, 3)))


class Cnn(nn.Module):
    """What a user may write: BatchNorm, dropout, a block that is remembered less."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, image, *, key=None, scale=1.0):
        layer = functools.partial(nn.Conv, param_dtype=jnp.float64)
        x = nn.relu(layer(4, (3, 3))(image)) * scale
        x = nn.BatchNorm(
            use_running_average=key is None,
            axis_name=models.BATCH_AXES if key is not None else None,
            param_dtype=jnp.float64,
        )(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.remat(layer)(4, (3, 3), feature_group_count=2)(x)
        if key is not None:
            x = nn.Dropout(self.rate, deterministic=False)(x, rng=key)
        x = nn.max_pool(x, (2, 2), (2, 2))
        return {"logits": nn.Dense(3, param_dtype=jnp.float64)(x.reshape(-1))}


def lifted(apply):
    """A loss of a batch [B, ...], its gradient and new state, as the engine does it."""

    def loss_fn(params, state, images, keys, scale):
        def one(image, key):
            outputs, changed = apply(
                {"params": params, **state},
                image,
                key=key,
                scale=scale,
                mutable=["batch_stats"],
            )
            return (outputs["logits"] ** 2).sum(), changed

        over = jax.vmap(one, out_axes=(0, None), axis_name=models.BATCH_AXES[0])
        losses, changed = over(images, keys)
        return losses.mean(), changed

    return jax.value_and_grad(loss_fn, has_aux=True)


@pytest.mark.parametrize("how", ["patches", "winograd"])
def test_a_network_of_a_user_over_a_batch_with_keys_and_statistics(how):
    net, images = Cnn(), draw((6, 8, 8, 2))
    variables = jax.jit(net.init)(jax.random.key(0), images[0])
    params = variables["params"]
    state = {"batch_stats": variables["batch_stats"]}
    keys = jax.random.split(jax.random.key(1), 6)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), models.BATCH_AXES[1:])
    nowhere = jax.P()
    found = []
    for apply in (net.apply, with_convolutions(net.apply, how)):
        step = jax.shard_map(
            lifted(apply),
            mesh=mesh,
            in_specs=nowhere,
            out_specs=nowhere,
            check_vma=False,
        )
        found.append(jax.jit(step)(params, state, images, keys, jnp.float64(2.0)))
    exact, ours = map(jax.tree.leaves_with_path, found)
    assert len(exact) == 1 + 2 + 8  # loss, statistics, parameters
    for (path, a), (_, b) in zip(ours, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11, err_msg=str(path))
    other = jax.jit(step)(params, state, images, keys[::-1], jnp.float64(2.0))
    assert other[0][0] != found[1][0][0]  # the keys matter: dropout was drawn


W = draw((3, 3, 2, 2))


def conv(w, x):
    return lax.conv_general_dilated(
        x[None], w, (1, 1), "SAME", dimension_numbers=conv_impls.NHWC
    )[0]


def in_scan(w, x):
    def body(x, scale):
        x = jnp.tanh(conv(w * scale, x))
        return x, x.sum()

    return lax.scan(body, x, jnp.arange(1.0, 4.0))


def in_while(w, x):
    looped = lax.while_loop(  # forwards only
        lambda s: (s[0] < 3) & (conv(w, s[1]).sum() < 1e9),
        lambda s: (s[0] + 1, jnp.tanh(conv(w, s[1]))),
        (0, lax.stop_gradient(x)),
    )
    return conv(w, x) * lax.stop_gradient(looped[1])


def in_cond(w, x):
    return lax.cond(x.sum() > 0, conv, lambda w, x: conv(2 * w, x), w, x)


def in_nested_jits(w, x):
    return jax.jit(lambda w, x: jax.jit(conv)(w, jnp.sin(x)) + 1)(w, x)


@pytest.mark.parametrize(
    "apply", [in_scan, in_while, in_cond, in_nested_jits, jax.checkpoint(in_scan)]
)
def test_it_reaches_into_what_has_a_body(apply):
    no_grad = lax.stop_gradient if apply is in_while else lambda w: w
    assert_same(lambda w, x: apply(no_grad(w), x), W, draw((5, 4, 2), 1))


def test_rematerialisation_stays():
    policy = jax.checkpoint_policies.nothing_saveable
    apply = jax.checkpoint(lambda w, x: jnp.sin(conv(w, conv(w, x))), policy=policy)
    x = draw((5, 4, 2), 1)

    def sines(apply):
        grad = jax.grad(lambda w: apply(w, x).sum())
        return primitives_of(grad, W).count("remat2["), primitives_of(grad, W)

    count, text = sines(with_convolutions(apply, "patches"))
    assert count == sines(apply)[0] > 0 and "conv_general" not in text
    assert "nothing_saveable" in text


def test_a_rule_of_its_own_is_kept():
    @jax.custom_vjp
    def straight(w, x):
        return jnp.round(conv(w, x))

    straight.defvjp(
        lambda w, x: (straight(w, x), (w, x)),
        lambda saved, g: (7.0 * saved[0] * g.sum(), 3.0 * g.sum() * saved[1]),
    )

    def apply(w, x):
        return nn.relu(straight(w, x)) + conv(w, x)

    assert_same(apply, W, draw((5, 4, 2), 1), left=1)
    assert not has_convolutions(straight, W, jnp.zeros((5, 4, 2)))


def test_slopes_forwards():
    x = draw((5, 4, 2), 1)
    ours = with_convolutions(in_nested_jits, "patches")
    found, exact = (
        jax.jvp(f, (W, x), (0.3 * W, 2 * x)) for f in (ours, in_nested_jits)
    )
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)


def test_what_is_chosen_is_what_is_traced(monkeypatch):
    monkeypatch.setattr(conv_impls, "WIDE", 0)
    x, w = jnp.ones((4, 4, 2), np.float32), W.astype(np.float32)
    traced = {}
    for how in set(CONV_IMPLS) - {"blocks"}:  # without strides those are patches
        ours = with_convolutions(conv, how)
        traced[how] = primitives_of(jax.grad(lambda w, f=ours: f(w, x).sum()), w)
    assert traced["lax"].count("conv_general_dilated") > 1
    assert "conv_general_dilated" not in traced["patches"] + traced["shifts"]
    assert len(set(traced.values())) == len(CONV_IMPLS) - 1


def test_the_rule_of_thumb_follows_the_platform():
    x = draw((5, 4, 2))
    on = {p: with_convolutions(conv, None, p) for p in ("cpu", "gpu", "tpu")}
    assert {p: primitives_of(f, W, x).count("conv_gen") for p, f in on.items()} == {
        "cpu": 0,
        "gpu": 1,
        "tpu": 1,
    }
    small = draw((2, 2, 2))  # XLA leaves its fast path there, on a CPU
    for how, platform, count in (("lax", "cpu", 0), ("lax", "gpu", 1)):
        ours = with_convolutions(conv, how, platform)
        assert primitives_of(ours, W, small).count("conv_gen") == count
    with pytest.raises(ValueError, match="give one of lax, patches"):
        with_convolutions(conv, "patch")


@pytest.mark.parametrize(
    ("image", "kernel", "more"),
    [
        ((1, 4, 4, 4, 2), (2, 2, 2, 2, 3), {}),  # three dimensions
        ((1, 20, 20, 2), (17, 17, 2, 3), {}),  # too many entries
        ((4, 5, 5, 2), (3, 3, 2, 4), {"batch_group_count": 2}),
    ],
)
def test_what_no_way_covers_stays(image, kernel, more):
    numbers = lax.conv_dimension_numbers(
        image,
        kernel,
        ("NDHWC", "DHWIO", "NDHWC") if len(image) == 5 else conv_impls.NHWC,
    )

    def apply(w, x):
        strides = (1,) * (len(image) - 2)
        return lax.conv_general_dilated(
            x, w, strides, "SAME", dimension_numbers=numbers, **more
        )

    w, x = draw(kernel), draw(image, 1)
    assert not has_convolutions(apply, w, x)
    np.testing.assert_array_equal(
        with_convolutions(apply, "patches")(w, x), apply(w, x)
    )
    narrow = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        preferred_element_type=jnp.float64,
    )
    assert not has_convolutions(narrow, *jnp.zeros((2, 1, 1, 3, 3), jnp.float32))


def test_the_precision_is_that_of_the_layer():
    layer = nn.Conv(2, (3, 3), precision="highest")
    x = draw((5, 4, 2))
    params = layer.init(jax.random.key(0), x)
    ours = with_convolutions(layer.apply, "patches")
    grad = jax.grad(lambda p: ours(p, x).sum())
    text = primitives_of(grad, params)
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST")


def test_arguments_are_what_they_were():
    def apply(params, example, *, key=None, rate=0.0, mode="sum", **more):
        assert isinstance(rate, (float, jax.Array))
        assert isinstance(mode, str)
        scale = 1.0 if isinstance(rate, float) and rate == 0 else 3.0
        y = conv(params["w"], example["x"]) * scale * more.get("b1", 1.0)
        return y.sum() if mode == "sum" else {"y": y, "none": None}

    ours = with_convolutions(apply, "patches")
    assert inspect.signature(ours) == inspect.signature(apply)
    params, example = {"w": W}, {"x": draw((5, 4, 2), 1), "more": None}
    one = jnp.ones(())
    for more in ({}, {"rate": 0.0}, {"rate": 0.5}, {"rate": one}, {"b1": one / 2}):
        np.testing.assert_allclose(
            ours(params, example, **more), apply(params, example, **more), atol=1e-12
        )
    assert ours(params, example, mode="all")["none"] is None
    rates = jax.vmap(lambda b: ours(params, example, b1=b))(jnp.arange(3.0))
    np.testing.assert_allclose(rates, rates[1] * np.arange(3), atol=1e-12)


def test_models_of_both_kinds_keep_their_names():
    model = models.cnn((3,), (4,))
    for one, before in (
        (computed_by(model, "patches"), ()),
        (computed_by(models.stateful(model), "patches"), ((),)),
    ):
        assert type(one) is type(models.stateful(model) if before else model)
        assert "dropout" in inspect.signature(one.apply).parameters
        assert one.config == model.config
        image = draw((4, 4, 1))
        params = jax.jit(model.init)(jax.random.key(0), image)
        found = jax.jit(one.apply)(params, *before, image)
        exact = jax.jit(model.apply)(params, image)
        np.testing.assert_allclose(found[0] if before else found, exact, atol=1e-12)


def test_a_model_without_a_convolution_is_left_alone():
    calls = []

    def apply(params, x):
        calls.append(x)
        return params @ x

    assert not has_convolutions(apply, np.ones((2, 3)), np.ones(3))
    x = np.ones(3)
    with_convolutions(apply, "patches")(np.ones((2, 3)), x)
    assert calls[-1] is x
    shape = jax.ShapeDtypeStruct((9, 9, 2), float)
    for nested in (in_scan, in_while, in_cond, in_nested_jits, jax.checkpoint(conv)):
        assert has_convolutions(nested, W, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_in_the_standard_layout_are_the_same(name):
    """Also inside a loop, where XLA's library for CPUs takes no other layout."""
    layer, images = LAYERS[name], draw((5, 8, 8, 4), 1)
    params = layer.init(jax.random.key(0), images[0])
    params = jax.tree.map(lambda leaf: draw(leaf.shape, 2), params)

    def loss(params, images):
        outputs = jax.vmap(lambda x: layer.apply(params, x))(images)
        return (
            outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)
        ).sum()

    def trained(params, images):
        def step(now, _):
            kernel, image = jax.grad(loss, (0, 1))(*now)
            return jax.tree.map(lambda a, b: a - 0.01 * b, now, (kernel, image)), None

        return jax.lax.scan(step, (params, images), length=2)[0]

    changed = for_cpu(trained)
    layouts = {
        name: {
            tuple(eqn.params["dimension_numbers"])
            for eqn in all_equations(jax.make_jaxpr(function)(params, images).eqns)
            if eqn.primitive.name == "conv_general_dilated"
            and eqn.params["feature_group_count"] == 1
            and eqn.params["batch_group_count"] == 1
        }
        for name, function in (("before", trained), ("after", changed))
    }
    standard = tuple(STANDARD)
    if name not in ("groups", "depthwise"):
        assert layouts["before"] - {standard}  # or this would prove nothing
    assert layouts["after"] <= {standard}
    for a, b in zip(
        jax.tree.leaves(changed(params, images)),
        jax.tree.leaves(trained(params, images)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


def _summed(function, *arrays):
    """The size of the largest array that a function sums."""
    eqns = all_equations(jax.make_jaxpr(function)(*arrays).eqns)
    sums = [eqn for eqn in eqns if eqn.primitive.name == "reduce_sum"]
    return max(eqn.invars[0].aval.size for eqn in sums)


@pytest.mark.parametrize(
    ("shape", "axes"), [((2000, 3), (0,)), ((40, 1, 6, 7, 3, 2), (0, 2, 3))]
)
def test_sums_of_rows_are_products_on_a_cpu(shape, axes):
    """As the gradients of biases are, in a loop too; NaN and infinities stay."""
    rows = draw(shape, 3).astype(np.float32)

    def summed(rows):
        return jax.lax.map(
            lambda scale: (scale * rows).sum(axes), jnp.ones(2, np.float32)
        )

    changed = for_cpu(summed)
    assert _summed(summed, rows) == rows.size
    assert _summed(changed, rows) <= rows.size / 16
    exact = rows.astype(np.float64).sum(axes)
    # two sums, of N / 16 rows at most: each addition rounds by half a unit at most
    bound = np.abs(rows.astype(np.float64)).sum(axes)
    error = np.abs(np.asarray(changed(rows)[0], np.float64) - exact)
    additions = rows.size / exact.size / 16 + 64
    assert np.all(error <= additions * np.finfo(np.float32).eps / 2 * bound)
    for bad in np.nan, np.inf:
        first = np.zeros(shape, np.float32)
        first[(0,) * len(shape)] = bad
        with np.errstate(invalid="ignore"):
            wanted = np.broadcast_to(first.sum(axes), changed(first).shape)
        np.testing.assert_array_equal(changed(first), wanted)


@pytest.mark.parametrize(
    ("shape", "axes", "dtype"),
    [
        ((1000, 3), (0,), np.float32),  # few rows
        ((2000, 3), (1,), np.float32),  # of columns
        ((3, 2000, 4), (1,), np.float32),  # a batch of sums
        ((2000, 3), (0, 1), np.float32),  # to one number
        ((2000, 3), (0,), np.int32),
        ((2000, 3), (0,), np.float16),
    ],
)
def test_other_sums_stay(shape, axes, dtype):
    array = draw(shape, 4).astype(dtype)

    def summed(array):
        return jax.lax.reduce_sum_p.bind(array, axes=axes, out_sharding=None)

    assert _summed(for_cpu(summed), array) == array.size
    np.testing.assert_array_equal(for_cpu(summed)(array), summed(array))
