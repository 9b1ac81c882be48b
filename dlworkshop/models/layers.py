"""Layers shared by the networks: pure functions of ONE example."""

import jax
import jax.numpy as jnp

from dlworkshop.data.leaves import at_least_float32


def drop(x: jax.Array, key: jax.Array, rate) -> jax.Array:
    """Dropout: each entry is zero with probability `rate`, else scaled by 1/(1-rate).

    `rate` in [0, 1) may be traced, so that it can differ between members.
    Source: Srivastava et al. (2014), Dropout, JMLR 15, section 10 ("inverted").

    >>> x = drop(jnp.ones(10_000), jax.random.key(0), 0.25)
    >>> round(float(x.mean()), 1), round(float((x == 0).mean()), 2)
    (1.0, 0.25)
    """
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    # a traced rate is float32, and would promote bfloat16
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), 0)


def drops(key: jax.Array | None, rate) -> bool:
    """Whether dropout is active: in training, unless the rate is the constant 0."""
    return key is not None and not (isinstance(rate, float) and rate == 0)


def _windows(image: jax.Array) -> jax.Array:
    """2x2 windows [H/2, 2, W/2, 2, C]; an odd last row or column is dropped.

    A reshape, because XLA's reduce_window and its gradient are slow on a CPU.
    """
    height, width, channels = image.shape
    image = image[: height // 2 * 2, : width // 2 * 2]
    return image.reshape(height // 2, 2, width // 2, 2, channels)


def average_pool(image: jax.Array) -> jax.Array:
    """Mean over 2x2 windows: [H, W, C] -> [H // 2, W // 2, C].

    >>> average_pool(jnp.arange(4.0).reshape(2, 2, 1)).item()
    1.5
    """
    return _windows(image).mean((1, 3))


def max_pool(image: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows: [H, W, C] -> [H // 2, W // 2, C].

    Equal maxima share the gradient: two or four equally, three as 1/4, 1/4 and 1/2.

    >>> max_pool(jnp.arange(4.0).reshape(2, 2, 1)).item()
    3.0
    """
    return _maxima(image)


@jax.custom_jvp
def _maxima(image):
    return _windows(image).max((1, 3))


@_maxima.defjvp
def _maxima_jvp(primals, tangents):
    """Of each pair of columns the larger, and of each pair of rows of these.

    The gradient of `max` compares the numbers with the result. XLA may compute them
    twice with different rounding; if none is equal then, the gradient is 0 / 0.
    """
    windows = _windows(primals[0])
    of_rows = _share(windows.max(3), 1)[:, :, :, None]
    shares = _share(windows, 3) * of_rows  # [H/2, 2, W/2, 2, C]
    return _maxima(*primals), (shares * _windows(tangents[0])).sum((1, 3))


def _share(pairs: jax.Array, axis: int) -> jax.Array:
    """1 for the larger of each pair along an axis, 0 for the other, else a half."""
    others = jnp.flip(pairs, axis)
    signs = (pairs > others).astype(pairs.dtype) - (pairs < others).astype(pairs.dtype)
    return 0.5 + 0.5 * signs


def group_norm(x: jax.Array, groups: int) -> jax.Array:
    """ONE image [H, W, C] with mean 0 and variance 1 in each group of channels.

    Statistics are at least float32. Source: Wu & He (2018), Group normalization.

    >>> y = group_norm(jnp.arange(16.0).reshape(2, 2, 4), groups=2)
    >>> bool(jnp.abs(y[..., :2].mean()) < 1e-6), round(float(y[..., 2:].std()), 3)
    (True, 1.0)
    """
    height, width, channels = x.shape
    # first over the places of each channel, then over the few channels of a group
    flat = at_least_float32(x).reshape(height * width, channels)
    mean = flat.mean(0).reshape(groups, -1).mean(1)  # [groups]
    mean = jnp.repeat(mean, channels // groups)  # [C]
    centred = flat - mean
    square = (centred**2).mean(0).reshape(groups, -1).mean(1)
    factor = jax.lax.rsqrt(jnp.repeat(square, channels // groups) + 1e-5)  # [C]
    return (centred * factor).astype(x.dtype).reshape(x.shape)
