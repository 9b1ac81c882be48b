"""Private folders for what may be thrown away: compiled programs, measured choices."""

from pathlib import Path

import jax

from dlworkshop.files import private_folder


def cache_folder(name: str) -> Path | None:
    """A folder of this user alone (0700); None where none can be made."""
    try:
        return private_folder(name)
    except OSError:
        return None


def use_compilation_cache() -> None:
    """Keep compiled programs, small ones too: a second run compiles nothing.

    A cache holds code that will be run, so its folder is private. One that the user
    chose (JAX_COMPILATION_CACHE_DIR) is left as it is.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    folder = cache_folder("programs")
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
