"""Inject faults at every moment: kills, signals, disk errors, damaged files.

    python scripts/torture.py --seconds 120
    python scripts/torture.py --parts kills disk --seconds 600 --seed 7
    python scripts/torture.py --parts long --tries 2000 --seconds 3600

After each fault the run must end with the same bits, or with one error message within
30 s. Each part ends after --seconds. The script needs the development requirements, and
`cc` to compile `torture.c`.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import errno
import functools
import importlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 30.0  # seconds until a failing disk is told of
HANGS = 100.0  # seconds after which a run is given up
PRELOADED = "TORTURE_PRELOADED"  # in the environment of the program that has the shim
ERRORS = {  # a name -> what the call says, and whether the disk stays so
    "ENOSPC for good": (errno.ENOSPC, True),
    "EDQUOT for good": (errno.EDQUOT, True),
    "EROFS for good": (errno.EROFS, True),
    "EIO": (errno.EIO, False),
    "EIO for good": (errno.EIO, True),
    "EACCES": (errno.EACCES, False),
    "ESTALE": (errno.ESTALE, False),
    "EMFILE": (errno.EMFILE, False),
}
Outcome = tuple[int | str, str]  # exit code, or "hangs", and what stderr says


def experiment(workdir: Path) -> None:
    """A small run of a script, saved after every chunk, with a report."""
    sys.path.insert(0, str(ROOT))
    from dlworkshop import fit, models  # noqa: PLC0415
    from dlworkshop.workshop import script  # noqa: PLC0415
    from tests.conftest import compiled_soon, make_dataset  # noqa: PLC0415

    def main(config: script.Config) -> Any:
        with compiled_soon():
            return fit(
                models.mlp((8,), dropout=0.2, num_classes=4),
                make_dataset(),
                hparams={"learning_rate": 0.03},
                seeds=config.seeds,
                num_epochs=2,
                batch_size=16,
                patience=2,
                steps_per_chunk=2,
                save_every_steps=2,
                workdir=config.workdir,
            )

    main.__module__ = "__main__"
    sys.argv = ["torture.py", "--workdir", str(workdir), "--seeds", "2"]
    script.start(main, script.Config)


@dataclasses.dataclass
class Forks:
    """Runs in child processes of this one, which has the imports that they need."""

    shim: ctypes.CDLL
    scratch: Path
    reads: int = 0  # of the last run, below the folder that a shim watches

    def run(
        self,
        workdir: Path,
        n: int = 0,
        error: int = 0,
        persists: bool = False,
        after: float | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """One run, whose n-th call fails or which is killed after `after` seconds."""
        child = self.begin(workdir, n, error, persists, before)
        return self.end(child, after or HANGS, "hangs" if after is None else -9)

    def begin(
        self,
        workdir: Path,
        n: int = 0,
        error: int = 0,
        persists: bool = False,
        before: Callable[[], None] = lambda: None,
    ) -> int:
        """Start the process of a run, which calls `before` first."""
        self.begun = time.monotonic()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                with self._said(os.getpid()).open("wb") as file:
                    os.dup2(file.fileno(), 2)
                    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                self.shim.torture(bytes(workdir.absolute()), n, error, persists)
                before()
                experiment(workdir)
                code = 0
            except SystemExit as left:
                code = int(left.code or 0)
            except BaseException:
                import traceback  # noqa: PLC0415

                traceback.print_exc()
            finally:
                calls = self.shim.torture_calls(), self.shim.torture_reads_seen()
                (self.scratch / "calls").write_text(json.dumps(calls))
                sys.stderr.flush()
                os._exit(code)
        return child

    def end(self, child: int, within: float, late: int | str = "hangs") -> Outcome:
        """The outcome of a run, which is killed if it does not end by itself."""
        outcome = late
        while time.monotonic() - self.begun < within:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                outcome = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.01)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.seconds = time.monotonic() - self.begun
        # it is missing or torn if the process was killed
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            self.calls, self.reads = json.loads((self.scratch / "calls").read_text())
        said = self._said(child).read_text()
        self._said(child).unlink()
        return outcome, said

    def _said(self, child: int) -> Path:
        return self.scratch / f"stderr-{child}"

    def remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    @functools.cached_property
    def whole(self) -> tuple[Path, int, float]:
        """A run without faults, its number of calls that change a file, and seconds."""
        folder = self.scratch / "whole"
        code, said = self.run(folder)
        assert code == 0, said
        return folder, self.calls, self.seconds

    def differing(self, folder: Path, like: Path | None = None) -> list[str]:
        """Parts of a run that differ from another, by default one without faults."""
        return differing(folder, contents(like or self.whole[0]))


def contents(folder: Path) -> dict[str, Any]:
    """The contents that must not depend on interruptions."""
    summary = json.loads((folder / "summary.json").read_text())
    found: dict[str, Any] = {
        name: (folder / name).read_bytes()
        for name in ("metrics.jsonl", "params.safetensors", "preprocessing.json")
    }
    for name in ("test", "validation", "population", "steps"):
        found[name] = summary[name]
    with np.load(folder / "predictions.npz") as file:
        found |= {name: file[name].tobytes() for name in file.files}
    found["report"] = (folder / "report.html").is_file()
    found["left over"] = [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]
    return found


def differing(folder: Path, wanted: dict[str, Any]) -> list[str]:
    found = contents(folder)
    return [name for name in wanted if found.get(name) != wanted[name]]


def until(seconds: float, tries: int | None) -> Iterator[int]:
    """0, 1, ... until the time is over or the number of tries is reached."""
    end = time.monotonic() + seconds
    for number in itertools.count() if tries is None else range(tries):
        if time.monotonic() >= end:
            return
        yield number


class Tally:
    """Counts of the outcomes; a wrong outcome is printed at once."""

    def __init__(self, part: str):
        self.part, self.counts, self.bad = part, Counter[str](), 0
        self.figures: list[str] = []

    def good(self, what: str) -> None:
        self.counts[what] += 1

    def wrong(self, what: str, details: str) -> None:
        self.counts[f"WRONG: {what}"] += 1
        self.bad += 1
        print(f"{self.part}: {what}: {details[:80]} ... {details[-900:]}", flush=True)

    def figure(self, text: str) -> None:
        self.figures.append(text)

    def show(self) -> None:
        print(f"{self.part}: tried {sum(self.counts.values()):,}, {self.bad} wrong")
        for what, number in self.counts.most_common():
            print(f"  {number:6,} {what}")
        for text in self.figures:
            print(f"  {text}", flush=True)


def kills(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """SIGKILL by the clock and at any call, again and again until a run finishes."""
    tally, folder = Tally("kills"), forks.scratch / "run"
    base, many, whole = forks.whole
    wanted = contents(base)
    for _ in tries:
        by_clock = rng.random() < 0.3
        n = 0 if by_clock else rng.choice([rng.randint(1, 60), rng.randint(1, many)])
        after = rng.uniform(0, whole) if by_clock else None
        code, said = forks.run(folder, n, after=after)
        if code == -signal.SIGKILL:
            tally.good("killed by the clock" if by_clock else "killed at a call")
            continue
        if code:
            tally.wrong("left with an error", said)
        elif differ := differing(folder, wanted):
            tally.wrong("other bits", f"{differ}")
        else:
            tally.good("finished with the same bits")
        shutil.rmtree(folder)
    return tally


def disk(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """A failing call: one error message, and the same bits after a second run."""
    tally, folder = Tally("disk"), forks.scratch / "run"
    base, many, _ = forks.whole
    wanted = contents(base)
    for _ in tries:
        name = rng.choice(sorted(ERRORS))
        n = rng.randint(1, many)
        code, said = forks.run(folder, n, *ERRORS[name])
        taken = forks.seconds
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        where = f"{name} at call {n}: "
        if code == "hangs" or taken > LIMIT:
            tally.wrong("hangs", f"{where}{taken:.0f} s {said}")
        elif "Traceback" in said or "never awaited" in said:
            tally.wrong("traceback", where + said)
        elif code == 2 and len(lines) == 1:
            tally.good(f"{name}: one sentence")
        elif code == 0:
            tally.good(f"{name}: not needed")
        else:
            tally.wrong(f"left with {code}", where + said)
        code, said = forks.run(folder)
        if code:
            tally.wrong("does not resume", where + said)
        elif differ := differing(folder, wanted):
            tally.wrong("other bits", f"{where}{differ}")
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def checkpoints(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """Files of the newest checkpoint cut, emptied, removed, or with a flipped bit."""
    tally, folder = Tally("checkpoints"), forks.scratch / "run"
    base, _, _ = forks.whole
    wanted = contents(base)
    for _ in tries:
        shutil.copytree(base, folder)
        (folder / "summary.json").unlink()
        newest = max((folder / "checkpoints").iterdir(), key=lambda p: int(p.name))
        file = rng.choice(sorted(p for p in newest.rglob("*") if p.is_file()))
        how = rng.choice(sorted(DAMAGES))
        DAMAGES[how](file, rng)
        code, said = forks.run(folder)
        where = f"{file.relative_to(newest)} {how}: "
        if code == 2 and "Traceback" not in said:
            tally.good(f"{how}: one sentence")
        elif code:
            tally.wrong(f"left with {code}", where + said)
        elif differ := differing(folder, wanted):
            tally.wrong("other bits", f"{where}{differ}")
        else:
            tally.good(f"{how}: the same bits, from this or the previous checkpoint")
        shutil.rmtree(folder)
    return tally


def _flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes() or b"\0")
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _cut(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(max(1, len(content)))])


DAMAGES: dict[str, Callable[[Path, random.Random], Any]] = {
    "flipped": _flip,
    "cut": _cut,
    "emptied": lambda file, rng: file.write_bytes(b""),
    "removed": lambda file, rng: file.unlink(),
}


def folders(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """Run folders with one thing changed, with their digests and without."""
    return in_child(forks, "fuzz", "folders", rng, tries)


def readers(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """Files of data and weights with one thing changed."""
    return in_child(forks, "fuzz", "readers", rng, tries)


def long(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """Many members, and many epochs, each with a checkpoint."""
    return in_child(forks, "long", "long", rng, tries)


def signals(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """Signals in each phase, once and twice."""
    return in_runs(forks, "phases", "signals", rng, tries)


def reading(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """A disk that fails while examples are read from it."""
    return in_runs(forks, "reading", "reading", rng, tries)


def programs(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """Damaged files of compiled programs."""
    damages = {name: damage for name, damage in DAMAGES.items() if name != "removed"}
    return in_runs(forks, "caches", "programs", rng, tries, damages)


def together(forks: Forks, rng: random.Random, tries: Iterator[int]) -> Tally:
    """Several runs at once, with cold caches."""
    return in_runs(forks, "caches", "together", rng, tries)


def in_runs(
    forks: Forks,
    module: str,
    part: str,
    rng: random.Random,
    tries: Iterator[int],
    *more: Any,
) -> Tally:
    """A part of tests/faults that starts runs."""
    tally = Tally(part)
    work = getattr(importlib.import_module(f"tests.faults.{module}"), part)
    work(tally, forks, rng, tries, *more)
    return tally


def in_child(
    forks: Forks, module: str, part: str, rng: random.Random, tries: Iterator[int]
) -> Tally:
    """A part of tests/faults in a child, because JAX should not be forked later."""
    work = getattr(importlib.import_module(f"tests.faults.{module}"), part)
    tally, file = Tally(part), forks.scratch / f"{part}.json"
    child = os.fork()
    if child == 0:
        with contextlib.suppress(KeyboardInterrupt):
            work(tally, forks.scratch, rng, tries)
        file.write_text(json.dumps([dict(tally.counts), tally.bad, tally.figures]))
        os._exit(0)
    os.waitpid(child, 0)
    if file.exists():
        counts, tally.bad, tally.figures = json.loads(file.read_text())
        tally.counts = Counter(counts)
    else:
        tally.wrong("the child died", "")
    return tally


ALL = kills, signals, disk, reading, checkpoints, programs, folders, readers, together
PARTS = {part.__name__: part for part in (*ALL, long)}


def preloaded(scratch: Path) -> ctypes.CDLL:
    """The shim; the program restarts itself with the shim preloaded if needed."""
    library = scratch / "torture.so"
    if PRELOADED not in os.environ:
        source = str(Path(__file__).with_name("torture.c"))
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"]
        subprocess.run(command, check=True)
        more = {"LD_PRELOAD": str(library), PRELOADED: str(scratch)}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **more})
    return ctypes.CDLL(str(library))


def main() -> None:
    """Run each part in turn; exits with status 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="duration of each part"
    )
    parser.add_argument(
        "--tries", type=int, help="largest number of tries of each part"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    scratch = Path(os.environ.get(PRELOADED) or tempfile.mkdtemp(prefix="torture-"))
    shim = preloaded(scratch)
    sys.path.insert(0, str(ROOT))
    from orbax.checkpoint import v1  # noqa: F401, PLC0415

    # what a run imports late, once for all children
    for late in ("train.fit", "models", "report.page", "workshop.script"):
        importlib.import_module(f"dlworkshop.{late}")
    forks, bad = Forks(shim, scratch), 0
    for name in args.parts:
        rng, tries = (
            random.Random(f"{name} {args.seed}"),
            until(args.seconds, args.tries),
        )
        tally = PARTS[name](forks, rng, tries)
        tally.show()
        bad += tally.bad
        shutil.rmtree(scratch / "run", ignore_errors=True)
    shutil.rmtree(scratch)
    raise SystemExit(int(bad > 0))


if __name__ == "__main__":
    main()
