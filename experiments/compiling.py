"""What does it cost to compile a population?

JAX turns a Python function into a program before it runs. A loop over the networks of a
population is written out in it: the program repeats each instruction for each network.
`jax.vmap` adds an axis to the instructions of one network instead. A loop outside the
program, which calls it for each network, compiles fastest and runs longest.

    python experiments/compiling.py

Expect the program of 16 networks side by side to be as long as that of one, and the one
with the loop written out to be 14 times as long, in about 20 seconds on 2 cores.

Source: Frostig, Johnson & Leary (2018), Compiling machine learning programs via
high-level tracing; measured here.
"""

import time
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
from slides import compiling as slides

from dlworkshop import data, losses, models, workshop
from dlworkshop.errors import UserError
from dlworkshop.learn.chunk import gather
from dlworkshop.learn.minimize import batch_mean, minimize
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_rising, check_settings
from dlworkshop.workshop.timing import in_turns

MODEL = models.mlp((8,))  # small, so that compiling dominates


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 7
    """Number of times each program is compiled, in turns."""
    members: tuple[int, ...] = (1, 4, 16)
    """Numbers of networks in a population, rising from 1."""


def train(params, batches, rate=0.1):
    """The weights of one network after an update for each batch [T, B]."""
    loss = batch_mean(MODEL, losses.cross_entropy)
    return minimize(loss, params, optax.sgd(rate), batches)[0]


def side_by_side(one):
    """All networks along one axis: weights [P, ...], the same batches."""
    return jax.vmap(one, (0, None))


def written_out(one):
    """All networks one after the other, in a loop that the compiler has to read."""

    def loop(params, batches):
        size = len(jax.tree.leaves(params)[0])
        return [one(jax.tree.map(itemgetter(i), params), batches) for i in range(size)]

    return loop


def compiled(lift, params, batches):
    """Seconds to compile, with a rate that no cache has seen, and program lines."""
    rate = float(np.random.default_rng().uniform(0.05, 0.1))
    began = time.perf_counter()
    program = jax.jit(lift(partial(train, rate=rate))).lower(params, batches)
    program.compile()
    return time.perf_counter() - began, len(program.as_text().splitlines())


def main(config: Config) -> Lesson:
    """Compile both kinds of program for each population, then time their runs."""
    check_settings(config, seeds=claims.LEAST_TURNS, members=1)
    check_rising(config, "members")
    if config.members[0] != 1:
        raise UserError(
            f"members is {config.members}: begin with 1, the network to which the "
            "populations are compared"
        )
    most, digits = max(config.members), data.load("digits").train
    batches = gather(digits, np.arange(40).reshape(10, 4))  # [T, B, ...]
    keys = jax.random.split(jax.random.key(0), most)
    begin = jax.jit(jax.vmap(MODEL.init, (0, None)))
    some = [begin(keys[:size], jnp.zeros(64)) for size in config.members]  # [P, ...]
    roads = side_by_side, written_out
    many, lone = (jax.jit(lift(train)) for lift in roads)
    programs = [(lift, p, batches) for lift in roads for p in some]
    made = in_turns(programs, config.seeds, compiled)  # [turn, road x P, 2]
    ran = in_turns([(many, some[-1], batches), (lone, some[0], batches)], config.seeds)
    found = np.reshape(made, (config.seeds, 2, -1, 2))
    taken, lines = found[..., 0], found[0, ..., 1]  # [turn, road, P], [road, P]
    longer = lines / lines[1, 0]  # [road, P], relative to the program of one network
    one, (vmap, loop) = taken[:, 1, 0], taken[..., -1].T  # [turn] each
    together, alone = np.transpose(ran)  # [turn] each
    saved = most * alone - together  # [turn], by each training side by side

    return Lesson(
        f"Side by side, a program of {most} networks is {longer[0, -1]:.2f} times as "
        f"long as that of one and takes {np.median(vmap):.2f} s to compile; with a "
        f"loop written out, {longer[1, -1]:.0f} times and {np.median(loop):.1f} s",
        claims=[
            claims.bounded(
                "Side by side, a program is as long as that of one network",
                longer[0],
                at_most=1.1,
                why="the number of networks is the length of an axis; a tenth is "
                "allowed for lines that arrange this axis",
            ),
            claims.bounded(
                "Written out, its length is proportional to the number of networks",
                longer[1] / config.members,
                at_least=0.8,
                why="every instruction is repeated for each network; a fifth is "
                "allowed for what they share, such as the types of the arguments",
            ),
            claims.turns(
                "Compiling a population takes less than 3 times compiling one network",
                vmap / one,
                below=3,
                why="vmap does not repeat the instructions; 3 leaves room for larger "
                "arrays, which may be compiled differently",
            ),
            claims.turns(
                "Written out, the largest population takes longer to compile than side "
                "by side",
                loop / vmap,
                above=1,
                why="the compiler reads every line",
            ),
        ],
        figures=[
            slides.growth(config.members, taken, longer),
            slides.paid(most, (vmap, together), (one, most * alone)),
        ],
        exercises=slides.exercises(
            most,
            np.median(vmap),
            np.median(saved),
            claims.turns(
                "One short training does not pay for compiling it",
                vmap / np.maximum(saved, 1e-9),
                above=1,
                why="compiling takes tenths of a second, such a training takes "
                "milliseconds",
            ),
        ),
        summary={"dataset": "digits", "members": most},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
