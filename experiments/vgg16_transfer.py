"""How far do features that VGG16 learnt elsewhere carry on images of your own?

The images go through the network once and what comes out is kept. On these features
a population of linear heads is trained, every learning rate with every weight decay
and every seed, in one program; the best setting by validation accuracy is trained
again and read on the test split, beside the same heads on the pixels themselves. Then,
if wanted, the last block of the network is trained on from there with a learning rate
of its own.

    python experiments/vgg16_transfer.py --data FOLDER --weights imagenet

Without weights the features are those of a random network, a fair baseline for what
the learnt ones bring. Expect 98.1 % from those on the 1,797 digits that are the
default, hardly more than the 97.7 % from their pixels, in 45 seconds on 2 cores.

Source: course, keras.applications.VGG16; Simonyan & Zisserman (2015), Very deep
convolutional networks, table 1, column D.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.lib.stride_tricks import sliding_window_view

from dlworkshop import data, fit, models, optimizers, schedules
from dlworkshop.errors import UserError
from dlworkshop.models.model import Model
from dlworkshop.models.vgg16 import BLOCKS, LastBlock, Trunk
from dlworkshop.report.lesson_figures import dots, table
from dlworkshop.run import experiment
from dlworkshop.run.features import features
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.run.result import Run
from dlworkshop.run.sweep import sweep
from dlworkshop.types import Batch, Dataset, PyTree
from dlworkshop.verify import claims


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
    num_examples: int | None = None
    """The first so many images of each split; all by default."""
    seeds: int = 6
    """Heads for each setting, with seeds 0, 1, ..."""
    num_epochs: int = 30
    """Passes over the training split, for the heads."""
    batch_size: int = 64
    """Examples per step and model; at most all that there are to learn from."""
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


LOOKED_AT = 3  # images that go through the network by hand, too
COARSE = 16  # pixels of a side at most, where heads learn from pixels
ENTRANCE = {  # RGB in [0, 1] -> what the first layer was trained on
    "caffe": lambda x: (255 * x - [123.68, 116.779, 103.939])[..., ::-1],
    "torch": lambda x: (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
}


def by_hand(params, x):
    """VGG16 [H, W, 3] -> [512]: 13 convolutions with ReLU, and 5 times max over 2x2."""
    for number, (num_layers, _) in enumerate(BLOCKS, 1):
        for i in range(1, num_layers + 1):
            layer = params[f"block{number}_conv{i}"]
            padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
            windows = sliding_window_view(padded, (3, 3), (0, 1))  # [H, W, C, 3, 3]
            s = np.tensordot(
                windows, np.float64(layer["kernel"]), ([3, 4, 2], [0, 1, 2])
            )
            x = np.maximum(s + layer["bias"], 0)  # [H, W, F]
        h, w = len(x) // 2, x.shape[1] // 2
        x = x[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).max((1, 3))
    return x.mean((0, 1))


def rgb(image):
    """An image [H, W, 1 or 3] as RGB, each pixel repeated up to sides of 32 or more."""
    scale = -(-32 // min(image.shape[:2]))
    image = jnp.asarray(image).repeat(scale, 0).repeat(scale, 1)
    return jnp.broadcast_to(image, (*image.shape[:2], 3))


def on_rgb(model: Model) -> Model:
    """The model on images of any kind."""
    return model._replace(
        init=lambda key, image: model.init(key, rgb(image)),
        apply=lambda params, image, *, key=None: model.apply(params, rgb(image)),
    )


def each_split(dataset: Dataset, change, **more) -> Dataset:
    """The data set whose splits (image [N, ...], label [N]) are changed, all three."""
    train, validation, test = map(change, dataset[:3])
    return dataset._replace(train=train, validation=validation, test=test, **more)


def coarse(images):
    """Pixels [N, h * w * C] of images [N, H, W, C]; of large ones means of blocks."""
    size = -(-max(images.shape[1:3]) // COARSE)  # of a block
    h, w = (side // size for side in images.shape[1:3])
    blocks = images[:, : h * size, : w * size] / 255
    return (
        blocks.reshape(len(images), h, size, w, size, -1)
        .mean((2, 4))
        .reshape(len(images), -1)
    )


def heads(config: Config, dataset: Dataset, workdir: Path | None):
    """A sweep of linear heads on inputs [N, D], and the mean and deviation of those.

    Heads see inputs of mean 0 and deviation 1 over the training split.
    """
    mean, deviation = dataset.train.image.mean(0), dataset.train.image.std(0)  # [D]
    deviation = np.where(deviation > 0, deviation, 1)

    def scaled(split):
        return split._replace(image=(split.image - mean) / deviation)

    found = sweep(
        models.logistic(len(dataset.classes)),
        each_split(dataset, scaled),
        optimizers.adamw,
        hparams={
            "learning_rate": config.learning_rate,
            "weight_decay": config.weight_decay,
        },
        seeds=config.seeds,
        num_epochs=config.num_epochs,
        batch_size=min(config.batch_size, len(dataset.train.label)),
        schedule=schedules.cosine,
        workdir=workdir,
        experiment="vgg16_transfer",
    )
    return found, mean, deviation


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
        batch_size=min(config.batch_size, len(maps.train.label)),
        schedule=schedules.cosine,
        workdir=config.workdir and config.workdir / "fine_tuned",
        experiment="vgg16_transfer_fine_tuned",
    )


def accuracies(run: Run) -> np.ndarray:
    """In percent, of each member [P] on the test split."""
    return np.array([100 * m["test"]["accuracy"] for m in run.summary["population"]])


def check(config: Config) -> None:
    """What would be found out after the work only."""
    if config.seeds < claims.LEAST_SEEDS:
        raise UserError(
            f"seeds is {config.seeds}, too few for the claim about them: give at least "
            f"{claims.LEAST_SEEDS}"
        )
    if config.num_examples is not None and config.num_examples < 1:
        raise UserError(
            f"num_examples is {config.num_examples}: give a whole number of at least 1"
        )


def main(config: Config) -> Lesson:
    """Extract, sweep, choose on validation, read the test split once."""
    check(config)
    images = data.load(config.data, config.data_dir, image_size=config.image_size)
    if (n := config.num_examples) is not None:
        some = f"{images.fingerprint}, the first {n}"
        images = each_split(
            images, lambda split: Batch(*(a[:n] for a in split)), fingerprint=some
        )
    vgg16 = models.vgg16(weights=config.weights, pooling="avg")
    trained = Path(config.weights).name if config.weights else "random"
    init = on_rgb(vgg16).init  # random numbers are drawn sooner by one program
    init = init if config.weights else jax.jit(init)
    params = init(jax.random.key(0), images.train.image[0])
    if config.fine_tune_epochs:
        last = {name: p for name, p in params.items() if name.startswith("block5")}
        trunk_params = {name: p for name, p in params.items() if name not in last}
        about = {**vgg16.config, "name": "vgg16 trunk"}
        trunk = models.from_linen(Trunk(vgg16.config["preprocessing"]), about)
        maps = features(on_rgb(trunk), trunk_params, images)
        seen = features(models.from_linen(LastBlock()), last, maps)
    else:
        seen = features(on_rgb(vgg16), params, images)
    seen = seen._replace(name=f"{images.name} seen by VGG16 ({trained} weights)")
    pixels = each_split(images, lambda s: s._replace(image=coarse(s.image)))

    (run, settings), *scale = heads(config, seen, config.workdir)
    (of_pixels, _), *_ = heads(config, pixels, None)
    results = {"features of VGG16": accuracies(run), "pixels": accuracies(of_pixels)}
    if config.fine_tune_epochs:
        begun = jax.tree.map(lambda leaf: leaf[0], run.params)  # the head of seed 0
        tuned = fine_tune(config, maps, {"block5": last, "head": begun}, *scale)
        results["last block trained on"] = accuracies(tuned)

    enter = ENTRANCE[vgg16.config["preprocessing"]]
    looked_at = images.train.image[:LOOKED_AT] / 255.0
    alone = np.array([by_hand(params, enter(np.float64(rgb(x)))) for x in looked_at])
    ours = seen.train.image[:LOOKED_AT]  # [N, 512]
    features_read, pixels_read = (each.mean() for each in list(results.values())[:2])
    best = settings[0]["hparams"]
    rates, decays = config.learning_rate, config.weight_decay
    accuracy = {tuple(s["hparams"].values()): s["accuracy"]["mean"] for s in settings}
    grid = [[accuracy[rate, decay] for rate in rates] for decay in decays]

    def every_setting(axes):
        percent = 100 * np.array(grid, float)
        texts = np.vectorize("{:.1f}".format)(percent)
        dark = 2 * np.nanmax(percent) - np.nanmin(percent)  # too dark for black letters
        table(axes, percent, texts, "Blues", vmax=dark, origin="lower", aspect="auto")
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.set_yticks(range(len(decays)), [f"{decay:g}" for decay in decays])
        axes.set(xlabel="learning rate", ylabel="weight decay")

    def test_accuracy(axes):
        dots(axes, results, "test accuracy (%)")

    return Lesson(
        f"Linear heads on features of VGG16 ({trained} weights) read "
        f"{features_read:.1f} % of new images, on pixels {pixels_read:.1f} %",
        claims=[
            claims.bounded(
                "The features are those of VGG16 written out with NumPy",
                abs(ours - alone).max(1) / abs(alone).max(1),
                at_most=1e-5,
                why="the same weights; float32 rounds each of 13 layers at 6e-8 and, "
                "the signs of the errors being random, leaves some 1e-6",
            ),
            claims.greater(
                "Heads on features read more than who always names the commonest class",
                results["features of VGG16"],
                100 * np.bincount(images.test.label).max() / len(images.test.label),
                why="below that nothing was learnt; settings are chosen on validation",
            ),
        ],
        figures=[
            Figure(
                "every_setting",
                every_setting,
                f"Of {len(settings)} settings, rate {best['learning_rate']:g} and "
                f"decay {best['weight_decay']:g} are best on validation",
                f"Validation accuracy (%), mean of {config.seeds} heads on features.",
            ),
            Figure(
                "test_accuracy",
                test_accuracy,
                f"On test images features carry {features_read:.1f} %, pixels "
                f"{pixels_read:.1f} %",
                "A dot is a seed, the number their mean. The settings were chosen on "
                "validation, for each input apart.",
            ),
        ],
        exercises=[
            Exercise(
                "How many numbers does the network have without its top, and how many "
                "does a head learn for 10 classes?",
                "14,714,688 and (512 + 1) x 10 = 5,130: the head is a 2,868th.",
                claims.bounded(
                    "VGG16 has 14,714,688 parameters and a head 513 for each class",
                    [
                        models.num_params(params) - 14_714_688,
                        models.num_params(run.params)
                        - config.seeds * 513 * len(images.classes),
                    ],
                    equal_to=0,
                    why="13 times 3 x 3 x C x F + F; 512 weights and a bias",
                ),
            ),
        ],
        summary={"sweep": settings},
        run=run,
    )


if __name__ == "__main__":
    experiment.start(main, Config)
