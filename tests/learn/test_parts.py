"""A batch computed part by part is the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlworkshop import losses, metrics, models, optimizers, schedules
from dlworkshop.learn.step import init_state, make_train_step
from dlworkshop.types import Batch, HParams

HPARAMS = HParams(learning_rate=0.1, momentum=0.9, clip_norm=0.5)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_parts_of_a_batch_give_its_update(size):
    rng = np.random.default_rng(0)
    batch = Batch(rng.random((12, 8, 8, 1)), rng.integers(0, 10, 12))
    with jax.enable_x64(True):
        model = models.cnn((3,), (5,), dropout=0.5)
        state = init_state(
            model, optimizers.sgd, HPARAMS, jax.random.key(0), batch.image[0]
        )
        steps = (
            make_train_step(
                model,
                optimizers.sgd,
                schedules.constant(1),
                losses.cross_entropy,
                metrics.accuracy,
                micro_batch=micro_batch,
            )
            for micro_batch in (None, size)
        )
        whole, in_parts = (jax.jit(step)(state, batch, HPARAMS) for step in steps)
    changed = jax.tree.map(
        lambda a, b: bool(jnp.any(a != b)), state.params, whole[0].params
    )
    assert all(jax.tree.leaves(changed))
    for a, b in zip(
        jax.tree.leaves((whole[0].params, whole[1])),
        jax.tree.leaves((in_parts[0].params, in_parts[1])),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)  # means of 12 numbers
