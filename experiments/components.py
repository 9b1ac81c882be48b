"""What is machine learning made of?

Data, a model, a loss, an optimizer and a metric. The same training runs six times: once
as a reference, and once with each of the five components exchanged. Then the first
weights, first loss, last weights and score are compared with those of the reference.

    python experiments/components.py

Expect the metric to change only the score, the optimizer only what follows the first
loss, and the model everything, in about 14 seconds on 2 cores.

Source: course, "Components of machine learning"; Goodfellow, Bengio & Courville (2016),
Deep Learning, section 5.10, "Building a machine learning algorithm", and 5.1.2, "The
performance measure".
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from slides import components as slides

from dlworkshop import data, losses, metrics, models, workshop
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.minimize import batch_mean, minimize
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Number of runs of each of the six trainings."""
    num_steps: int = 200
    """Number of updates per training."""
    batch_size: int = 64
    """Examples per update."""


def random_labels():
    """The digits, where each training example has the label of another."""
    right = data.load("digits")
    label = np.random.default_rng(0).permutation(right.train.targets)
    return right._replace(train=right.train._replace(targets=label))


def squared_error(outputs, label):
    """Distance to 1 for the right class and 0 for the others: regression."""
    return ((outputs - jax.nn.one_hot(label, len(outputs))) ** 2).sum()


def top_3(outputs, label):
    """1 if the right class is among the three largest outputs, else 0."""
    return (outputs > outputs[label]).sum() < 3


AS_IT_IS = {
    "data": partial(data.load, "digits"),  # 8x8 images, and their classes
    "model": models.mlp((64,)),
    "loss": losses.cross_entropy,
    "optimizer": optax.adam(0.003),
    "metric": metrics.accuracy,
}
LOOKS = "first weights", "first loss", "last weights", "score"  # in order of time
EXCHANGED = {  # the replacement, how many quantities come before it, and why
    "data": (random_labels, 1, "weights are drawn without using the labels"),
    "model": (models.logistic(), 0, "it has other weights"),
    "loss": (squared_error, 1, "weights are drawn before a loss is computed"),
    "optimizer": (optax.sgd(0.003), 2, "the first loss comes before any update"),
    "metric": (top_3, 3, "it is not differentiated"),
}


def train(params, order, split, test, model, loss, optimizer, metric):
    """One network: first weights [D], first loss [], last weights [D], score []."""
    batches = gather(split, order)  # [T, B, ...]
    trained, seen = minimize(batch_mean(model, loss), params, optimizer, batches)
    first, last = (ravel_pytree(tree)[0] for tree in (params, trained))
    return first, seen[0], last, batch_mean(model, metric)(trained, test)


def population(keys, shape, data, model, **others):
    """`train` with every key side by side; the quantities compared, [P, ...] each."""
    split, _, test, *_ = data()
    draw = jax.vmap(lambda key: jax.random.randint(key, shape, 0, len(split.targets)))
    order = jax.jit(draw)(keys)  # [P, T, B], drawn from the seed alone
    params = jax.jit(jax.vmap(model.init, (0, None)))(keys, split.inputs[0])
    one = jax.vmap(partial(train, model=model, **others), (0, 0, None, None))
    looks = jax.jit(one)(params, order, split, test)
    return dict(zip(LOOKS, map(np.asarray, looks), strict=True))


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """The six trainings, each with all seeds side by side, and their comparison."""
    check_settings(config, seeds=claims.LEAST_SEEDS, num_steps=1, batch_size=1)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    run = partial(population, keys, (config.num_steps, config.batch_size))
    before = run(**AS_IT_IS)
    after = {k: run(**AS_IT_IS | {k: other}) for k, (other, *_) in EXCHANGED.items()}
    kept = {
        k: [np.array_equal(before[w], a[w]) for w in LOOKS] for k, a in after.items()
    }
    wrong = AS_IT_IS | {"loss": lambda outputs, k: -metrics.accuracy(outputs, k)}
    stuck = population(keys[:1], (3, 8), **wrong)

    return Lesson(
        f"Of 20 quantities compared, {sum(map(sum, kept.values()))} stay the same to "
        "the last bit; only the metric does not affect the weights",
        claims=[
            *(
                claims.bounded(
                    f"Exchange the {k}: {', '.join(LOOKS[:stays]) or 'nothing'} "
                    "unchanged to the last bit, everything else changed",
                    np.not_equal(kept[k], np.arange(len(LOOKS)) < stays),
                    equal_to=0,
                    why=why,
                )
                for k, (_, stays, why) in EXCHANGED.items()
            ),
            claims.less(
                "With random labels the network is hardly better than a guess",
                after["data"]["score"],
                0.3,
                why="three times a guess, because shuffled labels may be right by "
                "chance",
            ),
            claims.greater(
                "With the squared error nearly as many digits are recognised",
                after["loss"]["score"],
                before["score"],
                by=-0.02,
                why="both losses are lowest if the right output is largest; 2 points "
                "are 7 digits",
            ),
        ],
        figures=[
            slides.what_changes(LOOKS, kept, config.seeds),
            slides.scores([found["score"] for found in (before, *after.values())]),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "Trained on its accuracy, a network stays unchanged",
                stuck["last weights"] - stuck["first weights"],
                equal_to=0.0,
                why="the gradient of a step function is 0, and so is Adam's update",
            )
        ),
        summary={"dataset": "digits", "members": 6 * config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
