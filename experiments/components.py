"""What is machine learning made of?

Data, a model, a loss, an optimizer and a metric. The same training is done six times:
once as it is, and once more for each of the five with that one exchanged. Then we look
at what has changed: the weights it begins with, the first loss, the weights it ends
with, the score.

    python experiments/components.py

Expect that the metric changes the score alone, the optimizer what follows the first
loss, and the model everything, in about 10 seconds on 2 cores.

Source: course, "Components of machine learning"; Goodfellow, Bengio & Courville (2016),
Deep Learning, section 5.10, "Building a machine learning algorithm".
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from dlworkshop import data, losses, metrics, models
from dlworkshop.report.figures import COLOURS
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
EXCHANGED = {
    "data": random_labels,
    "model": models.logistic(),
    "loss": squared_error,
    "optimizer": optax.sgd(0.003),
    "metric": top_3,
}
TOLD = {
    "data": "random labels",
    "model": "no hidden layer",
    "loss": "squared error",
    "optimizer": "plain descent",
    "metric": "among the top 3",
}
LOOKS = "first weights", "first loss", "last weights", "score"


def train(params, order, data, test, model, loss, optimizer, metric):
    """The loss before each step [T], the last weights, the score []."""

    def batch_loss(params, batch):
        outputs = models.predict(model, params, data.image[batch])
        return jax.vmap(loss)(outputs, data.label[batch]).mean()

    def step(state, batch):
        params, memory = state
        now, grads = jax.value_and_grad(batch_loss)(params, batch)
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), now

    start = params, optimizer.init(params)
    (trained, _), seen = jax.lax.scan(step, start, order)
    outputs = models.predict(model, trained, test.image)
    score = jax.vmap(metric)(outputs, test.label).mean()
    return seen, trained, score


def population(keys, num_steps, batch_size, data, model, **others):
    """`train` with every key side by side; what is looked at, [P, ...] each."""
    train_split, _, test, *_ = data()
    shape, size = (num_steps, batch_size), len(train_split.label)
    draw = jax.vmap(lambda key: jax.random.randint(key, shape, 0, size))
    order = jax.jit(draw)(keys)  # [P, T, B], drawn from the seed alone
    params = jax.jit(jax.vmap(model.init, (0, None)))(keys, train_split.image[0])
    one = jax.vmap(partial(train, model=model, **others), (0, 0, None, None))
    seen, trained, score = jax.jit(one)(params, order, train_split, test)
    flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])  # [P, D]
    looks = flat(params), seen[:, 0], flat(trained), score
    return dict(zip((*LOOKS, "losses"), map(np.asarray, (*looks, seen)), strict=True))


def same(one, other) -> bool:
    return one.shape == other.shape and bool((one == other).all())


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """The six trainings, each with all seeds side by side, and what they share."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    trained = partial(population, keys, config.num_steps, config.batch_size)
    before = trained(**AS_IT_IS)
    after = {
        name: trained(**AS_IT_IS | {name: other}) for name, other in EXCHANGED.items()
    }
    kept = np.array([[same(before[w], a[w]) for w in LOOKS] for a in after.values()])
    score = {name: found["score"] for name, found in after.items()}

    def what_changes(axes):
        axes.imshow(kept, cmap="Blues", vmin=0, vmax=1.5, aspect="auto")
        axes.set_xticks(range(len(LOOKS)), LOOKS)
        axes.set_yticks(range(len(TOLD)), TOLD)
        axes.set_ylabel("exchanged")
        axes.grid(visible=False)
        for (i, j), stays in np.ndenumerate(kept):
            text = "the same" if stays else "changes"
            axes.text(j, i, text, ha="center", va="center", fontsize=13)

    def scores(axes):
        rows = {"as it is": before["score"]} | {
            f"{name}: {TOLD[name]}": values for name, values in score.items()
        }
        for place, values in enumerate(rows.values()):
            colour = COLOURS[min(place, 1)]
            axes.plot(100 * values, np.full(len(values), place), "o", color=colour)
            mean = values.mean()
            axes.text(100 * mean, place - 0.2, f"{mean:.1%}", ha="center", fontsize=12)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(xlabel="score on test digits (%)", ylim=(len(rows) - 0.5, -0.7))

    return Lesson(
        f"Of {kept.size} things looked at, {kept.sum()} stay as they were to the last "
        "bit; only the metric leaves what is learnt alone",
        claims=[
            claims.bounded(
                "Another metric leaves the trained weights as they are, bit for bit",
                after["metric"]["last weights"] - before["last weights"],
                equal_to=0.0,
                why="it looks on: no gradient is taken of it",
            ),
            claims.bounded(
                "Another optimizer begins with the same loss",
                after["optimizer"]["first loss"] - before["first loss"],
                equal_to=0.0,
                why="the first loss is taken before the first update",
            ),
            claims.bounded(
                "Other labels and another loss begin with the same weights",
                [
                    after[k]["first weights"] - before["first weights"]
                    for k in ("data", "loss")
                ],
                equal_to=0.0,
                why="weights are drawn from the seed and the shapes alone",
            ),
            claims.bounded(
                "Other labels, another model, loss or optimizer end elsewhere",
                [
                    same(before["last weights"], after[k]["last weights"])
                    for k in ("data", "model", "loss", "optimizer")
                ],
                equal_to=0,
                why="each of them enters the gradient, or what is made of it",
            ),
            claims.less(
                "Data: with random labels the network does hardly better than a guess",
                score["data"],
                0.3,
                why="ten classes of about equal size: a guess gets a tenth; three "
                "times that, as a shuffle may resemble the right labels by chance",
            ),
            claims.greater(
                "Model: a hidden layer names more digits than none",
                before["score"],
                score["model"],
                why="without one, classes are told apart by planes only",
            ),
            claims.greater(
                "Loss: the squared error names nearly as many digits",
                score["loss"],
                before["score"],
                by=-0.02,
                why="both are least where the right output is the largest; 2 points "
                "are 7 of 360 test digits",
            ),
            claims.less(
                "Optimizer: in as many updates of the same rate, Adam gets further",
                before["losses"][:, -20:].mean(1),
                after["optimizer"]["losses"][:, -20:].mean(1),
                why="it divides by the size of the gradient, so that its rate is in "
                "units of the weights; plain descent needs a rate of its own",
            ),
            claims.bounded(
                "Metric: who is first is also among the first three",
                score["metric"] - before["score"],
                at_least=0.0,
                why="the same weights, and a condition that is weaker",
            ),
        ],
        figures=[
            Figure(
                what_changes,
                "The metric changes the score alone, the optimizer what follows the "
                "first loss",
                "A row: the component that was exchanged. A column: what was compared "
                f"with the training as it is, to the last bit, {config.seeds} seeds.",
            ),
            Figure(
                scores,
                f"{before['score'].mean():.1%} as it is; with random labels hardly "
                "better than a guess",
                "A dot for each seed, and the mean of each row.",
            ),
        ],
        exercises=[
            Exercise(
                'Take the metric as the loss: `"loss": lambda o, k: '
                "-metrics.accuracy(o, k)`. What is learnt?",
                "Nothing: accuracy is a step, and its gradient is 0 wherever there is "
                "one. That is why a loss and a metric are two things.",
                nothing_learnt(keys[:1]),
            ),
            Exercise(
                "Give `optax.sgd` a rate of 0.8, which `learning_rate_finder.py` "
                "suggests. Which claim fails?",
                "The one about Adam: plain descent then gets further. A learning rate "
                "belongs to an optimizer; compare optimizers at the best rate of each.",
            ),
        ],
        summary={"dataset": "digits", "members": 6 * config.seeds},
    )


def nothing_learnt(keys):
    """A training whose loss is the metric."""
    wrong = AS_IT_IS | {"loss": lambda outputs, k: -metrics.accuracy(outputs, k)}
    found = population(keys, 3, 8, **wrong)
    return claims.bounded(
        "Trained on its accuracy a network stays as it is",
        found["last weights"] - found["first weights"],
        equal_to=0.0,
        why="the gradient of a step is 0, and Adam makes 0 of 0",
    )


if __name__ == "__main__":
    experiment.start(main, Config)
