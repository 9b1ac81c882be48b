"""Private cache folders: compiled programs and measured choices."""

import contextlib
import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from dlworkshop.files import (
    DAY,
    atomic_write,
    private_folder,
    read_own,
    remove_left_over,
)
from dlworkshop.train.progress import log_level

log = logging.getLogger(__name__)

LARGEST = 1 << 31  # bytes of a compiled program
jax_cache = inspect.getmodule(reset_cache)  # where JAX keeps its cache
OPENS = "get_file_cache"  # there: the path of a folder -> its cache and the path


def cache_folder(name: str) -> Path | None:
    """A private folder (0700) in the user's cache; None if it cannot be created."""
    try:
        return private_folder(name)
    except OSError:
        return None


class Programs:
    """JAX's cache of compiled programs, verified by digests.

    XLA does not check a cached program: a damaged one ends the process, at every later
    start again. So each file begins with a digest of its name and content, and is
    written atomically; a file that does not match is removed and compiled again.

    >>> import tempfile
    >>> programs = Programs(tempfile.mkdtemp())
    >>> programs.put("name", b"code"), programs.get("name"), programs.get("other")
    (None, b'code', None)
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._path = Path(folder)  # JAX reads this attribute
        with contextlib.suppress(OSError):
            remove_left_over(self._path, DAY)

    def get(self, key: str) -> bytes | None:
        """The entry of this name; None if missing, damaged or another user's."""
        path = self._file(key)
        try:
            content, owner = read_own(path, LARGEST), path.lstat().st_uid
        except OSError:
            return None
        program = content[32:]
        if content[:32] == _digest(key, program) and owner == os.geteuid():
            return program
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def put(self, key: str, program: bytes) -> None:
        """Store an entry; a full disk is ignored."""
        with contextlib.suppress(OSError):
            atomic_write(self._file(key), _digest(key, program) + program)

    def _file(self, key: str) -> Path:
        return self._path / f"{key}-cache"


def _digest(key: str, program: bytes) -> bytes:
    return hashlib.sha256(f"{key}\n".encode() + program).digest()


def use_compilation_cache() -> None:
    """Cache compiled programs, including small ones, on disk.

    This is for scripts and commands, because it lasts until the process ends; a library
    uses `compilation_cache`. The cache holds code that will be executed, so its folder
    is private. If the user chose a folder (JAX_COMPILATION_CACHE_DIR), JAX manages it.
    """
    _update(_settings(), lambda path: (Programs(path), path))


@contextlib.contextmanager
def compilation_cache(quiet: bool = False) -> Iterator[None]:
    """Cache compiled programs while inside; JAX's settings are restored afterwards.

    Programs that other threads compile meanwhile are cached, too.

    >>> with compilation_cache():
    ...     compiled = jax.jit(lambda x: x + 1)(1)
    """
    settings = _settings(quiet)
    before = {name: getattr(jax.config, name) for name in settings}
    opens = getattr(jax_cache, OPENS, None)
    _update(settings, lambda path: (Programs(path), path))
    try:
        yield
    finally:
        _update(before, opens)


def _update(settings: dict[str, Any], opens: Callable | None) -> None:
    """Update JAX's settings, which it reads only once unless reset."""
    for name, value in settings.items():
        jax.config.update(name, value)
    if settings:
        setattr(jax_cache, OPENS, opens)
        reset_cache()


def _settings(quiet: bool = False) -> dict[str, Any]:
    """JAX's settings for the cache; empty if the user chose one."""
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return {}
    try:
        if not _asks_for_caches():
            raise OSError(f"JAX {jax.__version__} keeps them in a way not known here")
        folder = private_folder("programs")
    except OSError as error:
        level = log_level(quiet, logging.WARNING)
        log.log(level, "compiled programs are not kept for the next run: %s", error)
        return {}
    return {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }


def _asks_for_caches() -> bool:
    """Whether this version of JAX lets `Programs` replace its cache.

    There is no public API for that. In a version with another implementation, programs
    would be executed without a check, or not be cached.
    """
    opens = getattr(jax_cache, OPENS, None)
    begins = getattr(jax_cache, "_initialize_cache", None)
    return (
        opens is not None
        and list(inspect.signature(opens).parameters) == ["path"]
        and OPENS in getattr(getattr(begins, "__code__", None), "co_names", ())
    )
