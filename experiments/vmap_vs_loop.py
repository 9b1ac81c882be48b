"""What does a population cost, against training one by one?

`jax.vmap` trains P networks side by side in one program. A loop calls the program of
one network P times. Both do the same arithmetic. Side by side wins where a network is
so small that the machine mostly waits for the next instruction, and less where one
network keeps it busy. The time to compile is shown apart.

    python experiments/vmap_vs_loop.py

Expect 64 small networks to gain some sixfold and 64 large ones nothing, in about 25
seconds on 2 cores.

Source: Frostig, Johnson & Leary (2018), Compiling machine learning programs via
high-level tracing, for programs that are transformed; measured here.
"""

import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop import data, losses, models
from dlworkshop.learn.chunk import gather
from dlworkshop.report.figures import BAND, COLOURS, band
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
    model = models.mlp(widths)

    def loss(params, batch):
        outputs = models.predict(model, params, batch.image)
        return jax.vmap(losses.cross_entropy)(outputs, batch.label).mean()

    def update(params, batch):
        gradient = jax.grad(loss)(params, batch)
        return jax.tree.map(lambda w, g: w - rate * g, params, gradient), None

    return jax.lax.scan(update, params, batches)[0]


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
    taken = np.zeros((2, 2, config.seeds, len(config.members)))  # kind, road, turn, P
    compiled = np.zeros((config.seeds, 2))
    batches, first = {}, {}
    for kind, (widths, size) in KINDS.items():
        index = np.arange(config.num_steps * size) % len(digits.train.label)
        batches[kind] = gather(digits.train, index.reshape(-1, size))
        first[kind] = begin(keys, widths)
    roads = [
        [lift(partial(train, widths=widths)) for lift in (side_by_side, one_by_one)]
        for widths, _ in KINDS.values()
    ]
    for turn in range(config.seeds):  # in turns, so that a slow moment hits all alike
        for i, size in enumerate(config.members):
            for k, kind in enumerate(KINDS):
                params = jax.tree.map(lambda w, size=size: w[:size], first[kind])
                for j, some in enumerate((params, apart(params))):
                    taken[k, j, turn, i] = seconds(roads[k][j], some, batches[kind])
        some = first[SMALL]
        for j, (lift, params) in enumerate(
            ((side_by_side, some), (jax.jit, apart(some)[0]))
        ):
            compiled[turn, j] = compiling(lift, KINDS[SMALL][0], params, batches[SMALL])
    saved = np.log2(taken[:, 1] / taken[:, 0])  # kind, turn, P
    gain = dict(zip(KINDS, saved, strict=True))
    small, large = (2 ** np.median(gain[kind][:, -1]) for kind in KINDS)
    longer = np.median(compiled[:, 0] / compiled[:, 1])

    def gains(axes):
        for (kind, values), colour in zip(gain.items(), COLOURS, strict=False):
            band(axes, np.array(config.members), 2**values, kind, colour)
        axes.axhline(1, color="black", linestyle=":")
        axes.set(xscale="log", yscale="log", xlabel="networks")
        axes.set_ylabel("time of the loop / of vmap")
        axes.set_xticks(config.members, config.members)
        axes.legend()

    def durations(panels):
        for axes, kind, pair in zip(panels, KINDS, taken, strict=True):
            for name, values, colour in zip(
                ("vmap", "loop"), pair, COLOURS, strict=False
            ):
                band(axes, np.array(config.members), 1e3 * values, name, colour)
            axes.set(xscale="log", yscale="log", xlabel="networks", title=kind)
            axes.set_xticks(config.members, config.members)
        panels[0].set_ylabel("time to train all (ms)")
        panels[0].legend()

    def compile_times(axes):
        turns = np.arange(config.seeds) + 1
        axes.plot(turns, compiled[:, 0], "o-", label=f"{most} networks")
        axes.plot(turns, compiled[:, 1], "o-", color=COLOURS[1], label="one network")
        axes.set(xlabel="turn", ylabel="time to compile (s)", ylim=(0, None))
        axes.legend()

    return Lesson(
        f"Side by side, {most} small networks train {small:.1f} times as fast as in "
        f"a loop, {most} large ones {large:.1f} times",
        claims=[
            same_weights(keys[:3], batches[SMALL], KINDS[SMALL][0]),
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
                why="their time goes into arithmetic, which is the same on both roads",
            ),
            claims.less(
                "Compiling a population takes less than 3 times compiling one network",
                np.log2(compiled[:, 0]),
                np.log2(compiled[:, 1]),
                by=-np.log2(3),
                why="vmap adds an axis to the instructions, it does not repeat them; 3 "
                "leaves room for their being larger; in log2, turn by turn",
            ),
        ],
        figures=[
            Figure(
                gains,
                f"vmap gains {small:.1f}-fold with {most} small networks, "
                f"{large:.1f}-fold with large ones",
                "Dotted: vmap and loop take the same time; below it the loop wins. "
                f"Compiling is not counted. Members are turns. {BAND}",
            ),
            Figure(
                durations,
                "Small networks side by side cost little more than one",
                f"{config.num_steps} updates of every network. {BAND}",
                panels=2,
            ),
            Figure(
                compile_times,
                f"Compiling {most} networks takes {longer:.1f} times as long as one",
                "The small network, with its updates in a scan; a new program in each "
                "turn, so that no cache knows it.",
            ),
        ],
        exercises=[
            Exercise(
                "Let the loop call a compiled update, not a compiled training. Is the "
                "gain larger or smaller?",
                "Larger: each call from Python costs some more microseconds, now for "
                "every update. Compare vmap with the best loop, not with a bad one.",
            ),
            Exercise(
                "How many trainings must follow until compiling has paid for itself?",
                "Divide the seconds of the third figure by the difference of the lines "
                "in the second. For one short training of a few small networks vmap "
                "does not pay: most of its time is the compiler's, as is the loop's.",
            ),
        ],
        summary={"dataset": "digits", "members": most},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
