"""What do the stages of a convolutional network compute from an image?

The network has two convolutions (local receptive fields, shared weights and biases),
each with an activation and pooling, then a fully connected layer and a class. It is
written out stage by stage and trained on digits. Then the lesson shows its filters, the
maps after each stage, and the pixels that its answer depends on (saliency).

    python experiments/cnn_features.py

Expect classes that are better separated in later stages (nearest class mean: 92 %
right, then 98 %). Without their six most salient pixels 24 % of digits are recognised,
without the six brightest 51 %. The lesson takes about 20 seconds on 2 cores.

Source: course, "Convolutional networks"; Simonyan, Vedaldi & Zisserman (2014), Deep
inside convolutional networks, ICLR workshop, for saliency; Shrikumar et al. (2016), Not
just a black box, for gradient times input.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from slides import cnn_features as slides

from dlworkshop import data, losses, models, workshop
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.metrics import nearest_mean
from dlworkshop.learn.minimize import batch_mean, trajectory
from dlworkshop.models.convolution import computed_by
from dlworkshop.verify import check_gradients, claims
from dlworkshop.workshop.lesson import Lesson, check_settings, fit_best_rate


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """Number of networks for each learning rate."""
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    """Learning rates of Adam; validation chooses one."""
    num_epochs: int = 20
    """Passes over the training split."""


MODEL = models.cnn((16, 32), dense=(32,), pooling=models.max_pool)
SHOWN = ("image", "pooling 1", "pooling 2", "dense")  # where separation is measured
ERASED = 6  # pixels erased from each image
LOOKS = np.array([0, 1, 3, 6, 12, 25, 50, 100])  # percent of the updates


def convolve(x, kernel, bias):
    """s_ijf = b_f + sum_abc x_(i+a)(j+b)c K_abcf: 3x3 pixels, one K for all places."""
    wide = jnp.pad(x, ((1, 1), (1, 1), (0, 0)))
    seen = [wide[a : a + len(x), b : b + len(x[0])] for a, b in np.ndindex(3, 3)]
    weights = kernel.reshape(9, -1, len(bias))  # [9, C, F]
    return bias + jnp.einsum("pijc,pcf->ijf", jnp.stack(seen), weights)


def stages(params, x):
    """ONE image [8, 8, 1] in [0, 1] -> the output of each stage; logits last."""
    found = {"image": x}
    for number in (1, 2):
        s = convolve(x, **params[f"Conv_{number - 1}"])
        found[f"convolution {number}"] = a = jnp.maximum(s, 0)  # ReLU
        found[f"pooling {number}"] = x = models.max_pool(a)  # [H/2, W/2, F]
    hidden, out = params["Dense_0"], params["Dense_1"]  # fully connected
    found["dense"] = a = jnp.maximum(x.ravel() @ hidden["kernel"] + hidden["bias"], 0)
    return found | {"logits": a @ out["kernel"] + out["bias"]}


def log_probability(params, x, label):
    return jax.nn.log_softmax(stages(params, x)["logits"])[label]


def saliency(params, x, label):
    """x_ij dS/dx_ij: approximate loss of log-probability if pixel ij is erased."""
    return x * jax.grad(log_probability, argnums=1)(params, x, label)


def erase(x, score):
    """Set the pixels with the highest scores to the background."""
    highest = jnp.argsort(score.ravel())[-ERASED:]
    return x.ravel().at[highest].set(0).reshape(x.shape)


def look(train, test, params):
    """For one member: accuracy by stage, accuracy without some pixels, saliency."""
    over = jax.vmap(stages, (None, 0))
    seen, unseen = over(params, train.inputs), over(params, test.inputs)
    apart = [
        nearest_mean(seen[s], train.targets, unseen[s], test.targets) for s in SHOWN
    ]
    salient = jax.vmap(saliency, (None, 0, 0))(params, *test[:2])
    scores = salient, test.inputs  # of each pixel: saliency, and brightness
    left = [over(params, jax.vmap(erase)(test.inputs, s))["logits"] for s in scores]
    kept = [(logits.argmax(-1) == test.targets).mean() for logits in left]
    return jnp.stack(apart), jnp.stack(kept), salient


@jax.jit
def while_it_learns(rate, start, train, order, image):
    """The stages for an image [looks, ...], and the first kernels, during training."""
    model = computed_by(MODEL, None)
    adam = optax.adam(optax.cosine_decay_schedule(rate, len(order)))
    loss, looks = batch_mean(model, losses.cross_entropy), len(order) * LOOKS // 100
    params = trajectory(loss, start, adam, gather(train, order), looks)
    return jax.vmap(stages, (0, None))(params, image), params["Conv_0"]["kernel"]


@jax.enable_x64(True)
def identities(model, trained, test):
    """The network written out, and the gradient of its answer, with trained weights."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), trained)
    x = np.asarray(test.inputs, float)  # [N, 8, 8, 1]
    over = jax.jit(jax.vmap(stages, (None, 0)))
    # max pooling has a kink where neighbours are equal, as in the empty margin
    grey = x[0] + np.random.default_rng(0).uniform(0, 0.1, x[0].shape)
    return [
        claims.equal_up_to_rounding(
            "The stages written out compute what the library's network computes",
            over(params, x)["logits"],
            models.predict(model, params, x),
            roundings=9 + 9 * 16 + 4 * 32 + 32 + 4,
            scale=float(over(jax.tree.map(abs, params), x)["logits"].max()),
            why="sums of 9, 144, 128 and 32 products and 4 biases; the scale is the "
            "sum of their absolute values",
        ),
        claims.gradients(
            "The answer changes with the pixels as its gradient predicts",
            check_gradients(
                lambda x: log_probability(params, x, test.targets[0]), grey
            ),
        ),
    ]


