"""How long a call takes, for experiments that are about time."""

import time
from collections.abc import Callable
from typing import Any

import jax


def seconds(function: Callable, *args: Any, calls: int = 3) -> float:
    """The shortest of some calls, each waited for; one before them may compile.

    Whatever else the machine does can only make a call longer, so the shortest is the
    nearest to what the call itself takes. What is to be compared is timed in turns.

    >>> seconds(jax.numpy.sin, 1.0) < 1
    True
    """
    jax.block_until_ready(function(*args))
    shortest = float("inf")
    for _ in range(calls):
        began = time.perf_counter()
        jax.block_until_ready(function(*args))
        shortest = min(shortest, time.perf_counter() - began)
    return shortest
