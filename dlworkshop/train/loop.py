"""The training loop: chunks of steps, and the host's work between them."""

import contextlib
import dataclasses
import gc
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from signal import Signals
from typing import Any

import jax
import numpy as np

from dlworkshop.data.feed import give_back_large_blocks
from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.learn.step import Metrics
from dlworkshop.report.words import count
from dlworkshop.train import processes, run_folder
from dlworkshop.train.chunk_length import EpochsPerCall
from dlworkshop.train.evaluation import evaluate_split, total_of, weight_of
from dlworkshop.train.groups import Group, scatter_rows
from dlworkshop.train.history import History
from dlworkshop.train.journal import Journal
from dlworkshop.train.observers.calls import observed
from dlworkshop.train.plan import Plan
from dlworkshop.train.progress import Watch, log_level
from dlworkshop.train.signals import PendingSignal, deferred

log = logging.getLogger(__name__)

FED = 100_000  # steps that are fed at a time: how they are cut is listed before


class Loop:
    """One run, from opening the folder to the last checkpoint."""

    def __init__(self, plan: Plan, workdir: Path | None):
        self.plan, self.workdir = plan, workdir
        self.population: pop.Population
        self.history = History()
        self.step = 0
        self.journal: Journal | None = None  # with a run folder
        self.seconds = {"compile": 0.0, "train": 0.0, "total": 0.0}  # of earlier parts
        self.train_seconds = 0.0
        self.finished: dict[str, Any] | None = None  # the summary of a finished run
        self.interrupted = False
        self.epochs_per_call = EpochsPerCall(plan.flops, plan.order.steps_per_epoch)
        self.validation: dict[str, np.ndarray] | None = None  # of the last epoch
        self.updates_before = 0  # of all members, in earlier parts
        self.piece: Any = None  # the input of the next chunk
        self.watch: Watch
        self.signal: PendingSignal  # while it trains

    def run(self) -> "Loop":
        """Train to the end, or until a signal; return itself."""
        self.population = self.begin()
        with contextlib.ExitStack() as stack:
            if self.workdir is not None:
                self.journal = Journal(self.workdir, stack)
                self.resume(self.journal)
            self.train()
            if self.finished is None:
                self.save()
        return self

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

    def resume(self, journal: Journal) -> None:
        """Resume at the newest checkpoint, if there is one."""
        self.population, position, lines = journal.restore(self.population)
        self.history, self.step = History(lines), position["step"]
        if self.step > self.plan.num_steps:  # its config was lost
            raise UserError(
                f"the run in {self.workdir} has {self.step} steps, more than the "
                f"{self.plan.num_steps} asked for: ask for as many epochs as it has, "
                "or choose another workdir (--workdir)"
            )
        self.seconds = position.get("seconds", self.seconds)
        if changed := position.get("hparams"):
            self.plan = self.plan.with_hparams(changed)
        if self.step == self.plan.num_steps or not self.running():
            self.finished = run_folder.finished_summary(journal.folder, position["log"])

    def running(self) -> list[Group]:
        """The running members, in groups."""
        status = processes.fetch(self.population.status)
        running = np.flatnonzero(status == pop.RUNNING)
        return self.plan.groups.partition(running.tolist())

    def updates(self) -> int:
        """The number of updates of all members together."""
        return int(processes.fetch(self.population.train.step).sum(dtype=np.int64))

    def train(self) -> None:
        """Run the remaining chunks; the feed restarts when other members run."""
        plan = self.plan
        self.updates_before = self.updates()
        watch = Watch(plan.num_steps, self.step, plan.headline, plan.quiet)
        with deferred() as self.signal, watch as self.watch, gc_frozen():
            watch.log(self.introduction())
            while not self.interrupted and self.step < plan.num_steps:
                if not (groups := self.running()):
                    break
                if plan.by_epochs and self.step % plan.order.steps_per_epoch == 0:
                    self.run_epochs(groups[0])
                    continue
                every = plan.order.steps_per_epoch
                epochs = self.step // every + max(1, FED // every)
                end = min(plan.num_steps, epochs * every)
                pieces = plan.feed.training(
                    self.step, end, plan.chunk, groups, plan.draw
                )
                with contextlib.closing(pieces):
                    with self.training():  # making the first piece counts, too
                        self.piece = next(pieces, None)
                    while self.piece is not None and self.running() == groups:
                        self.run_chunk(groups, pieces)
                        if self.interrupted:
                            break
            # a signal may have arrived since the last chunk
            last = processes.allgather_json(self.signal.signum or 0)
            if any(last) and not self.interrupted:
                self.stop_on_signal(max(last))

    def run_chunk(self, groups: list[Group], pieces: Iterator) -> None:
        """Run a chunk, and the host's work after it."""
        with self.training():
            train = self.train_groups(groups, pieces)
        validation = None
        if self.step % self.plan.order.steps_per_epoch == 0:
            self.validation = validation = self.evaluate()
        line = self.line(train, validation)
        self.plan, self.population, source = observed(
            self.plan, self.population, self.step, train, validation, self.signal
        )
        if source is not None:
            line["source"] = source
        self.record(line)
        self.report_and_checkpoint(train)

    def run_epochs(self, group: Group) -> None:
        """Run some whole epochs, and the host's work after them.

        They are one call of the device, which evaluates after each epoch. The history
        has the same entries as when the host evaluates.
        """
        plan, programs = self.plan, self.plan.programs
        every = plan.order.steps_per_epoch
        first = self.step // every
        last = min(first + self.epochs_per_call.epochs, plan.num_steps // every)
        if plan.asked.save_every_steps is not None and self.journal is not None:
            last = min(last, first + -(-plan.asked.save_every_steps // every))
        fewest = max((s for s in plan.groups.sizes if s < len(group)), default=0)
        data = plan.feed.data("train")
        before = self.train_seconds
        with self.training():
            whole = self.population, plan.placed_hparams, plan.placed_seeds
            part, hparams, seeds = programs.gather(whole, group)
            part, epoch, rows = programs.epochs(
                part, hparams, seeds, data, plan.validation_split, first, last, fewest
            )
            self.population = programs.scatter(self.population, group, part)
            rows = processes.fetch(rows)
        spent = processes.broadcast_json(self.train_seconds - before)
        self.epochs_per_call.record(epoch - first, spent)

        def of_all(values: np.ndarray) -> np.ndarray:  # [G] -> [P]
            found = np.full(len(plan.seeds), np.nan)
            scatter_rows(found, group, values.astype(float))
            return found

        weight = weight_of(plan.dataset.validation)
        for row in range(epoch - first):
            self.step += every
            train = {name: of_all(values[row]) for name, values in rows.train.items()}
            running = of_all(rows.running[row]) == 1
            self.validation = None
            if running.any():
                self.validation = {}
                for name in ("loss", *plan.metrics):
                    means = total_of(rows.validation[name][row]) / weight
                    self.validation[name] = np.where(running, of_all(means), np.nan)
            self.record(self.line(train, self.validation))
        self.report_and_checkpoint(train)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Count the time inside as training time, without compilation."""
        begun = self.plan.programs.clock()
        yield
        self.train_seconds += self.plan.programs.clock() - begun

    def report_and_checkpoint(self, train: Metrics) -> None:
        """Report progress; answer a signal, or save a checkpoint if one is due."""
        examples = (self.updates() - self.updates_before) * self.plan.order.batch_size
        rate = examples / max(self.train_seconds, 1e-9)
        self.watch.update(self.step, rate, train, self.validation)
        journal, asked = self.journal, self.plan.asked
        due = journal is not None and journal.is_due(self.step, asked)
        # a signal to one process stops all; the clock of the first one decides
        now = self.signal.signum or 0, self.signal.save, due
        seen = processes.allgather_json(now)
        if signum := max(signum for signum, _, _ in seen):
            self.stop_on_signal(signum)
        elif any(save for _, save, _ in seen):
            self.save_on_signal()
        elif seen[0][2]:
            self.save()

    def record(self, line: dict[str, Any]) -> None:
        """Append an entry to the history and a line to `metrics.jsonl`."""
        self.history.append(line)
        if self.journal is not None:
            self.journal.record(line)

    def save(self) -> None:
        """Save a checkpoint, if there is a run folder."""
        if self.journal is None:
            return
        position: dict[str, Any] = {"step": self.step, "seconds": self.seconds_so_far()}
        if self.plan.explored:
            position["hparams"] = run_folder.to_jsonable(dict(self.plan.hparams))
        self.journal.save(self.population, position)

    def save_on_signal(self) -> None:
        """Save a complete checkpoint after SIGUSR1, and continue."""
        self.signal.save = False
        level = log_level(self.plan.quiet, logging.WARNING)
        if self.journal is None:
            log.log(level, "SIGUSR1: nothing is saved without a run folder")
            return
        self.save()
        self.journal.checkpoints.wait()
        log.log(level, "SIGUSR1: saved at step %d; the run continues", self.step)

    def stop_on_signal(self, signum: int) -> None:
        """Save, report in one line, and exit.

        Without a run folder, Ctrl-C ends the training, and `fit` returns the run so
        far.
        """
        if self.journal is not None:
            self.save()
            self.journal.checkpoints.wait()
            then = "run the same command again to resume"
        elif signum == Signals.SIGINT:
            self.interrupted = True
            self.signal.clear()
            then = "the run so far is returned"
        else:
            then = "nothing was saved without a run folder"
        level, name = log_level(self.plan.quiet, logging.WARNING), Signals(signum).name
        where = f"at step {self.step} of {self.plan.num_steps}"
        log.log(level, "stopped by %s %s; %s", name, where, then)
        if not self.interrupted:
            raise SystemExit(128 + signum)

    def seconds_so_far(self) -> dict[str, float]:
        """Seconds of this part of the run and of earlier ones."""
        now = {
            "compile": self.plan.programs.compile_seconds,
            "train": self.train_seconds,
            "total": time.perf_counter() - self.plan.started,
        }
        return {name: self.seconds[name] + value for name, value in now.items()}

    def train_groups(
        self, groups: list[Group], pieces: Iterator
    ) -> dict[str, np.ndarray]:
        """Train each group for one chunk: name -> [P]."""
        plan, data = self.plan, self.plan.feed.data("train")
        left = plan.order.steps_per_epoch - self.step % plan.order.steps_per_epoch
        end = self.step + min(plan.chunk, left)
        means: dict[str, np.ndarray] = {}
        for group in groups:
            whole = self.population, plan.placed_hparams
            part, hparams = plan.programs.gather(whole, group)
            step, of_pieces = self.step, []
            while step < end:
                step += len(jax.tree.leaves(self.piece)[0])
                part, metrics = plan.programs.chunk(part, hparams, data, self.piece)
                self.piece = next(pieces, None)  # the next, while the device computes
                of_pieces.append(processes.fetch(metrics))  # [S, G]; waits
            self.population = plan.programs.scatter(self.population, group, part)
            del part  # frees it before the next group is gathered
            for name in of_pieces[0]:
                values = np.concatenate([piece[name] for piece in of_pieces])
                means.setdefault(name, np.full(len(plan.seeds), np.nan))
                scatter_rows(means[name], group, _mean_over_steps(values))
        self.step = end
        return means

    def evaluate(self) -> dict[str, np.ndarray] | None:
        """Evaluate validation after an epoch: best parameters, early stopping."""
        running = processes.fetch(self.population.status) == pop.RUNNING
        if not running.any():
            return None
        judged = self.plan.programs.judged(self.population)
        means = evaluate_split(self.plan, judged, "validation", self.running())
        score = self.plan.cost(means)
        self.population = self.plan.programs.keep_best(self.population, score)
        return {name: np.where(running, v, np.nan) for name, v in means.items()}

    def line(self, train: Metrics, validation: Metrics | None) -> dict[str, Any]:
        """The entry of a chunk, before observers change anything."""
        line: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.plan.order.steps_per_epoch,
            "train": dict(train),
        }
        if validation is not None:
            line["validation"] = validation
        if explored := self.plan.explored:
            line["hparams"] = explored
        return line

    def introduction(self) -> str:
        """What begins, in words."""
        plan = self.plan
        shape, groups = plan.mesh.shape, plan.groups
        experiment = plan.settings["experiment"]
        if self.finished is not None:
            uncalled = ", so its observers are not called" if plan.observers else ""
            return (
                f"{experiment} is finished in {self.workdir}{uncalled}: remove that "
                "folder to train anew, or ask for more epochs"
            )
        begins = f"continues at step {self.step}" if self.step else "begins"
        waits = "" if groups.all_at_once else f", at most {groups.sizes[0]} at once"
        members = count(len(plan.seeds), "member")
        # runs in memory are often a part of something larger
        layers = "" if self.workdir is None else plan.table + "\n"
        return (
            f"{layers}{experiment} {begins}: {members}{waits}, "
            f"{plan.num_steps} steps of {plan.order.batch_size} examples, mesh "
            f"{shape['member']} x {shape['batch']} (member x batch), chunks of "
            f"{plan.chunk} steps, data {plan.feed.name}"
        )


@contextlib.contextmanager
def gc_frozen() -> Iterator[None]:
    """Exclude existing objects from garbage collection while inside.

    They are all of JAX and what it compiled; to traverse them took 90 to 140 ms in the
    middle of a checkpoint that takes 30. If the user has frozen objects, nothing
    changes: only all frozen objects together can be unfrozen.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _mean_over_steps(values: np.ndarray) -> np.ndarray:
    """Mean [P] of the finite values over steps [S, P]; NaN where there are none.

    The step at which a member was quarantined does not count, nor a step at which a
    probe is infinite.
    """
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return np.where(finite, values, 0).sum(0) / finite.sum(0)
