"""SIGTERM, Ctrl-C and a closed terminal: answered at any time, and nothing is lost.

While a run trains, `caught` notes them and the run saves itself between two chunks. A
script or a command that does anything else is within `answered` and just ends.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

INTERRUPTED = signal.SIGINT


GRACE = 3.0  # seconds to end in an orderly way


@contextlib.contextmanager
def answered(sentence: str) -> Iterator[None]:
    """End the program by SystemExit(128 + n) and one line at SIGINT, SIGTERM, SIGHUP.

    SIGUSR1, which asks a run that trains for a checkpoint, is answered by one line.

    Where nobody lets the exception through (one that is raised in a callback of XLA's
    is lost, and a compiler takes its time) the program ends without it after GRACE
    seconds, and at a second signal at once. What is ignored stays so, as after nohup.
    Only for programs, and only their main thread.

    Args:
        sentence: what to do next, after "stopped by SIGTERM: ".
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        signum: signal.getsignal(signum)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    watched = [n for n, how in before.items() if how not in (signal.SIG_IGN, None)]

    def end(signum, _frame):
        code = 128 + signum
        for each in watched:
            signal.signal(each, lambda again, _: os._exit(128 + again))
        line = f"stopped by {signal.Signals(signum).name}: {sentence}\n"
        os.write(2, line.encode())  # print may be in the middle of something
        timer = threading.Timer(GRACE, os._exit, [code])
        timer.daemon = True
        timer.start()
        raise SystemExit(code)

    def idle(_signum, _frame):
        os.write(2, b"SIGUSR1: nothing is being trained, and nothing was saved\n")

    for signum in watched:
        signal.signal(signum, end)
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:  # which would end it
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, idle)
    try:
        yield
    finally:
        for signum, how in before.items():
            if how is not None:  # not of Python
                signal.signal(signum, how)


class Caught:
    """The first signal that came, or none; a second one ends the program at once."""

    signum: int | None = None
    save: bool = False  # SIGUSR1 came: a checkpoint is wanted, and then to go on

    @property
    def name(self) -> str:
        return signal.Signals(self.signum or 0).name


@contextlib.contextmanager
def caught() -> Iterator[Caught]:
    """Note SIGTERM, SIGINT, SIGHUP and SIGUSR1 instead of dying of them.

    The first three end the run, SIGUSR1 wants a checkpoint of one that goes on. Only
    the main thread may ask for signals; elsewhere they keep their meaning, as one does
    whose handler is not Python's and could not be put back.
    """
    seen = Caught()
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
    try:
        yield seen
    finally:
        for signum in watched:
            signal.signal(signum, before[signum])
