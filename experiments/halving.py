"""Which settings are worth training to the end?

A search looks for the best of 27 settings, 9 learning rates with 3 momenta each.
Successive halving trains all of them for an epoch and keeps the best third by
validation, trains these until epoch 3 and keeps the best third, and so on; that takes
as many updates as 3 settings that are trained to the end. What does it lose? Each
seed is a search on the digits, with networks of its own. Members of a population do
not influence each other, so the curves of a population that trains to the end show what
each search would have dropped. A second population is really halved.

    python experiments/halving.py

Expect a test loss of 0.064 with a ninth of the updates, against 0.063 with all 27
settings and 0.30 with 3 random ones, which take as many updates, in about 20 seconds on
2 cores.

Source: Jamieson & Talwalkar (2016), Non-stochastic best arm identification and
hyperparameter optimization.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import optax
from scipy import special, stats
from slides import halving as slides

from dlworkshop import data, fit, models, observers, workshop
from dlworkshop.errors import UserError
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Number of searches; each trains one network for each setting."""
    num_rates: int = 9
    """Number of learning rates from 0.001 to 10, each with momenta 0, 0.9 and 0.99."""
    num_epochs: int = 27
    """Passes over the training split for settings that are trained to the end."""
    min_epochs: int = 1
    """Number of epochs before the first rung."""
    factor: int = 3
    """A rung keeps the best 1 / factor; the next has factor times as many epochs."""


LOST = 10 * np.log(10)  # ten times the loss of a guess; diverged losses count as this


def halve(losses: np.ndarray, first: int, factor: int) -> np.ndarray:
    """Epochs [S] that each setting is trained, by validation losses [E, S]."""
    num_epochs, size = losses.shape
    epochs = np.full(size, num_epochs)
    alive, rung = np.arange(size), first
    while rung < num_epochs:
        order = alive[losses[rung - 1, alive].argsort()]  # the best first
        keep = max(1, len(alive) // factor)
        alive, epochs[order[keep:]] = order[:keep], rung
        rung *= factor
    return epochs


def chosen(losses: np.ndarray, epochs: np.ndarray) -> int:
    """The setting with the lowest final loss of those that were trained to the end."""
    return int(np.where(epochs == len(losses), losses[-1], np.inf).argmin())


def of_some(validation: np.ndarray, test: np.ndarray, count: int) -> float:
    """Expected test loss [] of the best by validation of `count` random settings of S.

    The setting at place j, from 0, is the best of C(S - 1 - j, count - 1) choices.
    """
    size = len(validation)
    worse = size - 1 - np.arange(size)
    chance = special.comb(worse, count - 1) / special.comb(size, count)
    return float(chance @ test[validation.argsort()])


def agreement(losses: np.ndarray, rungs: np.ndarray) -> list[float]:
    """Rank correlation of the losses [E, S] at each rung with those at the end."""
    return [stats.spearmanr(losses[rung - 1], losses[-1])[0] for rung in rungs]


def main(config: Config) -> Lesson:
    """Train all settings to the end, and halved; compare what each search finds."""
    claims.check_seeds(config.seeds)
    check_settings(config, num_rates=1, num_epochs=1, min_epochs=1, factor=2)
    settings, seeds = 3 * config.num_rates, config.seeds
    by = config.min_epochs, config.factor
    if len(np.unique(halve(np.zeros((config.num_epochs, settings)), *by))) < 3:
        raise UserError(
            f"{settings} settings are dropped at fewer than two rungs before epoch "
            f"{config.num_epochs}: give more rates, more epochs or a smaller factor"
        )
    train = partial(
        fit,
        models.mlp((64,)),
        data.load("digits"),
        optax.sgd,
        hparams={
            "learning_rate": np.geomspace(1e-3, 10.0, config.num_rates).tolist(),
            "momentum": [0.0, 0.9, 0.99],
        },
        seeds=config.seeds,
        num_epochs=config.num_epochs,
        batch_size=64,
    )
    whole = train()
    halving = observers.successive_halving(config.min_epochs, config.factor)
    halved = train(observe=[halving], read_test=False)

    losses = whole.history["validation/loss"]  # [T, S P], nan within an epoch
    losses = losses[np.isfinite(losses).any(1)].reshape(-1, settings, seeds)
    losses = np.nan_to_num(losses, nan=LOST).clip(max=LOST)  # [E, S, P]
    rows = whole.summary["population"]
    test = np.array([row["test"]["loss"] for row in rows], float)
    test = np.nan_to_num(test, nan=LOST).clip(max=LOST).reshape(settings, seeds)

    searches = [(losses[..., p], test[:, p]) for p in range(seeds)]
    epochs = np.array([halve(curves, *by) for curves, _ in searches])  # [P, S]
    spent = epochs.sum(1) / config.num_epochs  # settings trained to the end
    count = int(spent.max())
    everyone, kept, few = np.array(
        [
            (
                tested[curves[-1].argmin()],
                tested[chosen(curves, trained)],
                of_some(curves[-1], tested, count),
            )
            for (curves, tested), trained in zip(searches, epochs, strict=True)
        ]
    ).T  # test losses [P]
    rungs = np.unique(epochs)[:-1]
    agree = np.array([agreement(curves, rungs) for curves, _ in searches])  # [P, R]
    rows = halved.summary["population"]
    done = np.array([row["steps"] for row in rows]).reshape(settings, seeds)  # updates
    expected = halve(losses.mean(2), *by) * (done.max() // config.num_epochs)
    share = spent.mean() / settings

    return Lesson(
        f"With {share:.0%} of the updates, halving finds a setting with a test loss of "
        f"{kept.mean():.3f}; training all {settings} finds one with "
        f"{everyone.mean():.3f}, and {count} random ones, which take as many updates, "
        f"one with {few.mean():.3f}",
        claims=[
            claims.bounded(
                "Halving takes at most as many updates as 3 settings",
                spent,
                at_most=3,
                why="27 settings train for 1 epoch, 9 for 2 more, 3 for 6 more and 1 "
                "for 18 more: 81 epochs, which are 3 times 27",
            ),
            claims.bounded(
                "The population that is halved drops the same settings",
                (done != expected[:, None]).sum(),
                equal_to=0,
                why="members do not influence each other; both rank the means over the "
                "seeds",
            ),
            claims.less(
                "Halving finds better settings than random choice with as many updates",
                np.log(kept),
                np.log(few),
                why="it looks at all settings, though most of them for an epoch only",
            ),
            claims.less(
                "It loses less than a quarter of the loss of training all to the end",
                np.log(kept),
                np.log(everyone),
                by=-np.log(1.25),
                why="the best few settings differ by less, and it is enough to keep "
                "one of them",
            ),
        ],
        figures=[
            slides.one_search(losses[..., 0], epochs[0]),
            slides.found(settings, count, everyone, kept, few),
            slides.agreement(rungs, agree),
        ],
        exercises=slides.exercises(
            claims.rises(
                "At later rungs the ranking agrees better with the final one",
                agree,
                why="at early rungs slow settings have not caught up, and settings "
                "that diverge late have not diverged yet",
            )
        ),
        summary={"dataset": "digits", "members": settings * seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
