"""The loop over chunks: the one room with a clock, a disk and a terminal."""

import contextlib
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dlworkshop import report
from dlworkshop.data.feed import give_back_large_blocks
from dlworkshop.data.order import Order
from dlworkshop.learn import population as pop
from dlworkshop.models.model import Model, table
from dlworkshop.train import params_file, result, run_folder
from dlworkshop.train.checkpoints import Checkpoints
from dlworkshop.train.feeds import Feed
from dlworkshop.train.groups import Group, Groups, fill
from dlworkshop.train.mesh import BATCH, home
from dlworkshop.train.programs import Programs
from dlworkshop.train.progress import Watch
from dlworkshop.train.result import Run
from dlworkshop.train.signals import caught
from dlworkshop.types import Dataset, HParams, Metrics


class Plan(NamedTuple):
    """Everything about a run that does not change while it runs."""

    model: Model
    dataset: Dataset
    programs: Programs
    mesh: Mesh
    hparams: HParams  # [P]
    seeds: list[int]  # [P]
    order: Order
    num_steps: int
    chunk: int  # steps
    groups: Groups
    config: dict[str, Any]
    save_every_steps: int | None
    save_every_seconds: float | None
    feed: Feed
    started: float  # by time.perf_counter

    @property
    def evaluation_batch(self) -> int:
        """Examples evaluated at once: what the cache holds, where that was asked for;
        else not too few, because many tiny batches would take their time."""
        if self.programs.choice.micro_batch is not None:
            return self.programs.choice.micro_batch * self.mesh.shape[BATCH]
        batch = self.order.batch_size
        return batch * max(1, 128 // batch)


class Loop:
    """One run between its first look at the folder and its last."""

    def __init__(self, plan: Plan, workdir: Path | None):
        self.plan, self.workdir = plan, workdir
        self.seconds = {"compile": 0.0, "train": 0.0, "total": 0.0}  # of earlier parts
        self.train_seconds = 0.0
        self.step = 0
        self.validation: Metrics | None = None
        self.finished: dict[str, Any] | None = None  # the summary of a whole run

    def run(self) -> Run:
        self.population = self.begin()
        with contextlib.ExitStack() as stack:
            log_position = 0
            if self.workdir is not None:
                self.checkpoints = Checkpoints(self.workdir / "checkpoints")
                stack.callback(self.checkpoints.close)
                log_position = self.restore(self.workdir / "summary.json")
                self.log = run_folder.Log(self.workdir / "metrics.jsonl", log_position)
                stack.callback(self.log.close)
            self.train()
            if self.workdir is not None:
                self.save()
        return self.finish()

    def begin(self) -> pop.Population:
        """Everyone at step 0; each group begins where it will be trained."""
        plan, programs = self.plan, self.plan.programs
        seeds, self.hparams = jax.device_put(
            (np.asarray(plan.seeds, np.uint32), plan.hparams),
            home(plan.mesh, fits=plan.groups.all_at_once),
        )
        example = plan.dataset.train.inputs[0]
        if plan.groups.all_at_once:
            return programs.begin(seeds, self.hparams, example)
        give_back_large_blocks()  # or those of one group stay while the next one runs
        population = programs.empty(seeds, self.hparams, example)
        for group in plan.groups.of(range(len(plan.seeds))):
            some_seeds, hparams = programs.take((seeds, self.hparams), group)
            part = programs.begin(some_seeds, hparams, example)
            population = programs.put(population, group, part)
        return population

    def restore(self, summary: Path) -> int:
        """Take up the newest record, if there is one; the position of the log."""
        if self.checkpoints.latest() is None:
            return 0
        self.population, position = self.checkpoints.restore(self.population)
        self.step = position["step"]
        self.seconds = position["seconds"]
        if summary.exists() and (
            self.step == self.plan.num_steps or not self.running()
        ):
            self.finished = run_folder.read_json(summary)
        return position["log"]

    def train(self) -> None:
        """The chunks to come; where other members run, the feed begins anew."""
        plan = self.plan
        self.saved_at, self.saved_step = time.perf_counter(), self.step
        self.updates_before = self.updates()
        watch = Watch(plan.num_steps, self.step, plan.config["metric"])
        with caught() as self.signal, watch as self.watch, gc_frozen():
            watch.say(self.introduction())
            while self.step < plan.num_steps and (groups := self.running()):
                pieces = plan.feed.training(
                    self.step, plan.num_steps, plan.chunk, groups
                )
                with contextlib.closing(pieces):
                    self.piece = next(pieces, None)
                    while self.piece is not None and self.running() == groups:
                        self.turn(groups, pieces)

    def turn(self, groups: list[Group], pieces: Iterator) -> None:
        """A chunk, and all that is done before the next one."""
        programs = self.plan.programs
        begun, compiled = time.perf_counter(), programs.compile_seconds
        train = self.chunk(groups, pieces)
        compiled = programs.compile_seconds - compiled
        self.train_seconds += time.perf_counter() - begun - compiled
        epoch_done = self.step % self.plan.order.steps_per_epoch == 0
        if epoch_done:
            self.evaluate()
        self.write_line(train, epoch_done)
        examples = (self.updates() - self.updates_before) * self.plan.order.batch_size
        rate = examples / max(self.train_seconds, 1e-9)
        self.watch.tell(self.step, rate, train, self.validation)
        if self.signal.signum is not None:
            self.leave(self.signal)
        if self.due():
            self.save()

    def chunk(self, groups: list[Group], pieces: Iterator) -> Metrics:
        """Train each group for a chunk, in as many pieces as it has; means [P]."""
        plan, data = self.plan, self.plan.feed.data("train")
        left = plan.order.steps_per_epoch - self.step % plan.order.steps_per_epoch
        end = self.step + min(plan.chunk, left)
        means = self.unknown()
        for group in groups:
            part, hparams = plan.programs.take((self.population, self.hparams), group)
            step, of_pieces = self.step, []
            while step < end:
                step += len(jax.tree.leaves(self.piece)[0])
                part, metrics = plan.programs.chunk(part, hparams, data, self.piece)
                self.piece = next(pieces, None)  # the next, while the device computes
                of_pieces.append(jax.device_get(metrics))  # [S, G]; waits
            self.population = plan.programs.put(self.population, group, part)
            del part  # before the next group is taken
            for mean, values in zip(means, zip(*of_pieces, strict=True), strict=True):
                fill(mean, group, _mean_over_steps(np.concatenate(values)))
        self.step = end
        return means

    def running(self) -> list[Group]:
        """The members that still run, in groups."""
        status = np.asarray(self.population.status)
        return self.plan.groups.of(np.flatnonzero(status == pop.RUNNING).tolist())

    def updates(self) -> int:
        """Updates of all members together."""
        return int(np.asarray(self.population.train.step).sum(dtype=np.int64))

    def unknown(self, *shape: int) -> Metrics:
        """Metrics [P, ...] that nobody measured yet."""
        return Metrics(*(np.full((len(self.plan.seeds), *shape), np.nan) for _ in "lm"))

    def evaluate(self) -> None:
        """Validation after an epoch: best parameters, early stopping."""
        running = np.asarray(self.population.status) == pop.RUNNING
        params = self.population.train.params
        per_example = self.measure(params, "validation", self.running())
        means = Metrics(*(values.mean(-1) for values in per_example))
        self.population = self.plan.programs.keep_best(self.population, means.loss)
        self.validation = Metrics(*(np.where(running, m, np.nan) for m in means))

    def measure(self, params, split: str, groups: list[Group]) -> Metrics:
        """Metrics [P, N] float64 of every example of a split, each counted once."""
        plan, data = self.plan, self.plan.feed.data(split)
        size = len(getattr(plan.dataset, split).targets)
        found = self.unknown(size)
        for group in groups:
            part = plan.programs.take(params, group)
            pieces = plan.feed.evaluation(split, plan.evaluation_batch)
            with contextlib.closing(pieces):
                padded = [
                    jax.device_get(plan.programs.evaluate(part, data, piece))
                    for piece in pieces
                ]
            for whole, values in zip(found, zip(*padded, strict=True), strict=True):
                rows = np.concatenate(values, axis=1)  # [G, T, B]
                fill(whole, group, rows.reshape(len(group), -1)[:, :size])
        return found

    def write_line(self, train: Metrics, epoch_done: bool) -> None:
        if self.workdir is None:
            return
        name = self.plan.config["metric"]
        line: dict[str, Any] = {
            "step": self.step,
            "epoch": self.step / self.plan.order.steps_per_epoch,
            "train": {"loss": train.loss, name: train.metric},
        }
        if epoch_done and self.validation is not None:
            line["validation"] = {
                "loss": self.validation.loss,
                name: self.validation.metric,
            }
        self.log.write(line)

    def due(self) -> bool:
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

    def save(self) -> None:
        """One record: population, step, log position, seconds."""
        position = {
            "step": self.step,
            "log": self.log.position(),
            "seconds": self.seconds_so_far(),
        }
        epoch_done = self.step % self.plan.order.steps_per_epoch == 0
        loss = None
        if epoch_done and self.validation is not None:
            loss = _finite_mean(self.validation.loss)
        self.checkpoints.save(self.step, self.population, position, loss)
        self.saved_at, self.saved_step = time.perf_counter(), self.step

    def leave(self, signal) -> None:
        """Save, say so in one line, and go; the same command goes on from here."""
        done = f"stopped by {signal.name} at step {self.step} of {self.plan.num_steps}"
        if self.workdir is None:
            print(f"{done}; nothing was saved without a run folder", file=sys.stderr)
        else:
            self.save()
            self.checkpoints.wait()
            print(f"{done}; run the same command again to go on", file=sys.stderr)
        raise SystemExit(128 + signal.signum)

    def introduction(self) -> str:
        plan, size = self.plan, len(self.plan.seeds)
        shape = dict(plan.mesh.shape)
        if self.finished is not None:
            return (
                f"{plan.config['experiment']} is finished in {self.workdir}: remove "
                "that folder to train anew"
            )
        begins = f"goes on at step {self.step}" if self.step else "begins"
        groups = plan.groups
        waits = "" if groups.all_at_once else f", at most {groups.sizes[0]} at once"
        layers = ""
        if self.workdir is not None:  # many a run in memory is part of something larger
            layers = table(plan.model, plan.dataset.train.inputs[0]) + "\n"
        return (
            f"{layers}{plan.config['experiment']} {begins}: {size} member"
            f"{'s' if size != 1 else ''}{waits}, {plan.num_steps} steps of "
            f"{plan.order.batch_size} examples, mesh {shape['member']} x "
            f"{shape['batch']} (member x batch), chunks of {plan.chunk} steps, "
            f"data {plan.feed.name}"
        )

    def seconds_so_far(self) -> dict[str, float]:
        now = {
            "compile": self.plan.programs.compile_seconds,
            "train": self.train_seconds,
            "total": time.perf_counter() - self.plan.started,
        }
        return {name: self.seconds[name] + value for name, value in now.items()}

    def finish(self) -> Run:
        """Read the test split, once, and write down what came out."""
        plan = self.plan
        if self.finished is not None:  # a whole run was started again: nothing to do
            return Run(plan.model, self.final_params(), self.finished, self.workdir)
        params = self.final_params()
        everyone = plan.groups.of(range(len(plan.seeds)))
        scores = {
            split: self.measure(params, split, everyone)
            for split in ("validation", "test")
        }
        summary = result.summarise(plan, self.population, scores, self.seconds_so_far())
        run = Run(plan.model, params, summary, self.workdir)
        if self.workdir is not None:
            if plan.dataset.classes:
                result.write_predictions(
                    self.workdir / "predictions.npz",
                    plan.dataset.test,
                    plan.dataset.classes,
                    run.predict(plan.dataset.test.inputs),
                    scores["test"].loss,
                    np.asarray(self.population.status) != pop.QUARANTINED,
                )
            params_file.write_params(
                self.workdir / params_file.FILE, params, plan.config
            )
            run_folder.write_json(self.workdir / "summary.json", summary)
            report.write(self.workdir)
        return run

    def final_params(self):
        """The last parameters [P, ...]; with `patience` the best by validation."""
        last = self.population.train.params
        if self.plan.config["patience"] is None:
            return last
        known = jnp.isfinite(self.population.best_loss)
        return jax.vmap(pop.select)(known, self.population.best_params, last)


@contextlib.contextmanager
def gc_frozen() -> Iterator[None]:
    """Keep the garbage collector off what is there already.

    It is all of JAX and what it compiled, and to walk over it took 90 to 140 ms in the
    middle of a record that takes 30.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _mean_over_steps(values) -> np.ndarray:
    """Mean [P] over the steps [S, P] at which a member was running; else NaN."""
    values = np.asarray(values, np.float64)
    counted = np.isfinite(values)
    total = np.where(counted, values, 0).sum(0)
    return np.where(counted.any(0), total / np.maximum(counted.sum(0), 1), np.nan)


def _finite_mean(values) -> float | None:
    values = np.asarray(values)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
