"""What weights of examples count in: the loss, and every score beside it."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import balanced_accuracy_score

from dlworkshop import Batch, data, fit, metrics, models
from dlworkshop.errors import UserError

pytestmark = pytest.mark.usefixtures("unreported")


@pytest.fixture(scope="module")
def weighted():
    """A run of one step an epoch on examples of which some count for nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    right = (x[:, 0] > 0).astype(np.int32)
    w = (rng.random(64) < 0.5).astype(np.float32) * rng.uniform(0.5, 2.0, 64)
    y = np.where(w > 0, right, 1 - right)  # which those without a weight are not
    given = (x, y, w.astype(np.float32))
    dataset = data.from_arrays(x, y, weights=given[2], validation=given, test=given)
    run = fit(
        models.logistic(2),
        dataset,
        optax.sgd,
        hparams={"learning_rate": 1e-7},
        batch_size=64,
        seeds=2,
        quiet=True,
    )
    return run, dataset


def test_balanced_accuracy_is_weighted(weighted):
    run, dataset = weighted
    test = dataset.test
    said = np.asarray(run.predict(test.inputs)).argmax(-1)
    wanted = [
        balanced_accuracy_score(test.targets, own, sample_weight=test.weights)
        for own in said
    ]
    rows = run.summary["population"]
    found = [row["test"]["balanced_accuracy"] for row in rows]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    scores = run.evaluate(test).scores["balanced_accuracy"]
    np.testing.assert_allclose(scores["mean"], np.mean(wanted), rtol=1e-6)


def test_metrics_of_training_are_weighted_like_those_of_validation(weighted):
    curves = weighted[0].history
    for name in ("loss", "accuracy"):
        train, validation = curves[f"train/{name}"], curves[f"validation/{name}"]
        np.testing.assert_allclose(train, validation, rtol=1e-5)


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_weights_that_cannot_be_are_refused_in_an_evaluation(weighted, wrong):
    run, dataset = weighted
    weights = np.array(dataset.test.weights)
    weights[3] = wrong
    with pytest.raises(UserError, match=r"weights has .* at example 3"):
        run.evaluate(Batch(*dataset.test[:2], weights))
    with pytest.raises(UserError, match="5 weights and 64 examples"):
        run.evaluate(Batch(*dataset.test[:2], np.ones(5)))


def test_a_probe_does_not_take_the_name_of_a_metric(quadrants):
    with pytest.raises(UserError, match="'accuracy', which is logged already"):
        fit(
            models.logistic(4),
            quadrants,
            probe=lambda *_: {"accuracy": jnp.zeros(())},
            metrics={"accuracy": metrics.accuracy},
            batch_size=16,
        )
