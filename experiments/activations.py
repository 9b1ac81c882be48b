"""Which activation, and what does it leave of a gradient?

Six activations and their derivatives are compared: sigmoid, tanh and ReLU of the
course, and three later ones. On the way from the loss to the input, each layer
multiplies the gradient dL/dz by its weights and by the slope of its activation. The
gradient of the weights, dL/dW = a dL/dz, also depends on the size of the activations a.

    python experiments/activations.py

Expect each layer of sigmoids to shrink the gradient dL/dz more than fourfold, and all
layers 600,000-fold; all layers of ReLUs shrink it 13-fold. The activations of ReLUs
shrink 32-fold in the other direction, so that |dL/dW| stays within a factor of 3. The
lesson takes about 10 seconds on 2 cores.

Source: course, "Activation functions": sigmoid, tanh, ReLU; Glorot & Bengio (2010),
AISTATS, for the gradients; He et al. (2015), ICCV, for the weights that ReLU needs;
Hendrycks & Gimpel (2016), for GELU and SiLU.
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
from dlworkshop.workshop.lesson import Lesson, check_positive, check_settings, vmap_grid


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 32
    """Number of networks of each kind, each with its own input."""
    depth: int = 10
    """Number of hidden layers that the gradient passes through."""
    gain: float = 1.0
    """Standard deviation of the initial weights, as a multiple of 1 / sqrt(inputs)."""


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
    """From the loss downwards: log10 |dL/dz|, |a| and |dL/dW|, and sum of W dL/dW."""
    x_key, w_key = jax.random.split(key)
    x = jax.random.normal(x_key, (32,))
    weights = config.gain / 32**0.5 * jax.random.normal(w_key, (config.depth, 32, 32))
    formulas = [f for f, _ in ACTIVATIONS.values()]

    def layer(a, w):  # a_i = f(z_i), z_i = a_i-1 W_i; keeps a_i-1
        return jax.lax.switch(kind, formulas, a @ w), a

    def loss(weights):
        top, inputs = jax.lax.scan(layer, x, weights)
        return top.sum(), inputs

    grads, inputs = jax.grad(loss, has_aux=True)(weights)
    dw, a = jnp.linalg.norm(grads, axis=(1, 2)), jnp.linalg.norm(inputs, axis=1)
    sizes = jnp.stack([dw / a, a, dw])  # dL/dW_i = outer product of a_i-1 and dL/dz_i
    return jnp.log10(sizes)[:, ::-1], (weights * grads).sum((1, 2))[::-1]


@jax.enable_x64(True)
def identities():
    """Formulas and derivatives against the library, autodiff and differences."""
    z = jnp.linspace(-4, 4, 80)  # without 0, where ReLU has its kink
    formulas, derivatives = zip(*ACTIVATIONS.values(), strict=True)
    roads = formulas, LIBRARY, derivatives, [jax.vmap(jax.grad(f)) for f in formulas]
    ours, theirs, by_hand, by_jax = jax.jit(
        lambda z: [[f(z) for f in road] for road in roads]
    )(z)
    equal = partial(
        claims.equal_up_to_rounding,
        roundings=30,
        why="powers with about 2 roundings each, products and sums",
    )
    check = check_gradients(
        lambda zs: sum(f(z).sum() for f, z in zip(formulas, zs, strict=True)),
        [z] * len(formulas),
        tolerance=1e-9,
    )
    return [
        equal("Each formula computes what the library computes", ours, theirs),
        equal("Each derivative by hand equals that of autodiff", by_hand, by_jax),
        claims.gradients("Each activation changes as autodiff predicts", check),
    ]


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Check the identities, then deep networks, a population for each activation."""
    check_settings(config, seeds=claims.LEAST_SEEDS, depth=2)
    check_positive(config, "gain")
    keys = jax.random.split(jax.random.key(0), config.seeds)
    one = vmap_grid(partial(deep_gradients, config))
    sizes, scaled = map(np.asarray, one(jnp.arange(len(ACTIVATIONS)), keys))
    sizes = np.moveaxis(sizes - sizes[..., :1], 2, 1)  # over the layer at the loss
    relative = dict(zip(ACTIVATIONS, sizes, strict=True))  # [3, P, depth] of each kind
    sigmoids, relus = relative["sigmoid"][0], relative["ReLU"][0]  # dL/dz, [P, depth]
    scaled = scaled[list(ACTIVATIONS).index("ReLU")]  # sum of W dL/dW, [P, depth]
    left, kept = (10 ** found[:, -1].mean() for found in (sigmoids, relus))
    return Lesson(
        f"Of a gradient at the top of {config.depth} layers, a fraction of {left:.1g} "
        f"reaches the lowest layer through sigmoids, and {kept:.2g} through ReLUs",
        claims=[
            *identities(),
            claims.falls(
                "Sigmoids shrink the gradient layer by layer",
                sigmoids,
                why="sigma' <= 1/4, and weights of variance 1 / inputs keep its length",
            ),
            claims.greater(
                "Through all layers ReLU keeps more of the gradient than sigmoid",
                relus[:, -1],
                sigmoids[:, -1],
                by=1.0,
                why="its slope is 1 at half of the units, not at most 1/4; at least "
                "tenfold, which is 1 in log10",
            ),
            claims.less(
                "Through all layers ReLU passes on less than the weights alone would",
                relus[:, -1],
                np.log10(config.gain) * (config.depth - 1),
                why="its slope is 0 at the other half; the weights alone would give "
                "gain^layers, here in log10",
            ),
            claims.equal_up_to_rounding(
                "With ReLU, the sum of W dL/dW is the same in every layer",
                scaled,
                np.repeat(scaled[:, :1], config.depth, axis=1),
                roundings=2 * config.depth * (32 + 4) + 32**2,
                why="relu(c z) = c relu(z) for c > 0, so the output is proportional to "
                "the weights of each layer; roundings: sums of 32 in all layers, "
                "forwards and backwards, and one of 32^2",
            ),
        ],
        figures=[
            slides.shapes(ACTIVATIONS),
            slides.downwards(relative),
            slides.vanishing(relative),
        ],
        exercises=slides.exercises(),
        summary={"members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
