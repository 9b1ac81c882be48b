"""What does a population cost, against training one by one?

`jax.vmap` trains P networks side by side in one program. A loop calls the program of
one network P times. Both do the same arithmetic. Side by side wins if a network is so
small that the machine mostly waits for the next instruction, and gains little if one
network keeps the machine busy. `compiling.py` measures the cost of the compiler.

    python experiments/vmap_vs_loop.py

Expect 64 small networks to gain five- to sixfold, and 64 large ones to gain nothing or
to lose a little, in about 15 seconds on 2 cores.

Source: Frostig, Johnson & Leary (2018), Compiling machine learning programs via
high-level tracing, for transformations of programs; times are measured here.
"""

from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
from slides import vmap_vs_loop as slides

from dlworkshop import data, losses, models, workshop
from dlworkshop.errors import UserError
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.minimize import batch_mean, minimize
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_rising, check_settings
from dlworkshop.workshop.timing import in_turns


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 7
    """Number of rounds of timing, in which the programs take turns."""
    members: tuple[int, ...] = (1, 4, 16, 64)
    """Numbers of networks in a population, rising from 1."""
    num_steps: int = 10
    """Number of updates of a training."""


SMALL, LARGE = (8,), (128, 128)  # hidden widths
# name -> hidden widths and batch size
KINDS = {"small, 64-8-10": (SMALL, 4), "large, 64-128-128-10": (LARGE, 32)}


def begin(keys, widths):
    """The initial weights of a network for each key, [P, ...]."""
    model, image = models.mlp(widths), jnp.zeros(64)
    return jax.jit(jax.vmap(model.init, (0, None)))(keys, image)


def train(params, batches, widths, rate=0.1):
    """The weights of one network after an update for each batch [T, B]."""
    loss = batch_mean(models.mlp(widths), losses.cross_entropy)
    return minimize(loss, params, optax.sgd(rate), batches)[0]


def side_by_side(one):
    """One program for all weights [P, ...]; every member sees the same batches."""
    return jax.jit(jax.vmap(one, (0, None)))


def one_by_one(one):
    """The best possible loop: each call is a whole training, compiled."""
    alone = jax.jit(one)
    return lambda members, batches: [alone(params, batches) for params in members]


def apart(params):
    """Stacked weights [P, ...] -> a list of P."""
    size = len(jax.tree.leaves(params)[0])
    return [jax.tree.map(itemgetter(i), params) for i in range(size)]


@jax.enable_x64(True)
def same_weights(keys, digits):
    """The weights of small networks, side by side and alone, in float64."""
    one = partial(train, widths=SMALL)
    few = gather(digits, np.arange(12).reshape(3, 4))
    params = begin(keys, SMALL)
    return claims.equal_up_to_rounding(
        "Side by side, each member gets the weights that it gets alone",
        apart(side_by_side(one)(params, few)),
        one_by_one(one)(apart(params), few),
        roundings=3 * 4 * (64 + 8 + 4),
        why="3 updates, each with sums over 64 inputs, 8 units and 4 examples, there "
        "and back, in another order",
    )


def main(config: Config) -> Lesson:
    """Compare the weights, then the times of both programs, in turns."""
    check_settings(config, seeds=claims.LEAST_TURNS, members=1, num_steps=1)
    check_rising(config, "members")
    if config.members[0] != 1:
        raise UserError(
            f"members is {config.members}: begin with 1, the network to which the "
            "populations are compared"
        )
    digits, most = data.load("digits").train, max(config.members)
    keys = jax.random.split(jax.random.key(0), most)
    calls = []
    for widths, size in KINDS.values():
        index = np.arange(config.num_steps * size) % len(digits.targets)
        batches = gather(digits, index.reshape(-1, size))  # [T, B, ...]
        one, everyone = partial(train, widths=widths), begin(keys, widths)
        lifted, loop = side_by_side(one), one_by_one(one)
        for members in config.members:
            some = jax.tree.map(itemgetter(slice(members)), everyone)
            calls += [(lifted, some, batches), (loop, apart(some), batches)]
    turns = in_turns(calls, config.seeds)
    taken = np.reshape(turns, (config.seeds, 2, -1, 2))  # [turn, kind, P, road]
    gain = taken[..., 1] / taken[..., 0]  # [turn, kind, P]
    small, large = gain[..., -1].T  # [turn] each, of the largest population

    return Lesson(
        f"Side by side, {most} small networks train {np.median(small):.1f} times "
        f"as fast as in a loop, {most} large ones {np.median(large):.1f} times",
        claims=[
            same_weights(keys[:3], digits),
            claims.turns(
                f"Small networks, {most} side by side, take less than half the time of "
                "a loop",
                small,
                above=2,
                why="a loop issues every instruction again for each network, and the "
                "arrays are too small to keep the machine busy",
            ),
            claims.turns(
                "Large networks gain less from it than small ones",
                large / small,
                below=1,
                why="their time goes into arithmetic, which is the same for both",
            ),
        ],
        figures=[
            slides.gains(config.members, KINDS, gain),
            slides.durations(config, KINDS, taken),
        ],
        exercises=slides.exercises(),
        summary={"dataset": "digits", "members": most},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
