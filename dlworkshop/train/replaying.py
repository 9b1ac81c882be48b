"""Replay of a quarantined member: its last steps alone, and the operation that failed.

The run folder is only read.
"""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlworkshop import run_files
from dlworkshop.errors import UserError, check_path, check_whole
from dlworkshop.learn.population import QUARANTINED, Population
from dlworkshop.train import processes, programs, run_folder
from dlworkshop.train.arguments import Arguments, check_arguments
from dlworkshop.train.checkpoints import read_newest
from dlworkshop.train.diagnosis import explain
from dlworkshop.train.instead import Action
from dlworkshop.train.summary import fault_in_words
from dlworkshop.train.task import Task, resolve
from dlworkshop.types import PyTree

SHOWN = 5  # of the last steps, and of the lines of the log before them


class Step(NamedTuple):
    """A step of one member; norms are Euclidean, of all numbers together."""

    step: int  # from 1
    loss: float
    gradient: float | None  # its norm; None with a custom step
    before: float  # norm of the parameters before it
    after: float  # after it, whether or not it was taken


class Replay(NamedTuple):
    """Why a member was quarantined; `str` is some lines of text."""

    member: int
    seed: int
    fold: int | None
    hparams: dict[str, float]
    note: str  # what was not finite, and when, as in the summary
    logged: list[tuple[int, float]]  # step and mean training loss of its last chunks
    steps: list[Step]  # the last ones of those that were repeated
    why: str  # the operation behind the first number that is not finite
    repeated: bool  # whether that number came up again

    def __str__(self) -> str:
        about = [f"seed {self.seed}"]
        if self.fold is not None:
            about.append(f"fold {self.fold}")
        about += [f"{name} {value:g}" for name, value in self.hparams.items()]
        lines = [f"member {self.member} ({', '.join(about)}): {self.note}"]
        if self.logged:
            losses = (f"{loss:.6g} until step {step}" for step, loss in self.logged)
            lines.append(f"mean training loss before: {', '.join(losses)}")
        head = "step", "loss", "|gradient|", "|parameters| before", "after"
        rows = [[f"{step.step}", *map(_number, step[1:])] for step in self.steps]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows) if rows else ():
            cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells))
        return "\n".join([*lines, self.why])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def action(folder: Path, member: int) -> Action:
    """What `fit` does instead of training, to replay a member of a run folder.

    Calls of `fit` without a folder train, as what they return may be needed, and those
    of other folders return their finished run.
    """
    check_whole("member", member, 0)

    def of_fit(asked: Arguments) -> Replay | None:
        if asked.workdir is None:
            return None
        check_path("workdir", asked.workdir)
        if Path(asked.workdir).resolve() == folder.resolve():
            return _replay(asked, folder, member)
        if run_folder.is_finished(asked.workdir, asked.num_epochs):
            return None
        raise UserError(
            f"fit is called with the run folder {asked.workdir} instead of {folder}: "
            "give the flags with which that run was started, too (--workdir)"
        )

    return of_fit


def check_folder(folder: Path) -> None:
    """Check what can be checked before the script of the run is started.

    Raises:
        UserError: if there is no run, or no checkpoint.
    """
    run_files.read(folder, "config.json")
    if not any(each.name.isdecimal() for each in (folder / "checkpoints").glob("*")):
        raise UserError(
            f"{folder} has no checkpoint, which holds the last finite state of a "
            "member: give the folder of a run that has one"
        )


