"""What each of several processes that share a sweep runs in the tests."""

import os
import sys
import time
from pathlib import Path
from signal import SIGKILL

import numpy as np

from dlworkshop import data, models
from dlworkshop.sweeps.sweep import sweep


def points():
    """Three classes of 203 points; the same in every process."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(203, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0)
    return data.from_arrays(x, y, seed=0)


def network(width):
    return models.mlp((width,), num_classes=3)


def search(**changes):
    """Six trials, three at a time."""
    import optuna  # noqa: PLC0415 (an extra)

    rates = optuna.distributions.FloatDistribution(1e-3, 0.1, log=True)
    settings = {
        "hparams": {"width": 4, "learning_rate": rates},
        "sampler": optuna.samplers.RandomSampler,
        "num_trials": 6,
        "trials_at_once": 3,
        "seeds": 2,
        "num_epochs": 3,
        "batch_size": 16,
        "steps_per_chunk": 3,
        "save_every_steps": 3,
        "quiet": True,
    }
    return sweep(network, points(), **settings | changes)


def killed(go):
    """An observer that waits in the third chunk for a file, and is killed."""
    seen = []

    def observer(snapshot):
        seen.append(snapshot.step)
        if len(seen) == 3:
            while not go.exists():
                time.sleep(0.02)
            os.kill(os.getpid(), SIGKILL)

    return observer


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    search(workdir=folder, observe=[killed(folder / "go")])
