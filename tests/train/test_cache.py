"""Compiled programs are kept while asked for, and JAX is then as it was."""

import subprocess
import sys

import jax
import pytest

from dlworkshop.train.cache import compilation_cache

NAMES = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def settings():
    return [getattr(jax.config, name) for name in NAMES]


@pytest.fixture
def no_cache_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "dlworkshop/programs"
    jax.config.update("jax_compilation_cache_dir", before)


def test_it_is_undone_whatever_happens_inside(no_cache_chosen):
    before = settings()
    with pytest.raises(KeyError), compilation_cache():
        assert settings() == [str(no_cache_chosen), 0.0, -1]
        with compilation_cache():
            assert settings() == [str(no_cache_chosen), 0.0, -1]
        assert settings() == [str(no_cache_chosen), 0.0, -1]
        raise KeyError
    assert settings() == before


def test_a_cache_that_was_chosen_stays(tmp_path, no_cache_chosen):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    before = settings()
    with compilation_cache():
        assert settings() == before


def test_only_what_is_compiled_inside_is_kept(tmp_path):
    code = """
import jax, pathlib
from dlworkshop.train.cache import cache_folder, compilation_cache
kept = lambda: len(list(cache_folder("programs").glob("*-cache")))
counts = []
def compile(n):
    jax.jit(lambda x: x * n)(1.0)
    counts.append(kept())
compile(1.5)  # JAX has looked whether there is a cache
with compilation_cache():
    compile(2.5)
compile(3.5)
with compilation_cache():
    compile(4.5)
print(counts)
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    none, first, still, more = map(int, found.stdout.strip("[]\n").split(","))
    assert none == 0 < first == still < more
