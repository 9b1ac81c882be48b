"""Which learning rate is right?

Too small a rate hardly learns, too large a one flies off. Here networks with 25 rates,
10 seeds each, learn the digits at once, in one program. Half of the seeds suggest the
rate with the lowest validation loss; the others check it, on the test split. What
sets the limit from above is the question of `learning_rate_limit.py`.

    python experiments/learning_rate_finder.py

Expect about 0.8 to be suggested, a test loss of 0.09 with it, of 0.47 with a tenth, and
nothing learnt with ten times as much, in about 7 seconds on 2 cores.

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
from dlworkshop.learn.minimize import batch_mean, descend
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, vmap_grid


@dataclass(frozen=True)
class Config(workshop.Config):
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


def learn(num_steps, rate, key, train, validation, test):
    """One network: its validation loss after each of `num_steps` [looks], and on test.

    Its first weights and its batches are those of the key, whatever the rate.
    """
    model = models.mlp((64,))
    loss = batch_mean(model, losses.cross_entropy)
    weights_key, order_key = jax.random.split(key)
    w, looks = model.init(weights_key, train.inputs[0]), []
    order = jax.random.randint(order_key, (num_steps[-1], 64), 0, len(train.targets))
    for part in jnp.split(order, num_steps[:-1]):  # w <- w - rate dL/dw
        w, _ = descend(loss, w, optax.sgd(rate), gather(train, part))
        looks.append(loss(w, validation))
    return jnp.stack(looks), loss(w, test)


def main(config: Config) -> Lesson:
    """All rates with all seeds on real digits: half suggest, the others check."""
    rates = np.geomspace(config.lowest, config.highest, config.num_rates)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    table = vmap_grid(partial(learn, config.num_steps))
    looks, test = (
        np.nan_to_num(np.asarray(found, float), nan=LOST).clip(max=LOST)
        for found in table(jnp.asarray(rates), keys, *data.load("digits")[:3])
    )  # [R, P, looks], [R, P]
    judges = config.seeds // 2
    chosen = int(np.log(looks[:, :judges, -1]).mean(1).argmin())
    tenth = round(1 / np.log10(rates[1] / rates[0]))  # so many rates make a factor 10
    three = np.clip(chosen + np.array([-tenth, 0, tenth]), 0, len(rates) - 1)
    fresh = test[three, judges:]  # [3, P / 2], of seeds without a say
    slow, best, lost = fresh.mean(1)
    small, _, large = three

    return Lesson(
        f"Of {len(rates)} rates tried at once, {rates[chosen]:.2g} is suggested; seeds "
        f"that did not choose reach a test loss of {best:.2f} with it, {slow:.2f} with "
        f"{rates[small]:.2g} and {lost:.2f} with {rates[large]:.2g}",
        claims=[
            claims.less(
                "Fresh seeds learn more at the suggested rate than at a tenth of it",
                np.log(fresh[1]),
                np.log(fresh[0]),
                why="a tenth of the rate goes a tenth of the way in as many updates",
            ),
            claims.less(
                "Fresh seeds learn more at the suggested rate than at ten times it",
                np.log(fresh[1]),
                np.log(fresh[2]),
                why="beyond the edge the loss grows; what flew off counts as ten times "
                "the loss of a guess",
            ),
        ],
        figures=[
            slides.rate_curve(config.num_steps, rates, looks, chosen),
            slides.confirmed(rates[three], fresh),
        ],
        exercises=slides.exercises(
            claims.bounded(
                "With more updates small rates catch up",
                looks[small, :, 0] - looks[small, :, -1],
                at_least=0.0,
                why="below the edge, further updates make the loss smaller",
            )
        ),
        summary={"dataset": "digits", "members": len(rates) * config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
