"""Schedules: (num_steps, **numbers) -> (step -> multiplier of the learning rate).

Every step builds the optimizer with its learning rate times the multiplier. That is
correct for any optimizer, and the peak learning rate stays a traced number of each
member. The numbers of a schedule may be traced, too, so that members differ in them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlworkshop.errors import Range, check_number, check_whole

__all__ = ["constant", "cosine", "one_cycle"]

Schedule = Callable[[jax.Array], jax.Array]


def _at_least(least: float, number: Any) -> Any:
    """The maximum, in Python floats if possible, for their precision."""
    if isinstance(number, (int, float)):
        return max(number, least)
    return jnp.maximum(number, least)


def _check(num_steps: int, **shares: Any) -> None:
    check_whole("num_steps", num_steps)
    for name, share in shares.items():
        if not isinstance(share, jax.Array):  # traced hyper-parameters are not checked
            check_number(name, share, Range(0, 1))


def constant(num_steps: int) -> Schedule:
    """The same learning rate throughout."""
    _check(num_steps)
    return jnp.ones_like


def cosine(num_steps: int, warmup: float | jax.Array = 0.05) -> Schedule:
    """Linear warm-up over the first `warmup` share of the steps, then half a cosine.

    Args:
        num_steps: of the whole training.
        warmup: [] in [0, 1), rounded to whole steps.

    Source: Loshchilov & Hutter (2017), SGDR, eq. 5, for one period.

    >>> multiplier = cosine(100, warmup=0.1)
    >>> [round(float(multiplier(jnp.asarray(step))), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    _check(num_steps, warmup=warmup)
    share = warmup * num_steps
    warmup_steps = round(share) if isinstance(share, (int, float)) else share.round()

    def multiplier(step):
        rise = (step + 1) / _at_least(1, warmup_steps)
        done = (step - warmup_steps) / _at_least(1, num_steps - warmup_steps)
        fall = 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(step < warmup_steps, rise, fall)

    return multiplier


def one_cycle(
    num_steps: int, warmup: float | jax.Array = 0.3, floor: float | jax.Array = 1e-4
) -> Schedule:
    """Half a cosine up from 1/25 to the peak, half a cosine down to `floor`.

    Args:
        num_steps: of the whole training.
        warmup: [] in [0, 1), the share of the steps on the way up.
        floor: [] in [0, 1], the last multiplier.

    Source: Smith & Topin (2018), Super-convergence, with the cosine of fast.ai.

    >>> multiplier = one_cycle(100)
    >>> [round(float(multiplier(jnp.asarray(step))), 3) for step in (0, 30, 99)]
    [0.04, 1.0, 0.0]
    """
    _check(num_steps, warmup=warmup)
    if not isinstance(floor, jax.Array):
        check_number("floor", floor, Range(0))
    start, top = 1 / 25, _at_least(1, warmup * num_steps)

    def multiplier(step):
        up = 0.5 * (1 - jnp.cos(jnp.pi * jnp.minimum(step / top, 1)))
        done = (step - top) / _at_least(1, num_steps - 1 - top)
        down = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
        return jnp.where(
            step < top, start + (1 - start) * up, floor + (1 - floor) * down
        )

    return multiplier
