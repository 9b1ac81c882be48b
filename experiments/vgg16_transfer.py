"""How well do features that VGG16 learnt elsewhere work on images of your own?

The images go through the network once and its features are kept. A population of
linear heads is trained on them, every learning rate with every weight decay and every
seed, in one program; the best setting by validation accuracy is trained again and
evaluated on the test split. The same is done with heads on the pixels and on as many
random features of the pixels. On request, the last block of the network is then trained
at its own learning rate.

    python experiments/vgg16_transfer.py --data FOLDER --weights imagenet

Expect 98.0 % ± 0.1 % on the default data, 1,797 digits, from features of a random
network, which is used without --weights; 97.7 % ± 0.1 % from the pixels, and 98.4 % ±
0.1 % from one layer of random features (mean and standard error over 6 heads). The test
split has 360 images, too few to decide an order; 13 random layers show no advantage
over one. The lesson takes about a minute on 2 cores.

Source: course, keras.applications.VGG16; Simonyan & Zisserman (2015), table 1, D.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from slides import vgg16_transfer as slides

from dlworkshop import data, models, optimizers, schedules, sweep, workshop
from dlworkshop.data.pixels import coarse, standardised
from dlworkshop.errors import UserError
from dlworkshop.models.rgb import on_rgb
from dlworkshop.models.vgg16 import parted
from dlworkshop.serve.features import features, sequential_features
from dlworkshop.verify import claims
from dlworkshop.workshop.fine_tuning import fine_tune
from dlworkshop.workshop.lesson import Lesson


@dataclass(frozen=True)
class Config(workshop.TrainingConfig):
    """Settings of the experiment; every one is a flag."""

    data: str = "digits"
    """A folder with one folder of images per class, or the name of a data set."""
    weights: str | None = None
    """None (random), imagenet (downloaded), a .h5 file of Keras, or a .safetensors
    file of torchvision."""
    image_size: int | None = None
    """Height and width in pixels to which your own images are resized."""
    num_examples: int | None = None
    """Use only the first images of each split, as many as given; by default all."""
    seeds: int = 6
    """Number of heads for each setting, with seeds 0, 1, ..."""
    num_epochs: int = 30
    """Passes over the training split, for the heads."""
    batch_size: int = 64
    """Examples per step and model; at most the number of training examples."""
    learning_rate: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    """Peaks of the cosine schedule, each tried with each weight decay."""
    weight_decay: tuple[float, ...] = (0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
    """Weight decays of AdamW, each tried with each learning rate."""
    fine_tune_epochs: int = 0
    """Passes over the training split for fine-tuning the last block; 0 skips it."""
    block_learning_rate: float = 1e-5
    """Learning rate of the last block in fine-tuning."""
    head_learning_rate: float = 1e-4
    """Learning rate of the head in fine-tuning, which starts from the trained head."""


LOOKED_AT = 3  # images that also go through the network alone


def heads(config, dataset, workdir):
    """A sweep of linear heads on inputs [N, D]: every rate with every weight decay."""
    return sweep(
        models.logistic(len(dataset.classes)),
        dataset,
        optimizers.adamw,
        hparams={n: getattr(config, n) for n in ("learning_rate", "weight_decay")},
        seeds=config.seeds,
        num_epochs=config.num_epochs,
        batch_size=min(config.batch_size, dataset.train.num_examples),
        schedule=schedules.cosine,
        monitor="accuracy",
        workdir=workdir,
        experiment="vgg16_transfer",
    )


def random_features(dataset, num_features):
    """Inputs [N, D] through one layer of ReLUs with fixed random weights."""
    size = dataset.train.inputs.shape[1]
    w = np.random.default_rng(0).normal(0, (2 / size) ** 0.5, (size, num_features))
    return dataset.each_split(lambda s: s._replace(inputs=np.maximum(s.inputs @ w, 0)))


def main(config: Config) -> Lesson:
    """Extract, sweep, choose on validation, read the test split once."""
    claims.check_seeds(config.seeds)
    if (n := config.num_examples) is not None and n < 1:
        raise UserError(f"num_examples is {n}: give a whole number of at least 1")
    images = data.load(config.data, config.data_dir, image_size=config.image_size)
    images = images if n is None else images.first(n)
    vgg16 = models.vgg16(weights=config.weights, pooling="avg")
    network = on_rgb(vgg16)
    init = network.init if config.weights else jax.jit(network.init)  # faster
    params = init(jax.random.key(0), images.train.inputs[0])
    if config.fine_tune_epochs:
        (trunk, first), (block5, last) = parted(vgg16, params)
        maps = features(on_rgb(trunk), first, images)
        seen = features(block5, last, maps)
    else:
        seen = features(network, params, images)
    trained = Path(config.weights).name if config.weights else "random"
    seen = seen._replace(name=f"{images.name} seen by VGG16 ({trained} weights)")
    inputs, mean, deviation = standardised(seen)
    run, trials, _ = heads(config, inputs, config.workdir)
    pixels = images.each_split(lambda s: s._replace(inputs=coarse(s.inputs)))
    pixels, *_ = standardised(pixels)
    drawn, *_ = standardised(random_features(pixels, inputs.train.inputs.shape[1]))
    runs = {"features of VGG16": run, "pixels": heads(config, pixels, None)[0]}
    runs["random features"] = heads(config, drawn, None)[0]
    if config.fine_tune_epochs:
        runs["last block trained on"] = fine_tune(
            maps,
            {"block5": last, "head": jax.tree.map(lambda leaf: leaf[0], run.params)},
            mean,
            deviation,
            {"block5": config.block_learning_rate, "head": config.head_learning_rate},
            seeds=config.seeds,
            num_epochs=config.fine_tune_epochs,
            batch_size=min(config.batch_size, len(maps.train.targets)),
            schedule=schedules.cosine,
            workdir=config.workdir and config.workdir / "fine_tuned",
            experiment="vgg16_transfer_fine_tuned",
        )
    results = {name: 100 * of.test_metric for name, of in runs.items()}  # [P] each
    alone = sequential_features(
        network, params, images.train.inputs[:LOOKED_AT]
    )  # [N, 512]
    return Lesson(
        f"Linear heads on features of VGG16 ({trained} weights) classify "
        f"{results['features of VGG16'].mean():.1f} % of test images correctly, heads "
        f"on pixels {results['pixels'].mean():.1f} %",
        claims=[
            claims.bounded(
                "The features are those that the network computes from an image alone",
                abs(seen.train.inputs[:LOOKED_AT] - alone).max(1) / abs(alone).max(1),
                at_most=1e-5,
                why="equal weights; float32 rounds each of 13 layers by about 6e-8 "
                "and, because the signs are random, the error is about 1e-6",
            ),
            claims.greater(
                "Heads on features lose no more than a point to heads on the pixels",
                results["features of VGG16"],
                results["pixels"],
                by=-1.0,
                why="13 layers may discard what a head needs; both kinds of heads have "
                "the same grid of settings, chosen on validation, and the same seeds",
            ),
        ],
        figures=[slides.every_setting(config, trials), slides.test_accuracy(results)],
        exercises=slides.exercises(),
        run=run,
    )


if __name__ == "__main__":
    workshop.start(main, Config)
