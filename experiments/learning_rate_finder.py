"""Which learning rate is right?

Too small a rate hardly learns, too large a one flies off. Here networks with 25 rates,
10 seeds each, learn the digits at once, in one program. Half of the seeds suggest the
rate with the lowest validation loss; the others check it, on the test split. Where
theory knows the answer, on a squared error, the same population must find it.

    python experiments/learning_rate_finder.py

Expect about 0.8 to be suggested, a test loss of 0.09 with it, of 0.47 with a tenth, and
nothing learnt with ten times as much; and 2 / lambda to be met exactly, in about 12
seconds on 2 cores.

Source: Goodfellow, Bengio & Courville (2016), Deep Learning, section 11.4.1, for the
curve; LeCun, Bottou, Orr & Mueller (1998), Efficient backprop, section 5, for 2/lambda.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop import data, losses, models
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.descent import batch_mean
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson, crossed
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Networks of each rate; the first half suggests a rate, the others check it."""
    num_rates: int = 25
    """Rates between the lowest and the highest, each as many times the one before."""
    lowest: float = 1e-3
    """The smallest rate, per update."""
    highest: float = 1e2
    """The largest rate; there all should fly off."""
    num_steps: tuple[int, ...] = (20, 60, 200)
    """Updates after which to look at the validation loss."""


LOST = 10 * np.log(10)  # ten times the loss of a guess, and what flew off counts so


def descend(loss, w, batches, rate):
    """The weights after an update for each batch, and the losses before them."""

    def update(w, batch):
        now, gradient = jax.value_and_grad(loss)(w, batch)
        return jax.tree.map(lambda w, g: w - rate * g, w, gradient), now

    return jax.lax.scan(update, w, batches)


def edge(x):
    """2 / lambda of the mean of (w x_n)^2 / 2: beyond it |1 - rate lambda| > 1."""
    return 2 / jnp.linalg.eigvalsh(x.T @ x / len(x))[-1]


@jax.enable_x64(True)
def theory(images, num_steps=200, step=1.02):
    """A squared error, where descent has a closed form; claims, and what to draw."""
    x = jnp.asarray(images.reshape(len(images), -1) / 255.0)  # [N, D]
    h = x.T @ x / len(x)  # d2 loss / dw2
    size = len(h)
    curvature, axes = jnp.linalg.eigh(h)  # [D] rising, [D, D]
    rates = edge(x) * step ** (jnp.arange(-30, 30) + 0.5)  # half of them below
    keys = jax.random.split(jax.random.key(0), 5)

    def begin(key):
        return jax.random.normal(key, (size,))

    def one(rate, key):
        steps = jnp.zeros(num_steps)
        return descend(lambda w, _: w @ h @ w / 2, begin(key), steps, rate)

    w, seen = crossed(one)(rates, keys)  # [R, P, D], [R, P, T]
    shrunk = (1 - rates[:30, None] * curvature) ** num_steps  # [R / 2, D]
    starts = jax.vmap(begin)(keys) @ axes  # [P, D] along the axes
    growth = np.asarray(seen[..., -1] / seen[..., 0])  # [R, P]
    return [
        claims.exact(
            "Below 2 / lambda, T updates shrink each part by (1 - rate lambda)^T",
            w[:30] @ axes,
            shrunk[:, None] * starts,
            roundings=2 * num_steps * size,
            scale=float(abs(starts).max()),
            why="an update sums D products, and is damped by the next; lambda are the "
            "curvatures along the axes of the loss",
        ),
        claims.bounded(
            "The first rate that flies off is the first beyond 2 / lambda",
            np.argmax(growth > 1, axis=0),
            equal_to=30,
            why="the 31st of 60 rates, 2 % apart, is the first beyond; there each "
            "update makes the steepest part grow",
        ),
        claims.exact(
            "Inputs half as large allow a rate four times as large",
            edge(x / 2),
            4 * edge(x),
            roundings=size,
            why="lambda is made of squares, and found to some D roundings",
        ),
    ], (np.asarray(rates), growth, float(edge(x)))


