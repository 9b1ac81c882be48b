"""The strided network of the speed-run: its size, its door, its gradient."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop import models
from dlworkshop.learn.losses import cross_entropy

SCRIPT = Path(__file__).parent.parent / "experiments/mnist_speedrun.py"
IMAGES = np.random.default_rng(0).random((3, 18, 17, 1))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("mnist_speedrun", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    sys.modules["mnist_speedrun"] = found  # dataclasses look themselves up there
    spec.loader.exec_module(found)
    return found


def test_it_has_the_parameters_that_its_layers_say(script):
    model = script.network()
    params = model.init(jax.random.key(0), np.zeros((28, 28, 1), np.uint8))
    convolutions = (36 * 8 + 8) + (25 * 8 * 32 + 32)
    dense = (4 * 4 * 32 * 128 + 128) + (128 * 10 + 10)  # 28 -> 12 -> 4
    assert models.num_params(params) == convolutions + dense == 73_682


def test_it_takes_one_image(script):
    with pytest.raises(ValueError, match="lift the model"):
        script.network().init(jax.random.key(0), np.zeros((2, 28, 28, 1)))


@pytest.mark.slow
def test_its_gradient_is_central_differences(script, assert_gradients):
    model = script.network()

    def loss(params):
        logits = models.predict(model, params, jnp.asarray(IMAGES, float))
        return jax.vmap(cross_entropy)(logits, jnp.asarray([0, 1, 2])).mean()

    assert_gradients(loss, model.init(jax.random.key(0), jnp.asarray(IMAGES[0])))
