"""The compilation cache: a second run of the same program compiles nothing."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keep compiled programs in a private folder, small ones too.

    A cache holds code that will be run, so the folder is this user's alone (0700). One
    that the user chose (JAX_COMPILATION_CACHE_DIR) is left as it is; a folder that
    cannot be made is done without.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "dlworkshop" / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
