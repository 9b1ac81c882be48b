"""The training loop: chunks of steps, and the host's work between them."""

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.report.words import count
from dlworkshop.train import processes
from dlworkshop.train.chunk_length import Elapsed, EpochsPerCall
from dlworkshop.train.evaluation import evaluate_split, total_of, weight_of
from dlworkshop.train.groups import Group, scatter_rows
from dlworkshop.train.history import History
from dlworkshop.train.observers.snapshot import Copies, Snapshot, checked_copies
from dlworkshop.train.plan import Plan
from dlworkshop.train.progress import Watch
from dlworkshop.train.session import Session
from dlworkshop.train.signals import deferred


class Trained(NamedTuple):
    """The result of the loop."""

    population: pop.Population
    history: History
    seconds: dict[str, float]
    plan: Plan  # with the hyper-parameters placed
    finished: dict[str, Any] | None = (
        None  # the summary, if the run was finished before
    )
    interrupted: bool = False


class Loop(Session):
    """One run, from opening the folder to the last checkpoint."""

    def __init__(self, plan: Plan, workdir: Path | None):
        super().__init__(plan, workdir)
        self.epochs_per_call = EpochsPerCall(plan.flops, plan.order.steps_per_epoch)
        self.validation: dict[str, np.ndarray] | None = None  # of the last epoch
        self.updates_before = 0  # of all members, by earlier sessions
        self.piece: Any = None  # the input of the next chunk
        self.watch: Watch

    def run(self) -> Trained:
        """Train to the end, or until a signal."""
        self.population = self.begin()
        with contextlib.ExitStack() as stack:
            if self.workdir is not None:
                self.open_folder(self.workdir, stack)
            self.train()
            if self.workdir is not None and self.finished is None:
                self.save()
        return Trained(
            self.population,
            self.history,
            self.seconds_so_far(),
            self.plan,
            self.finished,
            self.interrupted,
        )

    def train(self) -> None:
        """Run the remaining chunks; the feed restarts when other members run."""
        plan = self.plan
        self.saved_at, self.saved_step = time.perf_counter(), self.step
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
                pieces = plan.feed.training(
                    self.step, plan.num_steps, plan.chunk, groups, plan.draw
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
        epoch_done = self.step % self.plan.order.steps_per_epoch == 0
        if epoch_done:
            self.evaluate()
        line = self.line(train, epoch_done)
        if (source := self.observe(train, epoch_done)) is not None:
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
        if plan.asked.save_every_steps is not None and self.workdir is not None:
            last = min(last, first + -(-plan.asked.save_every_steps // every))
        fewest = max((s for s in plan.groups.sizes if s < len(group)), default=0)
        data = plan.feed.data("train")
        with self.training() as spent:
            whole = self.population, plan.placed_hparams, plan.placed_seeds
            part, hparams, seeds = programs.gather(whole, group)
            part, epoch, rows = programs.epochs(
                part, hparams, seeds, data, plan.validation_split, first, last, fewest
            )
            self.population = programs.scatter(self.population, group, part)
            rows = processes.fetch(rows)
        self.epochs_per_call.record(
            epoch - first, processes.broadcast_json(spent.seconds)
        )

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
            self.record(self.line(train, epoch_done=True))
        self.report_and_checkpoint(train)

    @contextlib.contextmanager
    def training(self) -> Iterator[Elapsed]:
        """Count the time inside as training time, without compilation."""
        programs, spent = self.plan.programs, Elapsed()
        begun, compiled = time.perf_counter(), programs.compile_seconds
        yield spent
        compiled = programs.compile_seconds - compiled
        spent.seconds = time.perf_counter() - begun - compiled
        self.train_seconds += spent.seconds

    def report_and_checkpoint(self, train: Mapping[str, np.ndarray]) -> None:
        """Report progress; answer a signal, or save a checkpoint if one is due."""
        examples = (self.updates() - self.updates_before) * self.plan.order.batch_size
        rate = examples / max(self.train_seconds, 1e-9)
        self.watch.update(self.step, rate, train, self.validation)
        # a signal to one process stops all; the clock of the first one decides
        now = self.signal.signum or 0, self.signal.save, self.should_save()
        seen = processes.allgather_json(now)
        if signum := max(signum for signum, _, _ in seen):
            self.stop_on_signal(signum)
        elif any(save for _, save, _ in seen):
            self.save_on_signal()
        elif seen[0][2]:
            self.save()

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

    def evaluate(self) -> None:
        """Evaluate validation after an epoch: best parameters, early stopping."""
        running = processes.fetch(self.population.status) == pop.RUNNING
        if not running.any():
            self.validation = None
            return
        programs = self.plan.programs
        judged = programs.judged(self.population)
        means = evaluate_split(self.plan, judged, "validation", self.running())
        score = self.plan.score(means)
        self.population = programs.keep_best(self.population, score)
        self.validation = {k: np.where(running, v, np.nan) for k, v in means.items()}

    def line(self, train: Mapping[str, np.ndarray], epoch_done: bool) -> dict[str, Any]:
        """The entry of a chunk, before observers change anything."""
        line: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.plan.order.steps_per_epoch,
            "train": dict(train),
        }
        if epoch_done and self.validation is not None:
            line["validation"] = self.validation
        if explored := self.explored():
            line["hparams"] = explored
        return line

    def observe(
        self, train: Mapping[str, np.ndarray], epoch_done: bool
    ) -> np.ndarray | None:
        """Call the observers; stop and copy the members that they name.

        Returns:
            The member that each one continues from now on [P]; None without copies.
        """
        validation, source = self.validation if epoch_done else None, None
        for observer in self.plan.observers:
            snapshot = Snapshot(
                self.step,
                self.plan.num_steps,
                self.step / self.plan.order.steps_per_epoch,
                train,
                validation,
                self.plan.hparams,
                self.plan.seeds,
                self.population,
                None if validation is None else self.plan.score(validation),
                self.plan.num_settings,
            )
            answer = observer(snapshot)
            if isinstance(answer, Copies):
                now = self.copy(answer)
                source = now if source is None else source[now]
            elif answer is not None:
                self.stop(np.asarray(answer), snapshot.running)
        return source

    def stop(self, members: np.ndarray, running: np.ndarray) -> None:
        """Stop those of the running members that an observer named."""
        size = len(self.plan.seeds)
        if members.shape != (size,) or members.dtype != bool:
            raise UserError(
                f"an observer returned {members.dtype}{list(members.shape)}: return "
                f"None, a bool array that is True for each of {size} members to stop, "
                "or observers.Copies"
            )
        status = self.population.status
        before = processes.fetch(status)
        now = np.where(running & members, pop.STOPPED, before)
        now = processes.put(now.astype(status.dtype), status.sharding)
        self.population = self.population._replace(status=now)

    def copy(self, copies: Copies) -> np.ndarray:
        """Replace members by copies of others; returns their sources [P]."""
        source, hparams = checked_copies(copies, self.plan.hparams, self.plan.seeds)
        places = np.flatnonzero(source != np.arange(len(source)))
        if places.size:
            self.population = self.plan.programs.copy(
                self.population, source[places], places
            )
        self.set_hparams(hparams)
        return source

    def introduction(self) -> str:
        """What begins, in words."""
        plan = self.plan
        shape, groups = plan.mesh.shape, plan.groups
        experiment = plan.settings["experiment"]
        if self.finished is not None:
            return (
                f"{experiment} is finished in {self.workdir}: remove that folder to "
                "train anew, or ask for more epochs"
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
