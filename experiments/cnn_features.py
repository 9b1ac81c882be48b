"""What do the stages of a convolutional network make of an image?

Local receptive field, shared weights and biases, activation, pooling; once more; then
fully connected, then a class. The network is written out stage by stage, trained on
digits, and looked into: its filters, the maps after each stage, and the pixels that its
answer hangs on (saliency).

    python experiments/cnn_features.py

Expect stages that agree with the library's network, classes that come apart towards the
last one, and few digits that can still be read when the six most salient pixels are
gone; in about 8 seconds on 2 cores.

Source: course, "Convolutional networks": local receptive field + shared weights and
biases + activation + pooling -> fully connected -> class; Simonyan, Vedaldi & Zisserman
(2014), Deep inside convolutional networks, ICLR workshop, for saliency.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop import data, fit, models, schedules
from dlworkshop.report.figures import BAND, band
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import check_gradients, claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """How many networks."""
    num_epochs: int = 20
    """Passes over the training split."""
    erased: int = 6
    """Pixels that are taken from each image."""


def convolve(x, kernel, bias):
    """s_ijf = b_f + sum_abc x_(i+a)(j+b)c K_abcf: 3x3 pixels, one K for all places."""
    height, width, _ = x.shape
    x = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    seen = [x[a : a + height, b : b + width] for a, b in np.ndindex(3, 3)]
    weights = kernel.reshape(9, *kernel.shape[2:])  # [9, C, F]
    return bias + sum(part @ w for part, w in zip(seen, weights, strict=True))


def bend(s):
    return jnp.maximum(s, 0)  # a = ReLU(s)


def pool(a):
    """The largest of each 2x2."""
    return jnp.stack([a[i::2, j::2] for i, j in np.ndindex(2, 2)]).max(0)


def stages(params, x):
    """ONE image [8, 8, 1] in [0, 1] -> what each stage makes of it; logits last."""
    found = {"image": x}
    for layer in (0, 1):
        s = convolve(x, **params[f"Conv_{layer}"])
        found[f"convolution {layer + 1}"] = a = bend(s)
        found[f"pooling {layer + 1}"] = x = pool(a)
    hidden, out = params["Dense_0"], params["Dense_1"]
    found["dense"] = a = bend(x.ravel() @ hidden["kernel"] + hidden["bias"])
    return found | {"logits": a @ out["kernel"] + out["bias"]}


SHOWN = ("image", "pooling 1", "pooling 2", "dense")


def log_probability(params, x, label):
    return jax.nn.log_softmax(stages(params, x)["logits"])[label]


def saliency(params, x, label):
    """x_ij dS/dx_ij: about what the answer loses when pixel ij is erased."""
    return x * jax.grad(log_probability, argnums=1)(params, x, label)


def erase(x, score, num_pixels):
    """The pixels with the highest scores become background."""
    last = jnp.sort(score.ravel())[-num_pixels]
    return jnp.where(score >= last, 0, x)


def centroid_accuracy(train, labels, test, truth):
    """Share of test features nearest to the mean feature of their own class."""
    means = jnp.stack([train[labels == k].mean(0) for k in range(10)])  # [K, D]
    squares = ((test[:, None] - means) ** 2).sum(-1)  # [N, K]
    return (squares.argmin(1) == truth).mean()


@jax.enable_x64(True)
def identities(model, trained, images, labels):
    """The network written out, and its saliency, on trained parameters."""
    trained = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), trained)  # [P, ...]
    x = jnp.asarray(images, float)

    def over(one):  # members and images: [P, N, ...]
        return jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))

    by_hand = over(lambda params, x: stages(params, x)["logits"])
    terms = by_hand(jax.tree.map(abs, trained), x)
    first = jax.tree.map(lambda leaf: leaf[0], trained)
    # where neighbours are equal, as in the empty margin, the largest has a kink
    grey = x[0] + jax.random.uniform(jax.random.key(0), x[0].shape) / 10
    report = check_gradients(lambda x: log_probability(first, x, labels[0]), grey)
    return [
        claims.exact(
            "The stages written out are the library's network",
            by_hand(trained, x),
            over(model.apply)(trained, x),
            roundings=9 + 9 * 16 + 4 * 32 + 32 + 4,
            scale=float(terms.max()),
            why="sums of 9, 144, 128 and 32 products and 4 biases; the scale is the "
            "largest sum of their absolute values",
        ),
        claims.gradients(
            "The answer changes with the pixels as saliency says",
            report,
            why="central differences in float64 resolve eps^(2/3), some 4e-11",
        ),
    ]


def tile(pictures, columns):
    """Pictures [N, H, W] in rows on one, with a gap of a pixel."""
    pictures = np.pad(pictures, [(0, 0), (0, 1), (0, 1)], constant_values=np.nan)
    _, height, width = pictures.shape
    grid = np.asarray(pictures).reshape(-1, columns, height, width)
    return grid.transpose(0, 2, 1, 3).reshape(-1, columns * width)[:-1, :-1]


def main(config: Config) -> Lesson:
    """Train, write the network out, and look into it stage by stage."""
    digits = data.load("digits")
    model = models.cnn((16, 32), dense=(32,), pooling=models.max_pool)
    runs = [
        fit(
            kind,
            digits,
            hparams={"learning_rate": rate},
            seeds=config.seeds,
            num_epochs=config.num_epochs,
            batch_size=64,
            schedule=schedules.cosine,
        )
        for kind, rate in ((model, 0.01), (models.logistic(), 0.05))
    ]
    params, truth = runs[0].params, np.asarray(digits.test.label)
    read, by_one_layer = (
        [row["test"]["accuracy"] for row in run.summary["population"]] for run in runs
    )
    image = jnp.asarray(digits.test.image / 255, jnp.float32)

    def look(params, key):
        """Of one member: accuracy by stage, and without 6 pixels of each image."""
        over = jax.vmap(stages, (None, 0))
        seen = over(params, jnp.asarray(digits.train.image / 255, jnp.float32))
        unseen = over(params, image)
        by_stage = [
            centroid_accuracy(
                seen[name].reshape(len(seen[name]), -1),
                digits.train.label,
                unseen[name].reshape(len(image), -1),
                truth,
            )
            for name in SHOWN
        ]
        salient = jax.vmap(saliency, (None, 0, 0))(params, image, truth)
        chance = jnp.where(image > 0, jax.random.uniform(key, image.shape), 0)
        kept = []
        for score in (salient, chance):
            left = jax.vmap(erase, (0, 0, None))(image, score, config.erased)
            kept.append((over(params, left)["logits"].argmax(-1) == truth).mean())
        return jnp.stack(by_stage), jnp.stack(kept)

    keys = jax.random.split(jax.random.key(0), config.seeds)
    by_stage, kept = map(np.asarray, jax.jit(jax.vmap(look))(params, keys))
    first = jax.tree.map(lambda leaf: leaf[0], params)
    ten = np.array([np.flatnonzero(truth == k)[0] for k in range(10)])
    maps = jax.device_get(stages(first, image[ten[3]]))
    salient = jax.vmap(saliency, (None, 0, 0))(first, image[ten], truth[ten])

    def show(axes, picture, title, colours="gray", **limits):
        axes.imshow(picture, colours, interpolation="none", **limits)
        axes.set_title(title)
        axes.set_axis_off()

    def filters(panels):
        kernels = np.asarray(first["Conv_0"]["kernel"])[..., 0, :].transpose(2, 0, 1)
        most = abs(kernels).max()
        show(panels[0], tile(kernels, 4), "kernels", "PuOr", vmin=-most, vmax=most)
        features = maps["convolution 1"].transpose(2, 0, 1)
        show(panels[1], tile(features, 4), "what they find")

    def feature_maps(panels):
        names = ("image", "pooling 1", "pooling 2")
        for axes, name in zip(panels, names, strict=True):
            pictures = maps[name].transpose(2, 0, 1)
            title = f"{name}: {' x '.join(map(str, maps[name].shape))}"
            show(axes, tile(pictures, max(1, len(pictures) // 4)), title)

    def where_it_looks(panels):
        show(panels[0], tile(image[ten, ..., 0], 5), "images")
        share = salient / abs(salient).max((1, 2), keepdims=True)  # of each image's own
        show(panels[1], tile(share[..., 0], 5), "saliency", "PuOr", vmin=-1, vmax=1)

    def classes_by_stage(axes):
        band(axes, range(len(SHOWN)), 100 * by_stage, f"mean of {config.seeds}")
        axes.set_xticks(range(len(SHOWN)), [n.replace(" ", "\n") for n in SHOWN])
        axes.set(xlabel="stage", ylabel="nearest class mean is right (%)")

    from_, to = 100 * by_stage.mean(0)[[0, -1]]
    salient_kept, chance_kept = 100 * kept.mean(0)
    return Lesson(
        f"The mean of its class is nearest to {from_:.0f} % of test images, and to "
        f"{to:.0f} % of what the last hidden layer makes of them",
        claims=[
            *identities(model, params, digits.test.image[:20] / 255, truth),
            claims.greater(
                "The network reads more digits than one layer does",
                read,
                by_one_layer,
                why="logistic regression on pixels, at the larger rate it needs; "
                "paired by seed",
            ),
            claims.rises(
                "The later the stage, the further the classes come apart",
                by_stage,
                why="what helps to tell them is kept, the rest is let go: the share of "
                "test images whose nearest class mean is their own",
            ),
            claims.less(
                "Without its most salient pixels more images are misread than without "
                "as many others",
                kept[:, 0],
                kept[:, 1],
                by=0.1,
                why="saliency is the answer's slope; the others are drawn from the "
                "ink; a tenth of all images is asked for, paired by seed",
            ),
        ],
        figures=[
            Figure(
                feature_maps,
                "Each stage has more maps with fewer pixels, and ends in one answer",
                "One network, one test image; light is large. Behind each convolution "
                "and ReLU, the maps are shown after pooling.",
                panels=3,
            ),
            Figure(
                filters,
                "16 kernels of 3x3 weights, and what each finds in the image",
                "Left: purple is positive, orange negative. Right: the maps after "
                "ReLU, in the same order; light is large.",
                panels=2,
            ),
            Figure(
                where_it_looks,
                f"Without {config.erased} salient pixels {salient_kept:.0f} % are "
                f"read, without {config.erased} others of the ink {chance_kept:.0f} %",
                "Right: purple pixels speak for the true class, orange ones against it "
                "(x dS/dx, S the log-probability, over its largest). One network.",
                panels=2,
            ),
            Figure(
                classes_by_stage,
                f"Nearest class mean: {from_:.0f} % right on pixels, {to:.0f} % before "
                "the last layer",
                f"Means of the training split, share of the test split. {BAND}",
            ),
        ],
        exercises=[
            Exercise(
                "Let `bend` return s. What do the claims say?",
                "The first fails, as the library's network has a ReLU of its "
                "own; all that looks into the trained network sees another network.",
            ),
            Exercise(
                "Take `--erased 12`. How many images are still read?",
                "See the title of the third figure. Erasing shifts the image away from "
                "anything seen in training, so part of the loss is not due to "
                "saliency: that is what the other pixels are compared for.",
            ),
        ],
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
