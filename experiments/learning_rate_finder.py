"""Which learning rate is right?

If the rate is too small, the loss hardly falls; if it is too large, the loss diverges.
Here networks with 25 rates and some seeds each learn the digits in one program. Half of
the seeds suggest the rate with the lowest validation loss. The others check on the test
split that its loss is at most half of that with a tenth of the rate and with ten times
the rate, and not far from the lowest loss. `learning_rate_limit.py` explains what
limits the rate.

    python experiments/learning_rate_finder.py

Expect 0.83 to be suggested, with a test loss of 0.09, against 0.47 with a tenth of that
rate and 2.4, more than the loss of a guess, with ten times that rate, in about 7
seconds on 2 cores.

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
from dlworkshop.errors import UserError
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.minimize import batch_mean, minimize
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

    seeds: int = 10
    """Networks per rate, 9 or more: half of them suggest a rate, the rest check it."""
    num_rates: int = 25
    """Number of rates, evenly spaced on a logarithmic scale."""
    lowest: float = 1e-3
    """The smallest rate, per update."""
    highest: float = 1e2
    """The largest rate, at which all networks should diverge."""
    num_steps: tuple[int, ...] = (20, 60, 200)
    """Numbers of updates, rising, after which the validation loss is measured."""


LOST = 10 * np.log(10)  # ten times the loss of a guess; diverged losses count as this


def learn(num_steps, rate, key, train, validation, test):
    """One network: validation loss after each of `num_steps` [looks], and test loss.

    The third result is the loss of each batch, [T]. The initial weights and the batches
    depend on the key only, not on the rate.
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
    """All rates with all seeds on digits: half of the seeds suggest, half check."""
    check_settings(config, seeds=9, num_rates=2, num_steps=1)
    check_positive(config, "lowest", "highest")
    check_rising(config, "num_steps", 1)
    rates = np.geomspace(config.lowest, config.highest, config.num_rates)
    if not 1 < rates[1] / rates[0] < 10**0.34:
        raise UserError(
            f"{len(rates)} rates from {config.lowest:g} to {config.highest:g} are not "
            "3 or more for each factor of 10: give a higher num_rates"
        )
    keys = jax.random.split(jax.random.key(0), config.seeds)
    table = vmap_grid(partial(learn, config.num_steps))
    looks, test, seen = (
        np.nan_to_num(np.asarray(found, float), nan=LOST).clip(max=LOST)
        for found in table(jnp.asarray(rates), keys, *data.load("digits")[:3])
    )  # [R, P, looks], [R, P], [R, P, T]
    judges = config.seeds // 2
    chosen = int(np.log(looks[:, :judges, -1]).mean(1).argmin())
    tenth = round(1 / np.log10(rates[1] / rates[0]))  # rates in a factor of 10
    # at the end of the grid the rate is compared with itself, so that a claim fails
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
                "With fresh seeds, the suggested rate has at most half the loss of a "
                "tenth of it",
                np.log(fresh[1]),
                np.log(fresh[0]),
                by=np.log(2),
                why="with a tenth of the rate the weights change about a tenth as much "
                "in as many updates",
            ),
            claims.less(
                "With fresh seeds, the suggested rate has at most half the loss of ten "
                "times it",
                np.log(fresh[1]),
                np.log(fresh[2]),
                by=np.log(2),
                why="the suggested rate is near the edge of stability; a diverged loss "
                "counts as ten times that of a guess",
            ),
            claims.less(
                "With fresh seeds, its loss is less than 1.5 times the lowest of all "
                "rates",
                np.log(fresh[1]),
                np.log(everyone.min(0)),
                by=-np.log(1.5),
                why="no suggestion can have a lower loss than the best of all rates, "
                "chosen for each seed",
            ),
        ],
        figures=[
            slides.side_by_side(rates, seen, looks[..., -1], large),
            slides.rate_curve(config.num_steps, rates, looks, chosen),
            slides.confirmed(rates[three], fresh),
        ],
        exercises=slides.exercises(
            claims.less(
                "With more updates, a tenth of the rate lags behind by less",
                behind[:, -1],
                behind[:, 0],
                why="with the suggested rate the loss soon stops falling, and with a "
                "tenth of it the loss keeps falling",
            )
            if len(config.num_steps) > 1
            else None
        ),
        summary={"dataset": "digits", "members": len(rates) * config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