def main(config: Config) -> Lesson:
    """What theory knows, then all rates with all seeds on real digits."""
    digits = data.load("digits")
    (*known, halved), (steep_rates, growth, limit) = theory(digits.train.image)
    model, num_steps = models.mlp((64,)), config.num_steps
    loss = batch_mean(model, losses.cross_entropy)

    def one(rate, key, train, validation, test):
        """Validation losses [looks], and the last test loss."""
        weights_key, order_key = jax.random.split(key)
        w, looks = model.init(weights_key, train.image[0]), []
        shape, size = (num_steps[-1], 64), len(train.label)
        order = jax.random.randint(order_key, shape, 0, size)
        for part in jnp.split(order, num_steps[:-1]):
            w, _ = descend(loss, w, gather(train, part), rate)
            looks.append(loss(w, validation))
        return jnp.stack(looks), loss(w, test)

    rates = np.geomspace(config.lowest, config.highest, config.num_rates)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    looks, test = (
        np.nan_to_num(np.asarray(found, float), nan=LOST).clip(max=LOST)
        for found in crossed(one)(jnp.asarray(rates), keys, *digits[:3])
    )  # [R, P, looks], [R, P]
    judges = config.seeds // 2
    chosen = int(np.log(looks[:, :judges, -1]).mean(1).argmin())
    fresh = test[:, judges:]  # [R, P / 2], of seeds that have not chosen
    tenth = round(1 / np.log10(rates[1] / rates[0]))  # so many rates make a factor 10
    small, large = max(chosen - tenth, 0), min(chosen + tenth, len(rates) - 1)

    def rate_curve(axes):
        after = {f"after {n} updates": looks[..., k].T for k, n in enumerate(num_steps)}
        axes.axvline(rates[chosen], color="black", linestyle=":", label="suggested")
        labels = {"xlabel": "learning rate", "ylabel": "validation loss (nats)"}
        curves(axes, rates, after, xscale="log", yscale="log", **labels)

    def flying_off(axes):
        axes.axvline(limit, color="black", linestyle=":", label="2 / lambda")
        values = {"last loss / first loss": growth.T.clip(max=1e9)}
        labels = {"xlabel": "learning rate", "ylabel": "growth of the loss"}
        curves(axes, steep_rates, values, yscale="log", **labels)

    slow, best, lost = fresh[[small, chosen, large]].mean(1)
    return Lesson(
        f"Of {len(rates)} rates tried at once, {rates[chosen]:.2g} is suggested; seeds "
        f"that did not choose reach a test loss of {best:.2f} with it, {slow:.2f} with "
        f"{rates[small]:.2g} and {lost:.2f} with {rates[large]:.2g}",
        claims=[
            *known,
            claims.less(
                "Fresh seeds learn more at the suggested rate than at a tenth of it",
                np.log(fresh[chosen]),
                np.log(fresh[small]),
                why="a tenth of the rate goes a tenth of the way in as many updates",
            ),
            claims.less(
                "Fresh seeds learn more at the suggested rate than at ten times it",
                np.log(fresh[chosen]),
                np.log(fresh[large]),
                why="beyond the edge the loss grows; what flew off counts as ten times "
                "the loss of a guess",
            ),
        ],
        figures=[
            Figure(
                "rate_curve",
                rate_curve,
                "The loss falls with the rate, and rises steeply beyond "
                f"{rates[chosen]:.2g}",
                f"{config.seeds} networks for each of {len(rates)} rates. {BAND}",
            ),
            Figure(
                "flying_off",
                flying_off,
                f"On a squared error the edge is 2 / lambda = {limit:.3f}",
                "lambda: the largest curvature of the loss. Above 1 the loss has grown "
                f"in 200 updates; cut off at a billion. {BAND}",
            ),
        ],
        exercises=[
            Exercise(
                "Take `--num-steps 20`. Which rate is suggested now?",
                "About as large a one: what limits it from above is how curved the "
                "loss is, and that does not depend on how long one trains. What is "
                "too small depends on it: with more time small rates get there too.",
                claims.bounded(
                    "With more updates small rates catch up",
                    looks[small, :, 0] - looks[small, :, -1],
                    at_least=0.0,
                    why="below the edge, further updates make the loss smaller",
                ),
            ),
            Exercise(
                "Divide the images by 2. By how much does 2 / lambda change?",
                "By a factor of 4: lambda is made of squares of the inputs. So a rate "
                "belongs to its data, and inputs of one size are worth having.",
                halved,
            ),
        ],
        summary={"dataset": "digits", "members": len(rates) * config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
