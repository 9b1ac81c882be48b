"""Handling of SIGTERM, SIGINT, SIGHUP and SIGUSR1 at any time.

While a run trains, `deferred` records signals, and the run saves a checkpoint between
two chunks. At other times, `exit_on_signal` ends a script or a command.

Python calls a handler only when the main thread returns from C code, and a compiler may
run for minutes. So a thread of `exit_on_signal` receives signals as they arrive, and
ends the program if the main thread does not.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

GRACE = 3.0  # seconds for an orderly end
COMPILER = os.path.join("jax", "_src", "compiler.py")


class _Main:
    """The state of the main thread, for the thread that watches it."""

    pending: int | None = None  # the signal that ends the program
    training: bool = False  # it ends by itself, after saving
    compiling: bool = False  # there is nothing to save meanwhile


_main = _Main()


@contextlib.contextmanager
def exit_on_signal(sentence: str) -> Iterator[None]:
    """End the program by SystemExit(128 + n) and one line at SIGINT, SIGTERM, SIGHUP.

    SIGUSR1, which requests a checkpoint of a run that trains, only prints a line.

    If the exception does not end the program (an exception in a callback of XLA is
    lost, and a compiler may run for long), the program exits after GRACE seconds, or at
    a second signal. Ignored signals stay ignored, as after nohup. This is for programs,
    not for libraries, and works in the main thread only.

    Args:
        sentence: what to do next; printed after "stopped by SIGTERM: ".
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        signum: signal.getsignal(signum)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    watched = [n for n, how in before.items() if how not in (signal.SIG_IGN, None)]
    announced: list[int] = []

    def announce(signum):
        if not announced:
            announced.append(signum)
            line = f"stopped by {signal.Signals(signum).name}: {sentence}\n"
            os.write(2, line.encode())  # print is not reentrant

    def end(signum, frame):
        if _is_compiling(frame):
            end_now(signum)
        announce(signum)
        raise SystemExit(128 + signum)

    def end_now(signum):
        announce(signum)
        os._exit(128 + signum)

    def lost(unraisable):  # an exception in a callback or a destructor
        if not (announced and isinstance(unraisable.exc_value, SystemExit)):
            shows(unraisable)

    def idle(_signum, _frame):
        os.write(2, b"SIGUSR1: nothing is being trained, and nothing was saved\n")

    shows, sys.unraisablehook = sys.unraisablehook, lost
    for signum in watched:
        signal.signal(signum, end)
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:  # ends the program
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, idle)
    arrived, arrives = os.pipe()
    os.set_blocking(arrives, False)
    others = signal.set_wakeup_fd(arrives, warn_on_full_buffer=False)
    watching = threading.Thread(target=_watch, args=(arrived, watched, end_now))
    watching.daemon = True
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(others)
        os.close(arrives)
        watching.join()
        os.close(arrived)
        sys.unraisablehook = shows
        for signum, how in before.items():
            ends = bool(announced) and how is signal.default_int_handler
            if how is not None:  # None: the handler was not set from Python
                # a second Ctrl-C of a program that ends is no traceback either
                signal.signal(signum, signal.SIG_DFL if ends else how)


def _is_compiling(frame: FrameType | None) -> bool:
    """Whether a signal interrupted XLA's compiler.

    It goes on in another thread, with data that an exception would free.
    """
    while frame is not None:
        if frame.f_code.co_filename.endswith(COMPILER):
            return True
        frame = frame.f_back
    return False


def _watch(arrived: int, watched: list[int], end_now) -> None:
    """Read the numbers of signals from a pipe until it is closed."""
    _main.pending, since = None, 0.0
    while True:
        wait: float | None = None if _main.pending is None else 0.05
        if select.select([arrived], [], [], wait)[0]:
            numbers = os.read(arrived, 64)
            if not numbers:
                return
            for signum in numbers:
                if signum in watched and _main.pending is not None:
                    end_now(signum)
                if signum in watched:
                    _main.pending, since = signum, time.monotonic()
        if _main.pending is None or (_main.training and not _main.compiling):
            since = time.monotonic()
        elif time.monotonic() - since > GRACE:
            end_now(_main.pending)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Mark the main thread as compiling: a signal does not wait for that."""
    _main.compiling = True
    try:
        yield
    finally:
        _main.compiling = False


class PendingSignal:
    """The first signal that arrived, if any; a second one ends the program at once."""

    signum: int | None = None
    save: bool = False  # SIGUSR1 arrived: save a checkpoint, and continue

    def clear(self) -> None:
        """Forget the signal, which ends the training but not the program."""
        _main.pending = None


@contextlib.contextmanager
def deferred() -> Iterator[PendingSignal]:
    """Record SIGTERM, SIGINT, SIGHUP and SIGUSR1 instead of acting on them.

    The first three end the run; SIGUSR1 requests a checkpoint. Only the main thread can
    set handlers; in other threads signals keep their meaning. So does a signal whose
    handler was not set from Python, because that could not be restored.
    """
    seen = PendingSignal()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = {signum: signal.getsignal(signum) for signum in wanted}
    watched = [signum for signum in wanted if before[signum] is not None]
    if before[signal.SIGHUP] == signal.SIG_IGN:  # nohup
        watched.remove(signal.SIGHUP)

    def note(signum, _frame):
        if signum == signal.SIGUSR1:
            seen.save = True
            return
        seen.signum = signum
        for each in watched:
            signal.signal(each, before[each])

    for signum in watched:
        signal.signal(signum, note)
    _main.training = True
    try:
        yield seen
    finally:
        _main.training = False
        for signum in watched:
            signal.signal(signum, before[signum])
