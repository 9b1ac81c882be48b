"""Why not simply use a fully connected network for images?

A photo of 1000 x 1000 pixels in 3 colours is 3 million inputs, and each hidden unit has
a weight for every input: 3 billion weights for 1,000 units, while 64 kernels of 3x3
have 1,792 parameters, however large the photo. What a dense layer learns about a digit
at one place applies to that place only. A CNN and an MLP with equally many parameters
learn digits that lie anywhere, each at the rate that validation chose.

    python experiments/why_convolution.py

Expect the CNN to recognise about 85 % of shifted digits after 1,200 examples and the
MLP 67 %, and the CNN to be ahead even with half as many examples, in about 30 seconds
on 2 cores.

Source: course, "Images are different": 64x64x3 = 12,288 inputs, 1000x1000x3 = 3 million
inputs x hidden units; LeCun et al. (1989), Neural Computation 1, 541-551.
"""

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from slides import why_convolution as slides

from dlworkshop import data, losses, metrics, models, workshop
from dlworkshop.data import toy
from dlworkshop.errors import UserError
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.minimize import batch_mean, minimize
from dlworkshop.models.convolution import computed_by
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import (
    Lesson,
    check_positive,
    check_rising,
    check_settings,
    vmap_grid,
)


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 8
    """Number of networks of each kind; each seed draws its own digits and places."""
    sizes: tuple[int, ...] = (150, 300, 600, 1200)
    """Numbers of training examples, each twice the one before."""
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    """Learning rates of Adam; validation chooses for each kind and number."""
    num_steps: int = 400
    """Number of updates with 32 examples each."""


SIDES = np.array([16, 32, 64, 128, 224, 500, 1000])  # of photos in 3 colours
LAYERS = {
    "1,000 dense units": models.mlp((), num_classes=1000),  # one layer only
    "64 kernels of 3x3": nn.Conv(64, (3, 3)),
}
CANVAS = 12  # digits of 8 x 8 lie anywhere on 12 x 12
NETWORKS = {
    "CNN": computed_by(models.cnn((8, 16), (24,), pooling=models.max_pool), None),
    "MLP": models.mlp((32,)),
}


def num_weights(network, shape):
    """Parameters for images of this shape; no image and no weight is created."""
    image = jnp.zeros(shape, jnp.uint8)
    return models.num_params(jax.eval_shape(network.init, jax.random.key(0), image))


def scores(model, config, rate, size, key, train, *others):
    """Accuracies on the other splits of a network that was trained on `size` digits."""
    init_key, order_key = jax.random.split(key)
    order = jax.random.randint(order_key, (config.num_steps, 32), 0, size)  # [T, B]
    loss, share = (
        batch_mean(model, f) for f in (losses.cross_entropy, metrics.accuracy)
    )
    adam = optax.adam(optax.cosine_decay_schedule(rate, config.num_steps))
    start = model.init(init_key, train.inputs[0])
    params, _ = minimize(loss, start, adam, gather(train, order))
    return jnp.stack([share(params, split) for split in others])


def sample_efficiency(model, config):
    """Test accuracies [P, sizes], at the rates that validation chose."""
    rates, sizes = np.array(config.learning_rates), np.array(config.sizes)
    all_rates, found = vmap_grid(partial(scores, model, config)), []
    for seed in range(config.seeds):  # more at once do not fit into the cache
        splits = [toy.scattered(s, CANVAS, seed) for s in data.load("digits")[:3]]
        found.append(all_rates(rates, sizes, jax.random.key(seed), *splits))
    validation, test = np.moveaxis(np.array(found), -1, 0)  # [P, rates, sizes] each
    best = validation.mean(0).argmax(0)  # [sizes]
    return test[:, best, range(len(sizes))], rates[best]


def main(config: Config) -> Lesson:
    """Count parameters; then train two kinds of network on shifted digits."""
    check_settings(config, seeds=claims.LEAST_SEEDS, sizes=1, num_steps=1)
    check_positive(config, "learning_rates")
    check_rising(config, "sizes")
    available, asked = len(data.load("digits").train.targets), config.sizes
    if asked[-1] > available or any(b != 2 * a for a, b in itertools.pairwise(asked)):
        raise UserError(
            f"sizes is {asked}: give numbers up to {available:,}, each twice the one "
            "before"
        )
    counts = {
        name: np.array([num_weights(layer, (side, side, 3)) for side in SIDES])
        for name, layer in LAYERS.items()
    }
    sizes = {k: num_weights(m, (CANVAS, CANVAS, 1)) for k, m in NETWORKS.items()}
    found = {name: sample_efficiency(m, config) for name, m in NETWORKS.items()}
    (cnn, _), (mlp, _) = found.values()  # [P, sizes]

    return Lesson(
        f"Trained on {config.sizes[-1]:,} shifted digits, a CNN recognises "
        f"{cnn[:, -1].mean():.0%} of new ones, an MLP of equal size "
        f"{mlp[:, -1].mean():.0%}",
        claims=[
            claims.equal_up_to_rounding(
                "A dense layer grows with the image, a convolution does not",
                [*counts.values()],
                [(SIDES**2 * 3 + 1) * 1000, np.full(len(SIDES), (3 * 3 * 3 + 1) * 64)],
                roundings=0,
                why="a unit has H x W x C weights, for instance 12,288 or 3 million, "
                "and a bias; a kernel has 3x3 pixels x 3 colours, and a bias",
            ),
            claims.bounded(
                "The networks that are compared have equally many parameters",
                abs(sizes["CNN"] / sizes["MLP"] - 1),
                at_most=0.01,
                why="a difference of one per cent is negligible",
            ),
            claims.greater(
                "The CNN reads more shifted digits at every number of examples",
                (cnn - mlp).min(1),
                0.0,
                why="what it learns at one place applies to all places; for each seed, "
                "the smallest of its leads counts",
            ),
            claims.greater(
                "With half the examples the CNN still reads more digits",
                (cnn[:, :-1] - mlp[:, 1:]).min(1),
                0.0,
                why="for a dense layer each digit at 25 places is 25 different images; "
                "for each seed, the smallest of the leads counts",
            ),
        ],
        figures=[
            slides.reads(config.sizes, found, sizes, CANVAS),
            slides.parameters(SIDES, counts),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "The dense layers have nearly all parameters of a CNN for photos",
                (56 * 56 * 16 * 24) / num_weights(NETWORKS["CNN"], (224, 224, 3)),
                at_least=0.99,
                why="16 maps of 56x56 are left, and each of 24 units has a weight for "
                "every number in them; the convolutions have 1,392 parameters",
            )
        ),
        summary={"dataset": "digits", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
