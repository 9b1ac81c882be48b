"""A config says which functions a model has; what it cannot say is refused."""

import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dlworkshop import models
from dlworkshop.errors import UserError
from dlworkshop.models.functions import describe_function
from dlworkshop.models.rebuild import from_config
from dlworkshop.models.rgb import on_rgb, rgb

IMAGE = np.random.default_rng(0).uniform(-1, 1, (8, 8, 1)).astype(np.float32)


def relu(x):
    """Not Flax's."""
    return jnp.maximum(x, -1)


def average_pool(image):
    """Not ours."""
    return image[::2, ::2]


def again(model):
    """The model from its config, as JSON keeps it."""
    return from_config(json.loads(json.dumps(model.config)))


@pytest.mark.parametrize(
    "activation",
    [
        nn.relu,
        nn.swish,
        jnp.tanh,
        jax.nn.gelu,
        functools.partial(nn.leaky_relu, negative_slope=0.3),
        functools.partial(nn.gelu, approximate=False),
    ],
)
@pytest.mark.parametrize("make", [models.mlp, models.cnn])
def test_known_functions_and_partials_of_them_come_back(make, activation):
    model = make((4,), activation=activation)
    params = model.init(jax.random.key(0), IMAGE)
    np.testing.assert_array_equal(
        again(model).apply(params, IMAGE), model.apply(params, IMAGE)
    )


@pytest.mark.slow
def test_a_normalisation_comes_back():
    model = models.resnet((2, 3), norm="batch", block="light")
    params, state = model.init(jax.random.key(0), IMAGE)
    old, new = (m.apply(params, state, IMAGE) for m in (model, again(model)))
    jax.tree.map(np.testing.assert_array_equal, new, old)
    added = "norm", "block"
    config = models.resnet((2, 3)).config
    before = {k: v for k, v in config.items() if k not in added}
    params = models.resnet((2, 3)).init(jax.random.key(0), IMAGE)
    assert from_config(before).apply(params, IMAGE).shape == (10,)  # of an old run


@pytest.mark.parametrize(
    "given, name",
    [
        ({"activation": relu}, "relu"),
        ({"activation": lambda x: x}, "<lambda>"),
        ({"activation": functools.partial(relu)}, "relu"),
        ({"activation": functools.partial(nn.elu, alpha=np.float32(0.5))}, "elu"),
        ({"pooling": average_pool}, "average_pool"),
    ],
)
def test_functions_of_ones_own_are_refused(given, name):
    model = models.cnn((4,), **given)
    model.apply(model.init(jax.random.key(0), IMAGE), IMAGE)
    with pytest.raises(UserError, match=f"'{name}' of the model is not one of"):
        again(model)


def test_functions_of_ones_own_are_told_apart():
    one, other = (functools.partial(relu_of, least) for least in (-1, -2))
    assert describe_function(one, nn) != describe_function(other, nn)
    assert describe_function(one, nn) == describe_function(
        functools.partial(relu_of, -1), nn
    )


def relu_of(least, x):
    """A family of them."""
    return jnp.maximum(x, least)


def test_on_rgb_passes_on_the_key_and_the_hyper_parameters():
    inner = models.mlp((64,), dropout=0.5)
    model = on_rgb(inner)
    params = model.init(jax.random.key(0), IMAGE)
    for more in (
        {},
        {"key": jax.random.key(1)},
        {"key": jax.random.key(1), "dropout": 0.1},
    ):
        np.testing.assert_array_equal(
            model.apply(params, IMAGE, **more), inner.apply(params, rgb(IMAGE), **more)
        )
    assert "dropout" in inspect.signature(model.apply).parameters
    still = model.apply(params, IMAGE)
    assert not np.array_equal(still, model.apply(params, IMAGE, key=jax.random.key(1)))
    np.testing.assert_array_equal(again(model).apply(params, IMAGE), still)


def test_on_rgb_keeps_a_state():
    inner = models.stateful(models.mlp((4,)))
    inner = inner._replace(
        init=lambda key, image: (inner_init(key, image), jnp.zeros(())),
        apply=lambda params, state, image, *, key=None: (image.sum(), state + 1),
    )
    model = on_rgb(inner)
    assert isinstance(model, models.StatefulModel)
    params, state = model.init(jax.random.key(0), IMAGE)
    outputs, state = model.apply(params, state, IMAGE)
    assert outputs == rgb(IMAGE).sum() and state == 1


def inner_init(key, image):
    """Parameters, which depend on the image's size."""
    return jax.random.normal(key, (image.size,))


@pytest.mark.parametrize("name", ["Module", "jit", "vmap", "Dense", "partitioning"])
def test_a_config_names_functions_only(name):
    config = models.mlp((3,), num_classes=2).config | {"activation": name}
    with pytest.raises(UserError, match=f"the activation '{name}' of the model is not"):
        from_config(config)
