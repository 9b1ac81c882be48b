"""What does a population cost, against training one by one?

`jax.vmap` trains P networks side by side in one program. A loop calls the program of
one network P times. Both do the same arithmetic. Side by side wins where a network is
so small that the machine mostly waits for the next instruction, and less where one
network keeps it busy. The time to compile is shown apart.

    python experiments/vmap_vs_loop.py

Expect 64 small networks to gain four- to sixfold, 64 large ones nothing, or to lose a
little; in about 25 seconds on 2 cores.

Source: Frostig, Johnson & Leary (2018), Compiling machine learning programs via
high-level tracing, for programs that are transformed; measured here.
"""

import itertools
import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlworkshop import data, losses, models
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.descent import batch_mean, descend
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import curves
from dlworkshop.run import experiment
from dlworkshop.run.clock import seconds
from dlworkshop.run.lesson import Exercise, Figure, Lesson
from dlworkshop.verify import claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 7
    """How often each time is taken, in turns."""
    members: tuple[int, ...] = (1, 4, 16, 64)
    """Networks in a population."""
    num_steps: int = 10
    """Updates of a training."""


KINDS = {"small, 64-8-10": ((8,), 4), "large, 64-128-128-10": ((128, 128), 32)}
SMALL, LARGE = KINDS  # hidden widths, examples of an update


def begin(keys, widths):
    """The first weights of a network for each key, [P, ...]."""
    model, image = models.mlp(widths), jnp.zeros(64)
    return jax.jit(jax.vmap(model.init, (0, None)))(keys, image)


def train(params, batches, widths, rate=0.1):
    """The weights of one network after an update for each batch [T, B]."""
    loss = batch_mean(models.mlp(widths), losses.cross_entropy)
    return descend(loss, params, optax.sgd(rate), batches)[0]


def side_by_side(one):
    """One program for all weights [P, ...]; every member sees the same batches."""
    return jax.jit(jax.vmap(one, (0, None)))


def one_by_one(one):
    """A loop that is as good as can be: each call is a whole training, compiled."""
    alone = jax.jit(one)
    return lambda members, batches: [alone(params, batches) for params in members]


def apart(params):
    """Stacked weights [P, ...] -> a list of P."""
    size = len(jax.tree.leaves(params)[0])
    return [jax.tree.map(lambda w, i=i: w[i], params) for i in range(size)]


def compiling(lift, widths, params, batches):
    """Seconds from Python to a program that no cache knows: its rate is a new one."""
    rate = float(np.random.default_rng().uniform(0.05, 0.1))
    one = partial(train, widths=widths, rate=rate)
    began = time.perf_counter()
    lift(one).lower(params, batches).compile()
    return time.perf_counter() - began


@jax.enable_x64(True)
def same_weights(keys, batches, widths):
    """Both roads to the weights of every member, in float64."""
    one, few = partial(train, widths=widths), jax.tree.map(lambda b: b[:3], batches)
    params = begin(keys, widths)
    together, loop = side_by_side(one)(params, few), one_by_one(one)(apart(params), few)
    return claims.exact(
        "Side by side, each member gets the weights that it gets alone",
        together,
        jax.tree.map(lambda *members: jnp.stack(members), *loop),
        roundings=3 * 4 * (64 + 8 + 4),
        why="3 updates, each forward and back through sums of 64 inputs, 8 units "
        "and 4 examples, in another order",
    )


