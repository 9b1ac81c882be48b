"""How large may a learning rate be?

Where the loss is curved by lambda, an update leaves 1 - rate lambda of the way to the
minimum. Beyond 2 / lambda it ends further away, on the other side: the weights
diverge, along the steepest direction first. On a squared error this is exact. Here 60
rates, 2 % apart, descend on one at once: is a digit odd, as a sum over its pixels?

    python experiments/learning_rate_limit.py

Expect the first rate beyond 2 / lambda = 0.192 to be the first to diverge, in about 7
seconds on 2 cores.

Source: LeCun, Bottou, Orr & Mueller (1998), Efficient backprop, section 5, for
2 / lambda, and section 4.3, for inputs without their mean.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from slides import learning_rate_limit as slides

from dlworkshop import data, workshop
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, vmap_grid


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 5
    """Random starts for each rate."""
    num_rates: int = 60
    """Rates, an even number; half of them are below 2 / lambda."""
    factor: float = 1.02
    """Ratio of each rate to the one before."""
    num_steps: int = 200
    """Updates from each start."""


def error(w, x, y):  # (x^T w - y)^2 / 2
    return (x @ w - y) ** 2 / 2


def loss(w, xs, ys):  # L(w) = sum_n error(w, x_n, y_n) / N
    return jax.vmap(error, (None, 0, 0))(w, xs, ys).mean()


def curvature(xs):  # H = d2L/dw2 = sum_n x_n x_n^T / N, whatever w and y
    return xs.T @ xs / len(xs)  # [D, D]


def limit(xs):  # 2 / lambda of the steepest direction: beyond it |1 - rate lambda| > 1
    return 2 / jnp.linalg.eigvalsh(curvature(xs))[-1]


def left(rate, lambdas, num_steps):  # of the way along each direction, after T updates
    return (1 - rate * lambdas) ** num_steps  # [D]


def descend(w, rate, xs, ys, num_steps):
    """The last weights of T updates [D], and the loss before each of them [T]."""

    def update(w, _):
        now, gradient = jax.value_and_grad(loss)(w, xs, ys)
        return w - rate * gradient, now  # w <- w - rate dL/dw

    return jax.lax.scan(update, w, length=num_steps)


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """All rates with all starts, with what the curvature predicts for them."""
    train, half = data.load("digits").train, config.num_rates // 2
    xs = jnp.asarray(train.inputs.reshape(len(train.targets), -1) / 255)  # [N, D]
    ys = jnp.asarray(train.targets % 2, float)  # [N]
    size, width = xs.shape
    lambdas, directions = np.linalg.eigh(curvature(xs))  # [D] rising, [D, D]
    best = np.linalg.lstsq(xs, ys)[0]  # [D], of all that are as good the shortest
    edge = float(limit(xs))
    rates = edge * config.factor ** (np.arange(-half, half) + 0.5)  # [R]
    starts = jax.random.normal(jax.random.key(0), (config.seeds, width))  # [P, D]

    def one(rate, w):
        return descend(w, rate, xs, ys, config.num_steps)

    w, losses = jax.device_get(vmap_grid(one)(rates, starts))  # [R, P, D], [R, P, T]
    flown = np.argmax(losses[..., -1] > losses[..., -2], axis=0)  # [P], the first rate
    far = (np.asarray(starts) - best) @ directions  # [P, D], to go along each direction
    ends = (w - best) @ directions  # [R, P, D]
    shares = np.array([left(rate, lambdas, config.num_steps) for rate in rates[:half]])

    return Lesson(
        f"Of {len(rates)} rates, each {config.factor:g} times the one before, "
        f"{rates[flown.min()]:.3f} is the first to diverge; 2 / lambda is {edge:.3f}",
        claims=[
            claims.equal_up_to_rounding(
                "The curvature of a squared error is that of its inputs",
                curvature(xs),
                jax.hessian(loss)(starts[0], xs, ys),
                roundings=size,
                why="a sum over N examples; neither weights nor labels are in it",
            ),
            claims.equal_up_to_rounding(
                "Below 2 / lambda, T updates leave (1 - rate lambda)^T of each part",
                ends[:half],
                shares[:, None] * far,
                roundings=config.num_steps * (size + width),
                scale=float(abs(far).max()),
                why="an update sums D products for each of N examples, and is damped "
                "by the next; lambda are the curvatures along the parts",
            ),
            claims.bounded(
                "The first rate that diverges is the first beyond 2 / lambda",
                flown,
                equal_to=half,
                why="below, each update makes the loss smaller; beyond, the steepest "
                "part grows and outgrows the others, so that the last makes it larger",
            ),
        ],
        figures=[
            slides.flying_off(rates, losses[..., -1] / losses[..., 0], edge),
            slides.parts(lambdas, rates / edge, abs(ends / far)),
        ],
        exercises=slides.exercises(
            claims.equal_up_to_rounding(
                "Inputs half as large allow a rate four times as large",
                limit(xs / 2),
                4 * edge,
                roundings=width,
                why="lambda is made of squares, and found to some D roundings",
            ),
            claims.bounded(
                "Inputs without their mean allow a larger rate",
                limit(xs - xs.mean(0)) / edge,
                at_least=1,
                why="their curvature is H - m m^T, with m the mean: it is less along "
                "m, and along no direction more",
            ),
        ),
        summary={"dataset": "digits", "members": len(rates) * config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