def _replay(asked: Arguments, folder: Path, member: int) -> Replay:
    if processes.count() > 1:
        raise UserError("a member is replayed in one process: start it without others")
    check_folder(folder)
    check_arguments(asked)
    task = resolve(asked)
    if differ := run_folder.differences(folder, task.settings):
        raise UserError(
            f"this is not the run in {folder} ({differ}): replay it with the code, the "
            "data and the settings with which it was trained"
        )
    if member >= len(task.seeds):
        raise UserError(
            f"member is {member}, and {folder} has {len(task.seeds)} members: give a "
            f"number from 0 to {len(task.seeds) - 1}"
        )
    population, position = _restored(task, folder)
    if hparams := position.get("hparams"):  # an observer has changed them
        known = {name: np.asarray(hparams[name], float) for name in task.hparams}
        task = dataclasses.replace(task, hparams=known)
    bad = np.flatnonzero(population.status >= QUARANTINED)
    if member not in bad:
        found = ", ".join(map(str, bad)) or "none"
        raise UserError(
            f"member {member} of {folder} was not quarantined until its checkpoint at "
            f"step {position['step']}, so there is nothing to replay (quarantined: "
            f"{found})"
        )
    last: collections.deque[Step] = collections.deque(maxlen=SHOWN)

    def watch(at: int, params: PyTree, values: tuple) -> None:
        loss, grads, new = values
        gradient = None if asked.make_step is not None else _norm(grads)
        last.append(Step(at + 1, float(loss), gradient, _norm(params), _norm(new)))

    device = (jax.devices() if asked.devices is None else list(asked.devices))[0]
    # the run saw it at the end of a chunk, which is at most an epoch
    why = explain(task, population, member, device, task.order.steps_per_epoch, watch)
    # without steps if it is the optimizer's state, which is still as it failed
    values = [v for step in last for v in (step.loss, step.gradient or 0, step.after)]
    repeated = not last or not np.isfinite(values).all()
    if not repeated:
        why = (
            f"alone, the member is finite up to step {last[-1].step}: it rounds "
            "differently than among the others, so the operation is not known"
        )
    return Replay(
        member=member,
        seed=task.seeds[member],
        fold=member % task.folds if task.folds else None,
        hparams={name: float(v[member]) for name, v in task.hparams.items()},
        note=fault_in_words(
            int(population.status[member]),
            int(population.train.step[member]),
            task.num_steps,
        ),
        logged=_logged(folder, position, member),
        steps=list(last),
        why=why or "the operation was not found in the program of this step",
        repeated=repeated,
    )


def _restored(task: Task, folder: Path) -> tuple[Population, dict[str, Any]]:
    """The population of the newest intact checkpoint, in host memory."""
    begin = functools.partial(programs.begin, task.spec, False)
    seeds = np.asarray(task.seeds, np.uint32)
    like = jax.eval_shape(begin, seeds, dict(task.hparams), task.example, task.start)
    checkpoints = folder / "checkpoints"
    population, position = read_newest(checkpoints, like)
    run_files.conforms(position, run_files.schema.Position, checkpoints)
    own = run_folder.settings_digest(folder)
    if position.get("settings", own) != own:
        raise UserError(
            f"the checkpoint {position['step']} in {checkpoints} is of a run with "
            "other settings: give a run folder that is as it was written"
        )
    return population, position


def _logged(
    folder: Path, position: Mapping[str, Any], member: int
) -> list[tuple[int, float]]:
    """Step and training loss of a member in its last lines of the log."""
    path = folder / run_files.LOG
    if not position["log"]:
        return []
    content = run_files.contents(path)[: position["log"]]
    known = position.get("log_sha256")
    if known not in (None, hashlib.sha256(content).hexdigest()):
        raise UserError(
            f"{path} is not the log of the checkpoint {position['step']}: give a run "
            "folder that is as it was written"
        )
    lines = run_files.log_lines(content, path)
    losses = [(line["step"], line["train"].get("loss", ())) for line in lines]
    run_files.check_members(path, {len(each) for _, each in losses}, {})
    if losses and member >= len(losses[0][1]):
        raise UserError(f"{path} has no member {member}: {run_files.REPLACE}")
    found = ((step, each[member]) for step, each in losses)
    return [(step, loss) for step, loss in found if loss is not None][-SHOWN:]


def _norm(tree: PyTree) -> float:
    """The Euclidean norm of all numbers; in float64, where squares do not overflow."""
    leaves = [
        np.abs(leaf).astype(np.float64)
        for leaf in jax.tree.leaves(jax.device_get(tree))
    ]
    return float(np.sqrt(sum((leaf**2).sum() for leaf in leaves)))
