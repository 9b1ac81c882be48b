"""The training loop: chunks of steps, and the host's work between them."""

import contextlib
import dataclasses
import gc
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import numpy as np

from dlworkshop import run_files
from dlworkshop.data.feed import give_back_large_blocks
from dlworkshop.errors import UserError
from dlworkshop.learn import population as pop
from dlworkshop.train import processes, run_folder
from dlworkshop.train.checkpoints import Checkpoints
from dlworkshop.train.chunk_length import Elapsed, EpochsPerCall
from dlworkshop.train.evaluation import evaluate_split, total_of, weight_of
from dlworkshop.train.groups import Group, scatter_rows
from dlworkshop.train.history import History
from dlworkshop.train.mesh import population_sharding
from dlworkshop.train.observers.snapshot import Copies, Snapshot, checked_copies
from dlworkshop.train.plan import Plan
from dlworkshop.train.progress import Watch, log_level
from dlworkshop.train.signals import PendingSignal, deferred

log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """The result of the loop."""

    population: pop.Population
    history: History
    seconds: dict[str, float]
    step: int
    plan: Plan  # with the hyper-parameters placed
    finished: dict[str, Any] | None = None  # the summary of a run that was whole before
    interrupted: bool = False


class Loop:
    """One run, from opening the folder to the last checkpoint."""

    def __init__(self, plan: Plan, workdir: Path | None):
        self.plan, self.workdir = plan, workdir
        self.ahead = EpochsPerCall(plan.flops, plan.order.steps_per_epoch)
        self.seconds = {"compile": 0.0, "train": 0.0, "total": 0.0}  # of earlier parts
        self.train_seconds = 0.0
        self.step = 0
        self.history = History()
        self.validation: dict[str, np.ndarray] | None = None
        self.finished: dict[str, Any] | None = None  # the summary of a whole run
        self.interrupted = False
        self.saved_at, self.saved_step = time.perf_counter(), 0
        self.updates_before = 0  # of all members, by earlier parts
        self.population: pop.Population
        self.piece: Any = None  # what the next chunk is fed
        self.signal: PendingSignal  # while it trains
        self.watch: Watch
        self.checkpoints: Checkpoints  # with a run folder
        self.log: run_folder.Log

    def run(self) -> Trained:
        """Train to the end, or until a signal."""
        self.population = self.begin()
        with contextlib.ExitStack() as stack:
            if self.workdir is not None:
                self.checkpoints = Checkpoints(self.workdir / "checkpoints")
                stack.callback(self.checkpoints.close)
                position = self.restore(self.workdir / "summary.json")
                self.history = History(
                    processes.on_first_process(lambda: self.open_log(position, stack))
                )
            self.train()
            if self.workdir is not None and self.finished is None:
                self.save()
        return Trained(
            self.population,
            self.history,
            self.seconds_so_far(),
            self.step,
            self.plan,
            self.finished,
            self.interrupted,
        )

    def open_log(self, position: int, stack: contextlib.ExitStack) -> list[dict]:
        """Open the log, truncated to its position in the checkpoint; its lines."""
        assert self.workdir is not None
        self.log = run_folder.Log(self.workdir / "metrics.jsonl", position)
        stack.callback(self.log.close)
        return self.log.lines()

    def begin(self) -> pop.Population:
        """Initialise all members at step 0, group by group."""
        plan, programs = self.plan, self.plan.programs
        seeds, hparams, start = processes.put(
            (np.asarray(plan.seeds, np.uint32), dict(plan.hparams), plan.start),
            population_sharding(plan.mesh, fits=plan.groups.all_at_once),
        )
        self.plan = plan = dataclasses.replace(
            plan, placed_hparams=hparams, placed_seeds=seeds
        )
        example = plan.example
        if plan.groups.all_at_once:
            return programs.begin(seeds, hparams, example, start)
        give_back_large_blocks()  # or those of one group stay while the next one runs
        population = programs.empty(seeds, hparams, example, start)
        for group in plan.groups.partition(range(len(plan.seeds))):
            own = programs.gather((seeds, hparams, start), group)
            part = programs.begin(own[0], own[1], example, own[2])
            population = programs.scatter(population, group, part)
        return population

    def restore(self, summary: Path) -> int:
        """Restore the newest checkpoint, if any; returns the log's position."""
        if self.checkpoints.latest() is None:
            return 0
        self.population, position = self.checkpoints.restore(self.population)
        run_files.conforms(position, run_files.schema.Position, self.checkpoints.folder)
        self.step = position["step"]
        if changed := position.get("hparams"):
            self.set_hparams(changed)
        self.seconds = position["seconds"]
        if summary.exists() and (
            self.step == self.plan.num_steps or not self.running()
        ):
            self.finished = run_folder.finished_summary(summary.parent)
        return position["log"]

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
                    with self.training():  # of the first piece, too
                        self.piece = next(pieces, None)
                    while self.piece is not None and self.running() == groups:
                        self.run_chunk(groups, pieces)
                        if self.interrupted:
                            break
            # what came since the last chunk
            last = processes.allgather_json(self.signal.signum or 0)
            if any(last) and not self.interrupted:
                self.answer_signal(max(last))

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

        They are one call of the device, which evaluates after each. An epoch is
        recorded as it is where the host looks at each.
        """
        plan, programs = self.plan, self.plan.programs
        every = plan.order.steps_per_epoch
        first = self.step // every
        last = min(first + self.ahead.epochs, plan.num_steps // every)
        if plan.save_every_steps is not None and self.workdir is not None:
            last = min(last, first + -(-plan.save_every_steps // every))
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
        self.ahead.record(epoch - first, processes.broadcast_json(spent.seconds))

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
        """Report progress; checkpoint or answer a signal where due."""
        examples = (self.updates() - self.updates_before) * self.plan.order.batch_size
        rate = examples / max(self.train_seconds, 1e-9)
        self.watch.update(self.step, rate, train, self.validation)
        # a signal to one process stops all of them; the first has the clock
        now = self.signal.signum or 0, self.signal.save, self.should_checkpoint()
        seen = processes.allgather_json(now)
        if signum := max(signum for signum, _, _ in seen):
            self.answer_signal(signum)
        elif any(save for _, save, _ in seen):
            self.save_as_asked()
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
            del part  # before the next group is taken
            for name in of_pieces[0]:
                values = np.concatenate([piece[name] for piece in of_pieces])
                means.setdefault(name, np.full(len(plan.seeds), np.nan))
                scatter_rows(means[name], group, _mean_over_steps(values))
        self.step = end
        return means

    def running(self) -> list[Group]:
        """The running members, in groups."""
        status = processes.fetch(self.population.status)
        return self.plan.groups.partition(
            np.flatnonzero(status == pop.RUNNING).tolist()
        )

    def updates(self) -> int:
        """The number of updates of all members together."""
        return int(processes.fetch(self.population.train.step).sum(dtype=np.int64))

    def evaluate(self) -> None:
        """Evaluate validation after an epoch: best parameters, early stopping."""
        running = processes.fetch(self.population.status) == pop.RUNNING
        if not running.any():
            self.validation = None  # of an earlier epoch
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

    def record(self, line: dict[str, Any]) -> None:
        """Append an entry to the history and a line to `metrics.jsonl`."""
        self.history.append(line)
        if self.workdir is not None and processes.is_first():
            self.log.write(line)

    def observe(
        self, train: Mapping[str, np.ndarray], epoch_done: bool
    ) -> np.ndarray | None:
        """Call the observers; stop and copy the members that they name.

        Returns:
            The member that each one continues from now on [P], where any was copied.
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
                f"an observer answered {members.dtype}{list(members.shape)}: return "
                f"None, a bool array of which of {size} members are to stop, or "
                "observers.Copies"
            )
        status = self.population.status
        before = processes.fetch(status)
        now = np.where(running & members, pop.STOPPED, before)
        now = processes.put(now.astype(status.dtype), status.sharding)
        self.population = self.population._replace(status=now)

    def copy(self, copies: Copies) -> np.ndarray:
        """Let members go on as copies of others, which are returned."""
        source, hparams = checked_copies(copies, self.plan.hparams, self.plan.seeds)
        places = np.flatnonzero(source != np.arange(len(source)))
        if places.size:
            self.population = self.plan.programs.copy(
                self.population, source[places], places
            )
        self.set_hparams(hparams)
        return source

    def set_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Replace the hyper-parameters of the members, name -> [P]."""
        plan = self.plan
        known = {name: np.asarray(hparams[name], float) for name in plan.hparams}
        where = population_sharding(plan.mesh, fits=plan.groups.all_at_once)
        placed = processes.put(dict(known), where)
        self.plan = dataclasses.replace(plan, hparams=known, placed_hparams=placed)

    def explored(self) -> dict[str, np.ndarray]:
        """The hyper-parameters that change on the way, name -> [P]."""
        plan = self.plan
        planned = plan.scheduler.limits if plan.scheduler else ()
        return {
            name: values
            for name, values in plan.hparams.items()
            if name in planned
            or not np.array_equal(values, plan.settings["hparams"][name])
        }

    def should_checkpoint(self) -> bool:
        """Whether a checkpoint is due."""
        if self.workdir is None:
            return False
        every_steps = self.plan.save_every_steps
        every_seconds = self.plan.save_every_seconds
        steps, seconds = (
            self.step - self.saved_step,
            time.perf_counter() - self.saved_at,
        )
        return (every_steps is not None and steps >= every_steps) or (
            every_seconds is not None and seconds >= every_seconds
        )

    def log_position(self) -> int:
        """The size of the log on disk, in the process that writes it."""
        return self.log.position()

    def save(self) -> None:
        """Save a checkpoint: population, step, log position, seconds."""
        position = {
            "step": self.step,
            "log": processes.on_first_process(self.log_position),
            "seconds": self.seconds_so_far(),
        }
        if self.explored():
            position["hparams"] = run_folder.to_jsonable(dict(self.plan.hparams))
        self.checkpoints.save(self.step, self.population, position)
        self.saved_at, self.saved_step = time.perf_counter(), self.step

    def save_as_asked(self) -> None:
        """Save a complete checkpoint after SIGUSR1, and continue."""
        self.signal.save = False
        level = log_level(self.plan.quiet, logging.WARNING)
        if self.workdir is None:
            log.log(level, "SIGUSR1: nothing is saved without a run folder")
            return
        self.save()
        self.checkpoints.wait()
        log.log(level, "SIGUSR1: saved at step %d; the run goes on", self.step)

    def answer_signal(self, signum: int) -> None:
        """Save, report in one line, and exit.

        Without a folder, Ctrl-C ends the training and what is there comes back.
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

    def introduction(self) -> str:
        plan, size = self.plan, len(self.plan.seeds)
        shape = dict(plan.mesh.shape)
        experiment = plan.settings["experiment"]
        if self.finished is not None:
            return (
                f"{experiment} is finished in {self.workdir}: remove that folder to "
                "train anew, or ask for more epochs"
            )
        begins = f"goes on at step {self.step}" if self.step else "begins"
        groups = plan.groups
        waits = "" if groups.all_at_once else f", at most {groups.sizes[0]} at once"
        layers = ""
        if self.workdir is not None:  # many a run in memory is part of something larger
            layers = plan.table + "\n"
        return (
            f"{layers}{experiment} {begins}: {size} member"
            f"{'s' if size != 1 else ''}{waits}, {plan.num_steps} steps of "
            f"{plan.order.batch_size} examples, mesh {shape['member']} x "
            f"{shape['batch']} (member x batch), chunks of {plan.chunk} steps, "
            f"data {plan.feed.name}"
        )

    def seconds_so_far(self) -> dict[str, float]:
        """Seconds of this and earlier sessions of the run."""
        now = {
            "compile": self.plan.programs.compile_seconds,
            "train": self.train_seconds,
            "total": time.perf_counter() - self.plan.started,
        }
        return {name: self.seconds[name] + value for name, value in now.items()}


@contextlib.contextmanager
def gc_frozen() -> Iterator[None]:
    """Exclude existing objects from garbage collection while inside.

    It is all of JAX and what it compiled, and to walk over it took 90 to 140 ms in the
    middle of a checkpoint that takes 30. Where the user froze something it stays as it
    is: there is no way to give back a part of what is frozen.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _mean_over_steps(values) -> np.ndarray:
    """Mean [P] of the finite values over steps [S, P]; NaN where there are none.

    So the step at which a member was quarantined does not count, nor what a probe finds
    infinite at a step: the mean tells of the others.
    """
    values = np.asarray(values, np.float64)
    counted = np.isfinite(values)
    total = np.where(counted, values, 0).sum(0)
    return np.where(counted.any(0), total / np.maximum(counted.sum(0), 1), np.nan)
