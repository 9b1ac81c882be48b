"""The state of a run that trains, in memory and in its folder."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np

from dlworkshop import run_files
from dlworkshop.data.feed import give_back_large_blocks
from dlworkshop.learn import population as pop
from dlworkshop.train import processes, run_folder
from dlworkshop.train.checkpoints import Checkpoints
from dlworkshop.train.groups import Group
from dlworkshop.train.history import History
from dlworkshop.train.plan import Plan
from dlworkshop.train.progress import log_level
from dlworkshop.train.signals import PendingSignal

log = logging.getLogger(__name__)


class Session:
    """Begins or restores a run, records and saves it, and answers signals."""

    def __init__(self, plan: Plan, workdir: Path | None):
        self.plan, self.workdir = plan, workdir
        self.seconds = {"compile": 0.0, "train": 0.0, "total": 0.0}  # of earlier parts
        self.train_seconds = 0.0
        self.step = 0
        self.history = History()
        self.finished: dict[str, Any] | None = None  # the summary of a finished run
        self.interrupted = False
        self.saved_at, self.saved_step = time.perf_counter(), 0
        self.population: pop.Population
        self.signal: PendingSignal  # while it trains
        self.checkpoints: Checkpoints  # with a run folder
        self.log: run_folder.Log  # in the first process

    def begin(self) -> pop.Population:
        """Initialise all members at step 0, group by group."""
        plan, programs = self.plan, self.plan.programs
        seeds, hparams, start = plan.placed()
        self.plan = dataclasses.replace(
            plan, placed_hparams=hparams, placed_seeds=seeds
        )
        example = plan.example
        if plan.groups.all_at_once:
            return programs.begin(seeds, hparams, example, start)
        give_back_large_blocks()  # or the memory of one group stays for the next one
        population = programs.empty(seeds, hparams, example, start)
        for group in plan.groups.partition(range(len(plan.seeds))):
            own = programs.gather((seeds, hparams, start), group)
            part = programs.begin(own[0], own[1], example, own[2])
            population = programs.scatter(population, group, part)
        return population

    def open_folder(self, workdir: Path, stack: contextlib.ExitStack) -> None:
        """Restore the newest checkpoint, and open the log at its position."""
        self.checkpoints = Checkpoints(workdir / "checkpoints")
        stack.callback(self.checkpoints.close)
        position = self.restore(workdir)

        def open_log() -> list[dict[str, Any]]:
            self.log = run_folder.Log(workdir / run_files.LOG, position)
            stack.callback(self.log.close)
            return self.log.lines()

        self.history = History(processes.on_first_process(open_log))

    def restore(self, workdir: Path) -> int:
        """Restore the newest checkpoint, if any; returns the log's position."""
        if self.checkpoints.latest() is None:
            return 0
        self.population, position = self.checkpoints.restore(self.population)
        run_files.conforms(position, run_files.schema.Position, self.checkpoints.folder)
        self.step = position["step"]
        if changed := position.get("hparams"):
            self.set_hparams(changed)
        self.seconds = position["seconds"]
        at_end = self.step == self.plan.num_steps or not self.running()
        if at_end and (workdir / "summary.json").exists():
            self.finished = run_folder.finished_summary(workdir)
        return position["log"]

    def running(self) -> list[Group]:
        """The running members, in groups."""
        status = processes.fetch(self.population.status)
        return self.plan.groups.partition(
            np.flatnonzero(status == pop.RUNNING).tolist()
        )

    def updates(self) -> int:
        """The number of updates of all members together."""
        return int(processes.fetch(self.population.train.step).sum(dtype=np.int64))

    def set_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Replace the hyper-parameters of the members, name -> [P]."""
        plan = self.plan
        known = {name: np.asarray(hparams[name], float) for name in plan.hparams}
        placed = processes.put(dict(known), plan.home)
        self.plan = dataclasses.replace(plan, hparams=known, placed_hparams=placed)

    def explored(self) -> dict[str, np.ndarray]:
        """The hyper-parameters that change during the run, name -> [P]."""
        plan = self.plan
        planned = plan.asked.scheduler.limits if plan.asked.scheduler else ()
        return {
            name: values
            for name, values in plan.hparams.items()
            if name in planned
            or not np.array_equal(values, plan.settings["hparams"][name])
        }

    def record(self, line: dict[str, Any]) -> None:
        """Append an entry to the history and a line to `metrics.jsonl`."""
        self.history.append(line)
        if self.workdir is not None and processes.is_first():
            self.log.write(line)

    def should_save(self) -> bool:
        """Whether a checkpoint is due."""
        if self.workdir is None:
            return False
        every_steps = self.plan.asked.save_every_steps
        every_seconds = self.plan.asked.save_every_seconds
        steps = self.step - self.saved_step
        seconds = time.perf_counter() - self.saved_at
        return (every_steps is not None and steps >= every_steps) or (
            every_seconds is not None and seconds >= every_seconds
        )

    def save(self) -> None:
        """Save a checkpoint: population, step, log position, seconds."""
        # only the first process has a log
        position = {
            "step": self.step,
            "log": processes.on_first_process(lambda: self.log.position()),  # noqa: PLW0108
            "seconds": self.seconds_so_far(),
        }
        if self.explored():
            position["hparams"] = run_folder.to_jsonable(dict(self.plan.hparams))
        self.checkpoints.save(self.step, self.population, position)
        self.saved_at, self.saved_step = time.perf_counter(), self.step

    def save_on_signal(self) -> None:
        """Save a complete checkpoint after SIGUSR1, and continue."""
        self.signal.save = False
        level = log_level(self.plan.quiet, logging.WARNING)
        if self.workdir is None:
            log.log(level, "SIGUSR1: nothing is saved without a run folder")
            return
        self.save()
        self.checkpoints.wait()
        log.log(level, "SIGUSR1: saved at step %d; the run goes on", self.step)

    def stop_on_signal(self, signum: int) -> None:
        """Save, report in one line, and exit.

        Without a run folder, Ctrl-C ends the training, and `fit` returns the run so
        far.
        """
        level, name = log_level(self.plan.quiet, logging.WARNING), Signals(signum).name
        done = f"stopped by {name} at step {self.step} of {self.plan.num_steps}"
        if self.workdir is not None:
            self.save()
            self.checkpoints.wait()
            log.log(level, "%s; run the same command again to go on", done)
        elif signum == Signals.SIGINT:
            log.log(level, "%s; the run so far is returned", done)
            self.interrupted = True
            self.signal.clear()
            return
        else:
            log.log(level, "%s; nothing was saved without a run folder", done)
        raise SystemExit(128 + signum)

    def seconds_so_far(self) -> dict[str, float]:
        """Seconds of this session and of earlier ones of the run."""
        now = {
            "compile": self.plan.programs.compile_seconds,
            "train": self.train_seconds,
            "total": time.perf_counter() - self.plan.started,
        }
        return {name: self.seconds[name] + value for name, value in now.items()}
