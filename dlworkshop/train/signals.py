"""SIGTERM and Ctrl-C: noticed between chunks, so that nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator

INTERRUPTED = signal.SIGINT


class Caught:
    """The first signal that came, or none; a second one ends the program at once."""

    signum: int | None = None

    @property
    def name(self) -> str:
        return signal.Signals(self.signum or 0).name


@contextlib.contextmanager
def caught() -> Iterator[Caught]:
    """Note SIGTERM, SIGINT and SIGUSR1 instead of dying of them.

    Only the main thread may ask for signals; elsewhere they keep their meaning, as one
    does whose handler is not Python's and could not be put back.
    """
    seen = Caught()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {signum: signal.getsignal(signum) for signum in wanted}
    watched = [signum for signum in wanted if before[signum] is not None]

    def note(signum, _frame):
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
