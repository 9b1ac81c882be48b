"""Which activation, and what does it leave of a gradient?

Six activations with their derivatives: sigmoid, tanh and ReLU of the course, and three
that came after. On its way down a deep network a gradient is multiplied by a derivative
at every layer, and what is left of it at the bottom is what the lowest layer learns by.

    python experiments/activations.py

Expect a gradient that each layer of sigmoids shrinks some fourfold, and that all of the
others leave as large as it was, within a factor of 3, in about 10 seconds on 2 cores.

Source: course, "Activation functions": sigmoid, tanh, ReLU; Glorot & Bengio (2010),
AISTATS, for the gradients; Hendrycks & Gimpel (2016), for GELU and SiLU.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import nn
from jax.scipy.stats import norm
from slides import activations as slides

from dlworkshop import workshop
from dlworkshop.verify import check_gradients, claims
from dlworkshop.workshop.lesson import Lesson, vmap_grid


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 32
    """How many networks of each kind, each with an input of its own."""
    depth: int = 10
    """Hidden layers that a gradient passes."""
    gain: float = 1.0
    """How much larger than 1 / sqrt(inputs) the weights begin."""


def sigmoid(z):
    return 1 / (1 + jnp.exp(-z))


ACTIVATIONS = {  # formula, derivative
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
    "tanh": (lambda z: 2 * sigmoid(2 * z) - 1, lambda z: 1 - jnp.tanh(z) ** 2),
    "ReLU": (lambda z: jnp.where(z > 0, z, 0), lambda z: 1.0 * (z > 0)),
    "leaky ReLU": (
        lambda z: jnp.where(z > 0, z, 0.01 * z),
        lambda z: jnp.where(z > 0, 1.0, 0.01),
    ),
    "GELU": (lambda z: z * norm.cdf(z), lambda z: norm.cdf(z) + z * norm.pdf(z)),
    "SiLU": (
        lambda z: z * sigmoid(z),
        lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z))),
    ),
}
GELU = partial(nn.gelu, approximate=False)
LIBRARY = (nn.sigmoid, jnp.tanh, nn.relu, nn.leaky_relu, GELU, nn.silu)


def deep_gradients(config, kind, key):
    """log10 |dL/dW| of each layer of a deep network, from the loss downwards."""
    x_key, w_key = jax.random.split(key)
    x = jax.random.normal(x_key, (32,))
    weights = config.gain / 32**0.5 * jax.random.normal(w_key, (config.depth, 32, 32))
    formulas = [f for f, _ in ACTIVATIONS.values()]

    def layer(a, w):  # a_i = f(a_i-1 W_i); dL/da_i-1 = W_i (dL/da_i * f'(a_i-1 W_i))
        return jax.lax.switch(kind, formulas, a @ w), None

    def loss(weights):
        return jax.lax.scan(layer, x, weights)[0].sum()

    return jnp.log10(jnp.linalg.norm(jax.grad(loss)(weights), axis=(1, 2)))[::-1]


@jax.enable_x64(True)
def identities():
    """Formulas and derivatives against the library, autodiff and differences."""
    z = jnp.linspace(-4, 4, 80)  # 0, where ReLU has its kink, is not among them
    formulas, derivatives = zip(*ACTIVATIONS.values(), strict=True)
    roads = formulas, LIBRARY, derivatives, [jax.vmap(jax.grad(f)) for f in formulas]
    ours, theirs, by_hand, by_jax = jax.jit(
        lambda z: [[f(z) for f in road] for road in roads]
    )(z)

    def every(zs):
        return sum(f(z).sum() for f, z in zip(formulas, zs, strict=True))

    return [
        claims.exact(
            "Each formula computes what the library's function computes",
            ours,
            theirs,
            roundings=20,
            why="a power or two of some 2 roundings each, sums and a quotient",
        ),
        claims.exact(
            "Each derivative by hand is the one that autodiff finds",
            by_hand,
            by_jax,
            roundings=30,
            why="as above, with two products more",
        ),
        claims.gradients(
            "Each activation changes as its derivative says",
            check_gradients(every, [z] * len(formulas), tolerance=1e-9),
        ),
    ]


def main(config: Config) -> Lesson:
    """Identities, then deep networks, a population for each activation."""
    keys = jax.random.split(jax.random.key(0), config.seeds)
    one = vmap_grid(partial(deep_gradients, config))
    deep = np.asarray(one(jnp.arange(len(ACTIVATIONS)), keys))  # [kinds, P, depth]
    relative = dict(zip(ACTIVATIONS, deep - deep[..., :1], strict=True))
    sigmoids, relus = (10 ** relative[f][:, -1].mean() for f in ("sigmoid", "ReLU"))
    return Lesson(
        f"{config.depth} layers of sigmoids shrink a gradient "
        f"{1 / sigmoids:,.0f}-fold, ReLUs make it {relus:.1f} times as large",
        claims=[
            *identities(),
            claims.falls(
                "Sigmoids shrink the gradient layer by layer",
                relative["sigmoid"],
                why="sigma' <= 1/4, and each layer on the way multiplies by it",
            ),
            claims.greater(
                "Through all layers ReLU keeps more of the gradient than sigmoid",
                relative["ReLU"][:, -1],
                relative["sigmoid"][:, -1],
                by=1.0,
                why="its slope is 1 or 0; ten times more is asked for, in log10",
            ),
        ],
        figures=[slides.shapes(ACTIVATIONS), slides.vanishing(relative)],
        exercises=slides.exercises(),
        summary={"members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
