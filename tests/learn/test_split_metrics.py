"""Metrics of a whole split are scikit-learn's, also where a class is absent."""

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics

from dlworkshop.errors import UserError
from dlworkshop.learn import metrics, split_metrics
from dlworkshop.learn.metrics import Metric

CLASSES = ["balanced_accuracy", "f1_macro", "log_loss", "roc_auc", "average_precision"]
LABELS = ["label_f1_macro", "label_roc_auc", "label_average_precision"]
VALUES = ["mae", "rmse", "r2"]


def classes_split(num_classes=4, size=120, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, size)
    outputs = rng.normal(size=(size, num_classes)) + np.eye(num_classes)[label]
    return outputs.astype(np.float32), label, rng.random(size)


def labels_split(num_labels=3, size=120, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (size, num_labels))
    return rng.normal(size=truth.shape) + truth, truth, rng.random(size)


def values_split(size=50, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(size, 2))
    return targets + 0.5 * rng.normal(size=(size, 2)), targets, rng.random(size)


SPLITS = (
    dict.fromkeys(CLASSES, classes_split)
    | dict.fromkeys(LABELS, labels_split)
    | dict.fromkeys(VALUES, values_split)
)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_of_classes(num_classes, weighted):
    outputs, label, weights = classes_split(num_classes)
    how = {"sample_weight": weights if weighted else None}
    given = (outputs, label, weights if weighted else None)
    chance = softmax(np.float64(outputs), 1)
    said, score = chance.argmax(1), chance[:, 1] if num_classes == 2 else chance
    wanted = {
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(
            label, said, **how
        ),
        "f1_macro": sklearn_metrics.f1_score(label, said, average="macro", **how),
        "log_loss": sklearn_metrics.log_loss(label, chance, **how),
        "roc_auc": sklearn_metrics.roc_auc_score(
            label, score, multi_class="ovr", **how
        ),
        "average_precision": sklearn_metrics.average_precision_score(
            label, score, **how
        ),
    }
    for name in CLASSES:
        found = getattr(split_metrics, name)(*given)
        assert found == pytest.approx(wanted[name], rel=1e-6), name


@pytest.mark.parametrize("weighted", [False, True])
def test_of_labels_and_of_values(weighted):
    outputs, truth, weights = labels_split()
    how = {"sample_weight": weights if weighted else None}
    macro = how | {"average": "macro"}
    wanted = {
        "label_f1_macro": sklearn_metrics.f1_score(truth, outputs > 0, **macro),
        "label_roc_auc": sklearn_metrics.roc_auc_score(truth, outputs, **macro),
        "label_average_precision": sklearn_metrics.average_precision_score(
            truth, outputs, **macro
        ),
    }
    given = {name: (outputs, truth, how["sample_weight"]) for name in wanted}
    outputs, truth, weights = values_split()
    how = {"sample_weight": weights if weighted else None}
    squared = sklearn_metrics.mean_squared_error(truth, outputs, **how)
    wanted |= {
        "mae": sklearn_metrics.mean_absolute_error(truth, outputs, **how),
        "rmse": squared**0.5,
        "r2": sklearn_metrics.r2_score(truth, outputs, **how),
    }
    given |= {name: (outputs, truth, how["sample_weight"]) for name in VALUES}
    for name, value in wanted.items():
        found = getattr(split_metrics, name)(*given[name])
        assert found == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("name", SPLITS)
def test_an_example_of_weight_zero_does_not_count(name):
    outputs, targets, _ = SPLITS[name]()
    weights = np.ones(len(outputs))
    weights[40:] = 0
    broken = outputs.copy()
    broken[40:] = np.nan  # as the padding of a batch
    function = getattr(split_metrics, name)
    alone = function(outputs[:40], targets[:40])
    assert function(broken, targets, weights) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("name", SPLITS)
def test_outputs_that_are_no_numbers_have_no_score_and_the_reason_is_said(name):
    outputs, targets, _ = SPLITS[name]()
    outputs[3, 1] = np.nan
    function = getattr(split_metrics, name)
    with pytest.warns(UserWarning, match=f"{name} is not defined.*not finite"):
        assert np.isnan(function(outputs, targets))
    with pytest.warns(UserWarning, match="no example"):
        assert np.isnan(function(outputs, targets, np.zeros(len(outputs))))


