"""What is machine learning made of?

Data, a model, a loss, an optimizer and a metric. The same training is done six times:
once as it is, and once more for each of the five with that one exchanged. Then we look
at what has changed: the weights it begins with, the first loss, the weights it ends
with, the score.

    python experiments/components.py

Expect that the metric changes the score alone, the optimizer what follows the first
loss, and the model everything, in about 14 seconds on 2 cores.

Source: course, "Components of machine learning"; Goodfellow, Bengio & Courville (2016),
Deep Learning, section 5.10, "Building a machine learning algorithm".
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from dlworkshop import data, losses, metrics, models
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.descent import batch_mean, descend
from dlworkshop.report.lesson_figures import dots, table
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """How often each of the six trainings is done."""
    num_steps: int = 200
    """Updates of a training."""
    batch_size: int = 64
    """Examples of an update."""


def digits():
    """Real 8x8 images, and what they show."""
    return data.load("digits")


def random_labels():
    """The same images to learn from, each called by the name of another."""
    right = digits()
    label = np.random.default_rng(0).permutation(right.train.label)
    return right._replace(train=right.train._replace(label=label))


def squared_error(outputs, label):
    """Distance to 1 for the right class and 0 for the others: regression."""
    return ((outputs - jax.nn.one_hot(label, len(outputs))) ** 2).sum()


def top_3(outputs, label):
    """1 if the right class is among the three largest outputs, else 0."""
    return (outputs > outputs[label]).sum() < 3


AS_IT_IS = {
    "data": digits,
    "model": models.mlp((64,)),
    "loss": losses.cross_entropy,
    "optimizer": optax.adam(0.003),
    "metric": metrics.accuracy,
}
LOOKS = "first weights", "first loss", "last weights", "score"  # in order of time


class Exchange(NamedTuple):
    """What comes in its place, and how many of the looks do not know of it yet."""

    other: Any
    told: str
    stays: int
    why: str


EXCHANGED = {
    "data": Exchange(
        random_labels, "random labels", 1, "weights are drawn without a look at labels"
    ),
    "model": Exchange(models.logistic(), "no hidden layer", 0, "it has other weights"),
    "loss": Exchange(
        squared_error, "squared error", 1, "weights are drawn before a loss is asked"
    ),
    "optimizer": Exchange(
        optax.sgd(0.003), "plain descent", 2, "the first loss comes before any update"
    ),
    "metric": Exchange(top_3, "among the top 3", 3, "no gradient is taken of it"),
}


def train(params, order, data, test, model, loss, optimizer, metric):
    """The first loss [], the last weights, the score []."""
    batches = gather(data, order)  # [T, B, ...]
    trained, seen = descend(batch_mean(model, loss), params, optimizer, batches)
    return seen[0], trained, batch_mean(model, metric)(trained, test)


def population(keys, num_steps, batch_size, data, model, **others):
    """`train` with every key side by side; what is looked at, [P, ...] each."""
    train_split, _, test, *_ = data()
    shape, size = (num_steps, batch_size), len(train_split.label)
    draw = jax.vmap(lambda key: jax.random.randint(key, shape, 0, size))
    order = jax.jit(draw)(keys)  # [P, T, B], drawn from the seed alone
    params = jax.jit(jax.vmap(model.init, (0, None)))(keys, train_split.image[0])
    one = jax.vmap(partial(train, model=model, **others), (0, 0, None, None))
    first_loss, trained, score = jax.jit(one)(params, order, train_split, test)
    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])  # [P, D]
    looks = flat(params), first_loss, flat(trained), score
    return dict(zip(LOOKS, map(np.asarray, looks), strict=True))


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """The six trainings, each with all seeds side by side, and what they share."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    trained = partial(population, keys, config.num_steps, config.batch_size)
    before = trained(**AS_IT_IS)
    after = {k: trained(**AS_IT_IS | {k: e.other}) for k, e in EXCHANGED.items()}
    kept = {
        k: [np.array_equal(before[w], a[w]) for w in LOOKS] for k, a in after.items()
    }
    score = {k: found["score"] for k, found in after.items()}
    rows = [f"{k}: {exchange.told}" for k, exchange in EXCHANGED.items()]

    def what_changes(axes):
        same = np.array(list(kept.values()))
        texts = np.where(same, "the same", "changes")
        table(axes, same, texts, "Blues", vmin=0, vmax=1.5, aspect="auto")
        axes.set_xticks(range(len(LOOKS)), LOOKS)
        axes.set_yticks(range(len(rows)), rows)

    def scores(axes):
        values = [100 * each for each in (before["score"], *score.values())]
        named = dict(zip(["as it is", *rows], values, strict=True))
        dots(axes, named, "score on test digits (%)")

    wrong = AS_IT_IS | {"loss": lambda outputs, k: -metrics.accuracy(outputs, k)}
    stuck = population(keys[:1], 3, 8, **wrong)
    return Lesson(
        f"Of 20 things looked at, {sum(map(sum, kept.values()))} stay as they were to "
        "the last bit; only the metric leaves what is learnt alone",
        claims=[
            *(
                claims.bounded(
                    f"Exchange the {k}: {', '.join(LOOKS[: e.stays]) or 'nothing'} as "
                    "before, bit for bit, and the rest changes",
                    np.not_equal(kept[k], np.arange(len(LOOKS)) < e.stays),
                    equal_to=0,
                    why=e.why,
                )
                for k, e in EXCHANGED.items()
            ),
            claims.less(
                "With random labels the network does hardly better than a guess",
                score["data"],
                0.3,
                why="a guess gets a tenth; three times that, as a shuffle may "
                "resemble the right labels by chance",
            ),
            claims.greater(
                "With the squared error nearly as many digits are named",
                score["loss"],
                before["score"],
                by=-0.02,
                why="both are least where the right output is the largest; 2 points "
                "are 7 of 360 test digits",
            ),
        ],
        figures=[
            Figure(
                "what_changes",
                what_changes,
                "The metric changes the score alone, the optimizer what follows the "
                "first loss",
                "A row: the component that was exchanged. A column: what was compared "
                f"with the training as it is, to the last bit, {config.seeds} seeds.",
            ),
            Figure(
                "scores",
                scores,
                f"{before['score'].mean():.1%} as it is; with random labels hardly "
                "better than a guess",
                "A dot for each seed, and the mean of each row. All with the rate of "
                "0.003, which is Adam's: plain descent needs one of its own.",
            ),
        ],
        exercises=[
            Exercise(
                'Take the metric as the loss: `"loss": lambda o, k: '
                "-metrics.accuracy(o, k)`. What is learnt?",
                "Nothing: accuracy is a step, and its gradient is 0 wherever there is "
                "one. That is why a loss and a metric are two things.",
                claims.bounded(
                    "Trained on its accuracy a network stays as it is",
                    stuck["last weights"] - stuck["first weights"],
                    equal_to=0.0,
                    why="the gradient of a step is 0, and Adam makes 0 of 0",
                ),
            ),
            Exercise(
                "Give `optax.sgd` a rate of 0.8, which `learning_rate_finder.py` "
                "suggests. What becomes of its row?",
                "97 % are named instead of 22 %, more than by Adam. A learning rate "
                "belongs to an optimizer: compare two at the best rate of each.",
            ),
        ],
        summary={"dataset": "digits", "members": 6 * config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
