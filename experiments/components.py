"""What is machine learning made of?

Data, a model, a loss, an optimizer and a metric. The same training runs six times: once
as a reference, and once for each of the five with that component exchanged. Then the
first weights, first loss, last weights and score are compared with the reference.

    python experiments/components.py

Expect the metric to change only the score, the optimizer what follows the first
loss, and the model everything, in about 14 seconds on 2 cores.

Source: course, "Components of machine learning"; Goodfellow, Bengio & Courville (2016),
Deep Learning, section 5.10, "Building a machine learning algorithm".
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
from dlworkshop.workshop.lesson import Lesson


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """How often each of the six trainings runs."""
    num_steps: int = 200
    """Updates per training."""
    batch_size: int = 64
    """Examples per update."""


def random_labels():
    """The training digits, each with the label of another."""
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
    "data": partial(data.load, "digits"),  # 8x8 images, and what they show
    "model": models.mlp((64,)),
    "loss": losses.cross_entropy,
    "optimizer": optax.adam(0.003),
    "metric": metrics.accuracy,
}
LOOKS = "first weights", "first loss", "last weights", "score"  # in order of time
EXCHANGED = {  # what comes in its place, how many looks do not know of it yet, and why
    "data": (random_labels, 1, "weights are drawn without using the labels"),
    "model": (models.logistic(), 0, "it has other weights"),
    "loss": (squared_error, 1, "weights are drawn before a loss is computed"),
    "optimizer": (optax.sgd(0.003), 2, "the first loss comes before any update"),
    "metric": (top_3, 3, "it is not differentiated"),
}


def train(params, order, split, test, model, loss, optimizer, metric):
    """One network: its first weights [D] and loss [], last weights [D] and score []."""
    batches = gather(split, order)  # [T, B, ...]
    trained, seen = minimize(batch_mean(model, loss), params, optimizer, batches)
    first, last = (ravel_pytree(tree)[0] for tree in (params, trained))
    return first, seen[0], last, batch_mean(model, metric)(trained, test)


def population(keys, shape, data, model, **others):
    """`train` with every key side by side; what is looked at, [P, ...] each."""
    split, _, test, *_ = data()
    draw = jax.vmap(lambda key: jax.random.randint(key, shape, 0, len(split.targets)))
    order = jax.jit(draw)(keys)  # [P, T, B], drawn from the seed alone
    params = jax.jit(jax.vmap(model.init, (0, None)))(keys, split.inputs[0])
    one = jax.vmap(partial(train, model=model, **others), (0, 0, None, None))
    looks = jax.jit(one)(params, order, split, test)
    return dict(zip(LOOKS, map(np.asarray, looks), strict=True))


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """The six trainings, each with all seeds side by side, and what they share."""
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
        "the last bit; only the metric does not affect what is learnt",
        claims=[
            *(
                claims.bounded(
                    f"Exchange the {k}: {', '.join(LOOKS[:stays]) or 'nothing'} as "
                    "before, bit for bit, and the rest changes",
                    np.not_equal(kept[k], np.arange(len(LOOKS)) < stays),
                    equal_to=0,
                    why=why,
                )
                for k, (_, stays, why) in EXCHANGED.items()
            ),
            claims.less(
                "With random labels the network does hardly better than a guess",
                after["data"]["score"],
                0.3,
                why="three times a guess, as shuffled labels may be right by chance",
            ),
            claims.greater(
                "With the squared error nearly as many digits are named",
                after["loss"]["score"],
                before["score"],
                by=-0.02,
                why="both want the right output to be largest; 2 points are 7 digits",
            ),
        ],
        figures=[
            slides.what_changes(LOOKS, kept, config.seeds),
            slides.scores([found["score"] for found in (before, *after.values())]),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "Trained on its accuracy a network stays unchanged",
                stuck["last weights"] - stuck["first weights"],
                equal_to=0.0,
                why="the gradient of a step is 0, and Adam turns 0 into 0",
            )
        ),
        summary={"dataset": "digits", "members": 6 * config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
