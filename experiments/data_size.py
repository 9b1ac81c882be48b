"""Do more examples help against overfitting?

A network can memorise all it has seen and still fail on new examples. The difference
between the two accuracies is the generalisation gap. Here equal networks get equally
many updates on 16 to 1,024 handwritten digits, and only the number of different digits
grows. `--dataset mnist --data-dir FOLDER` uses MNIST instead.

    python experiments/data_size.py

Expect the gap to close from 40 to 2.7 percentage points, in about 17 seconds on 2
cores.

Source: course, "Deep learning": much data lowers the risk of overfitting; Zhang et al.
(2017), Understanding deep learning requires rethinking generalization, for random
labels.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from slides import data_size as slides

from dlworkshop import data, losses, metrics, models, workshop
from dlworkshop.errors import UserError
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.minimize import batch_mean, minimize
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import (
    Lesson,
    check_positive,
    check_rising,
    check_settings,
)


@dataclass(frozen=True)
class Config(workshop.TrainingConfig):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Number of networks for each number of examples, each with its own examples."""
    dataset: str = "digits"
    """Name of a data set of images; `mnist` needs `--data-dir` or a download."""
    sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    """Numbers of training examples, rising; at least one example stays unseen."""
    num_epochs: int = 60
    """Passes over the largest set; smaller sets get as many updates."""
    batch_size: int = 32
    """Examples per update."""
    learning_rate: float = 0.003
    """Learning rate of Adam."""
    hidden: int = 128
    """Units of the hidden layer."""


def deal(config, num_examples, seed, size):
    """Which `size` examples a member may see [N] bool, and in which order [S, B].

    With one seed, the examples of a smaller size are among those of a larger one.
    """
    rng = np.random.default_rng(seed)
    own = rng.permutation(num_examples)[:size]
    num_steps = config.num_epochs * max(config.sizes) // config.batch_size
    order = rng.choice(own, (num_steps, config.batch_size))
    return np.isin(np.arange(num_examples), own), order


def learn(config, model, train, seed, order):
    """One network after an update for each batch of `order` [S, B]."""
    loss = batch_mean(model, losses.cross_entropy)
    return minimize(
        lambda params, index: loss(params, gather(train, index)),
        model.init(jax.random.key(seed), train.inputs[0]),
        optax.adam(config.learning_rate),
        order,
    )[0]


def shares(model, train, test, params, own):
    """Accuracies in percent [3] on seen and unseen examples and the test split."""
    known = (
        models.predict(model, params, train.inputs).argmax(-1) == train.targets
    )  # [N]
    new = batch_mean(model, metrics.accuracy)(params, test)
    return 100 * jnp.stack([known.mean(where=own), known.mean(where=~own), new])


def main(config: Config) -> Lesson:
    """All sizes and seeds as one population, with right and with shuffled labels."""
    check_settings(
        config, seeds=claims.LEAST_SEEDS, sizes=1, num_epochs=1, batch_size=1, hidden=1
    )
    check_rising(config, "sizes")
    check_positive(config, "learning_rate")
    images = data.load(config.dataset, config.data_dir)
    num_examples = len(images.train.targets)
    if not 0 < max(config.sizes) < num_examples:
        raise UserError(
            f"--sizes goes up to {max(config.sizes):,} and {config.dataset} has "
            f"{num_examples:,} training examples: give numbers from 1 to "
            f"{num_examples - 1:,}, so that some examples stay unseen"
        )
    pairs = np.array([(k, size) for k in range(config.seeds) for size in config.sizes])
    dealt = [deal(config, num_examples, *pair) for pair in pairs]
    if not dealt[0][1].size:
        raise UserError(
            f"{config.num_epochs} epochs of {max(config.sizes)} examples do not fill a "
            f"batch of {config.batch_size}: give more epochs or a smaller batch_size"
        )
    own, orders = map(jnp.stack, zip(*dealt, strict=True))  # [P, N], [P, S, B]
    model = models.mlp((config.hidden,), num_classes=len(images.classes))

    @jax.jit
    def measured(train):  # [3, seeds, sizes]
        params = jax.vmap(partial(learn, config, model, train))(pairs[:, 0], orders)
        one = partial(shares, model, train, images.test)
        found = jax.lax.map(lambda member: one(*member), (params, own))  # [P, 3]
        return found.T.reshape(3, config.seeds, -1)

    seen, unseen, tested = np.asarray(measured(images.train))
    gap = seen - unseen  # what was memorised and not generalised
    shuffled = jax.random.permutation(jax.random.key(0), images.train.targets)
    by_heart, guessed, _ = np.asarray(measured(images.train._replace(targets=shuffled)))
    few, *_, many = config.sizes
    first, *_, last = gap.mean(0)

    return Lesson(
        f"From {few} to {many:,} examples, the gap between seen examples and "
        f"new ones closes from {first:.0f} to {last:.1f} percentage points",
        claims=[
            claims.bounded(
                "Every network memorises the fewest examples",
                seen[:, 0],
                equal_to=100,
                why="with no more examples than pixels, already a linear classifier "
                "can fit any labels",
            ),
            claims.falls(
                "The more examples, the smaller the gap to those not seen",
                gap,
                why="peculiarities of a few examples average out over many; both "
                "accuracies are from one source, and the number of updates is the same",
            ),
            claims.rises(
                "The more examples, the more of the test split is right",
                tested,
                why="the gap must not close because the network learns less",
            ),
            claims.greater(
                "With the most examples a gap remains",
                gap[:, -1],
                0.0,
                why="the weights were fitted to the seen examples, not to the others",
            ),
            claims.greater(
                "With shuffled labels the gap stays larger",
                (by_heart - guessed)[:, -1],
                gap[:, -1],
                why="with the most examples; nothing can be known about the unseen "
                "labels, but many of the seen ones can be memorised",
            ),
        ],
        figures=[
            slides.learning_curve(config.sizes, seen, unseen, tested),
            slides.gaps(config.sizes, gap, by_heart - guessed, by_heart),
        ],
        exercises=slides.exercises(),
        summary={"dataset": images.name, "members": len(pairs)},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
