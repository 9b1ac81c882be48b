"""How does a network find out how much each weight contributes to the loss?

The loss depends on a weight only through a chain of quantities, so its derivative is a
product along the chain, summed over all paths from the weight to the loss. This sum is
written out weight by weight, then as matrix products, and compared with `jax.grad` and
with central differences, which are never exact. `gradient_cost.py` measures the cost.

    python experiments/backpropagation.py

Expect four equal gradients (the one by differences to nine digits, with the best step
size) and a check that names the layer in which a factor was forgotten, in about 10
seconds on 2 cores.

Source: course, "Back-propagation": dL/dW1_12 = sum_k dL/do_k do_k/ds_k ds_k/da_2
da_2/dz_2 dz_2/dW1_12; Rumelhart, Hinton & Williams (1986), Nature 323, 533-536.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from slides import backpropagation as slides

from dlworkshop import workshop
from dlworkshop.verify import check_gradients, claims
from dlworkshop.workshop.lesson import Lesson, check_settings

STEPS = 10.0 ** -np.arange(2, 13)  # h of the differences


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 10
    """Number of random networks."""


def sigma(z):
    return 1 / (1 + jnp.exp(-z))


def forward(weights, x):
    """One example [6] -> all quantities on the way to its outputs [3]."""
    w1, w2 = weights
    z = x @ w1  # z_j = sum_i x_i W1_ij
    a = sigma(z)  # a_j = sigma(z_j)
    s = a @ w2  # s_k = sum_j a_j W2_jk
    o = sigma(s)  # o_k = sigma(s_k)
    return z, a, s, o


def loss(weights, x, y):  # L = sum_k (o_k - y_k)^2 / 2
    return ((forward(weights, x)[-1] - y) ** 2).sum() / 2


@jax.custom_vjp
def careless(s):
    """sigma with a derivative by hand that lacks a factor."""
    return sigma(s)


careless.defvjp(lambda s: (sigma(s), sigma(s)), lambda o, dl_do: (dl_do * o,))


def careless_loss(weights, x, y):
    """The same loss; do_ds of the output layer is o, where it should be o (1 - o)."""
    w1, w2 = weights
    return ((careless(sigma(x @ w1) @ w2) - y) ** 2).sum() / 2


def by_chain_rule(weights, x, y):
    """The sum of the course, one weight at a time."""
    w1, w2 = weights
    _, a, _, o = forward(weights, x)
    dw1, dw2 = np.zeros(w1.shape), np.zeros(w2.shape)
    for j, k in np.ndindex(w2.shape):
        dl_do, do_ds = o[k] - y[k], o[k] * (1 - o[k])
        dw2[j, k] = dl_do * do_ds * a[j]  # ds_k / dW2_jk = a_j
        for i in range(len(x)):
            ds_da, da_dz, dz_dw = w2[j, k], a[j] * (1 - a[j]), x[i]
            dw1[i, j] += dl_do * do_ds * ds_da * da_dz * dz_dw  # sum over k
    return dw1, dw2


def by_matrices(weights, x, y):
    """The same, layer by layer: each delta is computed once, and used by all below."""
    _, w2 = weights
    _, a, _, o = forward(weights, x)
    delta_s = (o - y) * o * (1 - o)  # dL/ds [3]
    delta_z = (delta_s @ w2.T) * a * (1 - a)  # dL/dz [4]
    return jnp.outer(x, delta_z), jnp.outer(a, delta_s)


def by_differences(step, weights, x, y):
    """dL/dw = (L(w + h) - L(w - h)) / 2h for one weight w after the other."""
    flat, unravel = ravel_pytree(weights)

    def slope(i):
        up, down = unravel(flat.at[i].add(step)), unravel(flat.at[i].add(-step))
        return (loss(up, x, y) - loss(down, x, y)) / (2 * step)

    return unravel(jax.lax.map(slope, jnp.arange(flat.size)))


@jax.jit
def off(step, *drawn):
    """Error of the differences against `jax.grad`, relative to the gradient."""
    roads = by_differences(step, *drawn), jax.grad(loss)(*drawn)
    found, true = (ravel_pytree(grads)[0] for grads in roads)
    return jnp.linalg.norm(found - true) / jnp.linalg.norm(true)


def draw(key):
    """Weights, an input and a target."""
    w1_key, w2_key, x_key, y_key = jax.random.split(key, 4)
    weights = jax.random.normal(w1_key, (6, 4)), jax.random.normal(w2_key, (4, 3))
    return weights, jax.random.normal(x_key, (6,)), jax.random.uniform(y_key, (3,))


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Compute the gradient in four ways, and measure the error of differences."""
    check_settings(config, seeds=1)
    drawn = [draw(key) for key in jax.random.split(jax.random.key(0), config.seeds)]
    by_jax = [jax.grad(loss)(*d) for d in drawn]  # dL/dW1 [6, 4], dL/dW2 [4, 3] each
    chain = [by_chain_rule(*jax.device_get(d)) for d in drawn]
    error = np.array([[off(h, *d) for h in STEPS] for d in drawn])  # [P, steps]
    weights, x, y = drawn[0]
    careless_check = check_gradients(lambda w: careless_loss(w, x, y), weights)
    named = [str(culprit) for culprit in careless_check.culprits]
    _, a, _, o = forward(weights, x)
    return Lesson(
        "Four ways of computing a gradient agree, differences with a relative error of "
        f"{error.min(1).max():.0e}",
        claims=[
            claims.equal_up_to_rounding(
                "The chain rule written out, weight by weight, agrees with jax.grad",
                chain,
                by_jax,
                roundings=60,
                why="6 + 4 products, 10 for each sigmoid, 5 factors, 3 terms, 1 - o",
            ),
            claims.equal_up_to_rounding(
                "The matrix products of the lecture agree with jax.grad",
                [by_matrices(*d) for d in drawn],
                by_jax,
                roundings=60,
                why="the same operations in another order",
            ),
            claims.gradients(
                "Central differences agree with jax.grad to nine digits",
                check_gradients(
                    lambda w: sum(loss(w, *d[1:]) for d in drawn),
                    weights,
                    tolerance=1e-9,
                ),
            ),
            claims.bounded(
                "With a tenth of the step, the error of differences is a hundredth",
                abs(np.log10(error[:, 0] / error[:, 1]) - 2),
                at_most=0.01,
                why="L(w + h) - L(w - h) = 2h L' + h^3 L''' / 3 + O(h^5), so the ratio "
                "is a hundredth up to terms of size h^2 = 1e-4; 0.01 in log10 allows "
                "a hundred times that",
            ),
        ],
        figures=[
            slides.blame(*jax.device_get(((x, a, o), by_jax[0]))),
            slides.steps(STEPS, error),
        ],
        exercises=slides.exercises(
            named,
            claims.bounded(
                "The check of a wrong gradient names the layer with the mistake",
                [sum("careless" in line for line in named), len(named)],
                equal_to=1,
                why="one derivative in one layer is wrong, all others are JAX's own",
            ),
        ),
        summary={"members": config.seeds, "parameters": 6 * 4 + 4 * 3},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
