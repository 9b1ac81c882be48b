"""Timing of calls, for experiments about speed."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

LEAST_CALLS = 3
LEAST = 0.02  # seconds; short calls are repeated until they fill this time


def time_call(function: Callable, *args: Any) -> float:
    """The shortest time of several calls, after a first call that may compile.

    Other work on the machine can only make a call longer, so the shortest time is the
    best estimate. At least `LEAST_CALLS` calls are timed, and more until they take
    `LEAST` seconds together. Use `in_turns` to compare functions.

    >>> time_call(jax.numpy.sin, 1.0) < 1
    True
    """
    jax.block_until_ready(function(*args))
    taken: list[float] = []
    while len(taken) < LEAST_CALLS or sum(taken) < LEAST:
        began = time.perf_counter()
        jax.block_until_ready(function(*args))
        taken.append(time.perf_counter() - began)
    return min(taken)


def in_turns(
    calls: Sequence[tuple], turns: int, take: Callable[..., Any] = time_call
) -> np.ndarray:
    """Interleaved measurements: each turn calls all functions, in a random order.

    A slow moment of the machine affects all calls of a turn alike. In a random order no
    function is always the first or follows the same other one, so that the test of
    `verify.claims.turns` is valid even if the noise of successive turns is correlated.

    Args:
        calls: (function, *args) for each function.
        turns: how often each function is timed.
        take: (function, *args) -> one or several numbers.

    Returns:
        [turns, calls, ...] in the order of `calls`.

    >>> in_turns([(jax.numpy.sin, 1.0), (jax.numpy.cos, 1.0)], turns=3).shape
    (3, 2)
    """
    rng = np.random.default_rng(0)
    taken = []
    for _ in range(turns):
        order = rng.permutation(len(calls))
        found = {i: take(*calls[i]) for i in order}
        taken.append([found[i] for i in range(len(calls))])
    return np.array(taken, float)
