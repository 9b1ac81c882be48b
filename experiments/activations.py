"""Why does a network need a bend, and which one?

Without an activation, layers collapse into a single matrix. Here are six activations
with their derivatives, a network without any and its failure on XOR, and what repeated
bends do to the gradient on its way down a deep network.

    python experiments/activations.py

Expect no network without a bend above 75 % on XOR, nearly all others at 100 %, and a
gradient that each layer of sigmoids shrinks some fourfold, in about 13 seconds on 2
cores.

Source: course, "Activation functions": sigmoid, tanh, ReLU; Minsky & Papert (1969),
Perceptrons, for XOR; Glorot & Bengio (2010), AISTATS, for the gradients.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import nn
from jax.scipy.stats import norm

from dlworkshop.data import toy
from dlworkshop.learn.descent import descend
from dlworkshop.report.figures import BAND
from dlworkshop.report.lesson_figures import borders, curves
from dlworkshop.run import experiment
from dlworkshop.run.lesson import Exercise, Figure, Lesson, crossed
from dlworkshop.verify import check_gradients, claims


@dataclass(frozen=True)
class Config(experiment.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 32
    """How many networks of each kind."""
    num_steps: int = 600
    """Updates in which a 2-8-1 network may learn XOR."""
    depth: int = 10
    """Hidden layers that a gradient passes."""
    gain: float = 1.0
    """How much larger than 1 / sqrt(inputs) the weights of the deep network begin."""


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
FLAT = "no activation"
NAMES = (*ACTIVATIONS, FLAT)
FORMULAS = (*(f for f, _ in ACTIVATIONS.values()), lambda z: z)


def bend(kind, z):
    """The activation number `kind`, so that one program trains members of all kinds."""
    return jax.lax.switch(kind, FORMULAS, z)


def learn(points, num_steps, kind, key):
    """A 2-8-1 network after Adam on all points: its parameters."""
    w1_key, w2_key = jax.random.split(key)
    w1, w2 = jax.random.normal(w1_key, (2, 8)), jax.random.normal(w2_key, (8,))
    start = w1, jnp.zeros(8), w2, jnp.zeros(())

    def loss(params, _):
        z = jax.vmap(partial(network, kind, params))(points.image)  # [N]
        return (nn.softplus(z) - points.label * z).mean()  # see logistic_regression.py

    return descend(loss, start, optax.adam(0.05), np.arange(num_steps))[0]


def network(kind, params, x):
    w1, b1, w2, b2 = params
    return bend(kind, x @ w1 + b1) @ w2 + b2


def deep_gradients(depth, gain, kind, key):
    """log10 |dL/dW| of each layer of a deep network, from the loss downwards."""
    x_key, w_key = jax.random.split(key)
    x = jax.random.normal(x_key, (32,))
    weights = gain / 32**0.5 * jax.random.normal(w_key, (depth, 32, 32))

    def loss(weights):
        a, _ = jax.lax.scan(lambda a, w: (bend(kind, a @ w), None), x, weights)
        return a.sum()

    return jnp.log10(jnp.linalg.norm(jax.grad(loss)(weights), axis=(1, 2)))[::-1]


@jax.enable_x64(True)
def identities():
    """The formulas against the library, and the network that has none of them."""
    z = jnp.linspace(-4, 4, 80)  # 0, where ReLU has its kink, is not among them
    formulas, derivatives = zip(*ACTIVATIONS.values(), strict=True)
    roads = formulas, LIBRARY, derivatives, [jax.vmap(jax.grad(f)) for f in formulas]
    ours, theirs, by_hand, by_jax = jax.jit(
        lambda z: [[f(z) for f in r] for r in roads]
    )(z)

    def every(zs):
        return sum(f(z).sum() for f, z in zip(formulas, zs, strict=True))

    w1, w2, w3, x = jax.random.normal(jax.random.key(0), (4, 6, 6))
    flat = partial(bend, NAMES.index(FLAT))
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
        claims.exact(
            "Three layers without a bend are one matrix",
            flat(flat(x @ w1) @ w2) @ w3,
            x @ (w1 @ w2 @ w3),
            roundings=6 + 6 + 6,
            scale=float((abs(x) @ abs(w1) @ abs(w2) @ abs(w3)).max()),
            why="three sums of 6 products, in another order",
        ),
    ]


def main(config: Config) -> Lesson:
    """Identities, then XOR and a deep network, a population for each activation."""
    points, side = toy.xor(200), np.linspace(-2, 2, 60)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)

    def answers(kind, key):  # to the points [N], to the grid [G]
        params = learn(points, config.num_steps, kind, key)
        net = jax.vmap(partial(network, kind, params))
        return net(points.image), net(grid)

    keys = jax.random.split(jax.random.key(0), config.seeds)
    kinds = jnp.arange(len(NAMES))
    z, drawn = map(np.asarray, crossed(answers)(kinds, keys))  # [kinds, P, ...] each
    right = dict(zip(NAMES, ((z > 0) == points.label).mean(-1), strict=True))  # [P]
    maps = dict(zip(NAMES, drawn, strict=True))  # [P, G] each
    one = partial(deep_gradients, config.depth, config.gain)
    deep = np.asarray(crossed(one)(kinds, keys))  # [kinds, P, depth]
    slopes = dict(zip(NAMES, deep - deep[..., :1], strict=True))

    def shapes(panels):
        z = np.linspace(-4, 4, 400)
        for i, label in enumerate(("activation", "derivative")):
            lines = {name: pair[i](z) for name, pair in ACTIVATIONS.items()}
            curves(panels[i], z, lines, xlabel="z", ylabel=label, ylim=(-1.1, 2))

    def xor(panels):
        for axes, name in zip(panels, (FLAT, "tanh", "ReLU"), strict=True):
            borders(axes, points, side, {"black": maps[name]}, level=0)
            axes.set_title(f"{name}: {right[name].mean():.0%} right")

    def vanishing(axes):
        values = {name: 10 ** slopes[name] for name in ("sigmoid", "tanh", "ReLU")}
        axes.set(yscale="log", xlabel="layers further away from the loss")
        curves(axes, np.arange(config.depth), values, ylabel="gradient, relative")

    solved = np.mean([right[name] == 1 for name in ACTIVATIONS])
    lost = 10 ** -slopes["sigmoid"][:, -1].mean()
    return Lesson(
        f"Without a bend no network gets all of XOR right, with one {solved:.0%} do",
        claims=[
            *identities(),
            claims.bounded(
                "Without a bend no network gets more than 3 of 4 clouds of XOR right",
                right[FLAT],
                at_most=0.75,
                why="its border is a line, and of four points, one from each cloud, a "
                "line has at most three on their sides",
            ),
            *(
                claims.share(
                    f"With {name} most networks get all of XOR right",
                    right[name] == 1,
                    at_least=0.5,
                    why="that it can be learnt is shown if more than half do",
                )
                for name in ACTIVATIONS
            ),
            claims.falls(
                "Sigmoids shrink the gradient layer by layer",
                slopes["sigmoid"],
                why="sigma' <= 1/4, and each layer on the way multiplies by it",
            ),
            claims.greater(
                "Through all layers ReLU keeps more of the gradient than sigmoid",
                slopes["ReLU"][:, -1],
                slopes["sigmoid"][:, -1],
                by=1.0,
                why="its slope is 1 or 0; ten times more is asked for, in log10",
            ),
        ],
        figures=[
            Figure(
                "shapes",
                shapes,
                "All bend; only ReLU and its kin keep a slope near 1 for large z",
                "Left: the activations. Right: their derivatives, by hand.",
                panels=2,
            ),
            Figure(
                "xor",
                xor,
                "Without a bend the border is a line, and XOR needs more than one",
                "Dots: points of the two classes. Lines: where a network changes its "
                f"mind, {config.seeds} networks.",
                panels=3,
            ),
            Figure(
                "vanishing",
                vanishing,
                f"{config.depth} layers of sigmoids shrink a gradient {lost:,.0f}-fold",
                f"|dL/dW| of a layer, over that of the layer next to the loss. {BAND}",
            ),
        ],
        exercises=[
            Exercise(
                "Take `--gain 1.41`. Which gradients grow on their way down, and why?",
                "Those of tanh. With a gain of 1 its derivative, at most 1, shrinks "
                "what comes back as much as the activation shrinks what goes in.",
            )
        ],
        summary={"dataset": "xor", "members": config.seeds},
    )


if __name__ == "__main__":
    experiment.start(main, Config)
