"""The argument of observers at the end of a chunk, and what they may return."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.train import processes
from dlworkshop.train.members import rounded


class Snapshot(NamedTuple):
    """The argument of an observer at the end of a chunk.

    An observer may return which members to stop, bool [P], or `Copies`. Members that
    stop keep their current parameters, or with `patience` their best.
    """

    step: int
    num_steps: int
    epoch: float  # passes over the training split
    train: Mapping[str, np.ndarray]  # name -> [P], means of finite values in the chunk
    validation: Mapping[str, np.ndarray] | None  # if an epoch has just ended
    hparams: Mapping[str, np.ndarray]  # name -> [P]
    seeds: list[int]  # [P]
    population: pop.Population  # on the devices: do not keep it, it will be donated
    score: np.ndarray | None  # [P] the monitored score, signed so that lower is better
    num_settings: int  # members are [settings, seeds]

    @property
    def running(self) -> np.ndarray:
        """[P] bool, members that still train."""
        return processes.fetch(self.population.status) == pop.RUNNING


class Copies(NamedTuple):
    """An observer's answer: some members are replaced by copies of others.

    A copy has the parameters, the states of model and optimizer, the status and the
    best parameters so far of its source; it keeps its own seed. Members of one seed see
    the same batches, so a copy with the hyper-parameters of its source stays equal.
    """

    source: np.ndarray  # [P] int, the member that each continues, perhaps itself
    hparams: Mapping[str, np.ndarray]  # name -> [P], of all members from now on


def checked_copies(
    copies: Copies, hparams: Mapping[str, np.ndarray], seeds: Sequence[int]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The sources [P] and the hyper-parameters, in the dtype of a run.

    Args:
        copies: what an observer returned.
        hparams: the previous hyper-parameters: name -> [P].
        seeds: of the members [P].

    Raises:
        UserError: if they do not fit these members.
    """
    size, source = len(seeds), np.asarray(copies.source)
    inside = source.dtype.kind in "iu" and ((source >= 0) & (source < size)).all()
    if source.shape != (size,) or not inside:
        raise UserError(
            f"an observer's Copies have the source {source.dtype}{list(source.shape)}: "
            f"give for each of {size} members the number of the member that it "
            f"continues, 0 to {size - 1}"
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
