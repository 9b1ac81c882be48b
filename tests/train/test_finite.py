"""What is not finite: refused at the door, or said once, and never scored."""

import logging

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dlworkshop import data, fit, metrics, models
from dlworkshop.errors import UserError
from dlworkshop.models import Model
from dlworkshop.types import Batch

X = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
FAR = 9.0  # from which on the model below answers NaN


def _init(key, inputs):
    return jnp.zeros((inputs.size, 2))


def _apply(params, inputs, *, key=None):
    return inputs @ params + jnp.sqrt(jnp.where(inputs[0] > FAR, -1.0, 0.0))


BREAKS = Model(_init, _apply)
MASKS = Model(_init, lambda params, x, *, key=None: jnp.nan_to_num(x) @ params)


def with_holes(hole, split="test"):
    """Data with `hole` in two examples of a split, number 3 the first."""
    held = X[:20].copy()
    held[3, 0] = held[8, 0] = hole
    splits = {name: (X[:20], Y[:20]) for name in ("validation", "test")}
    if split == "train":
        inputs = X.copy()
        inputs[3, 0] = inputs[8, 0] = hole
        return data.from_arrays(inputs, Y, **splits)
    return data.from_arrays(X, Y, **splits | {split: (held, Y[:20])})


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_inputs_that_no_loss_is_known_of_are_refused(split, hole):
    said = f"{split} split .* infinity in inputs of 2 of .* first is number 3"
    with pytest.raises(UserError, match=said) as refused:
        fit(models.logistic(2), with_holes(hole, split), quiet=True, batch_size=16)
    assert "\n" not in str(refused.value)


def test_a_model_may_mask_them():
    run = fit(MASKS, with_holes(np.nan), quiet=True, batch_size=16)
    assert run.summary["test"]["loss"]["n"] == 1
    assert "note" not in run.summary["population"][0]


@pytest.mark.filterwarnings("error")
def test_a_probe_of_whole_numbers_is_nan_where_no_step_is_taken():
    def probe(grads, updates, params):
        return {"count": jnp.sum(jnp.isfinite(params)), "any": jnp.any(params != 0)}

    def stop(snapshot):
        return np.array([False, True])

    rates = {"learning_rate": [0.1, 0.2]}
    own = {"hparams": rates, "num_epochs": 2, "probe": probe, "observe": [stop]}
    history = fit(
        MASKS, data.from_arrays(X, Y), **own, quiet=True, batch_size=16
    ).history
    assert history["train/count"].tolist()[0] == [8, 8]
    for name in ("train/count", "train/any"):
        assert np.isnan(history[name][-1]).tolist() == [False, True]


def test_a_batch_transform_may_fill_them_in():
    def fill(key, batch):
        return batch._replace(inputs=jnp.nan_to_num(batch.inputs))

    dataset = with_holes(np.nan, "train")
    run = fit(
        models.logistic(2), dataset, batch_transform=fill, quiet=True, batch_size=16
    )
    assert run.summary["population"][0]["status"] == "finished"


@pytest.fixture(scope="module")
def broken():
    """A run whose outputs for two examples of test are NaN, and what it logged."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    log = logging.getLogger("dlworkshop.train.finite")
    log.addHandler(handler)
    try:
        chosen = {
            "accuracy": metrics.accuracy,
            "f1": metrics.f1_macro,
            "auc": metrics.roc_auc,
        }
        run = fit(BREAKS, with_holes(2 * FAR), metrics=chosen, seeds=2, batch_size=16)
    finally:
        log.removeHandler(handler)
    return run, found


def test_outputs_that_are_not_finite_have_no_score(broken):
    run, _ = broken
    for name in ("loss", "accuracy", "balanced_accuracy", "f1", "auc"):
        assert run.summary["test"][name] == {"mean": None, "sem": None, "n": 0}
        assert run.summary["validation"][name]["n"] == 2


def test_the_run_says_so_once(broken):
    run, logged = broken
    said = "test has 2 examples of 20 whose loss is not finite (the first is number 3)"
    assert [said in line for line in logged] == [True]
    assert said in run.summary["population"][1]["note"] and said in repr(run)


def test_so_does_an_evaluation(broken, caplog):
    run, _ = broken
    found = run.evaluate(with_holes(2 * FAR).test)
    assert found.scores["accuracy"]["n"] == 0 and np.isnan(found.ensemble["accuracy"])
    assert "2 of 20 examples have outputs that are not finite" in caplog.text


@pytest.mark.parametrize(
    ("metric", "outputs", "target"),
    [
        (metrics.accuracy, [np.nan, 1.0], 0),
        (metrics.accuracy, [np.inf, 1.0], 0),
        (metrics.top_k(1), [0.0, np.nan], 1),
        (metrics.label_accuracy, [np.nan, 1.0], [0, 1]),
    ],
)
def test_metrics_of_one_example_have_no_score(metric, outputs, target):
    found = metric(jnp.array(outputs), jnp.array(target))
    assert np.isnan(found) and found.dtype == jnp.float32


def test_a_mask_is_no_fault():
    assert metrics.accuracy(jnp.array([-jnp.inf, 1.0]), 1) == 1


class Pooled(nn.Module):
    """A user's network of ONE image, with Flax's max pooling."""

    @nn.compact
    def __call__(self, image):  # [H, W, C] -> [3]
        x = nn.max_pool(nn.Conv(8, (1, 1))(image), (2, 2), (2, 2))
        return nn.Dense(3)(nn.relu(nn.Conv(8, (3, 3))(x)).mean((0, 1)))


NETWORKS = {
    "ours": models.resnet((4,), norm="batch", num_classes=3),
    "a user's": models.from_linen(Pooled()),
}


@pytest.fixture
def pictures():
    """60 images [8, 8, 1] of 3 classes."""
    rng = np.random.default_rng(0)
    return rng.random((60, 8, 8, 1), np.float32), rng.integers(0, 3, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_of_inputs_that_are_not_finite_are_not_finite(name, pictures, caplog):
    """XLA's library for CPUs would turn NaN into numbers (see `train.compiling`)."""
    images, label = pictures
    dataset = data.from_arrays(images, label)
    run = fit(NETWORKS[name], dataset, batch_size=16, seeds=2, quiet=True)
    some = images[:5].copy()
    some[1, 0, 0], some[3, 0, 0] = np.nan, np.inf
    outputs = run.predict(some)
    assert np.isfinite(outputs).all((0, 2)).tolist() == [True, False, True, False, True]
    np.testing.assert_allclose(outputs[:, ::2], run.predict(some[::2]), atol=1e-5)
    found = run.evaluate(Batch(some, label[:5]), members=[0, 1])
    assert found.scores["accuracy"]["mean"] is None
    assert "2 of 5 examples have outputs that are not finite" in caplog.text


@pytest.mark.parametrize("name", NETWORKS)
def test_nan_is_not_taken_for_masked(name, pictures):
    images, label = pictures
    images[7, 2, 2] = np.nan
    with pytest.raises(UserError, match="has NaN or infinity in inputs of 1 of"):
        fit(NETWORKS[name], data.from_arrays(images, label), batch_size=16, quiet=True)
