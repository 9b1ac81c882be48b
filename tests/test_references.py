"""The references, checked by an independent road: central differences, JAX, optax.

Everything here is float64. Agreement with JAX is asked to 1e-12: the values are O(1)
and sums have at most some hundred terms, so rounding stays below 1e-13.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import references

assert_close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)

ACTIVATIONS = [(references.RELU, jax.nn.relu), (references.TANH, jnp.tanh)]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def draw_layer(rng, *shape):
    fan_in = np.prod(shape[:-1])
    return {
        "kernel": rng.normal(size=shape) / np.sqrt(fan_in),
        "bias": rng.normal(size=shape[-1]) / 4,  # not 0: its gradient must matter
    }


def draw_mlp(rng):
    shapes = {"Dense_0": (42, 5), "Dense_1": (5, 4), "Dense_2": (4, 3)}
    return {name: draw_layer(rng, *shape) for name, shape in shapes.items()}


def draw_cnn(rng):
    # 7 x 6 -> 3 x 3 -> 1 x 1: both pools have something to leave out.
    convs = {"Conv_0": (3, 3, 1, 4), "Conv_1": (3, 3, 4, 6)}
    shapes = {**convs, "Dense_0": (6, 5), "Dense_1": (5, 3)}
    return {name: draw_layer(rng, *shape) for name, shape in shapes.items()}


def draw_data(rng):
    """images [12, 7, 6, 1] uint8, labels [12] of 3 classes, order [6, 4]."""
    images = rng.integers(0, 256, (12, 7, 6, 1)).astype(np.uint8)
    return images, rng.integers(0, 3, 12), rng.integers(0, 12, (6, 4))


def assert_gradient(loss_fn, params, grads, step=1e-5, tol=1e-9):
    """Every entry; truncation ~ step**2 = 1e-10, rounding ~ 1e-16 / step = 1e-11."""
    flat, flat_grads = references.flat_dict(params), references.flat_dict(grads)
    assert flat.keys() == flat_grads.keys()
    norm = np.sqrt(sum((g**2).sum() for g in flat_grads.values()))
    for name, p in flat.items():
        assert flat_grads[name].shape == p.shape
        for index in np.ndindex(p.shape):
            ends = []
            for sign in (1, -1):
                moved = p.copy()
                moved[index] += sign * step
                ends.append(loss_fn(references.nested_dict({**flat, name: moved})))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(slope - flat_grads[name][index]) <= tol * norm, (name, index)


@pytest.mark.parametrize("activation", [references.RELU, references.TANH])
def test_mlp_gradient_is_the_slope(rng, activation):
    images, labels, _ = draw_data(rng)
    params = draw_mlp(rng)

    def loss_and_grads(params):
        return references.mlp_loss_and_grads(
            params, images / 255, labels, label_smoothing=0.1, activation=activation
        )

    assert_gradient(lambda p: loss_and_grads(p)[0], params, loss_and_grads(params)[1])


@pytest.mark.slow
@pytest.mark.parametrize("activation", [references.RELU, references.TANH])
@pytest.mark.parametrize("pooling", [references.AVG_POOL, references.MAX_POOL])
def test_cnn_gradient_is_the_slope(rng, activation, pooling):
    images, labels, _ = draw_data(rng)
    params = draw_cnn(rng)

    def loss_and_grads(params):
        return references.cnn_loss_and_grads(
            params, images / 255, labels, activation=activation, pooling=pooling
        )

    assert_gradient(lambda p: loss_and_grads(p)[0], params, loss_and_grads(params)[1])


def jax_conv2d(x, kernel, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("size", "strides", "dilation"),
    [
        ((3, 3), (1, 1), (1, 1)),
        ((3, 3), (2, 3), (1, 1)),
        ((2, 4), (1, 1), (2, 1)),
        ((2, 4), (3, 2), (1, 2)),
    ],
)
def test_conv2d_and_its_backward_are_xlas(rng, size, strides, padding, dilation):
    x, kernel = rng.normal(size=(2, 7, 8, 3)), rng.normal(size=(*size, 3, 4))
    window = {"strides": strides, "padding": padding, "dilation": dilation}
    y, pullback = jax.vjp(partial(jax_conv2d, **window), x, kernel)
    assert_close(references.conv2d(x, kernel, **window), y)
    d_y = rng.normal(size=y.shape)
    d_x, d_kernel = references.conv2d_backward(x, kernel, d_y, **window)
    expected_d_x, expected_d_kernel = pullback(d_y)
    assert_close(d_x, expected_d_x)
    assert_close(d_kernel, expected_d_kernel)


def test_conv2d_refuses_another_padding():
    with pytest.raises(ValueError, match="CIRCULAR"):
        references.conv2d(
            np.ones((1, 3, 3, 1)), np.ones((3, 3, 1, 1)), (1, 1), "CIRCULAR"
        )


def jax_pool(reduce, x):  # [B, H, W, C]
    h, w = x.shape[1] // 2, x.shape[2] // 2
    blocks = x[:, : 2 * h, : 2 * w].reshape(len(x), h, 2, w, 2, -1)
    return reduce(blocks, axis=(2, 4))  # the gradient of jnp.max is shared by ties


POOLINGS = [
    (references.AVG_POOL, partial(jax_pool, jnp.mean)),
    (references.MAX_POOL, partial(jax_pool, jnp.max)),
]


@pytest.mark.parametrize(("pooling", "jax_pooling"), POOLINGS)
@pytest.mark.parametrize("tied", [False, True])
def test_pooling_and_its_backward_are_jaxs(rng, pooling, jax_pooling, tied):
    shape = (2, 5, 7, 3)
    x = rng.integers(0, 3, shape) / 2 if tied else rng.normal(size=shape)
    y, pullback = jax.vjp(jax_pooling, x)
    assert_close(pooling.forward(x), y)
    d_y = rng.normal(size=y.shape)
    assert_close(pooling.backward(x, d_y), pullback(d_y)[0])


@pytest.mark.parametrize(("activation", "jax_activation"), ACTIVATIONS)
def test_activation_and_its_backward_are_jaxs(rng, activation, jax_activation):
    x = np.append(rng.normal(size=20), 0.0)  # 0: the kink of relu
    y, pullback = jax.vjp(jax_activation, x)
    assert_close(activation.forward(x), y)
    d_y = rng.normal(size=y.shape)
    assert_close(activation.backward(x, d_y), pullback(d_y)[0])


def jax_loss(logits, labels, label_smoothing):
    target = optax.smooth_labels(
        jax.nn.one_hot(labels, logits.shape[1], dtype=jnp.float64), label_smoothing
    )
    return optax.softmax_cross_entropy(logits, target).mean()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_cross_entropy_is_optaxs(rng, label_smoothing):
    logits, labels = 3 * rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    loss, d_logits = references.cross_entropy(logits, labels, label_smoothing)
    expected = jax.value_and_grad(jax_loss)(logits, labels, label_smoothing)
    assert_close(loss, expected[0])
    assert_close(d_logits, expected[1])


def test_cross_entropy_does_not_overflow():
    loss, d_logits = references.cross_entropy(np.array([[1e4, 0.0]]), np.array([1]))
    assert_close(loss, 1e4)
    assert_close(d_logits, [[1.0, -1.0]])


def is_kernel(params):
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def optax_sgd(lr, momentum=None, nesterov=False, weight_decay=0.0):
    decay = optax.add_decayed_weights(weight_decay, mask=is_kernel)
    return optax.chain(decay, optax.sgd(lr, momentum=momentum, nesterov=nesterov))


OPTIMIZERS = {
    "sgd": (references.sgd, optax_sgd, {}),
    "sgd, decay": (references.sgd, optax_sgd, {"weight_decay": 0.1}),
    "momentum": (references.sgd_momentum, optax_sgd, {"momentum": 0.8}),
    "momentum, decay": (
        references.sgd_momentum,
        optax_sgd,
        {"momentum": 0.8, "weight_decay": 0.1},
    ),
    "nesterov": (
        references.sgd_nesterov,
        partial(optax_sgd, nesterov=True),
        {"momentum": 0.8, "weight_decay": 0.1},
    ),
    "adam": (references.adam, optax.adam, {}),
    "adam, hparams": (references.adam, optax.adam, {"b1": 0.7, "b2": 0.9, "eps": 0.1}),
    "adamw": (
        references.adamw,
        partial(optax.adamw, mask=is_kernel),
        {"weight_decay": 0.1, "b1": 0.8},
    ),
}


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_optimizer_is_optaxs(rng, case):
    optimizer, make_tx, hparams = OPTIMIZERS[case]
    params = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    expected, state = jax.tree.map(jnp.asarray, params), {}
    tx = make_tx(0.1, **hparams)
    opt_state = tx.init(expected)
    for _ in range(5):
        grads = {name: rng.normal(size=p.shape) for name, p in params.items()}
        new_params, state = optimizer(params, grads, state, 0.1, **hparams)
        assert new_params is not params  # the caller's dict is left alone
        params = new_params
        updates, opt_state = tx.update(grads, opt_state, expected)
        expected = optax.apply_updates(expected, updates)
        jax.tree.map(assert_close, params, expected)


@pytest.mark.parametrize("clip_norm", [0.5, 100.0])  # below and above the norm
def test_clipping_is_optaxs(rng, clip_norm):
    grads = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    clipped = references.clip_by_global_norm(grads, clip_norm)
    expected, _ = optax.clip_by_global_norm(clip_norm).update(grads, optax.EmptyState())
    jax.tree.map(assert_close, clipped, dict(expected))


def test_clipping_keeps_a_zero_gradient():
    assert references.clip_by_global_norm({"bias": np.zeros(2)}, 1.0)["bias"].sum() == 0


def optax_warmup_cosine(num_steps, num_warmup_steps):
    w = num_warmup_steps
    warmup = optax.linear_schedule(1 / w, (w + 1) / w, w)  # (s + 1) / w
    decay = optax.cosine_decay_schedule(1.0, num_steps - w)
    return optax.join_schedules([warmup, decay], [w])


def test_warmup_cosine_is_optaxs():
    schedule = optax_warmup_cosine(10, 3)
    multipliers = [references.warmup_cosine(s, 10, 3) for s in range(11)]
    assert_close(multipliers, [schedule(s) for s in range(11)])
    assert_close(multipliers[:4], [1 / 3, 2 / 3, 1, 1])
    assert references.warmup_cosine(0, 10, 0) == 1


def jax_dense_layers(params, x, activation):
    num_layers = sum(name.startswith("Dense") for name in params)
    for i in range(num_layers):
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        x = activation(x) if i < num_layers - 1 else x
    return x


def jax_mlp(params, image, activation):  # [H, W, C] -> [K]
    return jax_dense_layers(params, image.reshape(-1), activation)


def jax_cnn(params, image, activation, pooling):  # [H, W, C] -> [K]
    x = image[None]
    for name in ("Conv_0", "Conv_1"):
        x = jax_conv2d(x, params[name]["kernel"]) + params[name]["bias"]
        x = pooling(activation(x))
    return jax_dense_layers(params, x.reshape(-1), activation)


def jax_train(apply, params, data, tx, label_smoothing):
    images, labels, order = data

    def loss_fn(params, x, labels):
        logits = jax.vmap(apply, in_axes=(None, 0))(params, x)  # [B, K]
        return jax_loss(logits, labels, label_smoothing)

    value_and_grad = jax.jit(jax.value_and_grad(loss_fn))
    params = jax.tree.map(jnp.asarray, params)
    opt_state, losses = tx.init(params), []
    for rows in order:
        loss, grads = value_and_grad(params, images[rows] / 255.0, labels[rows])
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    return params, losses


def assert_same_run(run, expected_run):
    (params, losses), (expected_params, expected_losses) = run, expected_run
    assert_close(losses, expected_losses, rtol=1e-10)
    # Adam divides by gradients that may be small, so rounding grows more than in sgd.
    jax.tree.map(partial(assert_close, rtol=1e-9, atol=1e-10), params, expected_params)


@pytest.mark.parametrize("case", ["nesterov", "adamw"])  # clip, decay, lr: the order
def test_train_mlp_is_autodiff_and_optax(rng, case):
    optimizer, make_tx, hparams = OPTIMIZERS[case]
    params, data = draw_mlp(rng), draw_data(rng)
    before = jax.tree.map(np.copy, params)
    run = references.train_mlp(
        params,
        *data,
        learning_rate=0.3,
        optimizer=optimizer,
        hparams=hparams,
        multiplier=partial(references.warmup_cosine, num_steps=6, num_warmup_steps=2),
        clip_norm=0.2,
        label_smoothing=0.1,
        activation=references.TANH,
    )
    schedule = optax_warmup_cosine(6, 2)

    def learning_rate(count):  # an int32 count would make the schedule float32
        return 0.3 * schedule(jnp.asarray(count, jnp.float64))

    tx = optax.chain(optax.clip_by_global_norm(0.2), make_tx(learning_rate, **hparams))
    apply = partial(jax_mlp, activation=jnp.tanh)
    assert_same_run(run, jax_train(apply, params, data, tx, label_smoothing=0.1))
    jax.tree.map(np.testing.assert_array_equal, params, before)


@pytest.mark.parametrize(
    ("activation", "pooling"), list(zip(ACTIVATIONS, POOLINGS, strict=True))
)
def test_train_cnn_is_autodiff_and_optax(rng, activation, pooling):
    params, data = draw_cnn(rng), draw_data(rng)
    run = references.train_cnn(
        params,
        *data,
        learning_rate=0.3,
        optimizer=references.sgd_momentum,
        hparams={"momentum": 0.9},
        activation=activation[0],
        pooling=pooling[0],
    )
    apply = partial(jax_cnn, activation=activation[1], pooling=pooling[1])
    tx = optax.sgd(0.3, momentum=0.9)
    assert_same_run(run, jax_train(apply, params, data, tx, label_smoothing=0.0))


def test_train_refuses_images_that_are_already_scaled(rng):
    images, labels, order = draw_data(rng)
    with pytest.raises(ValueError, match="uint8"):
        references.train_mlp(
            draw_mlp(rng), images / 255, labels, order, learning_rate=0.1
        )
