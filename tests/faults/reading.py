"""A disk that fails while the examples are read from it: one sentence, then on."""

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests import conftest

ERRORS = {"EIO": errno.EIO, "ESTALE": errno.ESTALE, "the file ends": 0}


def reading(tally: Any, forks: Any, rng: random.Random, tries: Iterator[int]) -> None:
    """The n-th call that reads prepared data fails, and all after it."""
    folder, base, home = (forks.scratch / n for n in ("run", "base", "streamed"))
    home.mkdir()
    path = home / "quadrants.npz"
    np.savez(path, **arrays())
    code, said = forks.run(base, before=lambda: prepared(path, home / "cache"))
    assert code == 0, said
    prepare = on_disk(path, home / "cache", forks, 0, 0)
    code, said = forks.run(base, before=prepare)
    assert code == 0, said
    many = forks.reads
    for _ in tries:
        name, n = rng.choice(sorted(ERRORS)), rng.randint(1, many)
        fails = on_disk(path, home / "cache", forks, n, ERRORS[name])
        code, said = forks.run(folder, before=fails)
        where = f"{name} at read {n} of {many}: "
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        if "Traceback" in said or "never awaited" in said:
            tally.wrong("traceback", where + said)
        elif code == 2 and len(lines) == 1:
            tally.good(f"{name}: one sentence")
        elif code == 0 and not forks.differing(folder, base):
            tally.good(f"{name}: the same bits all the same")
        else:
            tally.wrong(f"left with {code}", where + said)
        code, said = forks.run(folder, before=prepare)
        if code:
            tally.wrong("does not resume", where + said)
        elif differ := forks.differing(folder, base):
            tally.wrong("other bits", f"{where}{differ}")
        forks.remove(folder)


def arrays() -> dict[str, np.ndarray]:
    dataset = conftest.make_dataset()
    splits = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
    inputs = {f"x_{name}": np.asarray(split.inputs) for name, split in splits.items()}
    return inputs | {
        f"y_{name}": np.asarray(split.targets) for name, split in splits.items()
    }


def prepared(path: Path, cache: Path) -> None:
    """Leave the data as a run finds them, and end."""
    from dlworkshop import data  # noqa: PLC0415

    data.load(path, cache)
    raise SystemExit


def on_disk(
    path: Path, cache: Path, forks: Any, n: int, error: int
) -> Callable[[], None]:
    """Let a run stream its data from records whose n-th read fails."""

    def before() -> None:
        from dlworkshop import data  # noqa: PLC0415
        from dlworkshop.train import feeds  # noqa: PLC0415

        conftest.make_dataset = lambda: data.load(path, cache)
        feeds.fits = lambda *_: False
        forks.shim.torture_reads(bytes(cache), n, error)

    return before
