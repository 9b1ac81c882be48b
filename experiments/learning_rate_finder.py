"""Which learning rate is right?

With too small a rate the loss hardly falls, with too large a one it diverges. Here
networks with 25 rates, 10 seeds each, learn the digits at once, in one program. Half of
the seeds suggest the rate with the lowest validation loss. The others check on the test
split that it halves the loss of a tenth of it and of ten times it, and is not far from
the best rate. What limits the rate is the question of `learning_rate_limit.py`.

    python experiments/learning_rate_finder.py

Expect 0.83 to be suggested, a test loss of 0.09 with it, of 0.47 with a tenth of it and
of 2.4, more than a guess has, with ten times it, in about 7 seconds on 2 cores.

Source: Goodfellow, Bengio & Courville (2016), Deep Learning, section 11.4.1.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from slides import learning_rate_finder as slides

from dlworkshop import data, losses, models, workshop
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.minimize import batch_mean, minimize
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, vmap_grid


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Networks for each rate; the first half suggests a rate, the others check it."""
    num_rates: int = 25
    """Rates from the lowest to the highest, evenly spaced on a log scale."""
    lowest: float = 1e-3
    """The smallest rate, per update."""
    highest: float = 1e2
    """The largest rate; all networks should diverge there."""
    num_steps: tuple[int, ...] = (20, 60, 200)
    """Updates after which to look at the validation loss."""


LOST = 10 * np.log(10)  # ten times the loss of a guess; diverged losses count as this


def learn(num_steps, rate, key, train, validation, test):
    """One network: its validation loss after each of `num_steps` [looks], and on test.

    The third is the loss of each batch, [T]. Its first weights and its batches are
    those of the key, whatever the rate.
    """
    model = models.mlp((64,))
    loss = batch_mean(model, losses.cross_entropy)
    weights_key, order_key = jax.random.split(key)
    w, looks, seen = model.init(weights_key, train.inputs[0]), [], []
    order = jax.random.randint(order_key, (num_steps[-1], 64), 0, len(train.targets))
    for part in jnp.split(order, num_steps[:-1]):  # w <- w - rate dL/dw
        w, batches = minimize(loss, w, optax.sgd(rate), gather(train, part))
        looks.append(loss(w, validation))
        seen.append(batches)
    return jnp.stack(looks), loss(w, test), jnp.concatenate(seen)


def main(config: Config) -> Lesson:
    """All rates with all seeds on real digits: half suggest, the others check."""
    rates = np.geomspace(config.lowest, config.highest, config.num_rates)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    table = vmap_grid(partial(learn, config.num_steps))
    looks, test, seen = (
        np.nan_to_num(np.asarray(found, float), nan=LOST).clip(max=LOST)
        for found in table(jnp.asarray(rates), keys, *data.load("digits")[:3])
    )  # [R, P, looks], [R, P], [R, P, T]
    judges = config.seeds // 2
    chosen = int(np.log(looks[:, :judges, -1]).mean(1).argmin())
    tenth = round(1 / np.log10(rates[1] / rates[0]))  # so many rates make a factor 10
    three = np.clip(chosen + np.array([-tenth, 0, tenth]), 0, len(rates) - 1)
    everyone = test[:, judges:]  # [R, P / 2], of seeds that did not choose
    fresh = everyone[three]  # [3, P / 2]
    slow, best, lost = fresh.mean(1)
    small, _, large = three
    behind = looks[small] - looks[chosen]  # [P, looks]

    return Lesson(
        f"Of {len(rates)} rates tried at once, {rates[chosen]:.2g} is suggested; seeds "
        f"that did not choose reach a test loss of {best:.2f} with it, {slow:.2f} with "
        f"{rates[small]:.2g} and {lost:.2f} with {rates[large]:.2g}",
        claims=[
            claims.less(
                "With fresh seeds, the suggested rate halves the loss of a tenth of it",
                np.log(fresh[1]),
                np.log(fresh[0]),
                by=np.log(2),
                why="a tenth of the rate moves about a tenth as far in as many updates",
            ),
            claims.less(
                "With fresh seeds, the suggested rate halves the loss of ten times it",
                np.log(fresh[1]),
                np.log(fresh[2]),
                by=np.log(2),
                why="the suggested rate is near the edge of stability; a diverged loss "
                "counts as ten times that of a guess",
            ),
            claims.less(
                "With fresh seeds, its loss is less than 1.5 times that of any rate",
                np.log(fresh[1]),
                np.log(everyone.min(0)),
                by=-np.log(1.5),
                why="the lowest of all rates' losses, seed by seed, is as low as a "
                "suggestion can be",
            ),
        ],
        figures=[
            slides.side_by_side(rates, seen, looks[..., -1], large),
            slides.rate_curve(config.num_steps, rates, looks, chosen),
            slides.confirmed(rates[three], fresh),
        ],
        exercises=slides.exercises(
            claims.less(
                "With more updates a tenth of the rate lags behind by less",
                behind[:, -1],
                behind[:, 0],
                why="the suggested rate is soon near the lowest loss there is, and a "
                "tenth of it keeps coming closer",
            )
        ),
        summary={"dataset": "digits", "members": len(rates) * config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
