"""What does a feed-forward network compute?

The network of the course has 6 inputs, 4 hidden units and 1 output. It is written three
times: with loops over every connection, as matrix products, and as a Flax module with
the same weights. The same code then computes networks with more hidden layers.

    python experiments/feedforward.py

Expect the three to agree up to rounding at depths 1 to 5, in about 9 seconds on 2
cores.

Source: course, "Feed-forward network": a = sigma(x W1), output = a W2, where W_ij
connects x_i and a_j; Rumelhart, Hinton & Williams (1986), Nature 323, 533-536.
"""

import itertools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from slides import feedforward as slides

from dlworkshop import models, workshop
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings

INPUTS, HIDDEN = 6, 4  # W1 is 6x4, W2 is 4x1


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 20
    """Number of networks, each with its own weights and input."""
    depth: int = 5
    """Number of hidden layers of the deepest network."""


def sigma(z):
    return 1 / (1 + jnp.exp(-z))


def by_loops(x, weights):
    """One connection at a time: W_ij connects x_i and a_j."""
    *hidden, last = weights
    for w in hidden:
        a = []
        for j in range(w.shape[1]):
            z = 0.0
            for i in range(w.shape[0]):
                z += x[i] * w[i, j]  # z_j = sum_i x_i W_ij
            a.append(1 / (1 + math.exp(-z)))  # a_j = sigma(z_j)
        x = a
    return sum(a_j * w_j for a_j, w_j in zip(x, last[:, 0], strict=True))


def by_matrices(x, weights):
    *hidden, last = weights
    for w in hidden:
        x = sigma(x @ w)  # a = sigma(x W1)
    return (x @ last)[0]  # output = a W2


def by_flax(x, weights):
    """The library's network, given these weights and no biases."""
    widths = [w.shape[1] for w in weights]
    model = models.mlp(widths[:-1], sigma, num_classes=1)
    layers = [{"kernel": w, "bias": jnp.zeros(w.shape[1])} for w in weights]
    params = {f"Dense_{layer}": p for layer, p in enumerate(layers)}
    return model.apply(params, x)[0]


def draw_network(key, depth):
    """An input [6] and the weights of a network, all from a standard normal."""
    sizes = [INPUTS] + [HIDDEN] * depth + [1]
    input_key, *keys = jax.random.split(key, depth + 2)
    shapes = zip(keys, itertools.pairwise(sizes), strict=True)
    weights = [jax.random.normal(k, shape) for k, shape in shapes]
    return jax.random.normal(input_key, (INPUTS,)), weights


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Compute one output in three ways at every depth; then cut each connection."""
    check_settings(config, seeds=claims.LEAST_SEEDS, depth=2)
    keys = jax.random.split(jax.random.key(0), config.seeds)
    along = jnp.linspace(-5, 5, 101)  # values of x_1
    loops, matrices, flax, sweeps = [], [], [], []  # one entry for each depth
    for depth in range(1, config.depth + 1):
        networks = [draw_network(key, depth) for key in keys]
        x, weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
        loops.append([by_loops(*jax.tree.map(np.asarray, n)) for n in networks])
        matrices.append(jax.vmap(by_matrices)(x, weights))  # [P]
        flax.append(jax.vmap(by_flax)(x, weights))
        moved = jnp.repeat(x[:, None], len(along), 1).at[:, :, 0].set(along)
        along_x1 = jax.vmap(jax.vmap(by_matrices, (0, None)))(moved, weights)
        sweeps.append(np.asarray(along_x1 - along_x1.mean(1, keepdims=True)))  # [P, T]
    reach = np.stack([np.ptp(sweep, axis=1) for sweep in sweeps], 1)  # [P, depth]

    x, weights = draw_network(keys[0], 1)
    a, output = sigma(x @ weights[0]), by_matrices(x, weights)
    pairs = list(itertools.product(range(INPUTS), range(HIDDEN)))
    cut = jnp.stack([sigma(x @ weights[0].at[pair].set(0)) for pair in pairs])
    moved_units = np.asarray(cut != a)  # [6 * 4, 4]
    meant = np.eye(HIDDEN, dtype=bool)[[j for _, j in pairs]]
    return Lesson(
        f"Loops, matrices and Flax agree on {np.size(loops)} networks of up to "
        f"{config.depth} hidden layers",
        claims=[
            claims.equal_up_to_rounding(
                "Matrix products and Flax compute what loops over i and j compute",
                [np.array(matrices), np.array(flax)],
                [np.array(loops), np.array(loops)],
                roundings=config.depth * (INPUTS + HIDDEN + 10),
                why="each layer sums 6 or 4 products; 10 more are for exp and 1 / z",
            ),
            claims.bounded(
                "Cutting W_ij changes a_j and no other unit",
                (moved_units != meant).sum(1),
                equal_to=0,
                why="W_ij connects x_i and a_j; each connection is cut in turn",
            ),
            claims.falls(
                "The more layers of sigmas, the less x_1 moves the output",
                reach,
                why="sigma is nowhere steeper than 1/4, and 4 weights of variance 1 "
                "only double a change",
            ),
        ],
        figures=[
            slides.connections(*jax.device_get((x, weights, a, output))),
            slides.depths(along, sweeps, reach),
        ],
        exercises=slides.exercises(),
        summary={"members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
