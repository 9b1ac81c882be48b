"""Functions whose derivative can be broken, for the page of the gradient check.

The argument `error` controls how wrong the derivative is: 0 is right, 1 is an error of
about 100 %. The page selects a function by name and shows its source code.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import Range, check_known, check_number
from dlworkshop.verify import GradientReport, check_gradients

POINT = np.array([0.3, -1.2, 2.0, 0.7])
WEIGHTS = np.array(
    [
        [0.9, -0.4, 0.3, 0.1],
        [0.2, 0.8, -0.5, 0.4],
        [-0.3, 0.1, 0.7, 0.6],
        [0.5, -0.2, 0.4, -0.9],
    ]
)
LEAST, LARGEST = -12, 0  # log10 of the error
FARTHEST = 3.0  # limit of the scale of the point


def too_steep(error):
    """A layer of tanh; the derivative of tanh is too large by a factor 1 + error."""

    @jax.custom_vjp
    def tanh(x):
        return jnp.tanh(x)

    def forward(x):
        y = jnp.tanh(x)
        return y, y

    def backward(y, cotangent):
        return ((1 + error) * (1 - y**2) * cotangent,)

    tanh.defvjp(forward, backward)
    return lambda x: jnp.sum(tanh(WEIGHTS @ x) ** 2)


def leaks(error):
    """A layer of ReLU; its derivative for negative inputs is `error` instead of 0."""

    @jax.custom_vjp
    def relu(x):
        return jnp.maximum(x, 0)

    def forward(x):
        return jnp.maximum(x, 0), x

    def backward(x, cotangent):
        return (jnp.where(x > 0, 1.0, error) * cotangent,)

    relu.defvjp(forward, backward)
    return lambda x: jnp.sum(relu(WEIGHTS @ x + 0.1))


def one_entry(error):
    """A softmax; the derivative of its first entry is too large, times 1 + error."""

    @jax.custom_vjp
    def softmax(x):
        return jax.nn.softmax(x)

    def forward(x):
        y = jax.nn.softmax(x)
        return y, y

    def backward(y, cotangent):
        slopes = y * (cotangent - y @ cotangent)
        return (slopes.at[0].multiply(1 + error),)

    softmax.defvjp(forward, backward)
    return lambda x: -jnp.log(softmax(WEIGHTS @ x)[2])


def forgotten(error):
    """x y, in forward mode; a share `error` of the derivative by y is left out."""

    @jax.custom_jvp
    def product(x, y):
        return x * y

    @product.defjvp
    def _(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        return x * y, y * dx + (1 - error) * x * dy

    return lambda x: jnp.sum(product(jnp.sin(x), jnp.cos(x)))


def stopped(error):
    """Squares; `stop_gradient` removes a share `error` of the derivative."""

    def square(x):
        return x * (error * jax.lax.stop_gradient(x) + (1 - error) * x)

    return lambda x: jnp.sum(square(jnp.exp(x)))


def divided(error):
    """sin(x) / x, replaced by 1 at 0, where the derivative is still 0 / 0."""

    def sinc(x):
        return jnp.where(x == 0, 1.0, jnp.sin(x) / x)

    return lambda x: jnp.sum(sinc(x * jnp.array([0.0 if error else 1.0, 1, 1, 1])))


def vectorized(error):
    """Squares; their rule for `vmap` adds `error`, which shows under `vmap` only."""

    @jax.custom_batching.custom_vmap
    def square(x):
        return x**2

    @square.def_vmap
    def _(axis_size, in_batched, x):
        return x**2 + error, True

    @jax.custom_vjp
    def squared(x):
        return square(x)

    squared.defvjp(lambda x: (square(x), x), lambda x, g: (2 * x * g,))
    return lambda x: jnp.sum(squared(jnp.sin(x)))


RULES: Mapping[str, Callable[[float], Callable]] = {
    "the slope of tanh is too steep": too_steep,
    "ReLU leaks in its derivative": leaks,
    "one entry of softmax is off": one_entry,
    "a factor is forgotten": forgotten,
    "stop_gradient in the wrong place": stopped,
    "division by zero behind a where": divided,
    "wrong under vmap only": vectorized,
}


def checked(name: str, power: float | None, scale: float) -> GradientReport:
    """Check the gradient of a function whose derivative is wrong by 10 ** `power`.

    Args:
        name: in RULES.
        power: in [LEAST, LARGEST]; None leaves the derivative right.
        scale: the function is checked at `scale` * POINT.

    Raises:
        UserError: if the name is unknown, or a number is out of its range.

    >>> report = checked("a factor is forgotten", -3, 1.0)
    >>> report.verdict, report.culprits[0].name
    ('WRONG', 'custom_jvp of product')
    >>> checked("a factor is forgotten", None, 1.0).verdict
    'right'
    """
    check_known("rule", name, RULES)
    if power is not None:
        check_number("the error", power, Range(LEAST, LARGEST + 1e-9))
    check_number("the scale", scale, Range(-FARTHEST, FARTHEST + 1e-9))
    error = 0.0 if power is None else 10.0**power
    return check_gradients(RULES[name](error), scale * POINT)
