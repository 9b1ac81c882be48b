"""How large may a learning rate be?

Where the curvature of the loss is lambda, an update multiplies the distance to the
minimum by 1 - rate lambda. Beyond 2 / lambda the update ends further away, on the other
side: the weights diverge, first along the steepest direction. For the squared error of
a linear model this is exact. Here such a model learns whether a digit is odd, with 60
rates at once, 2 % apart.

    python experiments/learning_rate_limit.py

Expect the first rate beyond 2 / lambda = 0.192 to be the first to diverge, in about 7
seconds on 2 cores.

Source: LeCun, Bottou, Orr & Mueller (1998), Efficient backprop, section 5, for
2 / lambda, and section 4.3, for subtracting the mean of the inputs.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from slides import learning_rate_limit as slides

from dlworkshop import data, workshop
from dlworkshop.errors import Range, UserError, check_number
from dlworkshop.verify import claims
from dlworkshop.workshop.lesson import Lesson, check_settings, vmap_grid


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 5
    """Number of random starts for each rate."""
    num_rates: int = 60
    """Number of rates, an even one; half of them are below 2 / lambda."""
    factor: float = 1.02
    """Ratio of each rate to the previous one."""
    num_steps: int = 200
    """Number of updates from each start."""


def error(w, x, y):  # (x^T w - y)^2 / 2
    return (x @ w - y) ** 2 / 2


def loss(w, xs, ys):  # L(w) = sum_n error(w, x_n, y_n) / N
    return jax.vmap(error, (None, 0, 0))(w, xs, ys).mean()


def curvature(xs):  # H = d2L/dw2 = sum_n x_n x_n^T / N, whatever w and y
    return xs.T @ xs / len(xs)  # [D, D]


def limit(xs):  # 2 / lambda of the steepest direction: beyond it |1 - rate lambda| > 1
    return 2 / jnp.linalg.eigvalsh(curvature(xs))[-1]


def left(rate, lambdas, num_steps):  # share of the distance, after T updates
    return (1 - rate * lambdas) ** num_steps  # [D]


def descend(w, rate, xs, ys, num_steps):
    """The weights after T updates [D], and the loss before each update [T]."""

    def update(w, _):
        now, gradient = jax.value_and_grad(loss)(w, xs, ys)
        return w - rate * gradient, now  # w <- w - rate dL/dw

    return jax.lax.scan(update, w, length=num_steps)


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """All rates with all starts, and the predictions from the curvature."""
    check_settings(config, seeds=1, num_rates=2, num_steps=2)
    check_number("factor", config.factor, Range(1, closed=False))
    if config.num_rates % 2:
        raise UserError(
            f"num_rates is {config.num_rates}: give an even number, of which half are "
            "below 2 / lambda"
        )
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
    grows = (losses[..., -1] > losses[..., -2]) | ~np.isfinite(losses[..., -1])
    grows = np.append(grows, np.ones((1, config.seeds)), axis=0)  # none: after the last
    flown = np.argmax(grows, axis=0)  # [P], the first rate
    told = [*(f"{rate:.3f} is the first to diverge" for rate in rates), "none diverges"]
    far = (np.asarray(starts) - best) @ directions  # [P, D], to go along each direction
    ends = (w - best) @ directions  # [R, P, D]
    shares = np.array([left(rate, lambdas, config.num_steps) for rate in rates[:half]])

    return Lesson(
        f"Of {len(rates)} rates, each {config.factor:g} times the one before, "
        f"{told[flown.min()]}; 2 / lambda is {edge:.3f}",
        claims=[
            claims.equal_up_to_rounding(
                "The curvature of a squared error is that of its inputs",
                curvature(xs),
                jax.hessian(loss)(starts[0], xs, ys),
                roundings=size,
                why="it is a sum over N examples that does not contain the weights or "
                "the labels",
            ),
            claims.equal_up_to_rounding(
                "Below 2 / lambda, T updates leave (1 - rate lambda)^T of a distance",
                ends[:half],
                shares[:, None] * far,
                roundings=config.num_steps * (size + width),
                scale=float(abs(far).max()),
                why="distances are along the eigenvectors, whose curvature is lambda; "
                "an update sums D products for each of N examples, and the next update "
                "damps its roundings",
            ),
            claims.bounded(
                "The first rate that diverges is the first beyond 2 / lambda",
                flown,
                equal_to=half,
                why="below it, each update lowers the loss; beyond it, the distance "
                "along the steepest direction grows and dominates, so that the last "
                "update raises the loss",
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
                why="lambda is proportional to squares of the inputs, and known to "
                "about D roundings",
            ),
            claims.bounded(
                "Inputs without their mean allow a larger rate",
                limit(xs - xs.mean(0)) / edge,
                at_least=1,
                why="their curvature is H - m m^T, where m is the mean: it is smaller "
                "along m, and larger along no direction",
            ),
        ),
        summary={"dataset": "digits", "members": len(rates) * config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
