"""Long and large runs: memory, threads, files and the time of a chunk stay the same."""

import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tests.conftest import compiled_soon, make_dataset

EPOCHS = 2000


class Row(NamedTuple):
    """What a process holds at the end of a chunk."""

    memory: float  # MiB
    threads: int
    descriptors: int
    files: int  # in the run folder
    log: int  # bytes
    seconds: float  # of CPU, of the chunk


# More at the end than early; TensorStore 0.1.86 loses some 20 kB at a checkpoint.
MOST = {"memory": 64, "threads": 8, "descriptors": 10, "files": 20}


def long(tally: Any, scratch: Path, rng: random.Random, tries: Iterator[int]) -> None:
    """A population of 1,024, and 2,000 epochs with as many checkpoints."""
    del rng
    watched(tally, scratch / "large", 1024, iter(range(150)))
    watched(tally, scratch / "long", 2, tries)


def watched(tally: Any, folder: Path, members: int, tries: Iterator[int]) -> None:
    """Train as long as there are tries, with a checkpoint after each epoch."""
    from dlworkshop import fit, models  # noqa: PLC0415

    rows: list[Row] = []
    last = [time.process_time()]

    def watch(snapshot):
        if next(tries, None) is None:
            return np.ones(members, bool)
        now = time.process_time()
        rows.append(look(folder, now - last[0]))
        last[0] = now
        return None

    with compiled_soon():
        fit(
            models.logistic(4),
            make_dataset((48, 40, 33)),
            seeds=members,
            num_epochs=EPOCHS,
            batch_size=16,
            save_every_steps=3,
            steps_per_chunk=3,
            devices=jax.devices()[:1],
            observe=[watch],
            workdir=folder,
            quiet=True,
        )
    compare(tally, f"{members:,} members, {len(rows):,} epochs and checkpoints", rows)


def compare(tally: Any, name: str, rows: list[Row]) -> None:
    """The last tenth with the first, without the very beginning."""
    if len(rows) < 20:
        tally.figure(f"{name}: too few to tell")
        return
    tenth = len(rows) // 10
    parts = rows[tenth : 2 * tenth], rows[-tenth:]
    early, late = (Row(*np.median(part, axis=0).tolist()) for part in parts)
    for field in Row._fields:
        if field != "log":
            one, two = getattr(early, field), getattr(late, field)
            tally.figure(f"{name}: {field} {one:.4g}, later {two:.4g}")
    half = len(rows) // 2
    grown = rows[half].log - rows[0].log, rows[2 * half - 1].log - rows[half].log
    tally.figure(f"{name}: log {grown[0]:,} bytes, later {grown[1]:,}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tally.figure(f"{name}: at most {peak:,.0f} MiB")
    wrong = [
        n for n, most in MOST.items() if getattr(late, n) - getattr(early, n) > most
    ]
    if late.seconds > 1.5 * early.seconds:
        wrong.append("seconds")
    if not 0.8 < grown[1] / grown[0] < 1.25:
        wrong.append("log")
    if wrong:
        tally.wrong(f"{name}: {', '.join(wrong)}", f"{early} {late}")
    else:
        tally.good(name)


def look(folder: Path, seconds: float) -> Row:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Row(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
        sum(len(files) for _, _, files in os.walk(folder)),  # some just go
        (folder / "metrics.jsonl").stat().st_size,
        seconds,
    )