def main(config: Config) -> Lesson:
    """Train, write the network out, and examine it stage by stage."""
    check_settings(config, seeds=claims.LEAST_SEEDS)
    digits = data.load("digits")
    settings = config.learning_rates, config.seeds, config.num_epochs
    rate, params = fit_best_rate(MODEL, digits, *settings)  # [P, ...]
    train, _, test = (s._replace(inputs=s.inputs / np.float32(255)) for s in digits[:3])
    each = jax.jit(jax.vmap(look, (None, None, 0)))  # member
    apart, kept, salient = map(np.asarray, each(train, test, params))  # [P, ...] each
    first = jax.tree.map(lambda leaf: leaf[0], params)
    size = len(train.targets)
    order = np.random.default_rng(0).integers(
        0, size, (config.num_epochs * size // 64, 64)
    )
    start = MODEL.init(jax.random.key(0), train.inputs[0])
    found, kernels = jax.device_get(
        while_it_learns(rate, start, train, order, test.inputs[0])
    )

    return Lesson(
        f"The nearest class mean is right for {apart[:, 0].mean():.0%} of test images, "
        f"and for {apart[:, -1].mean():.0%} of their features in the last hidden layer",
        claims=[
            *identities(MODEL, first, test),
            claims.rises(
                "The later the stage, the better the classes are separated",
                apart,
                why="training keeps what helps to tell classes apart and discards the "
                "rest",
            ),
            claims.less(
                "Fewer images are read correctly without their most salient pixels "
                "than without their brightest ones",
                kept[:, 0],
                kept[:, 1],
                why="saliency estimates the effect of each pixel on the answer, and "
                "no other six pixels have more ink than the brightest",
            ),
        ],
        figures=[
            slides.filters(kernels, found, len(order) * LOOKS // 100),
            slides.feature_maps(found, len(order) * LOOKS // 100),
            slides.where_it_looks(test, salient, kept, ERASED),
        ],
        exercises=slides.exercises(),
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
