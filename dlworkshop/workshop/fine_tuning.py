"""Fine-tuning of the last block of VGG16 together with a linear head."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optax

from dlworkshop.learn import optimizers
from dlworkshop.models.linen import from_linen
from dlworkshop.models.logistic import logistic
from dlworkshop.models.model import Model
from dlworkshop.models.vgg16 import LastBlock
from dlworkshop.train.fit import fit
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset, PyTree


def fine_tune(
    maps: Dataset,
    params: PyTree,
    mean: np.ndarray,
    deviation: np.ndarray,
    learning_rates: Mapping[str, float],
    **how: Any,
) -> Run:
    """Train the last block and the head together, each with its own learning rate.

    All members start from the same parameters and differ in the order of the data. The
    optimizer is AdamW.

    Args:
        maps: data set whose inputs are the inputs of the block, [N, H, W, 512].
        params: "block5" of `LastBlock`, "head" of `logistic` on features [512].
        mean, deviation: [512] of the features, as in the training of the head.
        learning_rates: of "block5" and of "head", at the peak of the schedule.
        how: further arguments of `fit`.

    >>> import jax
    >>> from dlworkshop.types import Batch
    >>> rng = np.random.default_rng(0)
    >>> split = Batch(rng.random((8, 2, 2, 512), np.float32), np.arange(8) % 2)
    >>> maps = Dataset(split, split, split, ("a", "b"))
    >>> init = jax.jit(from_linen(LastBlock()).init)
    >>> block = init(jax.random.key(0), split.inputs[0])
    >>> head = logistic(2).init(jax.random.key(1), np.zeros(512))
    >>> rates = {"block5": 1e-5, "head": 1e-4}
    >>> params = {"block5": block, "head": head}
    >>> run = fine_tune(maps, params, 0, 1, rates, seeds=1, num_epochs=1, batch_size=8)
    >>> run.params["head"]["Dense_0"]["kernel"].shape
    (1, 512, 2)
    """
    last, head = from_linen(LastBlock()), logistic(len(maps.classes))

    def apply(params, maps, *, key=None):
        features = (last.apply(params["block5"], maps) - mean) / deviation  # [512]
        return head.apply(params["head"], features)  # logits [K]

    def optimizer(learning_rate):  # the multiplier of the schedule
        parts = {
            name: optimizers.adamw(rate * learning_rate)
            for name, rate in learning_rates.items()
        }
        return optax.partition(parts, {"block5": "block5", "head": "head"})

    return fit(
        Model(lambda key, maps: params, apply, {"name": "vgg16 block5 and head"}),
        maps,
        optimizer,
        hparams={"learning_rate": 1.0},
        **how,
    )
