"""What is trained on begins where it was, each part at the rate that it was given."""

import jax
import numpy as np
import pytest

from dlworkshop import models
from dlworkshop.models.vgg16 import LastBlock
from dlworkshop.types import Batch
from dlworkshop.workshop.fine_tuning import fine_tune
from tests.conftest import make_dataset


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)

    def seen(split):
        return Batch(
            rng.random((len(split.targets), 2, 2, 512), np.float32), split.targets
        )

    return make_dataset((8, 4, 4)).each_split(seen)


@pytest.fixture(scope="module")
def params(maps):
    last, head = models.from_linen(LastBlock()), models.logistic(4)
    return {
        "block5": jax.jit(last.init)(jax.random.key(0), maps.train.inputs[0]),
        "head": head.init(jax.random.key(1), np.ones(512)),
    }


@pytest.mark.slow
def test_each_part_is_tuned_with_its_own_rate(maps, params):
    rates = {"block5": 1e-5, "head": 1e-4}
    how = {"seeds": 1, "batch_size": 8, "num_epochs": 1}  # one update
    mean, deviation = np.full(512, 0.5), np.full(512, 2.0)
    run = fine_tune(maps, params, mean, deviation, rates, **how)
    for part, rate in rates.items():
        moved = jax.tree.map(
            lambda a, b: np.abs(a[0] - b).max(), run.params[part], params[part]
        )
        # Adam's first step: each number moves by the rate, by whatever gradient
        np.testing.assert_allclose(jax.tree.leaves(moved), rate, rtol=0.02)

    # and the head sees features of one scale
    last, head = models.from_linen(LastBlock()), models.logistic(4)
    tuned = jax.tree.map(lambda leaf: leaf[0], run.params)
    features = models.predict(last, tuned["block5"], maps.test.inputs)
    expected = models.predict(head, tuned["head"], (features - mean) / deviation)
    # float32 sums of 4,608 and 512 terms, in another order
    np.testing.assert_allclose(run.predict(maps.test.inputs)[0], expected, atol=1e-4)
