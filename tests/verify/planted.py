"""A bank of derivatives: wrong ones that a check is to find, right ones that are hard.

A case that is written with a namespace `m` has its twin in PyTorch: `m` is `jax.numpy`
or `torch`, with the few names that the two spell differently (`scripts/planted.py` has
the other one). Its function is `value(m, *args)`, differentiated by JAX or PyTorch, or
by `backward(m, cotangent, *args)` if it has one.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import linear_call

RNG = np.random.default_rng(0)
V = np.array([0.3, -1.2, 2.0, 0.7])
P = np.abs(V)  # positive
MATRIX = RNG.standard_normal((3, 3))
SQUARE = MATRIX @ MATRIX.T + np.eye(3)  # symmetric, positive definite
LAYERS = 0.5 * RNG.standard_normal((10, 4, 4))


class Case(NamedTuple):
    """One function, where it is checked, and how."""

    f: Callable
    args: tuple[Any, ...]
    options: dict[str, Any]  # of `check_gradients`
    value: Callable | None = None  # of a namespace; None: in JAX only
    backward: Callable | None = None


class _Numpy:
    """`jax.numpy`, and what PyTorch has under other names."""

    relu, sigmoid = staticmethod(jax.nn.relu), staticmethod(jax.nn.sigmoid)
    softplus, erf = staticmethod(jax.nn.softplus), staticmethod(jax.scipy.special.erf)
    lgamma = staticmethod(jax.scipy.special.gammaln)
    digamma = staticmethod(jax.scipy.special.digamma)
    matrix_exp = staticmethod(jax.scipy.linalg.expm)
    logsumexp = staticmethod(jax.nn.logsumexp)
    softmax = staticmethod(jax.nn.softmax)
    detach = staticmethod(lax.stop_gradient)
    float32 = staticmethod(lambda x: x.astype(jnp.float32).astype(x.dtype))
    fft = staticmethod(jnp.fft.fft)

    def __getattr__(self, name):
        return getattr(jnp, name)


J = _Numpy()
WRONG: dict[str, Case] = {}
RIGHT: dict[str, Case] = {}


def with_rule(value, backward):
    """A JAX function whose reverse mode is `backward`."""

    @jax.custom_vjp
    def f(*args):
        return value(J, *args)

    f.defvjp(
        lambda *args: (value(J, *args), args),
        lambda args, g: tuple(backward(J, g, *args)),
    )
    return f


def wrong(name, value, backward, *args, **options):
    """A wrong rule, in JAX and in PyTorch; several arguments are all looked at."""
    if len(args) > 1:
        options["argnums"] = tuple(range(len(args)))
    f = with_rule(value, backward)
    WRONG[name] = Case(f, args, options, value, backward)


def elementwise(name, value, slope, x=V):
    """A function of numbers with a wrong slope."""
    wrong(name, value, lambda m, g, x: (g * slope(m, x),), x)


def right(name, value, *args, **options):
    """A hard one, in JAX and in PyTorch."""
    if len(args) > 1:
        options["argnums"] = tuple(range(len(args)))
    f = lambda *args: value(J, *args)  # noqa: E731
    RIGHT[name] = Case(f, args, options, value)


def in_jax(bank, name, *args, **options):
    """A decorator: a function that is written with JAX alone."""

    def keep(f):
        bank[name] = Case(f, args, options)
        return f

    return keep


# Slopes of numbers.
elementwise("sign", lambda m, x: m.cos(x), lambda m, x: m.sin(x))
for factor in (1e-3, 1e-5, 1e-7):
    elementwise(
        f"factor 1 + {factor:.0e}",
        lambda m, x: m.tanh(x),
        lambda m, x, factor=factor: (1 + factor) * (1 - m.tanh(x) ** 2),
    )
elementwise("zero", lambda m, x: m.sin(x), lambda m, x: 0 * x)
elementwise("missing term", lambda m, x: x * m.exp(x), lambda m, x: m.exp(x))
elementwise("missing factor", lambda m, x: m.sin(x**2), lambda m, x: m.cos(x**2))
elementwise(
    "sigmoid without 1 - s", lambda m, x: m.sigmoid(x), lambda m, x: m.sigmoid(x)
)
elementwise("relu leaks", lambda m, x: m.relu(x), lambda m, x: m.where(x > 0, 1, 1e-6))
elementwise("abs is x", lambda m, x: m.abs(x), lambda m, x: 0 * x + 1)
elementwise("log1p is log", lambda m, x: m.log1p(x), lambda m, x: 1 / x, P)
elementwise("root without 2", lambda m, x: m.sqrt(x), lambda m, x: 1 / m.sqrt(x), P)
elementwise("power", lambda m, x: x**3, lambda m, x: 3 * x**3)
elementwise("reciprocal's sign", lambda m, x: 1 / x, lambda m, x: 1 / x**2)
elementwise(
    "leaky relu, sides swapped",
    lambda m, x: m.where(x > 0, x, 0.1 * x),
    lambda m, x: m.where(x > 0, 0.1, 1.0),
)
elementwise(
    "clip lets through",
    lambda m, x: m.clip(x, -1.0, 1.0),
    lambda m, x: 0 * x + 1,
)
elementwise(
    "gelu, the other formula",
    lambda m, x: x * (1 + m.erf(x / 2**0.5)) / 2,
    lambda m, x: m.sigmoid(1.702 * x) * (1 + 1.702 * x * m.sigmoid(-1.702 * x)),
)
elementwise(
    "softplus is relu", lambda m, x: m.softplus(x), lambda m, x: m.where(x > 0, 1, 0)
)
elementwise(
    "Huber, inside doubled",
    lambda m, x: m.where(m.abs(x) < 1, x**2 / 2, m.abs(x) - 0.5),
    lambda m, x: m.where(m.abs(x) < 1, 2 * x, m.sign(x)),
)
elementwise(
    "wrong below 0",
    lambda m, x: m.exp(x),
    lambda m, x: m.where(x < 0, 1.001, 1.0) * m.exp(x),
)
elementwise("slope in float32", lambda m, x: m.exp(x), lambda m, x: m.float32(m.exp(x)))
elementwise(
    "silu without its tail", lambda m, x: x * m.sigmoid(x), lambda m, x: m.sigmoid(x)
)
elementwise("atan", lambda m, x: m.arctan(x), lambda m, x: 1 / (1 + x))
elementwise(
    "one entry in four, by 1e-4",
    lambda m, x: m.sin(x),
    lambda m, x: m.cos(x) * m.asarray(np.array([1, 1, 1 + 1e-4, 1])),
)
wrong(
    "one entry of a million",
    lambda m, x: m.sum(m.sin(x)),
    lambda m, g, x: (g * m.cos(x) * m.asarray(np.arange(1_000_000) != 777_777),),
    np.linspace(0.0, 1.0, 1_000_000),
    max_entries=8,
    transformations=(),
)
wrong(
    "3 times, at 1e-9 beside 1",
    lambda m, x: m.sum(m.log(x)),
    lambda m, g, x: (g / x * m.asarray(np.array([3.0, 1.0])),),
    np.array([1e-9, 1.0]),
)
wrong(
    "1.001 times, at 1 beside 1e-9",
    lambda m, x: m.sum(m.log(x)),
    lambda m, g, x: (g / x * m.asarray(np.array([1.0, 1.001])),),
    np.array([1e-9, 1.0]),
)
wrong(
    "a small term is lost",
    lambda m, x: m.sum(x**2) + 1e-6 * m.sum(m.sin(x)),
    lambda m, g, x: (2 * g * x,),
    V,
)

# Sums, means and broadcasting.
wrong("mean is sum", lambda m, x: m.mean(x**2), lambda m, g, x: (2 * g * x,), V)
wrong(
    "bias, mean over the batch",
    lambda m, x, b: m.tanh(x + b[None]),
    lambda m, g, x, b: (
        g * (1 - m.tanh(x + b[None]) ** 2),
        m.mean(g * (1 - m.tanh(x + b[None]) ** 2), 0),
    ),
    RNG.standard_normal((5, 3)),
    np.zeros(3),
)
wrong(
    "broadcast, wrong axis",
    lambda m, a: m.sum(m.asarray(MATRIX) * a[None] ** 2),
    lambda m, g, a: (2 * g * a * m.sum(m.asarray(MATRIX), 1),),
    V[:3],
)
wrong(
    "variance without 2",
    lambda m, x: m.mean((x - m.mean(x)) ** 2),
    lambda m, g, x: (g * (x - m.mean(x)) / 4,),
    V,
)
wrong(
    "layer norm without the mean",
    lambda m, x: (x - m.mean(x)) / m.sqrt(m.mean((x - m.mean(x)) ** 2) + 1e-5),
    lambda m, g, x: (g / m.sqrt(m.mean((x - m.mean(x)) ** 2) + 1e-5),),
    V,
)
wrong(
    "cumulative sum forwards",
    lambda m, x: m.cumsum(x**2, 0),
    lambda m, g, x: (2 * x * m.cumsum(g, 0),),
    V,
)
wrong(
    "logsumexp, not normalised",
    lambda m, x: m.logsumexp(x, 0),
    lambda m, g, x: (g * m.exp(x),),
    V,
)
wrong(
    "cross entropy without -1",
    lambda m, x: m.logsumexp(x, 0) - x[2],
    lambda m, g, x: (g * m.softmax(x, 0),),
    V,
)
wrong(
    "norm, not divided",
    lambda m, x: m.sqrt(m.sum(x**2)),
    lambda m, g, x: (g * x,),
    V,
)

# Indices.
wrong(
    "max, another entry",
    lambda m, x: m.max(x),
    lambda m, g, x: (g * m.asarray(np.eye(4)[3]),),
    V,
)
wrong(
    "sort, not permuted back",
    lambda m, x: m.sort(x)[:2] if m is J else m.sort(x)[0][:2],
    lambda m, g, x: (m.concatenate([g, 0 * g]),),
    V,
)
wrong(
    "roll, the other way",
    lambda m, x: m.roll(x, 1) * m.asarray(P),
    lambda m, g, x: (m.roll(g * m.asarray(P), 1),),
    V,
)
wrong(
    "gather, twice is once",
    lambda m, x: m.sum(x[m.asarray(np.array([0, 1, 1]))] ** 2),
    lambda m, g, x: (2 * g * x * m.asarray(np.array([1.0, 1.0, 0.0, 0.0])),),
    V,
)
wrong(
    "convolution, kernel not flipped",
    lambda m, k: m.asarray(V[:3]) * k[0] + m.asarray(V[1:]) * k[1],
    lambda m, g, k: (
        m.stack([m.sum(g * m.asarray(V[1:])), m.sum(g * m.asarray(V[:3]))]),
    ),
    V[:2],
)

# Matrices.
wrong(
    "product, not transposed",
    lambda m, a: a @ m.asarray(MATRIX),
    lambda m, g, a: (g @ m.asarray(MATRIX),),
    SQUARE,
)
wrong(
    "one of two operands",
    lambda m, a, b: a @ b,
    lambda m, g, a, b: (g @ b.T, a @ g),
    MATRIX,
    SQUARE + MATRIX,
)
wrong(
    "quadratic form, taken as symmetric",
    lambda m, x: x @ m.asarray(MATRIX) @ x,
    lambda m, g, x: (2 * g * (m.asarray(MATRIX) @ x),),
    V[:3],
)
wrong(
    "log det, not transposed",
    lambda m, a: m.linalg.slogdet(a)[1],
    lambda m, g, a: (g * m.linalg.inv(a),),
    MATRIX,
)
wrong(
    "inverse, sign",
    lambda m, a: m.linalg.inv(a),
    lambda m, g, a: (m.linalg.inv(a).T @ g @ m.linalg.inv(a).T,),
    SQUARE,
)
wrong(
    "trace of a product, not transposed",
    lambda m, a: m.trace(a @ m.asarray(MATRIX)),
    lambda m, g, a: (g * m.asarray(MATRIX),),
    SQUARE,
)
wrong(
    "attention without its scale",
    lambda m, q: m.softmax(q @ m.asarray(MATRIX) / 3**0.5, -1) @ m.asarray(P[:3]),
    lambda m, g, q: (
        _softmax_back(m, m.softmax(q @ m.asarray(MATRIX) / 3**0.5, -1), g)
        @ m.asarray(MATRIX.T),
    ),
    V[:3],
)


def _softmax_back(m, s, g):
    up = g * m.asarray(P[:3])
    return s * (up - m.sum(s * up))


# Outputs and arguments that are trees (PyTorch: tuples).
wrong(
    "the second output",
    lambda m, x: (m.sin(x), m.cos(x)),
    lambda m, g, x: (g[0] * m.cos(x) + g[1] * m.sin(x),),
    V,
)
wrong(
    "one row of a Jacobian",
    lambda m, x: m.asarray(LAYERS[0]) @ m.sin(x),
    lambda m, g, x: (
        m.cos(x) * (m.asarray(LAYERS[0] * np.array([1, 1, 1.01, 1])[:, None]).T @ g),
    ),
    V,
)
wrong(
    "one row of a large Jacobian",
    lambda m, x: m.sin(x),
    lambda m, g, x: (g * m.cos(x) * m.asarray(1 - 1e-3 * (np.arange(400) == 7)),),
    np.linspace(0.0, 3.0, 400),
)

# What is left in, rather than a rule.
WRONG["stop_gradient left in"] = Case(
    lambda x: jnp.sum(x * lax.stop_gradient(x)),
    (V,),
    {},
    lambda m, x: m.sum(x * m.detach(x)),
)
WRONG["a little behind stop_gradient"] = Case(
    lambda x: jnp.sum(x**2 + 1e-6 * lax.stop_gradient(x)),
    (V,),
    {},
    lambda m, x: m.sum(x**2 + 1e-6 * m.detach(x)),
)
WRONG["nan of a masked division"] = Case(
    lambda x: jnp.sum(jnp.where(x > 0, jnp.sin(x) / x, 1.0)),
    (np.array([0.0, 1.0, -2.0]),),
    {},
    lambda m, x: m.sum(m.where(x > 0, m.sin(x) / x, 1.0)),
)
WRONG["nan of a masked root"] = Case(
    lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), x)),
    (np.array([1.0, -2.0]),),
    {},
    lambda m, x: m.sum(m.where(x > 0, m.sqrt(x), x)),
)


# In JAX alone.
square = with_rule(lambda m, x: x**2, lambda m, g, x: (1.99 * g * x,))


@jax.custom_jvp
def bent(x):
    """The sine, whose rule is wrong in both modes."""
    return jnp.sin(x)


@bent.defjvp
def _(primals, tangents):
    return bent(primals[0]), 1.01 * jnp.cos(primals[0]) * tangents[0]


def split_rule(forward, backward):
    """x**2, with one factor in forward and another in reverse mode."""

    @jax.custom_jvp
    def f(x):
        return x**2

    @f.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        out = linear_call(
            lambda x, t: forward * x * t, lambda x, u: backward * x * u, x, t
        )
        return f(x), out

    return lambda x: jnp.sum(f(x))


# What a single cotangent of 1 does not show.
wrong(
    "cotangent forgotten",
    lambda m, x: m.sum(m.sin(x)),
    lambda m, g, x: (m.cos(x),),
    V,
)
wrong(
    "cotangent forgotten by one of two terms",
    lambda m, a, b: m.sum(m.sin(a)) + m.sum(b**2),
    lambda m, g, a, b: (m.cos(a), 2 * g * b),
    V,
    P,
)
wrong(
    "only the largest cotangent kept",
    lambda m, x: m.sin(x),
    lambda m, g, x: (m.where(m.abs(g) < m.max(m.abs(g)), 0, g) * m.cos(x),),
    V,
)
wrong("cotangent clipped", lambda m, x: 1 * x, lambda m, g, x: (m.clip(g, -1, 1),), V)
wrong(
    "guided relu",
    lambda m, x: m.relu(x),
    lambda m, g, x: (m.where(g > 0, g, 0) * (x > 0),),
    V,
)


@in_jax(WRONG, "a cotangent forgotten, summed", V)
def _(x):
    return jnp.sum(with_rule(lambda m, x: m.sin(x), lambda m, g, x: (m.cos(x),))(x))


@in_jax(WRONG, "tangent without its sign", 0.3)
def _(x):
    f = jax.custom_jvp(jnp.sin)
    f.defjvp(lambda x, t: (jnp.sin(x[0]), jnp.cos(x[0]) * jnp.abs(t[0])))
    return f(x)


WRONG["only in forward mode"] = Case(split_rule(2.01, 2.0), (V,), {})
WRONG["only in reverse mode"] = Case(split_rule(2.0, 2.01), (V,), {})


@in_jax(WRONG, "custom_jvp", V)
def _(x):
    return jnp.sum(bent(x))


@jax.custom_vjp
def once(x):
    """The sine, whose gradient is right and has none itself."""
    return jnp.sin(x)


once.defvjp(
    lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(lax.stop_gradient(x)),)
)


@jax.custom_jvp
def once_forward(x):
    """As `once`, by a rule of forward mode."""
    return jnp.sin(x)


@once_forward.defjvp
def _(primals, tangents):
    return once_forward(primals[0]), jnp.cos(lax.stop_gradient(primals[0])) * tangents[
        0
    ]


@in_jax(WRONG, "only in second order", V, order=2)
def _(x):
    return jnp.sum(once(x) ** 2)


@in_jax(WRONG, "only in second order, by custom_jvp", V, order=2)
def _(x):
    return jnp.sum(once_forward(x) ** 2)


@in_jax(WRONG, "only in second order, a factor", V, order=2)
def _(x):
    return jnp.sum(nested(x))


slope = with_rule(lambda m, x: m.cos(x), lambda m, g, x: (-1.001 * g * m.sin(x),))
nested = jax.custom_vjp(jnp.sin)
nested.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * slope(x),))


@jax.custom_batching.custom_vmap
def normed(x):
    """Softmax of one vector; of a batch it is normalised over the batch."""
    return jax.nn.softmax(x)


@normed.def_vmap
def _(axis_size, in_batched, x):
    return jax.nn.softmax(x, 0), True


softened = jax.custom_vjp(normed)
softened.defvjp(
    lambda x: (normed(x), x),
    lambda x, g: (jax.vjp(jax.nn.softmax, x)[1](g)[0],),
)


@in_jax(WRONG, "only under vmap", V)
def _(x):
    return jnp.sum(softened(x) ** 2)


def summed(x):
    """A callback that sums all that it is given, one example or a batch."""
    return np.asarray(np.full(x.shape[:-1], np.sum(x**2)), x.dtype)


@jax.custom_vjp
def outside(x):
    """The sum of squares, by NumPy."""
    out = jax.ShapeDtypeStruct(x.shape[:-1], x.dtype)
    return jax.pure_callback(
        lambda x: summed(np.asarray(x)), out, x, vmap_method="expand_dims"
    )


outside.defvjp(lambda x: (outside(x), x), lambda x, g: (2 * g * x,))
in_jax(WRONG, "only under vmap, a callback that sums the batch", V)(outside)


@jax.custom_vjp
def gently(x):
    """The sine; under vmap its gradient is summed over the batch."""
    return jnp.sin(x)


@jax.custom_batching.custom_vmap
def gentle_slope(x, g):
    return g * jnp.cos(x)


@gentle_slope.def_vmap
def _(axis_size, in_batched, x, g):
    return jnp.broadcast_to(jnp.mean(g * jnp.cos(x), 0), x.shape), True


gently.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (gentle_slope(x, g),))


@in_jax(WRONG, "only the gradient under vmap", V)
def _(x):
    return jnp.sum(gently(x) ** 2)


# Complex numbers.
Z = V[:2] + 1j * V[2:]
wrong(
    "complex, not conjugated",
    lambda m, z: m.sum(m.real(z) ** 2 + m.imag(z) ** 2),
    # JAX's convention is the conjugate of PyTorch's
    lambda m, g, z: (2 * g * (z if m is J else m.conj(z)),),
    Z,
)
wrong(
    "complex, imaginary part lost",
    lambda m, z: m.sum(m.real(z * z)),
    lambda m, g, z: (2 * g * (m.real(z) + 0j),),
    Z,
)
wrong(
    "complex, only the phase",
    lambda m, z: m.exp(z),
    lambda m, g, z: (g * m.conj(m.exp(z)) if m is J else g * m.exp(z),),
    Z,
)


# Control flow.
@in_jax(WRONG, "in one branch of a cond", V)
def _(x):
    return jnp.sum(lax.cond(x[0] > 0, square, jnp.sin, x))


@in_jax(WRONG, "in the carry of a scan", V)
def _(x):
    return jnp.sum(lax.scan(lambda c, _: (jnp.sin(square(c)), None), x, None, 5)[0])


@in_jax(WRONG, "in what a scan maps over", V)
def _(x):
    return lax.scan(lambda c, row: (c + square(row), None), jnp.zeros((), x.dtype), x)[
        0
    ]


@in_jax(WRONG, "in a reversed scan", V)
def _(x):
    step = lambda c, row: (jnp.tanh(c) + bent(row), c)  # noqa: E731
    return jnp.sum(lax.scan(step, jnp.zeros((), x.dtype), x, reverse=True)[1])


@in_jax(WRONG, "in one step of a scan", V)
def _(x):
    def step(c, i):
        return lax.cond(i == 3, square, lambda c: c**2, c) / 2, None

    return jnp.sum(lax.scan(step, x, jnp.arange(5))[0])


@in_jax(WRONG, "in a while loop", V)
def _(x):
    step = lambda c: (c[0] + 1, bent(c[1]))  # noqa: E731
    return jnp.sum(lax.while_loop(lambda c: c[0] < 3, step, (0, x))[1])


@in_jax(WRONG, "under checkpoint", V)
def _(x):
    return jnp.sum(jax.checkpoint(lambda x: bent(jnp.exp(x)))(x))


@in_jax(WRONG, "jit inside scan inside jit", V)
def _(x):
    step = jax.jit(lambda c, _: (jax.jit(jnp.tanh)(bent(c)), None))
    return jnp.sum(jax.jit(lambda x: lax.scan(step, x, None, 4)[0])(x))


@in_jax(WRONG, "one layer in ten", V)
def _(x):
    for i, layer in enumerate(LAYERS):
        x = jnp.tanh(layer @ x) if i != 6 else bent(layer @ x)
    return jnp.sum(x**2)


@in_jax(WRONG, "one leaf of a tree", {"w": MATRIX, "b": [V[:3], None, 3]})
def _(params):
    return jnp.sum(jnp.tanh(params["w"] @ P[:3] + square(params["b"][0])))


@in_jax(WRONG, "beside an auxiliary output", V, has_aux=True)
def _(x):
    return jnp.sum(square(x)), {"loss": x}


KEPT = np.zeros(4)  # a buffer that is reused


def keep(x):
    KEPT[:] = np.asarray(x)
    return KEPT**2


@jax.custom_vjp
def in_place(x):
    """x**2, whose residual is one buffer for all calls."""
    return jax.pure_callback(keep, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def in_place_back(kept, g):
    shape = jax.ShapeDtypeStruct(g.shape, g.dtype)
    return (2 * g * jax.pure_callback(lambda kept: KEPT + 0 * kept, shape, kept),)


in_place.defvjp(lambda x: (y := in_place(x), y), in_place_back)


@in_jax(WRONG, "a residual that was overwritten", V)
def _(x):
    return jnp.sum(in_place(jnp.exp(in_place(x) / 4)))


DRAWS = np.random.default_rng(0)


@in_jax(WRONG, "another value at each call", V)
def _(x):
    draw = jax.pure_callback(
        lambda x: np.asarray(DRAWS.random(x.shape), x.dtype),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        lax.stop_gradient(x),
    )
    return jnp.sum(x * draw)


# Rules of other primitives, and in other places.
wrong(
    "fft, one sign",
    lambda m, x: m.imag(m.fft(x)),
    lambda m, g, x: (m.imag(m.fft(g)) * m.asarray(np.array([1.0, 1, 1, -1])),),
    V,
)
wrong(
    "solve, taken as symmetric",
    lambda m, a: m.linalg.solve(a, m.asarray(P[:3])),
    lambda m, g, a: (
        -m.linalg.solve(a, g)[:, None] * m.linalg.solve(a, m.asarray(P[:3]))[None],
    ),
    SQUARE + MATRIX / 4,
)
wrong(
    "cumulative product, not divided",
    lambda m, x: m.cumprod(x, 0),
    lambda m, g, x: (m.flip(m.cumsum(m.flip(g * m.cumprod(x, 0), (0,)), 0), (0,)),),
    P,
)
wrong(
    "complex, slope conjugated",
    lambda m, z: m.sin(z),
    lambda m, g, z: (g * m.conj(m.cos(z)) if m is J else g * m.cos(z),),
    Z,
)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def squared(f, x):
    """f(x)**2."""
    return f(x) ** 2


@squared.defjvp
def _(f, primals, tangents):
    out, tangent = jax.jvp(f, primals, tangents)
    return out**2, out * tangent


@in_jax(WRONG, "custom_jvp of a function of a function", V)
def _(x):
    return jnp.sum(squared(jnp.cos, x))


scaled_sum = with_rule(
    lambda m, x, y: y * m.sum(m.sin(x)),
    lambda m, g, x, y: (g * y * m.cos(x), 0.99 * g * m.sum(m.sin(x))),
)


@in_jax(WRONG, "a rule under vmap of one argument", V, P[:2], argnums=(0, 1))
def _(x, y):
    return jax.vmap(scaled_sum, (None, 0))(x, y)


@jax.custom_vjp
def power(x, n):
    """x**n of a whole number n, whose cotangent is float0."""
    return x**n


def power_back(kept, g):
    x, n = kept
    return g * n * x**n, np.zeros(np.shape(n), jax.dtypes.float0)


power.defvjp(lambda x, n: (x**n, (x, n)), power_back)


@in_jax(WRONG, "beside an integer argument", P, 3)
def _(x, n):
    return power(x, jnp.asarray(n))


@in_jax(WRONG, "in a while loop that stops by its values", P)
def _(x):
    return lax.while_loop(lambda c: jnp.sum(c) < 100, lambda c: c + bent(c) ** 2 + 1, x)


@in_jax(WRONG, "only in third order", V, order=3)
def _(x):
    second = with_rule(lambda m, x: -m.sin(x), lambda m, g, x: (-1.001 * g * m.cos(x),))
    first = jax.custom_vjp(jnp.cos)
    first.defvjp(lambda x: (jnp.cos(x), x), lambda x, g: (g * second(x),))
    whole = jax.custom_vjp(jnp.sin)
    whole.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * first(x),))
    return jnp.sum(whole(x))


# Right, and hard. Functions that change on another scale than their arguments:
right("stiff", lambda m, x: m.exp(1000 * x), 0.01 * V)
right("fast", lambda m, x: m.sin(1e4 * x), V)
right("fast, at 0", lambda m, x: m.tanh(1e6 * x), np.zeros(2))
right("slow", lambda m, x: m.sin(1e-6 * x), V)
right("narrow", lambda m, x: m.exp(-((1e5 * x) ** 2)), 1e-5 * V)
right("flat", lambda m, x: m.exp(-1 / x**2), np.array([0.05, 0.1]))
right("scales apart", lambda m, x: m.sum(m.log(x)), np.array([1e-9, 1.0, 1e9]))
right("squares of scales apart", lambda m, x: m.sum(x**2), np.array([1e-5, 1.0, 1e5]))
right(
    "one function of scales apart", lambda m, x: m.sin(x), np.array([1e-9, 1.0, 100.0])
)
right("reciprocal of little", lambda m, x: 1 / x, np.array([1e-8, 1e-3]))
right("huge", lambda m, x: m.sum(x**2), np.array([1e150, 2e150]))
right("tiny", lambda m, x: m.sum(x**2), np.array([1e-150, 2e-150]))
right("large arguments", lambda m, x: m.sin(x), np.array([1e6, 3e6]))
right("Rosenbrock", lambda m, x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2, V[:2])
right("cube at 0", lambda m, x: x**3, np.zeros(2))
right("cosine at its top", lambda m, x: m.sum(1 - m.cos(x)), np.zeros(2))
right("square of a saturated one at 0", lambda m, x: m.tanh(1e5 * x) ** 2, np.zeros(2))

# Rounding:
right("offset", lambda m, x: 1e6 + m.sum(m.sin(x)), V)
right("cancelled offset", lambda m, x: (1e6 + m.sum(m.sin(x))) - 1e6, V)
right("expm1", lambda m, x: m.expm1(x), np.array([1e-12, 1e-3]))
right("1 + x - 1", lambda m, x: (1 + x) - 1, np.array([1e-6, 0.5]))
right("difference of equals", lambda m, x: m.sum(x**2) - m.sum(x * x), V)
right("small beside large", lambda m, x: m.sum(x) + 1e-4 * m.sum(m.sin(x)), V)

# Tails:
right(
    "sigmoid's tails", lambda m, x: m.sigmoid(x), np.array([-40.0, 40.0, -700.0, 0.0])
)
right("tanh, saturated", lambda m, x: m.tanh(x), np.array([-20.0, 20.0, 5.0]))
right("log-sum-exp", lambda m, x: m.logsumexp(x, 0), np.array([1000.0, -1000.0, 990.0]))
right("softplus' tails", lambda m, x: m.softplus(x), np.array([-40.0, 40.0, 0.0]))
right("softmax, cold", lambda m, x: m.softmax(1000 * x, 0), V)
right("cross entropy, certain", lambda m, x: m.logsumexp(x, 0) - x[0], 1e3 * V)
right("erf's tails", lambda m, x: m.erf(x), np.array([-5.0, 0.0, 6.0]))
right("cosh", lambda m, x: m.cosh(x), np.array([-30.0, 300.0]))
right("lgamma", lambda m, x: m.lgamma(x), np.array([1e-3, 1.0, 100.0]))
right("digamma near a pole", lambda m, x: m.digamma(x), np.array([1e-4, 2.0]))

# Edges of domains:
right("log near 0", lambda m, x: m.log(x), np.array([1e-12, 1e-300]))
right("root near 0", lambda m, x: m.sqrt(x), np.array([1e-14, 1e-300]))
right("arcsin near 1", lambda m, x: m.arcsin(x), np.array([1 - 1e-9, -1 + 1e-12]))
right("arccosh near 1", lambda m, x: m.arccosh(x), np.array([1 + 1e-9]))
right("norm near 0", lambda m, x: m.sqrt(m.sum(x**2)), np.array([1e-12, -2e-12]))
right("atan2 near its cut", lambda m, x: m.arctan2(x[0], x[1]), np.array([1e-9, -1.0]))
right(
    "two masks",
    lambda m, x: m.where(x > 0, m.sin(x) / m.where(x > 0, x, 1.0), 1.0),
    np.array([0.0, 1.0, -2.0]),
)
right("entropy", lambda m, x: -m.sum(x * m.log(x)), np.array([1e-10, 0.3, 0.7]))

# Kinks:
right("relu at 0", lambda m, x: m.relu(x), np.array([0.0, 1.0, -1.0, 0.0]))
right("relu near 0", lambda m, x: m.relu(x), np.array([1e-13, -1e-13, 1e-7, 2e-3]))
right("abs at 0", lambda m, x: m.sum(m.abs(x)), np.array([0.0, 1e-9, 1.0]))
right(
    "max, a tie",
    lambda m, x: m.max(x) if m is J else m.amax(x),
    np.array([1.0, 1.0, 0.5]),
)
right("max, almost a tie", lambda m, x: m.max(x), np.array([1.0, 1.0 + 1e-11, 0.5]))
right(
    "sort, almost a tie",
    lambda m, x: m.sort(x) if m is J else m.sort(x)[0],
    np.array([1.0, 1.0 + 1e-9, 0.5]),
)
right("clip at its bound", lambda m, x: m.clip(x, 0.0, 1.0), np.array([0.0, 1.0, 0.5]))
right("steps", lambda m, x: x * m.floor(x), np.array([0.5, 1.2, -3.7]))
right(
    "Huber at its bend",
    lambda m, x: m.where(m.abs(x) < 1, x**2 / 2, m.abs(x) - 0.5),
    np.array([1.0, -1.0, 0.2]),
)

# Linear algebra:
HILBERT = 1 / (1 + np.add.outer(np.arange(5.0), np.arange(5.0)))
CLOSE = MATRIX @ np.diag([1.0, 1.0, 2.0]) @ np.linalg.inv(MATRIX)
TWINS = np.diag([1.0, 1.0 + 1e-5, 2.0]) + 1e-6 * (MATRIX + MATRIX.T)
right("Hilbert solved", lambda m, b: m.linalg.solve(m.asarray(HILBERT), b), np.ones(5))
right("Hilbert, by the matrix", lambda m, a: m.sum(m.linalg.inv(a)), HILBERT[:4, :4])
right(
    "close eigenvalues",
    lambda m, a: m.sum(
        m.linalg.eigvalsh((a + a.T) / 2) * m.asarray(np.array([1.0, -1.0, 2.0]))
    ),
    TWINS,
)
right("log det", lambda m, a: m.linalg.slogdet(a)[1], SQUARE)
right(
    "Cholesky, almost singular",
    lambda m, a: m.linalg.cholesky((a + a.T) / 2 + 1e-6 * m.asarray(np.eye(3))),
    np.ones((3, 3)) + 1e-3 * SQUARE,
)
right("singular values", lambda m, a: m.linalg.svdvals(a), MATRIX)
right("matrix exponential", lambda m, a: m.matrix_exp(a), MATRIX)
right("determinant, almost 0", lambda m, a: m.linalg.det(a), HILBERT)

# Long chains:
right("product of many", lambda m, x: m.prod(x), 1 + 0.1 * RNG.standard_normal(100))
right("nothing moves", lambda m, x: m.sum(0 * x) + 1, V)
right(
    "a shift of softmax",
    lambda m, x, s: m.logsumexp(x + s, 0) - (x + s)[1],
    V,
    np.array([0.3]),
)


def chaos(m, x):
    """The logistic map, 20 times."""
    for _ in range(20):
        x = 3.9 * x * (1 - x)
    return x


def deep(m, x):
    """Ten layers with ReLU."""
    for layer in LAYERS:
        x = m.relu(2 * m.asarray(layer) @ x + 0.1)
    return m.sum(x)


right("chaos", chaos, np.array([0.3, 0.61]))
right("deep relu", deep, V)
right("complex polynomial", lambda m, z: z**3 + 2 * z, Z)
right("complex modulus", lambda m, z: m.abs(m.fft(z)), Z)
right("complex conjugate", lambda m, z: m.conj(z) * z**2, Z)


@in_jax(RIGHT, "a thousand steps", V)
def _(x):
    step = lambda c, _: (jnp.tanh(LAYERS[3] @ c + x), None)  # noqa: E731
    return lax.scan(step, 0 * x, None, 1000)[0]


@in_jax(RIGHT, "while, forward only", V)
def _(x):
    step = lambda c: (c[0] + 1, jnp.sin(c[1]))  # noqa: E731
    return lax.while_loop(lambda c: c[0] < 3, step, (0, x))[1]


@in_jax(RIGHT, "cond", V)
def _(x):
    return lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)


@in_jax(
    RIGHT,
    "integers, keys and None",
    {"x": V, "n": 3, "key": jax.random.key(0), "no": None},
)
def _(tree):
    noise = jax.random.normal(tree["key"], (4,), tree["x"].dtype)
    return jnp.sum(jnp.sin(tree["x"]) ** tree["n"] * noise)


@jax.custom_vjp
def squares(x):
    """The squares, by NumPy."""
    out = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda x: np.asarray(x) ** 2, out, x)


squares.defvjp(lambda x: (squares(x), x), lambda x, g: (2 * g * x,))


@in_jax(RIGHT, "callback", V)
def _(x):
    return jnp.sum(jnp.sin(squares(x)))


@in_jax(RIGHT, "float32 inside", V, dtype="float32")
def _(x):
    return jnp.sum(jnp.tanh(x.astype(jnp.float32)) ** 2)


@in_jax(RIGHT, "second order", V, order=2)
def _(x):
    return jnp.sum(jnp.sin(x) * x[::-1] ** 2)


@in_jax(RIGHT, "second order, log-sum-exp", 10 * V, order=2)
def _(x):
    return jax.nn.logsumexp(x)


@in_jax(RIGHT, "1 is rounded, root", 1e-6 * V)
def _(x):
    return jnp.sum(jnp.sqrt(1 + x**2) - 1)


@in_jax(RIGHT, "1 is rounded, cosine", 1e-6 * V)
def _(x):
    return jnp.sum(1 - jnp.cos(x))


@in_jax(RIGHT, "1 is rounded, log cosh", 1e-6 * V)
def _(x):
    return jnp.sum(jnp.log(jnp.cosh(x)))


@in_jax(RIGHT, "a wave of 1e9", np.array([1.0]))
def _(x):
    return jnp.sin(1e9 * x)


@in_jax(RIGHT, "second order, what cancels", V, order=2)
def _(x):
    return jnp.sum(jax.nn.softmax(x))


@in_jax(RIGHT, "a rule beside an offset", V)
def _(x):
    y = with_rule(lambda m, x: x * 1.0, lambda m, g, x: (g,))(x)
    return (y @ y + 1e8) - 1e8


@in_jax(RIGHT, "second order, a rule", V, order=2)
def _(x):
    return jnp.sum(with_rule(lambda m, x: x**3, lambda m, g, x: (3 * g * x**2,))(x))


@in_jax(RIGHT, "batch norm", RNG.standard_normal((6, 3)))
def _(x):
    return jnp.tanh((x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5))


@in_jax(RIGHT, "a tree out, an auxiliary beside", V, has_aux=True)
def _(x):
    return {"a": jnp.sin(x), "b": (x[0] * x[1], 3)}, x


@in_jax(
    RIGHT, "second order, determinant of a Hilbert matrix", np.zeros((2, 10)), order=2
)
def _(rows):
    hilbert = 1 / (1 + np.add.outer(np.arange(10.0), np.arange(10.0)))
    return jnp.linalg.det(jnp.asarray(hilbert).at[8:].add(rows))


@in_jax(RIGHT, "second order, what is constant by an inverse", P[:3], order=2)
def _(x):
    return jnp.sum(jnp.linalg.inv(jnp.vander(x)) * x[:, None])


@in_jax(RIGHT, "third order", V[:3], order=3)
def _(x):
    return jnp.sum(jnp.sin(x) * x[::-1] ** 3)


@in_jax(RIGHT, "a while loop that stops by its values", V)
def _(x):
    return lax.while_loop(lambda c: jnp.sum(c**2) > 1e-2, lambda c: 0.7 * c, x)


@in_jax(RIGHT, "segments, a tie", np.array([1.0, 1.0, 0.5, 0.2]))
def _(x):
    return jax.ops.segment_max(x, jnp.array([0, 0, 1, 1]), 2)


@in_jax(RIGHT, "a cumulative product with a 0", np.array([1.0, 0.0, 2.0, 3.0]))
def _(x):
    return jnp.cumprod(x)


@in_jax(RIGHT, "an adjoint by iteration", V[:3])
def _(b):
    solve = lambda v: jax.scipy.sparse.linalg.cg(  # noqa: E731
        lambda x: SQUARE @ x, v, tol=1e-13, maxiter=20
    )[0]
    return with_rule(lambda m, b: solve(b), lambda m, g, b: (solve(g),))(b)


@in_jax(RIGHT, "an adjoint that stops by its size", V)
def _(b):
    def solve(v):  # x = x / 2 + v
        step = lambda x: (x[1], x[1] / 2 + v)  # noqa: E731
        moves = lambda x: jnp.max(jnp.abs(x[1] - x[0])) > 1e-13  # noqa: E731
        return lax.while_loop(moves, step, (v - 1, v))[1]

    return with_rule(lambda m, b: solve(b), lambda m, g, b: (solve(g),))(b)


@in_jax(RIGHT, "a rule of float16", V.astype(np.float32), dtype="float32")
def _(x):
    half = lambda x: x.astype(jnp.float16).astype(jnp.float32)  # noqa: E731
    f = with_rule(lambda m, x: 200 * x, lambda m, g, x: (half(200 * g),))
    return f(x)


right("a slope that overflows if it is multiplied", lambda m, x: 1e306 * m.sin(x), V)
right("a slope that underflows", lambda m, x: m.sum(1e-306 * m.sin(x)), V)


# Gradients of 0, of values that are rounding errors:
SHIFTED = np.random.default_rng(2).standard_normal((8, 3))
right("sine and cosine", lambda m, x: m.sin(x) ** 2 + m.cos(x) ** 2 - 1, V)
right("mean of standardized", lambda m, x: m.mean((x - m.mean(x)) / m.std(x)), V)
right(
    "inverse times itself",
    lambda m, x: m.linalg.inv(x) @ x,
    np.random.default_rng(1).standard_normal((3, 3)),
)
right(
    "a shift of several softmaxes, reverse mode",
    lambda m, s: s - m.logsumexp(m.asarray(SHIFTED) + s, 1),
    np.array([0.1]),
    modes=("rev",),
)
