"""How does a network choose one of several classes?

Its last layer has one output per class, and softmax turns them into probabilities. This
lesson checks the properties of softmax, the simple gradient of the cross-entropy, and a
trap: a literal e^z overflows. Then networks learn to tell three spirals apart.

    python experiments/softmax.py

Expect the identities to hold up to rounding and nearly all test points to be classified
correctly, in about 14 seconds on 2 cores.

Source: course, "Softmax classification": output = softmax(a W2), W2 is 4x3, outputs in
[0, 1]; Bishop (2006), Pattern Recognition and Machine Learning, eq. 4.104 and 4.109.
"""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from slides import softmax as slides

from dlworkshop import fit, models, workshop
from dlworkshop.data import toy
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_rising, check_settings


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 20
    """Number of networks that learn the spirals, and of random draws of logits."""
    num_epochs: tuple[int, ...] = (1, 10, 100)
    """Numbers of epochs, rising, after which the networks are shown."""


def softmax(z):  # softmax(z)_k = e^z_k / sum_l e^z_l
    powers = jnp.exp(z - z.max())  # on paper the shift cancels; here it tames e^z
    return powers / powers.sum()


def literal_softmax(z):
    return jnp.exp(z) / jnp.exp(z).sum()


def cross_entropy(z, k):  # -log softmax(z)_k without log(0)
    return z.max() + jnp.log(jnp.exp(z - z.max()).sum()) - z[k]


def gradient(z, k):  # d cross_entropy / dz = p - onehot(k)
    return softmax(z) - jnp.eye(len(z))[k]


def network(x, w1, w2):  # W1 is 6x4, W2 is 4x3
    return softmax(jax.nn.sigmoid(x @ w1) @ w2)  # output = softmax(a W2)


@jax.enable_x64(True)
def identities(num_draws):
    """Properties of softmax for random logits, and for logits of 10,000."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (num_draws, 6), (num_draws, 6, 4), (num_draws, 4, 3)
    x, w1, w2 = map(jax.random.normal, keys, shapes)
    z, label = 3 * w2[:, 0], jnp.arange(num_draws) % 3  # [P, 3], [P]
    outputs = jax.vmap(network)(x, w1, w2)  # [P, 3]
    shift = jnp.linspace(-100, 100, num_draws)[:, None]
    signs = list(itertools.product([-1e4, 0, 1e4], repeat=3))
    extreme = jnp.array(signs, jnp.float32)  # [27, 3]
    slope = jax.vmap(jax.grad(cross_entropy), (0, None))(extreme, 0)
    beyond = np.isnan([jax.vmap(softmax)(extreme), slope])
    literal = np.isnan(jax.vmap(literal_softmax)(extreme)).any(1)
    return [
        claims.equal_up_to_rounding(
            "The outputs of the 6-4-3 network sum to 1",
            outputs.sum(1),
            np.ones(num_draws),
            roundings=12,
            why="3 powers with about 2 roundings each, 2 sums, 3 quotients",
        ),
        claims.bounded(
            "Every output lies in [0, 1]",
            jnp.maximum(-outputs, outputs - 1),
            at_most=0.0,
            why="a positive number over a sum that contains it",
        ),
        claims.equal_up_to_rounding(
            "Adding the same number to all logits changes nothing",
            jax.vmap(softmax)(z + shift),
            jax.vmap(softmax)(z),
            roundings=12 + 4 * 100,
            why="z + c with |c| <= 100 is off by eps |c|, and so is e^z, relatively",
        ),
        claims.equal_up_to_rounding(
            "Softmax of two classes is the sigmoid of their difference",
            jax.vmap(softmax)(z[:, :2])[:, 0],
            1 / (1 + jnp.exp(z[:, 1] - z[:, 0])),
            roundings=12 + 20,
            why="as above; a difference up to 20 adds up to 20 roundings",
        ),
        claims.equal_up_to_rounding(
            "The gradient of the cross-entropy is p - onehot",
            jax.vmap(gradient)(z, label),
            jax.vmap(jax.grad(cross_entropy))(z, label),
            roundings=20,
            why="the 12 of p, and a few more in autodiff",
        ),
        claims.bounded(
            "Logits of 10,000 give no NaN in float32, and neither do their gradients",
            beyond,
            equal_to=0,
            why="after the shift the largest power is e^0 = 1",
        ),
    ], claims.bounded(
        "The literal formula gives NaN on 20 of these 27 sets of logits",
        literal.sum(),
        equal_to=20,
        why="19 sets have a logit of 10,000, which gives inf / inf; one has all at "
        "-10,000, which gives 0 / 0",
    )


def main(config: Config) -> Lesson:
    """The identities, then a population of networks that learn three spirals."""
    check_settings(config, seeds=claims.LEAST_SEEDS, num_epochs=1)
    check_rising(config, "num_epochs")
    found, overflows = identities(config.seeds)
    spirals = toy.split(toy.spirals(900), "spirals")
    model = models.mlp((32,), num_classes=3)
    settings = {"hparams": {"learning_rate": 0.03}, "batch_size": 60}
    runs = {  # the same seeds, so each run begins like the previous one
        epochs: fit(model, spirals, seeds=config.seeds, num_epochs=epochs, **settings)
        for epochs in config.num_epochs
    }
    accuracy = runs[config.num_epochs[-1]].test_metric  # [P]
    return Lesson(
        f"Three outputs become three probabilities, and {accuracy.mean():.1%} of the "
        "test points are classified correctly",
        claims=[
            *found,
            claims.greater(
                "Trained networks predict the right spiral more often than chance",
                accuracy,
                1 / 3,
                why="three classes of equal size: a guess is right in 1 of 3 cases",
            ),
        ],
        figures=[
            slides.regions(spirals.train, runs, softmax),
            slides.overflow(softmax, literal_softmax),
        ],
        exercises=slides.exercises(overflows),
        summary={"dataset": "spirals", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
