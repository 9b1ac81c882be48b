"""Run all experiments at their default settings and build a static site."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dlworkshop.errors import UserError, check_known
from dlworkshop.report import gallery
from dlworkshop.report.gallery import Entry
from dlworkshop.workshop.lessons import FOLDER

LECTURE = {  # chapters of the lecture -> experiments
    "Fully connected networks": (
        "logistic_regression",
        "feedforward",
        "softmax",
        "xor",
        "activations",
        "batch_forwarding",
        "backpropagation",
        "gradient_cost",
        "universal_approximation",
    ),
    "Deep learning": ("data_size", "why_depth", "learning_depth"),
    "Convolutional networks": (
        "convolution",
        "why_convolution",
        "pooling",
        "cnn_features",
    ),
    "The framework": ("jax_in_ten_minutes", "components"),
    "Your own model": (
        "digits",
        "mnist_mlp",
        "mnist_cnn",
        "mnist_speedrun",
        "own_data",
        "vgg16",
        "vgg16_transfer",
    ),
    "Populations": (
        "learning_rate_limit",
        "learning_rate_finder",
        "halving",
        "seeds",
        "vmap_vs_loop",
        "compiling",
    ),
}


def build(
    folder: Path, experiments: Path = FOLDER, only: Sequence[str] = ()
) -> list[Entry]:
    """Run the experiments one after the other and write `folder/index.html`.

    The index is written again after each experiment, so that it can be viewed at any
    time. An experiment that cannot run, for example without its data, is listed with
    its error message; claims that fail are marked.

    Args:
        folder: of the site; it contains the run folders of the experiments.
        experiments: the folder of the scripts.
        only: names of experiments; without names all of them are run.

    Returns:
        The entries in order; `problem` is "" for experiments with a report.

    Raises:
        UserError: if the folder contains no experiments, or not one of `only`.
    """
    chapters = _chapters(experiments, only)
    entries = [entry for chapter in chapters.values() for entry in chapter]
    if not entries:
        raise UserError(f"{experiments} contains no experiments: give their folder")
    folder.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(entries, start=1):
        print(f"{number}/{len(entries)} {entry.name}", end=" ", flush=True)
        done = _run(experiments / f"{entry.name}.py", folder / entry.name)
        verdict = done.problem or ("" if done.holds else "A CLAIM FAILS")
        print(f"{done.seconds:.0f} s {verdict}", flush=True)
        chapters = {
            title: [done if e.name == done.name else e for e in chapter]
            for title, chapter in chapters.items()
        }
        gallery.write(folder, chapters)
    return [entry for chapter in chapters.values() for entry in chapter]


def _chapters(experiments: Path, only: Sequence[str]) -> dict[str, list[Entry]]:
    there = {path.stem for path in experiments.glob("*.py")}
    for name in only:
        check_known("experiment", name, there)
    there &= set(only) or there
    known = [name for names in LECTURE.values() for name in names]
    chapters = {
        title: [Entry(name) for name in names if name in there]
        for title, names in LECTURE.items()
    }
    chapters["More"] = [Entry(name) for name in sorted(there - set(known))]
    return {title: entries for title, entries in chapters.items() if entries}


def _run(script: Path, workdir: Path) -> Entry:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), "--workdir", str(workdir.absolute())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    seconds = time.perf_counter() - began
    if done.returncode < 0:  # as by the kernel, if there is no memory left
        name = signal.Signals(-done.returncode).name
        return Entry(script.stem, seconds, f"Killed by {name}.", holds=False)
    crashed = "Traceback (most recent call last)" in done.stderr
    if done.returncode == 0 or (done.returncode == 1 and not crashed):
        return Entry(script.stem, seconds, holds=done.returncode == 0)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    problem = said[-1] if said else f"Exit status {done.returncode}, without a message."
    return Entry(script.stem, seconds, problem, holds=not crashed)
