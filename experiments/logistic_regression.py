"""Does logistic regression have one minimum, and does every start find it?

Logistic regression is the smallest network: one weight per input, a sum and a sigmoid.
Here it learns which of 569 breast tumours are benign from 30 measurements of each. The
loss, its gradient and its curvature are written out and checked, and the loss is
minimised from many random starts at once.

    python experiments/logistic_regression.py

Expect all 64 starts to end in one minimum, that of scikit-learn, in about 13 seconds on
2 cores.

Source: course, "Logistic regression": L = sum Error(y, sigma(x^T w)); Bishop (2006),
Pattern Recognition and Machine Learning, section 4.3.2.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from slides import logistic_regression as slides

from dlworkshop import workshop
from dlworkshop.verify import check_gradients, claims
from dlworkshop.workshop.lesson import Lesson, check_positive, check_settings


@dataclass(frozen=True)
class Config(workshop.Config):
    """Settings of the experiment; every one is a flag."""

    seeds: int = 64
    """Number of random starts."""
    num_steps: int = 2000
    """Descent steps from each start."""
    penalty: float = 1.0
    """Weight of the L2 penalty; above 0, because at 0 there may be no minimum."""


def sigma(z):  # sigma(z) = 1 / (1 + e^-z), a probability
    return 1 / (1 + jnp.exp(-z))


def error(y, z):  # -y log sigma(z) - (1 - y) log(1 - sigma(z)) without log(0)
    return jax.nn.softplus(z) - y * z


def loss(w, x, y, penalty):  # L(w) = sum_n Error(y_n, sigma(x_n^T w)) + penalty |w|^2/2
    return jax.vmap(lambda x, y: error(y, x @ w))(x, y).sum() + penalty / 2 * w @ w


def gradient(w, x, y, penalty):  # dL/dw = sum_n (sigma(x_n^T w) - y_n) x_n + penalty w
    return x.T @ (sigma(x @ w) - y) + penalty * w


def squared(w, x, y, penalty):  # the loss with Error = (sigma(z) - y)^2 instead
    return ((sigma(x @ w) - y) ** 2).sum() + penalty / 2 * w @ w


def descend(start, x, y, penalty, num_steps):
    """Nesterov's descent (2004, section 2.2, scheme III): last w [D], all losses."""
    steepest = jnp.linalg.norm(x, 2) ** 2 / 4 + penalty  # sigma' <= 1/4 bounds L''
    speed = jnp.sqrt(steepest / penalty)
    momentum = (speed - 1) / (speed + 1)

    def step(state, _):
        w, ahead = state
        new = ahead - gradient(ahead, x, y, penalty) / steepest
        return (new, new + momentum * (new - w)), loss(w, x, y, penalty)

    (w, _), losses = jax.lax.scan(step, (start, start), length=num_steps)
    return w, losses


@jax.enable_x64(True)
def main(config: Config) -> Lesson:
    """Check the formulas at random weights, then descend from each of them."""
    check_settings(config, seeds=2, num_steps=1)
    check_positive(config, "penalty")
    raw, y = load_breast_cancer(return_X_y=True)
    features = (raw - raw.mean(0)) / raw.std(0)
    x = np.column_stack([features, np.ones(len(y))])  # [N, D], the bias is a weight
    (size, width), penalty = x.shape, config.penalty
    data = (jnp.asarray(x), jnp.asarray(y, float), penalty)
    starts = jax.random.normal(jax.random.key(0), (config.seeds, width))  # [P, D]

    def lifted(function):  # from one w [D] to many [P, D]
        return jax.vmap(lambda w: function(w, *data))

    curvature = np.linalg.eigvalsh(lifted(jax.hessian(loss))(starts))  # [P, D]
    descents = jax.jit(jax.vmap(lambda w: descend(w, *data, config.num_steps)))
    weights, losses = jax.device_get(descents(starts))  # [P, D], [P, T]
    apart = np.linalg.norm(weights - weights.mean(0), axis=1)  # [P]
    theirs = LogisticRegression(
        C=1 / penalty, fit_intercept=False, solver="newton-cholesky", tol=1e-12
    )
    best = theirs.fit(x, y).coef_[0]  # [D]
    lowest = float(loss(best, *data))

    return Lesson(
        f"{config.seeds} random starts end within {apart.max():.0e} of one minimum",
        claims=[
            claims.equal_up_to_rounding(
                "The gradient by hand equals that of jax.grad",
                lifted(gradient)(starts),
                lifted(jax.grad(loss))(starts),
                roundings=size + width**2,
                scale=float(np.abs(x).sum(0).max()),
                why=f"a sum over {size} examples, and {width} products for each z",
            ),
            claims.gradients(
                "The loss changes as its gradient predicts",
                check_gradients(lambda w: loss(w, *data), starts[0], tolerance=1e-9),
            ),
            claims.bounded(
                "The curvature of the loss is positive in every direction",
                curvature,
                at_least=penalty - size * claims.EPS * curvature.max(),
                why="X^T diag(sigma') X has no negative eigenvalue, and the penalty is "
                "added to all eigenvalues; N roundings are allowed",
            ),
            claims.bounded(
                "Every start ends in the same minimum",
                apart,
                at_most=1e-6,
                why="each step multiplies the distance by about "
                "1 - 1/sqrt(condition number)",
            ),
            claims.bounded(
                "That minimum is as low as scikit-learn's",
                np.abs(lifted(loss)(weights) / lowest - 1),
                at_most=1e-8,
                why="the same loss, minimised by Newton's method in another library",
            ),
            claims.bounded(
                "Its weights are scikit-learn's",
                np.abs(weights - best).max(1),
                at_most=1e-4,
                why="if the loss is off by d, the weights are off by at most "
                "sqrt(2 d / penalty)",
            ),
        ],
        figures=[slides.descents(losses - lowest), slides.squashed(sigma, x @ best, y)],
        exercises=slides.exercises(
            claims.bounded(
                "The squared error has a negative curvature somewhere",
                np.linalg.eigvalsh(lifted(jax.hessian(squared))(starts)).min(),
                at_most=0.0,
                why="sigma'' changes sign",
            )
        ),
        summary={"dataset": "breast_cancer", "members": config.seeds},
    )


if __name__ == "__main__":
    workshop.start(main, Config)
