"""How long a call takes, for experiments that are about time."""

import time
from collections.abc import Callable
from typing import Any

import jax

LEAST = 0.02  # seconds of calls: short ones are disturbed most, and are many in it


def seconds(function: Callable, *args: Any, calls: int = 3) -> float:
    """The shortest of some calls, each waited for; one before them may compile.

    Whatever else the machine does can only make a call longer, so the shortest is the
    nearest to what the call itself takes. There are `calls` of them, and as many as
    fit into `LEAST`. What is to be compared is timed in turns.

    >>> seconds(jax.numpy.sin, 1.0) < 1
    True
    """
    jax.block_until_ready(function(*args))
    taken: list[float] = []
    while len(taken) < calls or sum(taken) < LEAST:
        began = time.perf_counter()
        jax.block_until_ready(function(*args))
        taken.append(time.perf_counter() - began)
    return min(taken)
