"""Do more examples help against overfitting?

A network can know by heart all it has seen and still fail on what is new. The distance
between the two is the gap of generalisation. Here equal networks get equally many
updates on 16 to 1,024 handwritten digits, and only the number of different ones grows.
`--dataset mnist --data-dir FOLDER` takes MNIST instead.

    python experiments/data_size.py

Expect a gap that closes from 40 to 2.7 percentage points, in about 17 seconds on 2
cores.

Source: course, "Deep learning": much data lowers the risk of overfitting; Zhang et al.
(2017), Understanding deep learning requires rethinking generalization, for the labels
without meaning.
"""

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlworkshop import data, losses, models
from dlworkshop.errors import UserError
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.descent import batch_mean, descend
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.TrainingConfig):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """How many networks learn from each number of examples, each from its own."""
    dataset: str = "digits"
    """Any data set of images; `mnist` needs `--data-dir`, or a network."""
    sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    """Numbers of examples to learn from, rising."""
    num_epochs: int = 60
    """Passes over the largest number of examples; all others get as many updates."""
    batch_size: int = 32
    """Examples per update."""
    learning_rate: float = 0.003
    """Of Adam."""
    hidden: int = 128
    """Units of the hidden layer."""


def deal(config, size, num_examples, seed):
    """Which `size` examples a member may see [n], and which come when [S, B].

    With one seed, the examples of a smaller size are among those of a larger one.
    """
    rng = np.random.default_rng(seed)
    own = rng.permutation(num_examples)[:size]
    num_steps = config.num_epochs * max(config.sizes) // config.batch_size
    return own, rng.choice(own, (num_steps, config.batch_size))


def learn(config, model, train, seed, order):
    """One network after an update for each batch of `order` [S, B]."""
    loss = batch_mean(model, losses.cross_entropy)
    return descend(
        lambda params, index: loss(params, gather(train, index)),
        model.init(jax.random.key(seed), train.image[0]),
        optax.adam(config.learning_rate),
        order,
    )[0]


def named_right(model, parts, params):
    """Which examples of each part a network names right: [N] bool each."""
    logits = [models.predict(model, params, part.image) for part in parts]
    return [z.argmax(-1) == p.label for z, p in zip(logits, parts, strict=True)]


def main(config: Config) -> Lesson:
    """All sizes and seeds as one population, on labels with and without meaning."""
    images = data.load(config.dataset, config.data_dir)
    num_examples = len(images.train.label)
    if not 0 < max(config.sizes) < num_examples:
        raise UserError(
            f"--sizes goes to {max(config.sizes):,} and {config.dataset} has "
            f"{num_examples:,} examples to learn from: leave some of them unseen"
        )
    train, test = (jax.tree.map(jnp.asarray, p) for p in (images.train, images.test))
    pairs = list(itertools.product(range(config.seeds), config.sizes))
    dealt = [deal(config, size, num_examples, seed) for seed, size in pairs]
    own = [np.isin(np.arange(num_examples), mine) for mine, _ in dealt]  # P of [N]
    seeds = jnp.array([seed for seed, _ in pairs])
    orders = jnp.stack([order for _, order in dealt])  # [P, S, B]
    model = models.mlp((config.hidden,), num_classes=len(images.classes))

    @jax.jit
    def answers(train):  # [P, N] of train, [P, M] of test
        params = jax.vmap(partial(learn, config, model, train))(seeds, orders)
        return jax.lax.map(partial(named_right, model, (train, test)), params)

    def measured(label):
        """Percent right of the seen, the unseen, the test; [seeds, sizes] each."""
        known, new = map(np.asarray, answers(train._replace(label=label)))
        seen = [right[mine].mean() for right, mine in zip(known, own, strict=True)]
        rest = [right[~mine].mean() for right, mine in zip(known, own, strict=True)]
        return 100 * np.reshape([seen, rest, new.mean(1)], (3, config.seeds, -1))

    seen, unseen, tested = measured(train.label)
    gap = seen - unseen  # what was known by heart and not understood
    shuffled = jax.random.permutation(jax.random.key(0), train.label)
    noise_gap = np.subtract(*measured(shuffled)[:2])
    few, many = config.sizes[0], config.sizes[-1]
    first, *_, last = gap.mean(0)

    def learning_curve(axes):
        shares = {"seen": seen, "not seen, same source": unseen, "test": tested}
        labels = {"xlabel": "examples to learn from", "ylabel": "right (%)"}
        curves(axes, config.sizes, shares, xscale="log", **labels)

    def gaps(axes):
        both = {"right labels": gap, "shuffled labels": noise_gap}
        labels = {"xlabel": "examples to learn from", "ylabel": "gap (points)"}
        curves(axes, config.sizes, both, xscale="log", **labels)

    return Lesson(
        f"From {few} to {many:,} examples, the gap between what was seen and what is "
        f"new closes from {first:.0f} to {last:.1f} percentage points",
        claims=[
            claims.bounded(
                "Every network knows the fewest examples by heart",
                seen[:, 0],
                equal_to=100,
                why="up to as many points as there are pixels, any labels can be had "
                "by straight cuts, so nothing stands in the way of learning all",
            ),
            claims.falls(
                "The more examples, the smaller the gap to those not seen",
                gap,
                why="what is peculiar to a few examples is not to be had from many; "
                "both shares are of one source, and the updates are equally many",
            ),
            claims.rises(
                "The more examples, the more of the test split is right",
                tested,
                why="the gap must not close from above, by knowing less",
            ),
            claims.greater(
                "With the most examples there still is a gap",
                gap[:, -1],
                0.0,
                why="the weights were fitted to the one and not to the other",
            ),
        ],
        figures=[
            Figure(
                "learning_curve",
                learning_curve,
                f"With {few} examples all is known and {tested[:, 0].mean():.0f} % of "
                f"the test right; with {many:,}, {tested[:, -1].mean():.0f} %",
                f"Not seen: the rest of the training split. {BAND}",
            ),
            Figure(
                "gaps",
                gaps,
                f"Examples close the gap ({last:.1f} points) only where there is "
                f"something to learn ({noise_gap[:, -1].mean():.0f})",
                "Share right of the seen, minus that of the unseen examples. Shuffled: "
                f"images with the labels of others. {BAND}",
            ),
        ],
        exercises=[
            Exercise(
                "Shuffle the labels, so that none belongs to its image. Does the gap "
                "close as well?",
                "No. What is learnt by heart is worth nothing elsewhere, and the gap "
                "is all but chance, 90 points, as long as the updates suffice to "
                "learn it. The network could overfit the right labels as well.",
                claims.greater(
                    "With shuffled labels the gap stays larger",
                    noise_gap[:, -1],
                    gap[:, -1],
                    why="nothing can be known of the unseen, while the seen can be "
                    "learnt by heart",
                ),
            ),
            Exercise(
                "Take `--hidden 4`. Do fewer parameters close the gap?",
                "No, it is wider: 55 points with 16 examples and 4.6 with 1,024. A "
                "network too small also fails to learn some of what it sees, so that "
                "the first claim fails. Size alone is not what overfits.",
            ),
        ],
        summary={"dataset": images.name, "members": len(pairs)},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