def main(config: Config) -> Lesson:
    """Equal weights, then the times of both roads, in turns, and of the compiler."""
    digits, most = data.load("digits"), max(config.members)
    keys = jax.random.split(jax.random.key(0), most)
    turns, sizes = range(config.seeds), config.members
    taken = np.zeros((2, 2, len(turns), len(sizes)))  # kind, road, turn, P
    compiled = np.zeros((2, len(turns)))  # road, turn
    work = []
    for widths, size in KINDS.values():
        index = np.arange(config.num_steps * size) % len(digits.train.label)
        batches = gather(digits.train, index.reshape(-1, size))
        one = partial(train, widths=widths)
        work.append((begin(keys, widths), batches, side_by_side(one), one_by_one(one)))
    first, batches, *_ = work[0]
    for turn in turns:  # in turns, so that a slow moment hits all alike
        for (k, (everyone, batch, lifted, loop)), (i, size) in itertools.product(
            enumerate(work), enumerate(sizes)
        ):
            some = jax.tree.map(lambda w, size=size: w[:size], everyone)
            taken[k, 0, turn, i] = seconds(lifted, some, batch)
            taken[k, 1, turn, i] = seconds(loop, apart(some), batch)
        lifts = (side_by_side, first), (jax.jit, apart(first)[0])
        for j, (lift, params) in enumerate(lifts):
            compiled[j, turn] = compiling(lift, KINDS[SMALL][0], params, batches)
    log_gain = np.log2(taken[:, 1] / taken[:, 0])  # [kind, turn, P]
    gain = dict(zip(KINDS, log_gain, strict=True))
    small, large = (2 ** np.median(gain[kind][:, -1]) for kind in KINDS)
    together, alone = np.median(compiled, axis=1)
    dearer = np.median(taken[0, :, :, -1] / taken[0, :, :, 0], axis=1)  # [road]
    saved = taken[0, 1, :, -1] - taken[0, 0, :, -1]  # seconds of each training

    def gains(axes):
        axes.axhline(1, color="black", linestyle=":")
        values = {kind: 2**each for kind, each in gain.items()}
        labels = {"xlabel": "networks", "ylabel": "time of the loop / of vmap"}
        curves(axes, config.members, values, xscale="log", yscale="log", **labels)

    def durations(panels):
        for axes, kind, (vmap, loop) in zip(panels, KINDS, 1e3 * taken, strict=True):
            looks = {"xscale": "log", "yscale": "log", "xlabel": "networks"}
            curves(axes, config.members, {"vmap": vmap, "loop": loop}, **looks)
            axes.set(title=kind, ylabel="time to train all (ms)")

    return Lesson(
        f"Side by side, {most} small networks train {small:.1f} times as fast as in "
        f"a loop, {most} large ones {large:.1f} times; compiling them takes "
        f"{together:.2f} s, and one {alone:.2f} s",
        claims=[
            same_weights(keys[:3], batches, KINDS[SMALL][0]),
            claims.greater(
                f"Small networks, {most} side by side, take less than half the time",
                gain[SMALL][:, -1],
                1.0,
                why="a loop gives every instruction again for each network, and their "
                "numbers are too few to keep the machine busy; in log2, turn by turn",
            ),
            claims.less(
                "Large networks gain less from it than small ones",
                gain[LARGE][:, -1],
                gain[SMALL][:, -1],
                why="their time goes into arithmetic, which is the same on both roads; "
                "in log2, the two of a turn paired",
            ),
            claims.less(
                "Compiling a population takes less than 3 times compiling one network",
                np.log2(compiled[0]),
                np.log2(compiled[1]),
                by=-np.log2(3),
                why="vmap adds an axis to the instructions, it does not repeat them; 3 "
                "leaves room for their being larger; in log2, turn by turn",
            ),
        ],
        figures=[
            Figure(
                "gains",
                gains,
                f"vmap gains {small:.1f}-fold with {most} small networks, "
                f"{large:.1f}-fold with large ones",
                "Dotted: vmap and loop take the same time; below it the loop wins. "
                f"Compiling is not counted. Members are turns. {BAND}",
            ),
            Figure(
                "durations",
                durations,
                f"{most} small networks take {dearer[0]:.0f} times as long as one side "
                f"by side, {dearer[1]:.0f} times in a loop",
                f"{config.num_steps} updates of each network. Members: turns. {BAND}",
                panels=2,
            ),
        ],
        exercises=[
            Exercise(
                f"How many trainings of {most} small networks must follow until vmap "
                "has paid for its compiler?",
                f"{together:.2f} s to compile, over {1e3 * np.median(saved):.1f} ms "
                f"saved by each: {together / np.median(saved):,.0f}. The loop has a "
                "compiler to pay as well, though.",
                claims.greater(
                    "One short training does not pay for compiling it",
                    np.log2(compiled[0]),
                    np.log2(np.maximum(saved, 1e-9)),
                    why="a compiler takes tenths of a second, such a training "
                    "milliseconds; in log2, turn by turn",
                ),
            ),
        ],
        summary={"dataset": "digits", "members": most},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
