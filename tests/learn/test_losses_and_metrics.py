"""Losses and metrics of one example against NumPy and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.utils.class_weight import compute_class_weight

from dlworkshop.learn.losses import (
    class_weights,
    cross_entropy,
    mean_squared_error,
    weighted,
)
from dlworkshop.learn.metrics import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    mean_and_error,
    reliability,
)
from dlworkshop.learn.step import supported_kwargs
from dlworkshop.types import HParams
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


def test_class_weights_are_those_of_scikit_learn():
    label = np.random.default_rng(0).choice(4, 500, p=[0.6, 0.25, 0.1, 0.05])
    weights = class_weights(label, 4)
    wanted = compute_class_weight("balanced", classes=np.arange(4), y=label)
    np.testing.assert_allclose(weights, wanted, rtol=1e-6)
    assert weights[label].mean() == pytest.approx(1, abs=1e-6)


def test_a_weighted_loss_scales_value_and_gradient_and_keeps_its_hyper_parameters():
    loss = weighted(cross_entropy, np.array([0.5, 3.0]))
    logits = jnp.array([0.3, -1.0])
    for label, weight in ((0, 0.5), (1, 3.0)):
        plain = cross_entropy(logits, label, label_smoothing=0.1)
        assert loss(logits, label, label_smoothing=0.1) == weight * plain
        np.testing.assert_allclose(
            jax.grad(loss)(logits, label),
            weight * jax.grad(cross_entropy)(logits, label),
        )
    hparams = HParams(learning_rate=0.1, label_smoothing=0.2)
    assert supported_kwargs(loss, hparams) == {"label_smoothing": 0.2}
    assert loss.__name__ == "weighted_cross_entropy"


def test_balanced_accuracy_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    label = rng.choice(3, 200, p=[0.8, 0.15, 0.05])
    said = rng.integers(0, 3, (4, 200))
    wanted = [sklearn_metrics.balanced_accuracy_score(label, one) for one in said]
    np.testing.assert_allclose(balanced_accuracy(said == label, label), wanted)


def test_the_calibration_error_is_that_of_a_plain_loop():
    rng = np.random.default_rng(0)
    sure, right = rng.random(300), rng.random(300) < 0.7
    sure[:4] = [0, 1, 0.2, 0.4]  # ends of bins: a bin has its upper one
    wanted, sizes = 0.0, []
    for b in range(5):
        inside = (sure > b / 5) & (sure <= (b + 1) / 5) | ((b == 0) & (sure == 0))
        sizes.append(inside.sum())
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert calibration_error(sure, right, 5) == pytest.approx(wanted, abs=1e-12)
    np.testing.assert_array_equal(reliability(sure, right, 5)[:, 0], sizes)


def test_who_is_as_sure_as_right_has_no_calibration_error():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.1, 1, 100_000)
    right = rng.random(100_000) < sure
    # the error of a bin's mean is at most 0.5 / sqrt(100000 / 15), on average less
    assert calibration_error(sure, right) < 0.5 / (100_000 / 15) ** 0.5
