"""Why does a network take many examples at once?

A batch is a matrix whose rows are samples: if X is 3x6, A = sigma(X W1) has a row for
each sample, and so has the output A W2. A loop over the rows and `jax.vmap` of the
function of one sample give the same numbers. Only the time differs.

    python experiments/batch_forwarding.py

Expect three equal answers, and about 11 times as many examples per second in batches of
1024 as in batches of one, in about 10 seconds on 2 cores.

Source: course, "Batch forwarding": X is 3x6, A = sigma(X W1), output = A W2 is 3x1.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from slides import batch_forwarding as slides

from dlworkshop import workshop
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_rising, check_settings
from dlworkshop.workshop.timing import in_turns


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Number of random networks and batches, and of rounds of timing."""
    batch_sizes: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    """Numbers of samples in a batch."""
    hidden: int = 128
    """Hidden units of the timed network, which has 784 inputs and 10 outputs."""


def forward(x, w1, w2):
    """One sample [6] -> its output [1]."""
    return jax.nn.sigmoid(x @ w1) @ w2


def by_loop(xs, w1, w2):
    """Row by row."""
    return jnp.stack([forward(x, w1, w2) for x in xs])


def by_matrices(xs, w1, w2):
    a = jax.nn.sigmoid(xs @ w1)  # A = sigma(X W1), [3, 4]
    return a @ w2  # output = A W2, [3, 1]


by_vmap = jax.vmap(forward, in_axes=(0, None, None))  # rows of X, the same weights


def draw(key, sizes, num_rows):
    """A batch [B, D] and the two weight matrices."""
    x_key, *keys = jax.random.split(key, 3)
    shapes = zip(keys, (sizes[:2], sizes[1:]), strict=True)
    weights = [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in shapes]
    return jax.random.normal(x_key, (num_rows, sizes[0])), *weights


@jax.enable_x64(True)
def identities(num_draws):
    """Compute the outputs of a batch in three ways; check what a row depends on."""
    keys = jax.random.split(jax.random.key(0), num_draws)
    drawn = [draw(key, (6, 4, 1), 3) for key in keys]  # X 3x6, W1 6x4, W2 4x1
    matrices = [by_matrices(*d) for d in drawn]
    slopes = jnp.stack([jax.jacobian(by_matrices)(*d)[:, 0] for d in drawn])
    others = slopes[:, ~np.eye(3, dtype=bool)]  # d output of row i / d X of row j

    def loss(w1, x, w2):  # the mean over the rows of half the squared output
        return (by_matrices(x, w1, w2) ** 2).mean() / 2

    whole = [jax.grad(loss)(w1, x, w2) for x, w1, w2 in drawn]
    by_row = [
        jax.vmap(jax.grad(loss), (None, 0, None))(w1, x[:, None], w2).mean(0)
        for x, w1, w2 in drawn
    ]
    return [
        claims.equal_up_to_rounding(
            "A loop over the rows, matrix products and vmap give the same outputs",
            [[by_loop(*d) for d in drawn], [by_vmap(*d) for d in drawn]],
            [matrices, matrices],
            roundings=6 + 4 + 10,
            scale=float(max(abs(w2).sum() for _, _, w2 in drawn)),
            why="sums of 6 and of 4 products, and 10 for the sigmoid",
        ),
        claims.bounded(
            "The output of a row depends on no other row",
            others,
            equal_to=0.0,
            why="sample i enters row i of X only, so the derivative is exactly 0",
        ),
        claims.equal_up_to_rounding(
            "The gradient of a batch is the mean of its rows' gradients",
            whole,
            by_row,
            roundings=40,
            why="as above, twice because of the way back, and a mean of 3",
        ),
    ]


def main(config: Config) -> Lesson:
    """The identities, then examples per second against batch size."""
    check_settings(config, seeds=claims.LEAST_TURNS, batch_sizes=1, hidden=1)
    check_rising(config, "batch_sizes")
    sizes, batch_sizes = (784, config.hidden, 10), np.array(config.batch_sizes)
    xs, w1, w2 = draw(jax.random.key(0), sizes, max(batch_sizes))
    batch, one = jax.jit(by_vmap), jax.jit(forward)
    rows = [jnp.asarray(x) for x in xs[:16]]

    def one_by_one():
        return [one(x, w1, w2) for x in rows]

    calls = [(batch, xs[:size], w1, w2) for size in batch_sizes]
    taken = in_turns([(one_by_one,), *calls], config.seeds)  # [turns, 1 + sizes]
    alone, rate = len(rows) / taken[:, 0], batch_sizes / taken[:, 1:]  # examples/s
    gain = np.median(rate[:, -1] / rate[:, 0])
    return Lesson(
        f"Batches of {batch_sizes[-1]} process {gain:,.0f} times as many examples per "
        f"second as batches of {batch_sizes[0]}",
        claims=[
            *identities(config.seeds),
            claims.turns(
                "The largest batch processes at least twice as many examples per "
                "second as the smallest",
                rate[:, -1] / rate[:, 0],
                above=2,
                why="a batch reads the weights once and pays for one call only",
            ),
        ],
        figures=[
            slides.throughput(batch_sizes, rate, alone, config.hidden),
            slides.latency(batch_sizes, rate),
        ],
        exercises=slides.exercises(),
        summary={
            "members": config.seeds,
            "examples_per_second": np.median(rate[:, -1]),
        },
    )


if __name__ == "__main__":
    workshop.start(main, Config)
