"""Whole trainings equal a plain NumPy implementation, step by step, in float64."""

import json
from functools import partial

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from dlworkshop import fit, models, optimizers, schedules
from dlworkshop.data.order import Order
from tests import references
from tests.conftest import make_dataset

pytestmark = pytest.mark.usefixtures("unreported")

STEPS, BATCH, SEED = 24, 8, 3


def momentum(learning_rate, momentum, weight_decay):
    """With an L2 penalty on kernels."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, optimizers.kernels),
        optax.sgd(learning_rate, momentum),
    )


# per optimizer: ours, the reference, hyper-parameters, those of the reference
RULES = {
    "sgd": (optax.sgd, references.sgd, {}, {}),
    "momentum": (
        momentum,
        references.sgd_momentum,
        {"momentum": 0.9, "weight_decay": 0.01},
        {"momentum": 0.9, "weight_decay": 0.01},
    ),
    "nesterov": (
        optimizers.clipped(partial(optax.sgd, nesterov=True)),
        references.sgd_nesterov,
        {"momentum": 0.8, "clip_norm": 0.5},
        {"momentum": 0.8},
    ),
    "adam": (optax.adam, references.adam, {"label_smoothing": 0.1}, {}),
    "adamw": (
        optimizers.adamw,
        references.adamw,
        {"weight_decay": 0.05},
        {"weight_decay": 0.05},
    ),
}


def both(tmp_path, model, train, rule, learning_rate, **options):
    """Final parameters and losses of ours, then of the reference."""
    make, reference, ours, theirs = RULES[rule]
    dataset = make_dataset((STEPS * BATCH // 2, 20, 20))
    with jax.enable_x64(True):
        run = fit(
            model,
            dataset,
            make,
            hparams={"learning_rate": learning_rate, **ours},
            seeds=[SEED],
            num_epochs=2,
            batch_size=BATCH,
            schedule=partial(schedules.cosine, warmup=4 / STEPS),
            steps_per_chunk=1,
            workdir=tmp_path,
            devices=jax.devices()[:1],
        )
        key = jax.random.fold_in(jax.random.key(SEED), 0)
        start = model.init(key, dataset.train.inputs[0])
        params = jax.tree.map(lambda leaf: leaf[0], run.params)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float64")}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train"]["loss"][0] for line in lines]
    order = Order([SEED], len(dataset.train.targets), BATCH)
    half = STEPS // 2
    indices = np.concatenate([order.steps(0, half), order.steps(half, half)])[:, 0]
    expected, expected_losses = train(
        jax.tree.map(np.asarray, start),
        dataset.train.inputs,
        dataset.train.targets,
        indices,
        learning_rate=learning_rate,
        optimizer=reference,
        hparams=theirs,
        multiplier=partial(
            references.warmup_cosine, num_steps=STEPS, num_warmup_steps=4
        ),
        clip_norm=ours.get("clip_norm", np.inf),
        label_smoothing=ours.get("label_smoothing", 0.0),
        **options,
    )
    return params, losses, expected, expected_losses


def assert_same(params, losses, expected, expected_losses):
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-9)
    assert losses[-1] < losses[0]  # something was learnt
    flat, other = (references.flat_dict(tree) for tree in (params, expected))
    assert flat.keys() == other.keys()
    for name in flat:
        np.testing.assert_allclose(
            np.asarray(flat[name]), other[name], rtol=0, atol=1e-9, err_msg=str(name)
        )


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_mlp(tmp_path, rule):
    rate = 0.02 if rule.startswith("adam") else 0.2
    model = models.mlp((9, 7), num_classes=4)
    assert_same(*both(tmp_path, model, references.train_mlp, rule, rate))


@pytest.mark.slow
def test_cnn(tmp_path):
    model = models.cnn((4, 6), (8,), num_classes=4)
    assert_same(*both(tmp_path, model, references.train_cnn, "momentum", 0.1))


@pytest.mark.slow
def test_cnn_with_tanh_and_max_pooling(tmp_path):
    model = models.cnn((4,), (8,), nn.tanh, models.max_pool, num_classes=4)
    assert_same(
        *both(
            tmp_path,
            model,
            references.train_cnn,
            "nesterov",
            0.2,
            activation=references.TANH,
            pooling=references.MAX_POOL,
        )
    )
