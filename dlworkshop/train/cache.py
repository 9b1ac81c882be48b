"""Private folders for what may be thrown away: compiled programs, measured choices."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from dlworkshop.files import private_folder


def cache_folder(name: str) -> Path | None:
    """A folder of this user alone (0700); None where none can be made."""
    try:
        return private_folder(name)
    except OSError:
        return None


def use_compilation_cache() -> None:
    """Keep compiled programs, small ones too: a second run compiles nothing.

    It is for scripts and commands, for it stays so until the process ends; a library
    uses `compilation_cache`. A cache holds code that will be run, so its folder is
    private. One that the user chose (JAX_COMPILATION_CACHE_DIR) is left as it is.
    """
    _update(_settings())


@contextlib.contextmanager
def compilation_cache() -> Iterator[None]:
    """Keep compiled programs while inside, and leave JAX as it was before.

    What other threads compile meanwhile is kept, too.

    >>> with compilation_cache():
    ...     compiled = jax.jit(lambda x: x + 1)(1)
    """
    settings = _settings()
    before = {name: getattr(jax.config, name) for name in settings}
    _update(settings)
    try:
        yield
    finally:
        _update(before)


def _update(settings: dict[str, Any]) -> None:
    """JAX looks at its settings once, when it first compiles: it has to look again."""
    for name, value in settings.items():
        jax.config.update(name, value)
    if settings:
        reset_cache()


def _settings() -> dict[str, Any]:
    """What JAX is told; nothing where a cache was chosen, or cannot be made."""
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return {}
    folder = cache_folder("programs")
    if folder is None:
        return {}
    return {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
