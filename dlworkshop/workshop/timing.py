"""Timing of calls, for experiments about speed."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

LEAST = 0.02  # seconds of calls: short ones are disturbed most, and are many in it


def time_call(function: Callable, *args: Any, calls: int = 3) -> float:
    """The shortest time of several calls; one before them may compile.

    Whatever else the machine does can only make a call longer, so the shortest is the
    nearest to what the call itself takes. There are `calls` of them, and as many as
    fit into `LEAST`. What is to be compared is timed by `in_turns`.

    >>> time_call(jax.numpy.sin, 1.0) < 1
    True
    """
    jax.block_until_ready(function(*args))
    taken: list[float] = []
    while len(taken) < calls or sum(taken) < LEAST:
        began = time.perf_counter()
        jax.block_until_ready(function(*args))
        taken.append(time.perf_counter() - began)
    return min(taken)


def in_turns(
    calls: Sequence[tuple],
    turns: int,
    take: Callable[..., Any] = time_call,
    seed: int = 0,
) -> np.ndarray:
    """Interleaved measurements: each round calls all functions in a random order.

    In turns, a slow moment hits all calls alike. In random order, none is always the
    first or follows the same one, and `verify.claims.turns` may decide by the order
    alone, however the noise of one turn depends on that of the next.

    Args:
        calls: (function, *args) each.
        turns: how often each is timed.
        take: (function, *args) -> a number, or several.
        seed: of the order.

    Returns:
        [turns, calls, ...] in the order of `calls`.

    >>> in_turns([(jax.numpy.sin, 1.0), (jax.numpy.cos, 1.0)], turns=3).shape
    (3, 2)
    """
    rng = np.random.default_rng(seed)
    taken = []
    for _ in range(turns):
        order = rng.permutation(len(calls))
        found = {i: take(*calls[i]) for i in order}
        taken.append([found[i] for i in range(len(calls))])
    return np.array(taken, float)