@pytest.mark.parametrize("name", SPLITS)
def test_what_does_not_fit_is_refused(name):
    outputs, targets, _ = SPLITS[name]()
    function = getattr(split_metrics, name)
    with pytest.raises(UserError, match="one of both"):
        function(outputs, targets[:-1])
    with pytest.raises(UserError, match="a metric of"):
        function(outputs[:, :1], np.ones((*targets.shape, 2)))


@pytest.mark.parametrize("name", ["mae", "rmse", "r2", "label_roc_auc"])
def test_axes_in_another_order_are_refused(name):
    function = getattr(split_metrics, name)
    targets = np.random.default_rng(0).integers(0, 2, (9, 3, 4))
    assert np.isfinite(function(targets[..., None], targets))
    with pytest.raises(UserError, match="a metric of"):
        function(np.zeros((9, 4, 3)), targets)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 1.0, 1.0]])
def test_weights_are_one_for_each_example(weights):
    with pytest.raises(UserError, match="at least 0 for each of 3 examples"):
        split_metrics.mae([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], weights)


def test_absent_classes_do_not_count():
    outputs, label, _ = classes_split()
    there = label != 2
    outputs, label = outputs[there], label[there]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {name: getattr(split_metrics, name)(outputs, label) for name in CLASSES}
    chance = softmax(np.float64(outputs), 1)
    of = {"roc_auc": sklearn_metrics.roc_auc_score}
    of["average_precision"] = sklearn_metrics.average_precision_score
    for name, score in of.items():
        wanted = np.mean([score(label == k, chance[:, k]) for k in (0, 1, 3)])
        assert found[name] == pytest.approx(wanted)
    recalls = [(outputs[label == k].argmax(1) == k).mean() for k in (0, 1, 3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_a_split_of_one_class_has_no_ranking(name):
    with pytest.warns(UserWarning, match=f"{name} is not defined.*others"):
        assert np.isnan(getattr(split_metrics, name)(np.eye(3), [1, 1, 1]))
    with pytest.warns(UserWarning, match=f"label_{name}.*others"):
        assert np.isnan(
            getattr(split_metrics, f"label_{name}")(np.eye(3), np.ones((3, 3)))
        )


def test_targets_that_do_not_vary_explain_nothing():
    with pytest.warns(UserWarning, match="do not vary"):
        assert np.isnan(split_metrics.r2([1.0, 2.0], [3.0, 3.0]))
    some = split_metrics.r2([[1.0, 0], [2.5, 0]], [[1.0, 3.0], [2.0, 3.0]])
    assert some == split_metrics.r2([1.0, 2.5], [1.0, 2.0])


def test_labels_are_not_taken_for_classes():
    outputs, truth, _ = labels_split()
    for name in CLASSES:
        with pytest.raises(UserError, match="label_roc_auc"):
            getattr(split_metrics, name)(outputs, truth)
    outputs, label, _ = classes_split()
    for name in LABELS:
        with pytest.raises(UserError, match="roc_auc"):
            getattr(split_metrics, name)(outputs, label)


def test_soft_targets_count_as_their_likeliest_class():
    outputs, label, _ = classes_split()
    soft = 0.9 * np.eye(4)[label] + 0.025
    for name in CLASSES:
        function = getattr(split_metrics, name)
        assert function(outputs, soft) == function(outputs, label)


def test_infinite_evidence_ranks_first():
    logits, truth = np.array([-np.inf, 0.0, np.inf]), np.array([0, 0, 1])
    assert split_metrics.label_roc_auc(logits, truth) == 1.0
    masked = np.array([[0.0, -np.inf], [0.0, -np.inf], [0.0, 3.0]])
    assert split_metrics.roc_auc(masked, truth) == 1.0


def test_each_is_a_metric_that_knows_its_direction():
    lower = {"log_loss", "rmse", "mae", "mse"}
    for name in [*CLASSES, *LABELS, "mae", "mse", "rmse", "r2"]:
        metric = getattr(metrics, name)
        assert isinstance(metric, Metric), name
        assert metric.better == ("lower" if name in lower else "higher"), name
        assert metric.split == (name not in ("mae", "mse")), name
