"""Compiled programs are kept while asked for, and JAX is then as it was."""

import os
import subprocess
import sys
import warnings

import jax
import pytest

from dlworkshop.train import cache
from dlworkshop.train.cache import Programs, compilation_cache

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


def flipped(one, _):
    content = bytearray(one.read_bytes())
    content[len(content) // 2] ^= 1
    one.write_bytes(content)


def exchanged(one, other):
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


DAMAGES = {
    "torn": (lambda one, _: one.write_bytes(one.read_bytes()[:-100]), 1),
    "emptied": (lambda one, _: one.write_bytes(b""), 1),
    "flipped": (flipped, 1),
    "exchanged": (exchanged, 2),
    "somebody else's": (lambda one, _: os.chown(one, 12345, -1), 1),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_program_is_compiled_anew(how, no_cache_chosen, monkeypatch):
    if how == "somebody else's" and os.geteuid():
        pytest.skip("only root gives files away")
    compiled = []
    put = Programs.put

    def counted(self, key, program):
        compiled.append(key)
        put(self, key, program)

    monkeypatch.setattr(Programs, "put", counted)

    def run():
        """How many of two programs were compiled."""
        compiled.clear()
        with compilation_cache(), warnings.catch_warnings():
            warnings.simplefilter("error")
            found = [jax.jit(lambda x, n=n: n * x + n)(2.0) for n in (3.5, 5.5)]
        assert [float(each) for each in found] == [10.5, 16.5]
        return sum("lambda" in key for key in compiled)

    assert run() == 2
    damage, number = DAMAGES[how]
    damage(*no_cache_chosen.glob("*lambda*-cache"))
    assert run() == number
    assert run() == 0


def test_a_folder_of_somebody_else_is_not_used(no_cache_chosen, monkeypatch, caplog):
    def refuse(name):
        raise PermissionError(1, "it is somebody else's", name)

    monkeypatch.setattr(cache, "private_folder", refuse)
    before = settings()
    with compilation_cache():
        assert settings() == before
    assert "not kept for the next run: [Errno 1] it is somebody else's" in caplog.text
    caplog.clear()
    with compilation_cache(quiet=True):
        assert not caplog.records


def test_a_jax_that_keeps_them_otherwise_keeps_none(
    no_cache_chosen, monkeypatch, caplog
):
    for other in (None, lambda path, more: None):
        monkeypatch.setattr(cache.jax_cache, cache.OPENS, other)
        with compilation_cache():
            jax.jit(lambda x: 7.5 * x)(2.0)
        assert "keeps them in a way not known here" in caplog.text
        assert not no_cache_chosen.exists()


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
