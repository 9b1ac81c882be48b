"""A signal ends a program with one line and 128 + n, whatever it is doing."""

import signal
import subprocess
import sys
import time

import pytest

CODE = """
import ctypes, signal, sys, threading, time
from dlworkshop.train import signals
signals.GRACE = 0.3
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and after nohup
{before}
try:
    with signals.exit_on_signal("go on"):
        {work}
finally:
    print("cleaned up", flush=True)
"""
SLEEP = "print('ready', flush=True); time.sleep(20)"
DEAF = """
        while True:
            try:
                print("ready", flush=True)
                time.sleep(20)
            except BaseException:
                print("swallowed", flush=True)
"""
STUCK = """
        mutex = ctypes.create_string_buffer(64)
        lock = ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        print("ready", flush=True)
        lock(mutex)  # for ever; no handler of Python's runs
"""


COMPILES = """
        import jax
        import jax.numpy as jnp

        def chain(x):
            for number in range(600):
                x = jnp.sin(x) * number + jnp.cos(x @ x)
            return x

        program = jax.jit(chain).lower(jnp.ones((2, 2)))
        print("ready", flush=True)
        program.compile()
"""
LOSES = """
        class Loses:
            def __del__(self):
                print("ready", flush=True)
                time.sleep(20)

        Loses()
"""


def signalled(work, *signums, before="", stuck=False):
    """Exit status, stdout and stderr of a program that is sent signals at work."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE.format(work=work, before=before)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        said = program.stdout.readline()
        for number, signum in enumerate(signums):
            if stuck:
                time.sleep(0.2)  # it says nothing more
            elif number:
                said += program.stdout.readline()  # the one before was seen
            program.send_signal(signum)
        try:
            out, err = program.communicate(timeout=10)
        finally:
            program.kill()
    return program.returncode, said + out, err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_one_line_and_an_orderly_end(name):
    signum = signal.Signals[name]
    code, out, err = signalled(SLEEP, signum)
    assert code == 128 + signum
    assert out == "ready\ncleaned up\n"
    assert err == f"stopped by {name}: go on\n"


def test_whoever_swallows_the_exception_is_ended():
    code, out, err = signalled(DEAF, signal.SIGTERM)
    assert (code, out) == (143, "ready\nswallowed\nready\n")
    assert err == "stopped by SIGTERM: go on\n"


def test_a_second_signal_ends_it_at_once():
    before = "signals.GRACE = 60"
    code, out, _ = signalled(DEAF, signal.SIGTERM, signal.SIGINT, before=before)
    assert code == 130 and out.startswith("ready\nswallowed\n")
    assert "cleaned up" not in out


@pytest.mark.parametrize("where", ["", "with signals.deferred(), signals.compiling():"])
def test_what_gives_no_time_to_a_handler_is_ended(where):
    work = where + STUCK.replace("\n", "\n    ") if where else STUCK
    code, out, err = signalled(work, signal.SIGTERM, stuck=True)
    assert (code, out, err) == (143, "ready\n", "stopped by SIGTERM: go on\n")


def test_a_second_signal_ends_that_at_once():
    before, signums = "signals.GRACE = 60", (signal.SIGHUP, signal.SIGTERM)
    code, out, err = signalled(STUCK, *signums, before=before, stuck=True)
    assert (code, out) == (143, "ready\n") and err.count("\n") == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_compiler_is_not_unwound(signum):
    code, out, err = signalled(COMPILES, signum, stuck=True)
    assert (code, out) == (128 + signum, "ready\n")
    assert err == f"stopped by {signum.name}: go on\n"


def test_an_exception_that_a_destructor_loses_is_not_shown():
    code, out, err = signalled(LOSES, signal.SIGTERM)
    assert err == "stopped by SIGTERM: go on\n"
    assert code in (0, 143) and out.startswith("ready\n")


def test_a_chunk_is_waited_for():
    work = """
        with signals.deferred() as seen:
            print("ready", flush=True)
            time.sleep(1)  # more than GRACE
            print("saved after", signal.Signals(seen.signum).name, flush=True)
            raise SystemExit(128 + seen.signum)
"""
    code, out, err = signalled(work, signal.SIGINT)
    assert (code, out) == (130, "ready\nsaved after SIGINT\ncleaned up\n")
    assert err == ""


def test_whoever_survives_a_signal_is_left_alone():
    work = """
        with signals.deferred() as seen:
            print("ready", flush=True)
            time.sleep(0.2)
            seen.clear()
        time.sleep(1)
"""
    code, out, err = signalled(work, signal.SIGINT)
    assert (code, out, err) == (0, "ready\ncleaned up\n", "")


def test_what_is_ignored_stays_ignored():
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    work = SLEEP.replace("20", "0.5")
    code, out, err = signalled(work, signal.SIGHUP, before=before)
    assert (code, out, err) == (0, "ready\ncleaned up\n", "")


def test_a_program_that_trains_nothing_has_nothing_to_save():
    code, out, err = signalled(SLEEP.replace("20", "0.5"), signal.SIGUSR1)
    assert (code, out) == (0, "ready\ncleaned up\n")
    assert err == "SIGUSR1: nothing is being trained, and nothing was saved\n"


def test_handlers_are_put_back():
    code = """
import signal
from dlworkshop.train import signals
before = signal.getsignal(signal.SIGTERM)
with signals.exit_on_signal("go on"):
    assert signal.getsignal(signal.SIGTERM) is not before
assert signal.getsignal(signal.SIGTERM) is before
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
