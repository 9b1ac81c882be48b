"""A batch computed part by part is the batch."""

import functools

import jax
import numpy as np
import optax
import pytest

from dlworkshop import losses, metrics, models, optimizers
from dlworkshop.learn.step import init_state, make_train_step, spec_of
from dlworkshop.types import Batch

HPARAMS = {"learning_rate": 0.1, "momentum": 0.9, "clip_norm": 0.5}


@pytest.fixture(scope="module")
def trained():
    """The state before a step, and what a step of parts of a size makes of it."""
    rng = np.random.default_rng(0)
    batch = Batch(rng.random((12, 8, 8, 1)), rng.integers(0, 10, 12))
    spec = spec_of(
        models.cnn((3,), (5,), dropout=0.5),
        optimizers.clipped(optax.sgd),
        losses.cross_entropy,
        HPARAMS,
        {"accuracy": metrics.accuracy},
    )
    with jax.enable_x64(True):
        state = jax.jit(lambda key: init_state(spec, HPARAMS, key, batch.inputs[0]))(
            jax.random.key(0)
        )

    @functools.cache
    def after(micro_batch):
        step = make_train_step(spec, micro_batch=micro_batch)
        with jax.enable_x64(True):
            return jax.jit(step)(state, batch, HPARAMS)

    return state, after


@pytest.mark.parametrize("size", [1, 3, 6])
def test_parts_of_a_batch_give_its_update(trained, size):
    state, after = trained
    whole, in_parts = after(None), after(size)
    for old, new in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(whole[0].params), strict=True
    ):
        assert (np.asarray(old) != np.asarray(new)).any()
    for a, b in zip(
        jax.tree.leaves((whole[0].params, whole[1])),
        jax.tree.leaves((in_parts[0].params, in_parts[1])),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)  # means of 12 numbers
