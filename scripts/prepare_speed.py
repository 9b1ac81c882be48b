"""How fast is a folder of images prepared, compared with decoding the same files?

    python scripts/prepare_speed.py --data FOLDER

For comparison, Pillow opens and decodes each file, with one process for each core, and
nothing is kept. Both take turns; the script prints medians in files per second.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dlworkshop import data
from dlworkshop.data.readers import folder, workers
from dlworkshop.errors import UserError

TURNS, TOGETHER = 3, 256  # files handed to a process at once


def decode(files: list[str]) -> int:
    """Decode all pixels of `files` as RGB and discard them."""
    for file in files:
        with Image.open(file) as image:
            np.asarray(image.convert("RGB"))
    return len(files)


def alone(files: list[str]) -> float:
    """Seconds of the decoder alone on all cores, without starting the processes."""
    parts = [files[i : i + TOGETHER] for i in range(0, len(files), TOGETHER)]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers.cores(), mp_context=spawned) as pool:
        list(pool.map(decode, parts[: workers.cores()]))
        started = time.perf_counter()
        list(pool.map(decode, parts))
        return time.perf_counter() - started


def prepared(path: Path) -> float:
    """Seconds of `data.load` on a folder that was not prepared before."""
    with tempfile.TemporaryDirectory() as empty:
        started = time.perf_counter()
        data.load(path, empty)
        return time.perf_counter() - started


def again(path: Path) -> float:
    """Seconds of a second load."""
    with tempfile.TemporaryDirectory() as cache:
        data.load(path, cache)
        started = time.perf_counter()
        data.load(path, cache)
        return time.perf_counter() - started


def main() -> int:
    """Measure in turns; returns 0, or 2 after a user's mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of images")
    path = parser.parse_args().data
    try:
        files = folder.listing(path).files
        prepared(path)  # every file has been read once: no turn waits for the disk
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    turns = [(alone(files), prepared(path)) for _ in range(TURNS)]
    for name, seconds in zip(
        ("decoder alone", "prepared"), zip(*turns, strict=True), strict=True
    ):
        rate = len(files) / statistics.median(seconds)
        each = ", ".join(f"{value:.2f}" for value in seconds)
        print(f"{name:13} {rate:8,.0f} files/s on {workers.cores()} cores ({each} s)")
    print(f"second load   {again(path):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
