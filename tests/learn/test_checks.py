"""What cannot be right is refused before anything is computed, in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.learn import metrics
from dlworkshop.learn.checks import (
    check_number,
    check_split_metrics,
    check_targets,
)

SHAPE = jax.ShapeDtypeStruct
LOGITS, LABEL = SHAPE((3,), jnp.float32), SHAPE((), jnp.int32)
ABC = ("a", "b", "c")


def refused(message, function, *args):
    with pytest.raises(UserError, match=message) as caught:
        function(*args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3), r"has shape \(3,\) for one example: return one number, .*mean"),
        (np.int32(1), "is int32: return a real"),
        (np.complex64(1), "is complex64"),
        ((1.0, 2.0), "is a tuple"),
        (None, "is None for one example"),
    ],
)
def test_a_loss_is_one_real_number(value, message):
    refused(f"the loss {message}", check_number, "the loss", value)
    check_number("the loss", np.float32(3))


def test_a_metric_of_a_split_takes_weights():
    check_split_metrics({"auc": metrics.roc_auc})
    short = {"mine": metrics.Metric(lambda outputs, targets: 1.0, split=True)}
    refused("metric 'mine'.*weights", check_split_metrics, short)


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
        (floats(5, 4, 3, 1), "values", (), (4, 3)),
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
        (floats(5, 4, 4, 3), "values", (3, 4, 4), "axes in another order: transpose"),
        (np.arange(5) % 3, "values", (3,), "use cross_entropy for classes"),
        (np.array([0.5, np.inf]), "values", (1,), "not all finite"),
        (np.arange(5, dtype=np.uint8), "values", (1,), "keep their units"),
    ],
)
def test_targets_that_do_not(targets, outputs_kind, outputs_shape, message):
    refused(message, check_targets, targets, outputs_kind, ABC, outputs_shape)


def test_a_softmax_of_one_output_is_always_right():
    refused("always right", check_targets, np.zeros(3, int), "logits", (), (1,))
