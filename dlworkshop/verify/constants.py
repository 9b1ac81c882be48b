"""NumPy arrays that a function closes over, in float64 and outside of it.

JAX 0.10.2 converts a NumPy array once, and returns the same result for the same array
as long as any program uses it, for either value of `jax_enable_x64`. After a trace in
float64, the same function is compiled for float32, but still gets its constants in
float64, and fails. Under `own_constants`, traces in float64 have their own conversions.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax._src import api, config, dtypes
from jaxlib.weakref_lru_cache import weak_key_weak_value_cache

NAME = "canonicalize_value"
PLACES = [place for place in (dtypes, api) if hasattr(place, NAME)]

_convert: Any = getattr(dtypes, NAME, None)
_lock = threading.Lock()
_running = 0


@weak_key_weak_value_cache
def _convert_anew(x: np.ndarray) -> Any:
    return _convert(x.view())  # the same memory, and not the same array


def _converted(x: Any) -> Any:
    is_known = not isinstance(x, np.ndarray) or hasattr(x, "aval")
    if is_known or not config.enable_x64.value:
        return _convert(x)
    return _convert_anew(x)


@contextlib.contextmanager
def own_constants() -> Iterator[None]:
    """Under `jax.enable_x64(True)`, convert NumPy arrays apart from other conversions.

    Threads that do not compute in float64 are not affected.
    """
    _count(+1)
    try:
        yield
    finally:
        _count(-1)


def _count(more: int) -> None:
    """Count the running checks, in all threads; the last one undoes the change."""
    global _running  # noqa: PLW0603 - JAX has one such function in a process
    with _lock:
        _running += more
        for place in PLACES:
            setattr(place, NAME, _converted if _running else _convert)
