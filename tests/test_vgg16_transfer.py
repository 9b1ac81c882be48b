"""Transfer: what is tuned begins where the head was, and only where it may."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from dlworkshop import models
from dlworkshop.models.vgg16 import LastBlock, Trunk
from dlworkshop.types import Batch
from tests.conftest import make_dataset

SCRIPT = Path(__file__).parent.parent / "experiments/vgg16_transfer.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("vgg16_transfer", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    sys.modules["vgg16_transfer"] = found  # dataclasses look themselves up there
    spec.loader.exec_module(found)
    return found


def test_trunk_and_last_block_are_the_network(script):
    whole = models.vgg16(pooling="avg")
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 1), np.uint8)
    params = jax.jit(script.on_rgb(whole).init)(jax.random.key(0), image)
    first = {n: p for n, p in params.items() if not n.startswith("block5")}
    trunk = script.on_rgb(models.from_linen(Trunk("caffe")))
    maps = jax.jit(trunk.apply)(first, image)
    last = {n: p for n, p in params.items() if n not in first}
    ours = jax.jit(models.from_linen(LastBlock()).apply)(last, maps)
    expected = jax.jit(script.on_rgb(whole).apply)(params, image)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_each_part_is_tuned_with_its_own_rate(script):
    rng = np.random.default_rng(0)
    maps = make_dataset((8, 4, 4))
    train, validation, test = (
        Batch(rng.random((len(label), 2, 2, 512), np.float32), label)
        for _, label in maps[:3]
    )
    maps = maps._replace(train=train, validation=validation, test=test)
    last, head = models.from_linen(LastBlock()), models.logistic(4)
    params = {
        "block5": jax.jit(last.init)(jax.random.key(0), train.image[0]),
        "head": head.init(jax.random.key(1), np.ones(512)),
    }

    def changed(**rates):
        config = script.Config(seeds=1, batch_size=8, fine_tune_epochs=1, **rates)
        run = script.fine_tune(config, maps, params, np.zeros(512), np.ones(512))
        moved = jax.tree.map(lambda a, b: bool((a[0] != b).any()), run.params, params)
        return {part: any(jax.tree.leaves(moved[part])) for part in params}

    assert changed(block_learning_rate=0.0) == {"block5": False, "head": True}
    assert changed(head_learning_rate=0.0) == {"block5": True, "head": False}
