"""Losses and metrics of one example against NumPy and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.learn.losses import cross_entropy, mean_squared_error
from dlworkshop.learn.metrics import accuracy, mean_and_error
from tests import references


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_is_the_reference(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)) * 3, rng.integers(0, 5, 6)
    with jax.enable_x64(True):

        def mean_loss(logits):
            losses = jax.vmap(
                lambda z, k: cross_entropy(z, k, label_smoothing=smoothing)
            )(logits, jnp.asarray(labels))
            return losses.mean()

        value, grad = jax.value_and_grad(mean_loss)(jnp.asarray(logits))
    expected, expected_grad = references.cross_entropy(logits, labels, smoothing)
    np.testing.assert_allclose(value, expected, atol=1e-14)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-14)


def test_cross_entropy_survives_huge_logits():
    logits = jnp.array([1e4, -1e4, 0.0])
    assert float(cross_entropy(logits, 0)) == 0.0
    assert float(cross_entropy(logits, 1)) == 2e4
    assert bool(jnp.isfinite(jax.grad(cross_entropy)(logits, 1)).all())


def test_a_batch_of_logits_is_refused():
    with pytest.raises(ValueError, match="vmap me"):
        cross_entropy(jnp.zeros((2, 3)), 0)
    with pytest.raises(ValueError, match="same size"):
        mean_squared_error(jnp.zeros(2), jnp.zeros(3))


def test_accuracy_takes_the_first_of_a_tie():
    assert float(accuracy(jnp.zeros(3), 0)) == 1.0
    assert float(accuracy(jnp.zeros(3), 1)) == 0.0


def test_standard_error_leaves_out_what_is_not_finite():
    values = np.random.default_rng(0).normal(size=9)
    found = mean_and_error([*values, np.nan])
    assert found["n"] == 9
    np.testing.assert_allclose(found["sem"], values.std(ddof=1) / 3)
    assert mean_and_error([2.0])["sem"] is None
    assert mean_and_error([np.nan]) == {"mean": None, "sem": None, "n": 0}
