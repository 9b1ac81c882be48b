"""What do the stages of a convolutional network make of an image?

Local receptive field, shared weights and biases, activation, pooling; once more; then
fully connected, then a class. The network is written out stage by stage, trained on
digits, and looked into: its filters, the maps after each stage, and the pixels that its
answer hangs on (saliency).

    python experiments/cnn_features.py

Expect stages that agree with the library's network, classes that come apart towards the
last one (nearest class mean: 92 % right, then 98 %), and 24 % of digits still read
without their six most salient pixels, 51 % without the six brightest; in about 25
seconds on 2 cores.

Source: course, "Convolutional networks": local receptive field + shared weights and
biases + activation + pooling -> fully connected -> class; Simonyan, Vedaldi & Zisserman
(2014), Deep inside convolutional networks, ICLR workshop, for saliency.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop import data, models
from dlworkshop.report.lesson_figures import picture
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson, tuned
from dlworkshop.verify import check_gradients, claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """How many networks with each rate."""
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    """Of Adam; validation chooses one."""
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
    highest = jnp.argsort(score.ravel())[-num_pixels:]
    return x.ravel().at[highest].set(0).reshape(x.shape)


def nearest_mean(train, labels, test, truth):
    """Share of test features [N, ...] nearest to the mean feature of their class."""
    train, test = (features.reshape(len(features), -1) for features in (train, test))
    own = jax.nn.one_hot(labels, 10, axis=0)  # [K, N]
    means = own @ train / own.sum(1, keepdims=True)  # [K, D]
    squares = ((test[:, None] - means) ** 2).sum(-1)  # [N, K]
    return (squares.argmin(1) == truth).mean()


def look(num_pixels, train, test, params):
    """Of one member: share told apart at each stage; right without some pixels."""
    over = jax.vmap(stages, (None, 0))
    seen, unseen = over(params, train.image), over(params, test.image)
    apart = [nearest_mean(seen[s], train.label, unseen[s], test.label) for s in SHOWN]
    salient = jax.vmap(saliency, (None, 0, 0))(params, *test)
    kept = []
    for score in (salient, test.image):  # the most salient, and the brightest
        left = jax.vmap(partial(erase, num_pixels=num_pixels))(test.image, score)
        kept.append((over(params, left)["logits"].argmax(-1) == test.label).mean())
    return jnp.stack(apart), jnp.stack(kept)


@jax.enable_x64(True)
def identities(model, trained, images, label):
    """The network written out, and its saliency, on trained parameters [P, ...]."""
    trained, x = jax.tree.map(lambda leaf: np.asarray(leaf, float), (trained, images))

    @jax.jit
    def roads(params):
        ours = jax.vmap(stages, (None, 0))(params, x)["logits"]
        sizes = jax.vmap(stages, (None, 0))(jax.tree.map(abs, params), x)["logits"]
        return ours, models.predict(model, params, x), sizes.max()

    ours, theirs, sizes = jax.lax.map(roads, trained)
    first = jax.tree.map(lambda leaf: leaf[0], trained)
    # where neighbours are equal, as in the empty margin, the largest has a kink
    grey = x[0] + np.random.default_rng(0).uniform(0, 0.1, x[0].shape)
    return [
        claims.exact(
            "The stages written out are the library's network",
            ours,
            theirs,
            roundings=9 + 9 * 16 + 4 * 32 + 32 + 4,
            scale=float(sizes.max()),
            why="sums of 9, 144, 128 and 32 products and 4 biases; the scale is the "
            "largest sum of their sizes",
        ),
        claims.gradients(
            "The answer changes with the pixels as saliency says",
            check_gradients(lambda x: log_probability(first, x, label), grey),
        ),
    ]


def main(config: Config) -> Lesson:
    """Train, write the network out, and look into it stage by stage."""
    digits = data.load("digits")
    model = models.cnn((16, 32), dense=(32,), pooling=models.max_pool)
    settings = config.learning_rates, config.seeds, config.num_epochs
    _, params = tuned(model, digits, *settings)  # [P, ...]
    train, test = (
        split._replace(image=np.asarray(split.image / 255, np.float32))
        for split in (digits.train, digits.test)
    )
    each = jax.jit(jax.vmap(partial(look, config.erased), (None, None, 0)))
    apart, kept = map(np.asarray, each(train, test, params))  # [P, stages], [P, 2]
    first = jax.tree.map(lambda leaf: leaf[0], params)
    ten = np.array([np.flatnonzero(test.label == k)[0] for k in range(10)])
    found = stages(first, test.image[ten[3]])
    maps = {name: np.moveaxis(each, -1, 0) for name, each in found.items()}  # [C, H, W]
    salient = jax.vmap(saliency, (None, 0, 0))(first, test.image[ten], test.label[ten])
    salient /= abs(salient).max((1, 2, 3), keepdims=True)  # of each image's own

    def filters(panels):
        kernels = np.moveaxis(first["Conv_0"]["kernel"][:, :, 0], -1, 0)  # [F, 3, 3]
        most = abs(kernels).max()
        picture(panels[0], maps["image"], "image")
        picture(panels[1], kernels, "16 kernels", "PuOr", vmin=-most, vmax=most)
        picture(panels[2], maps["convolution 1"], "what they find")

    def feature_maps(panels):
        names = "pooling 1", "convolution 2", "pooling 2"
        for axes, name in zip(panels, names, strict=True):
            shape = "{} of {} x {}".format(*maps[name].shape)
            picture(axes, maps[name], f"{name}: {shape}")

    def where_it_looks(panels):
        picture(panels[0], test.image[ten, ..., 0], "images")
        picture(panels[1], salient[..., 0], "saliency", "PuOr", vmin=-1, vmax=1)

    begin, *_, end = apart.mean(0)
    without_salient, without_bright = kept.mean(0)
    return Lesson(
        f"The mean of its class is nearest to {begin:.0%} of test images, and to "
        f"{end:.0%} of what the last hidden layer makes of them",
        claims=[
            *identities(model, params, test.image[:20], test.label[0]),
            claims.rises(
                "The later the stage, the further the classes come apart",
                apart,
                why="what helps to tell them is kept, and the rest is let go",
            ),
            claims.less(
                "Without its most salient pixels fewer images are read than without "
                "the brightest",
                kept[:, 0],
                kept[:, 1],
                why="saliency is the answer's slope, and takes no more ink than they",
            ),
        ],
        figures=[
            Figure(
                "filters",
                filters,
                "16 kernels of 3x3 shared weights, and what each finds in the image",
                "One network, one test image. Kernels: purple is positive, orange "
                "negative. Right: the maps after ReLU, in the same order.",
                panels=3,
            ),
            Figure(
                "feature_maps",
                feature_maps,
                "Each stage has more maps or fewer pixels, and ends in one answer",
                "The same network and image; light is large, after ReLU.",
                panels=3,
            ),
            Figure(
                "where_it_looks",
                where_it_looks,
                f"Without {config.erased} salient pixels {without_salient:.0%} are "
                f"read, without the {config.erased} brightest {without_bright:.0%}",
                "Right: purple pixels speak for the true class, orange ones against it "
                "(x dS/dx, S the log-probability, over its largest). One network.",
                panels=2,
            ),
        ],
        exercises=[
            Exercise(
                "Let `saliency` return dS/dx, without x. What can it say of black "
                "pixels that x dS/dx cannot?",
                "That ink is missing there. x dS/dx is 0 on them, whatever the slope: "
                "erased, they stay as they are.",
                claims.bounded(
                    "A black pixel has no saliency",
                    salient[test.image[ten] == 0],
                    equal_to=0,
                    why="x dS/dx is 0 where x is 0",
                ),
            ),
        ],
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
