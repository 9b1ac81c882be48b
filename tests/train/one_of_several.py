"""What each of several processes runs in the tests: a script of a user's own."""

import itertools
import json
import math
import os
import sys

import numpy as np

from dlworkshop import data, fit, models, sweep
from dlworkshop.errors import UserError
from dlworkshop.report import terminal
from dlworkshop.train import autotune, processes
from dlworkshop.workshop import launch


def sending(chunks, signum):
    """An observer that sends this process a signal at the end of so many chunks."""
    seen = itertools.count(1)

    def observer(snapshot):
        if next(seen) == chunks:
            os.kill(os.getpid(), signum)

    return observer


def images(**changes):
    """A small network with a convolution, whose computation is measured."""
    autotune.WORTH = {"cpu": 0.0}
    autotune.SAVED = math.inf
    autotune.LASTING = 0.0
    autotune.search_space = lambda *_: {"convolution": ["patches", "shifts"]}
    x = np.random.default_rng(0).normal(size=(60, 4, 4, 1)).astype(np.float32)
    dataset = data.from_arrays(x, x[:, 0, 0, 0] > 0, seed=0)
    return fit(models.cnn((2,), (), num_classes=2), dataset, batch_size=16, **changes)


def train(sends=None, **changes):
    """Three classes of 203 points; the same in every process."""
    if changes.pop("images", False):
        return images(**changes)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(203, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)
    settings = {"seeds": 4, "num_epochs": 4, "batch_size": 16, "steps_per_chunk": 3}
    settings |= {"hparams": {"learning_rate": 0.01}}
    settings |= {"observe": [sending(*sends)] if sends else []}
    dataset, model = data.from_arrays(x, y, seed=0), models.mlp((8,), num_classes=3)
    if changes.pop("sweep", False):
        return sweep(model, dataset, **settings | changes).run
    return fit(model, dataset, **settings | changes)


def main():
    place, changes, result = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    coordinator, num_processes, process_id = place.split(",")
    try:
        with (
            terminal.messages(),
            launch.joined(coordinator, int(num_processes), int(process_id)),
        ):
            run = train(**changes)
            if processes.is_first() and "images" not in changes:
                np.savez(result, **run.params["Dense_0"], mesh=run.summary["mesh"])
    except UserError as error:
        terminal.print_error(error)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
