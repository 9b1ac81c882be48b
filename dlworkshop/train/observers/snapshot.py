"""What observers are shown at the end of a chunk, and what they may answer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.train import processes
from dlworkshop.train.members import rounded


class Snapshot(NamedTuple):
    """The argument of an observer at the end of a chunk.

    It may answer which members [P] are to stop, or `Copies`. Those that stop
    keep the parameters that they have, or with `patience` their best.
    """

    step: int
    num_steps: int
    epoch: float  # passes over the training split
    train: Mapping[str, np.ndarray]  # name -> [P], of what was finite in the chunk
    validation: Mapping[str, np.ndarray] | None  # where an epoch has just ended
    hparams: Mapping[str, np.ndarray]  # name -> [P]
    seeds: list[int]  # [P]
    population: pop.Population  # on the devices: not to be kept, it will be given up
    score: np.ndarray | None  # [P] what is monitored, signed so that lower is better
    num_settings: int  # of which members are the first axis: [settings, seeds]

    @property
    def running(self) -> np.ndarray:
        """[P] bool, members that still train."""
        return processes.fetch(self.population.status) == pop.RUNNING


class Copies(NamedTuple):
    """An answer of an observer: some members go on as copies of others.

    A copy has the parameters, the states of model and optimizer, the status and the
    best parameters so far of its source; its seed stays its own. Members of one seed
    see the same batches: a copy with the hyper-parameters of its source is its source.
    """

    source: np.ndarray  # [P] int, the member that each continues, perhaps itself
    hparams: Mapping[str, np.ndarray]  # name -> [P], of all of them, from now on


def checked_copies(
    copies: Copies, hparams: Mapping[str, np.ndarray], seeds: Sequence[int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The sources [P] and the hyper-parameters, as a run computes with them.

    Args:
        copies: what an observer answered.
        hparams: before it: name -> [P].
        seeds: of the members [P].

    Raises:
        UserError: if they are not of these members.
    """
    size, source = len(seeds), np.asarray(copies.source)
    inside = source.dtype.kind in "iu" and ((source >= 0) & (source < size)).all()
    if source.shape != (size,) or not inside:
        raise UserError(
            f"an observer's Copies have the source {source.dtype}{list(source.shape)}: "
            f"give for each of {size} members the number of the one that it continues, "
            f"0 to {size - 1}"
        )
    if set(copies.hparams) != set(hparams):
        raise UserError(
            f"an observer's Copies have the hyper-parameters {sorted(copies.hparams)}: "
            f"give those of the run, {sorted(hparams)}"
        )
    found = {}
    for name in hparams:
        values = np.asarray(copies.hparams[name])
        number = values.dtype.kind in "iuf" and np.isfinite(values).all()
        if values.shape != (size,) or not number:
            raise UserError(
                f"an observer's Copies have {values.dtype}{list(values.shape)} for the "
                f"hyper-parameter '{name}': give a finite number for each of {size} "
                "members"
            )
        found[name] = rounded(values)
    return source, found
