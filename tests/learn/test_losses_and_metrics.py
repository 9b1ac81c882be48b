"""Losses and metrics of one example against NumPy and against their definitions."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.utils.class_weight import compute_class_weight

from dlworkshop.errors import UserError
from dlworkshop.learn import losses, metrics
from dlworkshop.learn.losses import (
    absolute_error,
    binary_cross_entropy,
    class_weights,
    cross_entropy,
    huber,
    outputs_of,
    probabilities,
    squared_error,
    weighted,
)
from dlworkshop.learn.metrics import (
    Metric,
    accuracy,
    as_metrics,
    calibration_error,
    cost,
    default_metrics,
    fitted,
    label_accuracy,
    mean_and_error,
    mean_over_classes,
    reliability,
    top_k,
)
from tests import references


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_is_the_reference(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)) * 3, rng.integers(0, 5, 6)
    with jax.enable_x64(True):
        for targets in (jnp.asarray(labels), jax.nn.one_hot(labels, 5)):

            def mean_loss(logits, targets=targets):
                losses = jax.vmap(
                    lambda z, k: cross_entropy(z, k, label_smoothing=smoothing)
                )(logits, targets)
                return losses.mean()

            value, grad = jax.value_and_grad(mean_loss)(jnp.asarray(logits))
            expected, slope = references.cross_entropy(logits, labels, smoothing)
            np.testing.assert_allclose(value, expected, atol=1e-14)
            np.testing.assert_allclose(grad, slope, atol=1e-14)


def test_cross_entropy_of_soft_targets_is_linear_in_them():
    logits, share = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.2, 0.3, 0.5])
    each = jnp.array([cross_entropy(logits, k) for k in range(3)])
    np.testing.assert_allclose(cross_entropy(logits, share), share @ each, rtol=1e-6)


def test_cross_entropy_survives_huge_logits():
    logits = jnp.array([1e4, -1e4, 0.0])
    for target in (0, jnp.array([1.0, 0, 0])):
        assert float(cross_entropy(logits, target)) == 0.0
    for target in (1, jnp.array([0, 1.0, 0])):
        assert float(cross_entropy(logits, target)) == 2e4
        assert bool(jnp.isfinite(jax.grad(cross_entropy)(logits, target)).all())
    masked = jnp.array([0.0, 0.0, -jnp.inf])  # a class that cannot be
    soft = jnp.array([0.5, 0.5, 0.0])
    np.testing.assert_allclose(cross_entropy(masked, soft), np.log(2), rtol=1e-6)


def test_binary_cross_entropy_is_optaxs_and_exact_at_both_ends():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        logits, targets = (
            jnp.asarray(rng.normal(size=9) * 4),
            jnp.asarray(rng.random(9)),
        )
        expected = optax.sigmoid_binary_cross_entropy(logits, targets).mean()
        np.testing.assert_allclose(
            binary_cross_entropy(logits, targets), expected, rtol=1e-14
        )
    # log(1 + exp(-30)) is lost where it is a difference of two numbers near 30
    for logit, target in ((30.0, 1), (-30.0, 0)):
        loss = binary_cross_entropy(jnp.array([logit]), target)
        np.testing.assert_allclose(loss, np.exp(-30), rtol=1e-5)
    assert float(binary_cross_entropy(jnp.array([1e4, -1e4]), jnp.array([0, 1]))) == 1e4


def test_huber_is_optaxs_and_squares_near_and_absolute_far():
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(2, 20)).astype(np.float32) * 3
    for delta in (0.5, 2.0):
        expected = optax.huber_loss(outputs, targets, delta=delta).mean()
        found = jax.jit(huber)(outputs, targets, delta=jnp.asarray(delta))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        expected = jax.grad(
            lambda o, d=delta: optax.huber_loss(o, targets, delta=d).mean()
        )
        np.testing.assert_allclose(
            jax.grad(huber)(outputs, targets, delta=delta), expected(outputs), rtol=1e-5
        )
    np.testing.assert_allclose(
        2 * huber(outputs, targets, delta=100.0), squared_error(outputs, targets), 1e-6
    )
    np.testing.assert_allclose(
        huber(outputs, targets, delta=1e-4) / 1e-4,
        absolute_error(outputs, targets),
        rtol=1e-3,
    )


@pytest.mark.parametrize(
    "loss", [cross_entropy, binary_cross_entropy, squared_error, absolute_error, huber]
)
def test_a_loss_of_bfloat16_outputs_is_that_of_the_same_numbers(loss):
    # in bfloat16 itself a mean of 1000 numbers is off by percents
    rng = np.random.default_rng(0)
    outputs = jnp.asarray(rng.normal(size=1000) + 3, jnp.bfloat16)
    targets = 7 if loss is cross_entropy else jnp.asarray(rng.integers(0, 2, 1000))
    found = loss(outputs, targets)
    assert found.dtype == jnp.float32
    expected = loss(outputs.astype(jnp.float32), targets)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert jax.grad(loss)(outputs, targets).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("function", "outputs", "targets", "message"),
    [
        (cross_entropy, np.zeros((2, 3)), 0, "vmap me"),
        (cross_entropy, np.zeros(3), np.zeros(3, int), "floats .3,., the prob"),
        (cross_entropy, np.zeros(3), np.zeros(1, int), "one label"),
        (cross_entropy, np.zeros(3), np.zeros(4, np.float32), "one label"),
        (cross_entropy, np.zeros(3), np.float32(1), "astype"),
        (cross_entropy, np.zeros(3), np.bool_(True), "astype"),
        (accuracy, np.zeros((2, 3)), 0, "vmap me"),
        (accuracy, np.zeros(3), np.float32(1), "astype"),
        (accuracy, np.zeros(3), np.zeros(3, int), "one label"),
        (accuracy, np.zeros(1), 0, "label_accuracy"),
        (top_k(2), np.zeros(2), 0, "smaller k"),
        (label_accuracy, np.zeros(2), 0, "same size"),
        (binary_cross_entropy, np.zeros((2, 3)), np.zeros((2, 3)), "vmap me"),
        (binary_cross_entropy, np.zeros(3), 1, "same size"),
        (squared_error, np.zeros(2), np.zeros(3), "same size"),
        (absolute_error, np.zeros(2), 0.0, "same size"),
        (huber, np.zeros((2, 1)), np.zeros(1), "same size"),
        (squared_error, np.zeros((4, 3)), np.zeros((3, 4)), "axes in another order"),
        (label_accuracy, np.zeros((4, 3)), np.zeros((3, 4)), "axes in another order"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    function, outputs, targets, message
):
    with pytest.raises(ValueError, match=message) as refused:
        function(outputs, targets)
    assert "\n" not in str(refused.value)


def test_a_scalar_target_goes_with_one_output():
    for loss in (squared_error, absolute_error, huber, binary_cross_entropy):
        assert loss(jnp.array([2.0]), 1.0).shape == ()
        assert loss(jnp.array([2.0]), 1.0) == loss(jnp.array(2.0), jnp.array([1.0]))


def test_a_loss_says_what_its_outputs_are():
    said = {
        cross_entropy: "logits",
        weighted(cross_entropy, np.ones(3)): "logits",
        functools.partial(cross_entropy, label_smoothing=0.1): "logits",
        binary_cross_entropy: "binary_logits",
        huber: "values",
        lambda outputs, targets: outputs: None,
    }
    for loss, outputs in said.items():
        assert outputs_of(loss) == outputs

    def odd(outputs, targets): ...

    odd.outputs = "logit"
    with pytest.raises(UserError, match="did you mean 'logits'"):
        outputs_of(odd)


def test_probabilities_go_by_what_the_outputs_are():
    outputs = jnp.array([[0.0, 2.0], [1.0, -1.0]], jnp.bfloat16)
    soft = probabilities("logits", outputs)
    assert soft.dtype == jnp.float32
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        probabilities("binary_logits", outputs),
        1 / (1 + np.exp(-np.float32(outputs))),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(probabilities("probabilities", soft), soft)
    assert probabilities("values", outputs) is None
    assert probabilities(None, outputs) is None


def test_accuracy_takes_the_first_of_a_tie():
    assert float(accuracy(jnp.zeros(3), 0)) == 1.0
    assert float(accuracy(jnp.zeros(3), 1)) == 0.0
    assert float(accuracy(jnp.array([0.0, 2.0]), jnp.array([0.4, 0.6]))) == 1.0
    assert float(accuracy(jnp.array([0.0, 2.0]), jnp.array([0.6, 0.4]))) == 0.0


def test_top_k_is_that_of_scikit_learn_and_top_1_is_accuracy():
    rng = np.random.default_rng(0)
    outputs, label = rng.normal(size=(300, 6)), rng.integers(0, 6, 300)
    for k in (1, 2, 5):
        found = jax.vmap(top_k(k))(outputs, label).mean()
        wanted = sklearn_metrics.top_k_accuracy_score(label, outputs, k=k)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    tied = rng.integers(0, 3, (300, 6)).astype(float)
    np.testing.assert_array_equal(
        jax.vmap(top_k(1))(tied, label), jax.vmap(accuracy)(tied, label)
    )
    with pytest.raises(UserError, match="whole number"):
        top_k(0)


def test_metrics_know_their_direction():
    given = as_metrics({"acc": accuracy, "err": squared_error, "auc": metrics.roc_auc})
    assert [m.better for m in given.values()] == ["higher", "lower", "higher"]
    assert given["auc"].split
    value = np.array([1.0, np.nan, 2.0])
    assert cost(given["acc"], value).tolist() == [-1, np.inf, -2]
    assert cost(given["err"], value).tolist() == [1, np.inf, 2]
    assert cost(None, value).tolist() == [1, np.inf, 2]  # of the loss
    traced = jax.jit(lambda value: cost(given["acc"], value))(value)
    assert traced.tolist() == [-1, np.inf, -2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": accuracy}, "rename"),
        ({"top-5": accuracy}, "letters"),
        ({5: accuracy}, "letters"),
        ({"a": "accuracy"}, "metric 'a' is 'accuracy'"),
        ({"a": Metric(accuracy, "max")}, "say 'higher' or 'lower'"),
        (accuracy, "give a dict"),
    ],
)
def test_what_is_no_metric_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        as_metrics(given)


def test_the_default_metrics_go_by_what_the_outputs_are():
    names = {
        ("logits", ("a", "b")): ["accuracy"],
        ("probabilities", ("a", "b")): ["accuracy"],
        ("logits", ()): [],
        ("binary_logits", ("a", "b")): ["accuracy", "f1_macro"],
        ("values", ()): ["mae", "rmse", "r2"],
        (None, ("a", "b")): [],
    }
    for (outputs, classes), wanted in names.items():
        found = default_metrics(outputs, classes)
        assert list(found) == wanted
        assert as_metrics(found) == found


@pytest.mark.parametrize("name", ["log_loss", "roc_auc", "average_precision"])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_metrics_of_logits_take_probabilities(name, num_classes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, num_classes))
    label = rng.integers(0, num_classes, 50)
    chance = np.asarray(jax.nn.softmax(logits))
    metric = getattr(metrics, name)
    [of_chance] = fitted({name: metric}, "probabilities").values()
    [of_logits] = fitted({name: metric}, "logits").values()
    wanted = metric.function(logits, label)
    np.testing.assert_allclose(of_chance.function(chance, label), wanted, rtol=1e-6)
    assert of_logits.function(logits, label) == wanted


def test_errors_are_in_the_units_of_the_target():
    column = {"name": "price", "mean": 10.0, "deviation": 4.0}
    target = {"several": False, "columns": [column]}
    given = as_metrics({"mae": metrics.mae, "mse": squared_error, "r2": metrics.r2})
    own = fitted(given, "values", target)
    assert [m.unit for m in own.values()] == [
        "units of price",
        "squared units of price",
        "",
    ]
    assert float(own["mae"].function(jnp.array(1.0), jnp.array(3.0))) == 8.0
    assert float(own["mse"].function(jnp.array(1.0), jnp.array(3.0))) == 64.0
    assert fitted(given, "values") == given


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
    for label, weight in ((0, 0.5), (1, 3.0), (jnp.array([0.8, 0.2]), 1.0)):
        plain = cross_entropy(logits, label, label_smoothing=0.1)
        assert loss(logits, label, label_smoothing=0.1) == weight * plain
        np.testing.assert_allclose(
            jax.grad(loss)(logits, label),
            weight * jax.grad(cross_entropy)(logits, label),
        )
    assert "label_smoothing" in inspect.signature(loss).parameters
    assert loss.__name__ == "weighted_cross_entropy"
    with pytest.raises(UserError, match="not classes"):
        weighted(losses.squared_error, np.ones(3))


def test_the_mean_over_classes_is_scikit_learns_balanced_accuracy():
    rng = np.random.default_rng(0)
    label = rng.choice(3, 200, p=[0.8, 0.15, 0.05])
    said = rng.integers(0, 3, (4, 200))
    wanted = [sklearn_metrics.balanced_accuracy_score(label, one) for one in said]
    np.testing.assert_allclose(mean_over_classes(said == label, label), wanted)


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


def test_a_class_that_cannot_be_has_a_loss_and_a_gradient():
    logits = jnp.array([0.5, -jnp.inf, 0.0])
    loss, grads = jax.value_and_grad(losses.cross_entropy)(logits, 0)
    known = jnp.array([0.5, 0.0])
    alone, of_known = jax.value_and_grad(losses.cross_entropy)(known, 0)
    np.testing.assert_allclose(loss, alone, rtol=1e-6)
    np.testing.assert_allclose(grads, [of_known[0], 0.0, of_known[1]], atol=1e-6)


@pytest.mark.parametrize("label", [-100, -1, 3, 255])
def test_a_label_that_is_no_class_has_no_loss(label):
    loss = losses.cross_entropy(jnp.arange(3.0), label)
    assert np.isnan(loss)

    def masked(logits):  # as of padding
        return jnp.where(label < 0, losses.cross_entropy(logits, label), 0.0)

    if label > 0:
        np.testing.assert_array_equal(jax.grad(masked)(jnp.arange(3.0)), 0)


def test_weights_of_classes_are_as_many_as_the_outputs():
    loss = losses.weighted(losses.cross_entropy, [1.0, 3.0])
    with pytest.raises(UserError, match="2 weights of classes, and outputs"):
        loss(jnp.zeros(3), 2)
    with pytest.raises(UserError, match="give an array \\[K\\]"):
        losses.weighted(losses.cross_entropy, np.ones((2, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.weighted(cross_entropy, [-1.0, 2.0]), "numbers of at least 0"),
        (lambda: losses.weighted(cross_entropy, [np.nan, 2.0]), "finite numbers"),
        (
            lambda: losses.weighted(functools.partial(huber, delta=2.0), [1.0, 2.0]),
            "class weights do not fit huber",
        ),
        (
            lambda: cross_entropy(np.zeros(3), 1, label_smoothing=10),
            r"label_smoothing is 10: give a number in \[0, 1\)",
        ),
        (lambda: huber(np.ones(2), np.zeros(2), delta=0.0), "delta is 0.0"),
    ],
)
def test_numbers_that_cannot_be_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_what_is_no_probability_has_no_calibration_error():
    assert np.isnan(calibration_error([np.nan, 0.9], [0, 1]))
    with pytest.raises(UserError, match="confidence goes from 0 to 90: give prob"):
        calibration_error([90.0, 80.0], [0, 1])


def test_a_class_without_examples_is_nobodys_nearest():
    seen, label = jnp.array([0.0, 2.0, 8.0, 10.0]), jnp.array([0, 0, 2, 2])
    unseen, truth = jnp.array([3.0, 4.0, 6.0]), jnp.array([0, 2, 2])
    found = metrics.nearest_mean(seen, label, unseen, truth, num_classes=4)
    np.testing.assert_allclose(found, 2 / 3)
