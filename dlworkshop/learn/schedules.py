"""Schedules: num_steps -> (step -> multiplier in [0, 1] of the learning rate).

They multiply the updates, which are linear in the learning rate, so that a schedule
goes with any optimizer and the peak stays a traced number of each member.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]


def constant(num_steps: int) -> Schedule:
    """The same learning rate throughout."""
    del num_steps  # does not matter here
    return jnp.ones_like


def cosine(num_steps: int, warmup: float = 0.05) -> Schedule:
    """Linear warm-up over the first `warmup` share of the steps, then half a cosine.

    Source: Loshchilov & Hutter (2017), SGDR, eq. 5, for one period.

    >>> multiplier = cosine(100, warmup=0.1)
    >>> [round(float(multiplier(jnp.asarray(step))), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warmup_steps = round(warmup * num_steps)

    def multiplier(step):
        rise = (step + 1) / max(warmup_steps, 1)
        done = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
        fall = 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(step < warmup_steps, rise, fall)

    return multiplier


def one_cycle(num_steps: int, warmup: float = 0.3, floor: float = 1e-4) -> Schedule:
    """Half a cosine up from 1/25 to the peak, half a cosine down to `floor`.

    Source: Smith & Topin (2018), Super-convergence, with the cosine of fast.ai.

    >>> multiplier = one_cycle(100)
    >>> [round(float(multiplier(jnp.asarray(step))), 3) for step in (0, 30, 99)]
    [0.04, 1.0, 0.0]
    """
    start, top = 1 / 25, max(warmup * num_steps, 1)

    def multiplier(step):
        up = 0.5 * (1 - jnp.cos(jnp.pi * jnp.minimum(step / top, 1)))
        done = (step - top) / max(num_steps - 1 - top, 1)
        down = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
        return jnp.where(
            step < top, start + (1 - start) * up, floor + (1 - floor) * down
        )

    return multiplier
