"""How far do features that VGG16 learnt elsewhere carry on images of your own?

The images go through the network once and what comes out is kept. On these features
a population of linear heads is trained, every learning rate with every weight decay
and every seed, in one program; the best setting by validation accuracy is trained
again and read on the test split. Then, if wanted, the last block of the network is
trained on from there with a learning rate of its own.

    python experiments/vgg16_transfer.py --data FOLDER --weights imagenet

Without weights the features are those of a random network, a fair baseline for what
the learnt ones bring. Expect 98.0 % ± 0.1 % test accuracy from those on the 1,797
digits that are the default, in 20 seconds on 2 cores.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from dlworkshop import data, fit, models, optimizers, schedules
from dlworkshop.learn.metrics import mean_and_error
from dlworkshop.models.model import Model
from dlworkshop.models.vgg16 import BLOCKS, block, preprocess
from dlworkshop.run import experiment, record
from dlworkshop.run.features import features
from dlworkshop.run.result import Run
from dlworkshop.types import Batch, Dataset, PyTree

SHOWN = 5  # of the best settings


@dataclass(frozen=True)
class Config(experiment.TrainingConfig):
    """Settings of the experiment; every one is a flag."""

    data: str = "digits"
    """A folder with a folder of images for each class, or the name of a data set."""
    weights: str | None = None
    """None (random), imagenet (fetched once), or a .h5 of Keras or .safetensors file
    of torchvision."""
    image_size: int | None = None
    """Rows and columns to which images of your own are brought."""
    seeds: int = 4
    """Heads for each setting, with seeds 0, 1, ..."""
    num_epochs: int = 30
    """Passes over the training split, for the heads."""
    batch_size: int = 64
    """Examples per step and model."""
    learning_rate: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    """Peaks of the cosine schedule, each tried with each weight decay."""
    weight_decay: tuple[float, ...] = (0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
    """Of AdamW, each tried with each learning rate."""
    fine_tune_epochs: int = 0
    """Passes over the training split for the last block and the head; 0 leaves them."""
    block_learning_rate: float = 1e-5
    """Of the last block in fine-tuning."""
    head_learning_rate: float = 1e-4
    """Of the head in fine-tuning, which begins where it was."""


class Trunk(nn.Module):
    """Blocks 1 to 4 of VGG16: an image [H, W, 3] -> maps [H // 16, W // 16, 512]."""

    preprocessing: str

    @nn.compact
    def __call__(self, image, *, key=None):
        del key  # nothing is random
        x = preprocess(image, self.preprocessing)
        for number in range(1, len(BLOCKS)):
            x = block(x, number)
        return x


class LastBlock(nn.Module):
    """Block 5 of VGG16 and the mean of its maps: [H, W, 512] -> features [512]."""

    @nn.compact
    def __call__(self, maps, *, key=None):
        del key  # nothing is random
        return block(maps, len(BLOCKS)).mean((0, 1))


def on_rgb(model: Model) -> Model:
    """The model on images of any kind: grey becomes RGB, small ones 32 wide or more."""

    def rgb(image):  # [H, W, 1 or 3]
        image = jnp.asarray(image)
        scale = -(-32 // min(image.shape[:2]))
        image = image.repeat(scale, 0).repeat(scale, 1)
        return jnp.broadcast_to(image, (*image.shape[:2], 3))

    return model._replace(
        init=lambda key, image: model.init(key, rgb(image)),
        apply=lambda params, image, *, key=None: model.apply(params, rgb(image)),
    )


def standardised(dataset: Dataset, mean, deviation) -> Dataset:
    """Features [N, 512] without `mean` and in units of `deviation`."""

    def scaled(split: Batch) -> Batch:
        return split._replace(image=(split.image - mean) / deviation)

    train, validation, test = map(scaled, dataset[:3])
    return dataset._replace(train=train, validation=validation, test=test)


def sweep(config: Config, head: Model, dataset: Dataset) -> list[dict[str, Any]]:
    """Every setting with its validation accuracy over the seeds, the best first."""
    closed = dataset._replace(test=dataset.validation)  # the test split stays unread
    run = train_heads(
        config, head, closed, config.learning_rate, config.weight_decay, None
    )
    rows = []
    settings = itertools.product(config.learning_rate, config.weight_decay)
    members = run.summary["population"]
    for i, (rate, decay) in enumerate(settings):
        of_setting = members[i * config.seeds : (i + 1) * config.seeds]
        scores = {
            name: mean_and_error([float(m["test"][name] or np.nan) for m in of_setting])
            for name in ("accuracy", "loss")
        }
        rows.append({"learning_rate": rate, "weight_decay": decay, **scores})

    def badness(row):
        accuracy, loss = (row[name]["mean"] for name in ("accuracy", "loss"))
        return (0, 0) if accuracy is None else (-accuracy, loss)

    return sorted(rows, key=badness)


def train_heads(config, head, dataset, rates, decays, workdir: Path | None) -> Run:
    """Heads on features, one for each setting and seed."""
    return fit(
        head,
        dataset,
        optimizers.adamw,
        hparams={"learning_rate": rates, "weight_decay": decays},
        seeds=config.seeds,
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        schedule=schedules.cosine,
        workdir=workdir,
        experiment="vgg16_transfer",
    )


def fine_tune(config: Config, maps: Dataset, params: PyTree, mean, deviation) -> Run:
    """Train the last block and the head together, each with its own learning rate.

    All members begin with the same parameters: they differ in the order of the data.
    """
    last, head = models.from_linen(LastBlock()), models.logistic(len(maps.classes))

    def apply(params, maps, *, key=None):
        features = (last.apply(params["block5"], maps) - mean) / deviation  # [512]
        return head.apply(params["head"], features)  # logits [K]

    def optimizer(hparams):
        slow = hparams._replace(learning_rate=config.block_learning_rate)
        return optax.partition(
            {"block5": optimizers.adamw(slow), "head": optimizers.adamw(hparams)},
            {"block5": "block5", "head": "head"},
        )

    return fit(
        Model(lambda key, maps: params, apply, {"name": "vgg16 block5 and head"}),
        maps,
        optimizer,
        hparams={"learning_rate": config.head_learning_rate},
        seeds=config.seeds,
        num_epochs=config.fine_tune_epochs,
        batch_size=config.batch_size,
        schedule=schedules.cosine,
        workdir=config.workdir and config.workdir / "fine_tuned",
        experiment="vgg16_transfer_fine_tuned",
    )


def main(config: Config) -> Run:
    """Extract, sweep, choose on validation, read the test split once."""
    images = data.load(config.data, config.data_dir, image_size=config.image_size)
    vgg16 = models.vgg16(weights=config.weights, pooling="avg")
    if config.weights is None:
        print("the features are those of a random network: a baseline, no more")
    params = on_rgb(vgg16).init(jax.random.key(0), images.train.image[0])
    if config.fine_tune_epochs:
        last = {name: p for name, p in params.items() if name.startswith("block5")}
        first = {name: p for name, p in params.items() if name not in last}
        about = {**vgg16.config, "name": "vgg16 trunk"}
        trunk = models.from_linen(Trunk(vgg16.config["preprocessing"]), about)
        maps = features(on_rgb(trunk), first, images)
        seen = features(models.from_linen(LastBlock()), last, maps)
    else:
        seen = features(on_rgb(vgg16), params, images)
    mean, deviation = seen.train.image.mean(0), seen.train.image.std(0)  # [512]
    deviation = np.where(deviation > 0, deviation, 1)
    seen = standardised(seen, mean, deviation)
    trained = Path(config.weights).name if config.weights else "random"
    seen = seen._replace(name=f"{images.name} seen by VGG16 ({trained} weights)")
    head = models.logistic(len(images.classes))

    settings = sweep(config, head, seen)
    for row in settings[:SHOWN]:
        accuracy = row["accuracy"]
        print(
            f"learning rate {row['learning_rate']:g}, weight decay "
            f"{row['weight_decay']:g}: validation accuracy "
            f"{100 * (accuracy['mean'] or 0):.2f} % ± "
            f"{100 * (accuracy['sem'] or 0):.2f} % (n = {accuracy['n']})"
        )
    best = settings[0]
    run = train_heads(
        config,
        head,
        seen,
        best["learning_rate"],
        best["weight_decay"],
        config.workdir,
    )
    if config.workdir is not None:
        record.write_json(config.workdir / "sweep.json", {"settings": settings})
    if config.fine_tune_epochs:
        begun = jax.tree.map(lambda leaf: leaf[0], run.params)  # the head of seed 0
        tuned = fine_tune(
            config, maps, {"block5": last, "head": begun}, mean, deviation
        )
        print(f"with the last block trained on: {experiment.finding(tuned)}")
    return run


if __name__ == "__main__":
    experiment.start(main, Config)
