"""Layers that the networks share: pooling, against references in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop import data, fit, models
from dlworkshop.verify import check_gradients
from dlworkshop.verify.gradients import NAMES
from tests import references


@pytest.fixture
def images():
    """[3, 7, 6, 2]: the last row is left out."""
    return np.random.default_rng(0).normal(size=(3, 7, 6, 2))


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (models.max_pool, references.MAX_POOL),
        (models.average_pool, references.AVG_POOL),
    ],
)
def test_pooling_and_its_gradient(ours, reference, images):
    with jax.enable_x64(True):
        pooled, pull = jax.vjp(jax.vmap(ours), images)
        d_pooled = np.random.default_rng(1).normal(size=pooled.shape)
        (found,) = pull(d_pooled)
        np.testing.assert_array_equal(pooled, reference.forward(images))
        np.testing.assert_allclose(found, reference.backward(images, d_pooled))
        _, moved = jax.jvp(jax.vmap(ours), (images,), (images**2,))
        np.testing.assert_allclose(np.vdot(d_pooled, moved), np.vdot(found, images**2))


@pytest.mark.parametrize(
    ("window", "shares"),
    [
        ([[1, 1], [0, 1]], [[0.25, 0.25], [0, 0.5]]),
        ([[1, 1], [0, 0]], [[0.5, 0.5], [0, 0]]),
        ([[1, 0], [1, 0]], [[0.5, 0], [0.5, 0]]),
        ([[2, 2], [2, 2]], [[0.25, 0.25], [0.25, 0.25]]),
        ([[-np.inf, 1], [np.inf, 0]], [[0, 0], [1, 0]]),
    ],
)
def test_equal_maxima_share_the_gradient(window, shares):
    def pool(x):
        return models.max_pool(x[..., None]).sum()

    found = jax.grad(pool)(jnp.array(window, float))
    np.testing.assert_array_equal(found, shares)


def test_the_maximum_of_nan_is_nan():
    image = jnp.zeros((4, 4, 1)).at[0, 1].set(jnp.nan)
    assert np.isnan(models.max_pool(image)[..., 0]).tolist() == [
        [True, False],
        [False, False],
    ]


@pytest.mark.slow
def test_pooling_after_batch_normalisation_has_a_finite_gradient():
    """XLA computes what is pooled twice, and on some versions rounds it differently."""
    model = models.resnet((4,), norm="batch", num_classes=3)
    rng = np.random.default_rng(0)
    images, labels = rng.random((60, 8, 8, 1), np.float32), rng.integers(0, 3, 60)
    run = fit(
        model,
        data.from_arrays(images, labels),
        batch_size=16,
        seeds=2,
        convolution="patches",
        devices=jax.devices(),
        quiet=True,
    )
    assert [row["status"] for row in run.summary["population"]] == ["finished"] * 2


def test_a_check_of_gradients_trusts_the_rule_of_pooling(images):
    """As it does JAX's own: it compares transformations for rules of users only."""
    report = check_gradients(lambda x: models.max_pool(x).sum(), images[0])
    assert [c.name for c in report.comparisons if c.name in NAMES] == ["repeat"]
