"""Signals in each phase of a run: how long until it has ended, and what it said."""

import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tests import conftest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SOON = 5.0  # seconds in which a run has to be gone
HANGS = 60.0
EXPERIMENT = Path(__file__).parents[2] / "experiments" / "digits.py"


def places(phase: str) -> tuple[Any, str]:
    """Where a phase begins: an object and the name of what is called there."""
    from dlworkshop import report  # noqa: PLC0415
    from dlworkshop.train import conclusion  # noqa: PLC0415
    from dlworkshop.train.checkpoints import Checkpoints  # noqa: PLC0415
    from dlworkshop.train.programs import Programs  # noqa: PLC0415

    return {
        "reading data": (conftest, "make_dataset"),
        "compiling": (jax.stages.Lowered, "compile"),
        "compiling in training": (jax.stages.Lowered, "compile"),
        "training": (Programs, "chunk"),
        "saving": (Checkpoints, "save"),
        "final evaluation": (conclusion, "evaluate_split"),
        "report": (report, "write"),
    }[phase]


PHASES = ["reading data", "compiling", "compiling in training", "training", "saving"]
PHASES += ["final evaluation", "report"]


def large() -> jax.stages.Lowered:
    """A program that takes XLA half a minute or more."""

    def chain(x):
        for number in range(3000):
            x = jnp.sin(x) * number + jnp.cos(x @ x)
        return x

    return jax.jit(chain).lower(jnp.ones((2, 2)))


def tell(phase: str, descriptor: int) -> None:
    """Write a byte as soon as the phase begins, and let it last."""
    from dlworkshop.train import signals  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    owner, name = places(phase)
    whole, told = getattr(owner, name), []

    @functools.wraps(whole)
    def begun(*args, **kwargs):
        early = phase.endswith("in training") and not signals._main.training
        if not told and not early:
            told.append(phase)
            program = large() if phase.startswith("compiling") else None
            os.write(descriptor, b"x")
            if program is not None:
                whole(program)
            if phase == "reading data":
                time.sleep(0.2)
        return whole(*args, **kwargs)

    setattr(owner, name, begun)


def signals(tally: Any, forks: Any, rng: random.Random, tries: Iterator[int]) -> None:
    """Each signal in each phase, once and twice; then the run goes on."""
    folder, seconds = forks.scratch / "run", defaultdict(list)
    cases = list(itertools.product((1, 2), SIGNALS, PHASES))
    rng.shuffle(cases)
    for _, (times, signum, phase) in zip(tries, itertools.cycle(cases), strict=False):
        ready, begins = os.pipe()
        child = forks.begin(folder, before=functools.partial(tell, phase, begins))
        os.close(begins)
        os.read(ready, 1)
        os.close(ready)
        time.sleep(rng.uniform(0, 1.0 if phase.startswith("compiling") else 0.1))
        sent = time.monotonic()
        for number in range(times):
            time.sleep(number * rng.choice([0.01, 0.1, 0.5]))
            os.kill(child, signum)  # it may have ended, and is still to be waited for
        code, said = forks.end(child, HANGS)
        taken = time.monotonic() - sent
        what = f"{phase}, {'once' if times == 1 else 'twice'}"
        where = f"{signal.Signals(signum).name} {what}, {taken:.1f} s, code {code}: "
        lines = [line for line in said.splitlines() if "stopped by SIG" in line]
        if code == 0 and phase == "report":
            tally.good(f"{what}: it was written by then")
        elif (
            not ended_by(code, signum, times) or len(lines) != 1 or "Traceback" in said
        ):
            tally.wrong(what, where + said)
        elif taken > SOON:
            tally.wrong(f"{what}: late", where)
        else:
            tally.good(f"{what}: one sentence and 128 + n")
            seconds[what].append(taken)
        code, said = forks.run(folder)
        if code:
            tally.wrong("does not resume", where + said)
        elif differ := forks.differing(folder):
            tally.wrong("other bits", f"{where}{differ}")
        forks.remove(folder)
    for what, taken in sorted(seconds.items()):
        middle = sorted(taken)[len(taken) // 2]
        tally.figure(
            f"{what}: n = {len(taken)}, {middle:.1f}, at most {max(taken):.1f} s"
        )
    importing(tally, forks.scratch, rng)


def ended_by(code: int | str, signum: int, times: int) -> bool:
    """Whether a process says that a signal ended it; a shell sees 128 + n in any case.

    The second of two signals may end a process that is already leaving.
    """
    return code == 128 + signum or (times == 2 and code == -signum)


def importing(tally: Any, scratch: Path, rng: random.Random, number: int = 6) -> None:
    """While a script imports what it needs, Python itself answers: figures only."""
    found = defaultdict(list)
    for signum in SIGNALS * (number // 3):
        script = subprocess.Popen(
            [sys.executable, str(EXPERIMENT), "--workdir", str(scratch / "importing")],
            env={n: v for n, v in os.environ.items() if n != "LD_PRELOAD"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(rng.uniform(0.05, 0.8))
        sent = time.monotonic()
        script.send_signal(signum)
        _, said = script.communicate()
        kind = "a traceback" if "Traceback" in said else "a line" if said else "silent"
        how = f"importing, {signal.Signals(signum).name}: {kind}, {script.returncode}"
        found[how].append(time.monotonic() - sent)
    for how, taken in sorted(found.items()):
        tally.figure(f"{how}: n = {len(taken)}, at most {max(taken):.1f} s")
