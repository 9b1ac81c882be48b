"""What cannot be right is refused before anything is computed, in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.learn import losses, metrics
from dlworkshop.learn.checks import (
    check_loss,
    check_metrics,
    check_number,
    check_targets,
)
from dlworkshop.learn.metrics import as_metrics

SHAPE = jax.ShapeDtypeStruct
LOGITS, LABEL = SHAPE((3,), jnp.float32), SHAPE((), jnp.int32)
ABC = ("a", "b", "c")


def refused(message, function, *args):
    with pytest.raises(UserError, match=message) as caught:
        function(*args)
    assert "\n" not in str(caught.value)


def test_what_is_right_passes():
    check_loss(losses.cross_entropy, LOGITS, LABEL)
    check_loss(losses.cross_entropy, np.zeros(3), np.int32(1), label_smoothing=0.1)
    check_loss(lambda o, t: o["x"].sum() + t, {"x": LOGITS}, LABEL)
    check_metrics(
        as_metrics({"accuracy": metrics.accuracy, "auc": metrics.roc_auc}),
        LOGITS,
        LABEL,
    )


def per_token(outputs, targets):
    return (outputs - targets) ** 2


def by_hand(outputs, targets):
    return float(outputs[0])


def branching(outputs, targets):
    return outputs.sum() if targets > 1 else outputs.mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (per_token, r"per_token has shape \(3,\).*mean"),
        (lambda o, t: t, "is int32: return a real"),
        (lambda o, t: o.sum() * 1j, "is complex64"),
        (lambda o, t: (o.sum(), o), "is a tuple"),
        (lambda o, t: None, "is None for one example"),
        (by_hand, "by_hand cannot be traced: write it with jax.numpy"),
        (branching, "branching cannot be traced"),
        (lambda o, t: o @ jnp.zeros(4), r"does not take outputs float32 \(3,\)"),
        (lambda o: o, "does not take"),
        (lambda o, t: o["x"], "does not take"),
    ],
)
def test_a_loss_is_one_real_number(loss, message):
    refused(message, check_loss, loss, LOGITS, LABEL)


def test_a_metric_is_one_number_and_is_named():
    def check(**given):
        check_metrics(as_metrics(given), LOGITS, LABEL)

    check(right=lambda o, t: o.argmax() == t)  # a truth value has a mean
    refused("metric 'each' has shape", lambda: check(each=per_token))
    refused("metric 'mine'.*split=True", lambda: check(mine=by_hand))
    no_weights = metrics.Metric(lambda outputs, targets: 1.0, split=True)
    refused("metric 'mine'.*weights", lambda: check(mine=no_weights))
    refused("metric 'top'.*smaller k", lambda: check(top=metrics.top_k(3)))
    check_number("the objective", np.float32(3))
    refused("the objective has shape", check_number, "the objective", np.ones(3))


def floats(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def shares(size):
    each = floats(5, size)
    return each / each.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("targets", "outputs_kind", "classes", "outputs_shape"),
    [
        (np.arange(3), "logits", ABC, (3,)),
        (np.arange(3, dtype=np.uint16), "logits", (), (3,)),
        (np.arange(3), "probabilities", ABC, (3,)),
        (shares(3), "logits", ABC, (3,)),
        (np.eye(3, dtype=np.float32), "logits", ABC, (3,)),
        (np.zeros((5, 7), int), "logits", (), (7, 3)),  # a loss of sequences
        (np.eye(3, dtype=int), "binary_logits", ABC, (3,)),
        (np.eye(3, dtype=bool), "binary_logits", ABC, (3,)),
        (np.arange(2), "binary_logits", (), (1,)),
        (np.full((2, 8), 255, np.uint8), "binary_logits", (), (8,)),  # a mask
        (floats(5), "values", (), (1,)),
        (floats(5), "values", (), ()),
        (floats(5, 4), "values", (), (4,)),
        (np.full((2, 4, 4, 1), 255, np.uint8), "values", (), (16,)),  # an image
        (floats(5, 4), None, ABC, (3,)),
        ({"a": floats(5)}, "logits", ABC, (3,)),
        (None, "values", (), (3,)),
    ],
)
def test_targets_that_fit(targets, outputs_kind, classes, outputs_shape):
    check_targets(targets, outputs_kind, classes, outputs_shape)


@pytest.mark.parametrize(
    ("targets", "outputs_kind", "outputs_shape", "message"),
    [
        (np.arange(4), "logits", (3,), r"labels 0 ... 3 for 3 classes"),
        (np.array([0, -1]), "logits", (3,), r"labels -1 ... 0 for 3"),
        (np.arange(3), "logits", (4,), "num_classes=3"),
        (np.arange(3)[:, None], "logits", (3,), r"targets\[:, 0\]"),
        (floats(5, 1), "logits", (3,), r"targets\[:, 0\]"),
        (np.eye(3, dtype=int), "logits", (3,), r"one-hot.*argmax\(-1\)"),
        (np.ones((5, 3), int), "logits", (3,), "binary_cross_entropy"),
        (np.arange(21).reshape(3, 7) % 3, "logits", (3,), "sequence.*mean over"),
        (floats(5), "logits", (3,), r"astype\('int32'\).*squared_error"),
        (np.arange(3, dtype=np.uint8), "logits", (3,), r"uint8.*astype\('int32'\)"),
        (np.array([True, False]), "logits", (3,), r"astype\('int32'\)"),
        (floats(5, 4), "logits", (3,), "probability of each"),
        (2 * shares(3), "logits", (3,), "sums go from 2 to 2"),
        (np.eye(3, dtype=np.uint8), "logits", (3,), r"astype\('float32'\)"),
        (np.array(["a", "b"]), "logits", (3,), "convert"),
        (np.full((5, 3), np.nan), "logits", (3,), "not all finite"),
        (np.arange(5) % 3, "binary_logits", (3,), "cross_entropy"),
        (floats(5, 4), "binary_logits", (3,), "one output for each"),
        (2 * np.eye(3), "binary_logits", (3,), r"go from 0.0 to 2.0"),
        (np.eye(3, dtype=np.uint8), "binary_logits", (3,), "divided by 255"),
        (floats(5), "values", (3,), "one output for each"),
        (np.arange(5) % 3, "values", (3,), "for classes take cross_entropy"),
        (np.array([0.5, np.inf]), "values", (1,), "not all finite"),
        (np.arange(5, dtype=np.uint8), "values", (1,), "keep their units"),
    ],
)
def test_targets_that_do_not(targets, outputs_kind, outputs_shape, message):
    refused(message, check_targets, targets, outputs_kind, ABC, outputs_shape)


def test_a_softmax_of_one_output_is_always_right():
    refused("always right", check_targets, np.zeros(3, int), "logits", (), (1,))
