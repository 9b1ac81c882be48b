"""One list of checks for every model: the contract of a pair of pure functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dlworkshop import data, fit, models
from dlworkshop.learn.losses import cross_entropy
from dlworkshop.models.layers import drop
from dlworkshop.models.model import Model

MODELS = {
    "logistic": models.logistic(num_classes=3),
    "mlp": models.mlp((7, 5), num_classes=3),
    "mlp tanh dropout": models.mlp((7,), nn.tanh, 0.5, num_classes=3),
    # smooth: moving a bias moves every pixel, and some would cross the kink of a ReLU
    "cnn": models.cnn((4, 5), (6,), nn.tanh, num_classes=3),
    "cnn tanh max dropout": models.cnn(
        (4,), (6,), nn.tanh, models.max_pool, 0.5, num_classes=3
    ),
    "resnet light": models.resnet((2, 3), block="light", num_classes=3),
    "resnet tanh dropout": models.resnet((2, 3), nn.tanh, 0.5, num_classes=3),
}
IMAGE = np.random.default_rng(0).random((8, 9, 2))


SLOW = "resnet tanh dropout"  # each test compiles it
PARAMS = [pytest.param(n, marks=[pytest.mark.slow] * (n == SLOW)) for n in MODELS]


@pytest.fixture(params=PARAMS, ids=lambda name: name.replace(" ", "-"))
def model(request) -> Model:
    return MODELS[request.param]


def params_of(model, image=IMAGE):
    # as one program, as `apply` below: JAX would compile each operation by itself
    return jax.jit(model.init)(jax.random.key(0), jnp.asarray(image))


def test_outputs_are_logits_of_one_example(model):
    logits = jax.jit(model.apply)(params_of(model), jnp.asarray(IMAGE))
    assert logits.shape == (3,) and logits.dtype == jnp.float32


def test_a_batch_is_refused_at_the_door(model):
    batch = jnp.asarray(IMAGE)[None]
    with pytest.raises(ValueError, match="lift the model"):
        model.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="lift the model"):
        model.apply(params_of(model), batch)


def test_batch_is_a_loop_of_singles(model):
    with jax.enable_x64(True):
        params = params_of(model)
        images = np.random.default_rng(1).random((5, *IMAGE.shape))
        batch = models.predict(model, params, images)
        apply = jax.jit(model.apply)
        singles = [apply(params, jnp.asarray(image)) for image in images]
        # sums of at most 144 terms of size 1: rounding of about 144 * 2**-53
        np.testing.assert_allclose(batch, np.stack(singles), rtol=0, atol=1e-13)


def test_jit_is_eager(model):
    with jax.enable_x64(True):
        params, image = params_of(model), jnp.asarray(IMAGE)
        np.testing.assert_allclose(
            jax.jit(model.apply)(params, image),
            model.apply(params, image),
            rtol=0,
            atol=1e-13,
        )


@pytest.mark.computing
def test_gradient_is_central_differences(model, assert_gradients):
    def loss(params):
        logits = models.predict(model, params, jnp.asarray(images, float))
        return jax.vmap(cross_entropy)(logits, jnp.asarray([0, 1, 2])).mean()

    images = np.random.default_rng(2).random((3, 4, 5, 2))
    assert_gradients(loss, params_of(model, images[0]))


def test_no_key_means_no_randomness(model):
    params, image = params_of(model), jnp.asarray(IMAGE)
    first, second = (jax.jit(model.apply)(params, image) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_key_means_dropout(model):
    params, image = params_of(model), jnp.asarray(IMAGE)
    apply = jax.jit(model.apply)
    plain = apply(params, image)
    dropped = [apply(params, image, key=jax.random.key(i)) for i in range(4)]
    if model.config.get("dropout"):
        assert any(not np.allclose(plain, each) for each in dropped)
        assert not np.allclose(dropped[0], dropped[1])
        again = apply(params, image, key=jax.random.key(0))
        np.testing.assert_array_equal(dropped[0], again)
    else:
        for each in dropped:
            np.testing.assert_array_equal(plain, each)


def test_seeds_differ(model):
    init = jax.jit(model.init)
    one, two = (init(jax.random.key(seed), jnp.asarray(IMAGE)) for seed in (0, 1))
    kernels = [leaf for leaf in jax.tree.leaves(one) if leaf.ndim > 1]
    others = [leaf for leaf in jax.tree.leaves(two) if leaf.ndim > 1]
    assert all(not np.allclose(a, b) for a, b in zip(kernels, others, strict=True))


def test_uint8_pixels_are_scaled_once(model):
    pixels = (IMAGE * 255).astype(np.uint8)
    params, apply = params_of(model), jax.jit(model.apply)
    np.testing.assert_allclose(
        apply(params, jnp.asarray(pixels)),
        apply(params, jnp.asarray(pixels, jnp.float32) / 255),
        rtol=1e-6,
    )


def test_table_counts_every_parameter(model):
    params = params_of(model)
    assert f"{models.num_params(params):,}" in models.table(model, IMAGE)


@pytest.mark.parametrize(
    "make", [models.mlp, models.cnn], ids=lambda make: make.__name__
)
def test_bfloat16_computes_and_float32_remembers(make):
    model = make(num_classes=3, dtype=jnp.bfloat16)
    params, image = params_of(model), jnp.asarray(IMAGE, jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    logits = jax.jit(model.apply)(params, image)
    exact = jax.jit(make(num_classes=3).apply)(params, image)
    assert logits.dtype == jnp.float32
    # 8 bits of mantissa: a relative error of 2**-8 in each of a few layers
    np.testing.assert_allclose(logits, exact, atol=0.05 * float(jnp.abs(exact).max()))
    assert not np.array_equal(logits, exact)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_rate_that_is_traced_keeps_the_dtype(dtype):
    x = jnp.ones(8, dtype)
    found = jax.jit(drop)(x, jax.random.key(0), jnp.float32(0.5))
    assert found.dtype == dtype and set(found.tolist()) == {0.0, 2.0}


def test_mnist_networks_have_the_known_sizes():
    image = np.zeros((28, 28, 1))
    sizes = {
        make.__name__: models.num_params(
            jax.eval_shape(make().init, jax.random.key(0), image)
        )
        for make in (models.logistic, models.mlp, models.cnn)
    }
    # 784*10+10; 784*128+128 + 128*10+10; the Flax example's network on one channel
    assert sizes == {"logistic": 7850, "mlp": 101770, "cnn": 824458}


def test_a_bare_pair_of_functions_has_a_table_too():
    model = Model(lambda key, x: {"w": jnp.zeros((4, 3))}, lambda p, x: x @ p["w"])
    assert "12" in models.table(model, jnp.ones(4))


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="halved 2 times"):
        params_of(models.cnn((4, 4)), np.zeros((3, 3, 1)))


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(
    "apply",
    [
        lambda params, x, key: x @ params,
        lambda params, x, *, key: x @ params,
        lambda params, x, key=None: x @ params,
    ],
)
def test_the_key_of_apply_needs_no_default(apply, with_state):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    model = models.Model(lambda key, x: jnp.zeros((3, 2)), apply)
    if with_state:
        model = models.StatefulModel(
            lambda key, x: (jnp.zeros((3, 2)), ()),
            lambda params, state, x, *, key: (apply(params, x, key=key), state),
        )
    dataset = data.from_arrays(x, (x[:, 0] > 0).astype(int))
    run = fit(model, dataset, batch_size=8, quiet=True)
    assert run.predict(x).shape == (1, 40, 2)


@pytest.mark.parametrize(
    "wrap", [models.mirrored, lambda model: models.augmented(model, models.Augment())]
)
def test_wrapped_models_pass_on_that_there_is_no_key(wrap):
    def apply(params, image, *, key):
        assert key is None
        return image.mean() * params

    model = wrap(models.Model(lambda key, image: jnp.ones(2), apply))
    assert model.apply(jnp.ones(2), jnp.ones((4, 4, 1))).tolist() == [1, 1]
