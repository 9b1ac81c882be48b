"""Is the memory of a streamed run bounded, whatever the size of the data?

    python scripts/stream_memory.py --data FOLDER

The script trains logistic regression, so that reading is nearly all of the work, and
prints the resident memory of the process at the end of each tenth of the time:
allocated memory, and pages of mapped files.
"""

import argparse
import sys
import threading
import time
from pathlib import Path

import numpy as np

from dlworkshop import data, fit, models
from dlworkshop.errors import UserError

TENTHS, PERIOD = 10, 0.05  # seconds between two looks


def resident() -> tuple[float, float]:
    """Resident memory of this process in MB: allocated, and mapped files (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    kilobytes = [int(found[name].split()[0]) for name in ("RssAnon", "RssFile")]
    return kilobytes[0] / 1e3, kilobytes[1] / 1e3


def refused(error: UserError) -> int:
    """Print a user's mistake; returns the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def main() -> int:
    """Train and watch the memory; returns 0, or 2 after a user's mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of images")
    parser.add_argument("--data-dir", type=Path, help="folder for the prepared data")
    parser.add_argument("--num-epochs", type=int, default=10)
    parser.add_argument(
        "--resident", action="store_true", help="keep the data in memory, do not stream"
    )
    args = parser.parse_args()
    try:
        dataset = data.load(args.data, args.data_dir)
    except UserError as error:
        return refused(error)
    train = dataset.train.inputs
    size = len(train) * int(np.prod(train.shape[1:])) * train.dtype.itemsize / 1e6
    seen: list[tuple[float, float]] = []
    done = threading.Event()

    def look() -> None:
        while True:
            seen.append(resident())
            if done.wait(PERIOD):
                return

    watcher = threading.Thread(target=look)
    model, started = models.logistic(len(dataset.classes)), time.perf_counter()
    with_feed = {"num_epochs": args.num_epochs, "streamed": not args.resident}
    watcher.start()
    try:
        run = fit(model, dataset, hparams={"learning_rate": 1e-3}, **with_feed)
    except UserError as error:
        return refused(error)
    finally:
        done.set()
        watcher.join()
    print(
        f"{args.num_epochs} epochs of {size:,.0f} MB, {run.summary['feed']}, in "
        f"{time.perf_counter() - started:.1f} s; MB at the end of each tenth:"
    )
    for name, column in zip(
        ("allocated", "files"), zip(*seen, strict=True), strict=True
    ):
        ends = [column[-(-(i + 1) * len(column) // TENTHS) - 1] for i in range(TENTHS)]
        print(f"{name:9} {' '.join(f'{value:6.0f}' for value in ends)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
