"""`fit`: plan, train, evaluate, and write a run."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from dlworkshop import run_files
from dlworkshop.learn import losses, schedules
from dlworkshop.learn.metrics import Metric
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.train import (
    data_files,
    disk,
    estimation,
    processes,
    run_folder,
)
from dlworkshop.train.arguments import Arguments
from dlworkshop.train.cache import compilation_cache
from dlworkshop.train.conclusion import conclude
from dlworkshop.train.loop import Loop
from dlworkshop.train.members import Settings
from dlworkshop.train.plan import Plan
from dlworkshop.train.planning import make_plan
from dlworkshop.train.progress import logging_kept
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset, PyTree, Start


def fit(
    model: Model | StatefulModel,
    dataset: Dataset,
    optimizer: Callable = optax.adam,
    *,
    hparams: Settings | None = None,
    seeds: int | Sequence[int] = 1,
    num_epochs: int = 1,
    batch_size: int = 128,
    steps_per_epoch: int | None = None,
    folds: int | None = None,
    workdir: str | Path | None = None,
    loss: Callable = losses.cross_entropy,
    objective: Callable | None = None,
    schedule: Callable = schedules.constant,
    metrics: Mapping[str, Callable | Metric] | None = None,
    monitor: str = "loss",
    patience: int | None = None,
    batch_transform: Callable | None = None,
    make_step: Callable | None = None,
    probe: Callable | None = None,
    eval_params: Callable | None = None,
    observe: Sequence[Callable] = (),
    start: Run | Start | PyTree | None = None,
    outputs: str | None = None,
    read_test: bool = True,
    save_every_steps: int | None = None,
    save_every_seconds: float | None = 60.0,
    steps_per_chunk: int | None = None,
    convolution: str | None = None,
    streamed: bool | None = None,
    members_at_once: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    experiment: str = "fit",
    quiet: bool = False,
) -> Run:
    """Train a population: every setting of `hparams` with every seed.

    The population is one program on all devices. With a `workdir` it is logged,
    checkpointed and reported there, and a run that was stopped goes on where it was;
    its end is the same, bit for bit, as if it had not been stopped.

    Hyper-parameters go by name to the function that takes a keyword of that name: the
    optimizer's constructor, the loss or objective, `model.apply`, the schedule or the
    batch transform. They are arguments of the compiled program, so that another value
    compiles nothing.

    Args:
        model: pair of pure functions of one example.
        dataset: arrays of the three splits; `data.load` and `data.from_arrays` make
            one.
        optimizer: an optax constructor as it is (`optax.adamw`), or any function of
            numbers that returns a gradient transformation; what is no number is fixed
            by `functools.partial`. A keyword `key` is given one of the member.
        hparams: name -> a number or a list of numbers, of which every combination is a
            setting; or a list of settings. `{"learning_rate": 1e-3}` by default.
            Where two functions take one name, `"optimizer.eps"` says whose it is.
        seeds: how many, or which.
        num_epochs: passes over the training split; its last partial batch is left
            out, and the order differs in each. A finished run in `workdir` goes on
            where more epochs are asked for, if the schedule does not depend on their
            number.
        batch_size: examples per step and member.
        steps_per_epoch: how many steps are an epoch, after which validation is scored,
            whatever the size of train. Its passes then follow one another and no
            example is left out. By default one pass.
        folds: cross-validation. Train and validation together are cut into so many
            parts, classes in proportion and anew for each seed, and what belongs
            together (`Dataset.groups`, exact copies) in one; each setting and seed is
            trained once without each part, and that part is its validation.
        workdir: the run folder; None keeps everything in memory.
        loss: (outputs, targets, **hparams) -> scalar, of one example.
        objective: what is minimised instead of a loss of the outputs, of one example:
            see `learn.objective`.
        schedule: num_steps -> (step -> multiplier of the learning rate).
        metrics: name -> function of one example, (outputs, targets) -> scalar, or a
            `Metric`; by default what goes with the loss and the targets.
        monitor: "loss" or a metric, on validation: decides the best parameters, early
            stopping, and what a sweep chooses.
        patience: stop a member after this many epochs without a better `monitor` and
            take its best parameters; None takes the last ones.
        batch_transform: (key, batch) -> batch, in training, as mixup.
        make_step: (`TrainStep`, **hparams) -> (train, batch, hparams) -> (train,
            metrics), for a step of your own; its metrics have at least the "loss".
        probe: (grads, updates, params) -> {name: scalar}, logged with the training
            loss.
        eval_params: (opt_state, params) -> params that are evaluated, kept as the best
            and returned, as averages are.
        observe: functions of a `Snapshot`, called between chunks; they may answer which
            members [P] are to stop. `observers.successive_halving()` and other
            schedulers are such functions.
        start: a `Run` whose parameters and running statistics to begin from, or
            parameters: of as many members, or of one for all. A `Start` may have the
            optimizer's state too, as `Start(run.params, run.state, run.opt_state)`.
        outputs: what the model's outputs are: "logits", "binary_logits",
            "probabilities" or "values"; by default what the loss says.
        read_test: False leaves the test split unread, as while settings are chosen.
        save_every_steps, save_every_seconds: how often a checkpoint is written, at the
            end of a chunk; the last one is written in any case.
        steps_per_chunk: steps between two looks of the host at the program; by
            default one or two seconds of work, by the clock where the model loops until
            a condition holds, or where the device is no CPU. There, of short epochs
            several are done between two looks if nothing must see each: no observer,
            no metric of a whole split, all members at once, data on the devices.
        convolution: how to compute convolutions, one of
            `models.convolution.CONV_IMPLS`; by default what is measured to be fastest,
            where the run is long enough.
        streamed: whether the examples stay in host memory or on disk and are brought
            to the devices batch by batch; by default where the splits would take more
            than half of the memory that is free. The batches are the same.
        members_at_once: the most members that train together; the others wait in the
            memory of the host. By default as many as are predicted to fit.
        devices: all by default, those of the other processes of a run too.
        experiment: the name of the run in its summary and report.
        quiet: show nothing: neither progress nor messages.

    Returns:
        The trained members with the summary; the test split was read once. After
        Ctrl-C without a `workdir`: the run so far.

    Raises:
        UserError: where an argument cannot be, in one sentence.
        SystemExit: 128 + the number of the signal that stopped the run, saved.

    >>> from dlworkshop import data, models
    >>> digits = data.load("digits")
    >>> run = fit(models.logistic(), digits, hparams={"learning_rate": 0.01}, seeds=2)
    >>> run.summary["members"], run.predict(digits.test.inputs[:3]).shape
    (2, (2, 3, 10))
    """
    asked = Arguments(**locals())
    with compilation_cache(quiet), logging_kept():
        if not estimation.is_wanted():  # it writes there
            processes.check_shared_folder(workdir)
        plan = make_plan(asked, time.perf_counter())
        if estimation.is_wanted():
            saved = workdir is not None
            raise estimation.Estimated(estimation.measure(plan, saved))
        return _fit(plan, dataset, workdir)


def estimate(*args: Any, **kwargs: Any) -> estimation.Estimate:
    """Estimate the memory and time of a run before it trains.

    Memory is what the compiled programs say they need. Steps per second are measured
    on a few seconds of steps, compilation by compiling. What is compiled is kept, so
    that the run itself starts sooner. The run folder is not touched: the estimate is
    of a whole run, from its first step, without its report and checkpoints.

    Args:
        args, kwargs: as `fit` takes them. With a `workdir` the memory of a CPU also
            holds the copy of the population that is being saved.

    Returns:
        Bytes on each device, steps and examples per second, and seconds; printed, it
        is a table.

    Raises:
        UserError: as `fit` does.

    >>> from dlworkshop import data, models
    >>> found = estimate(models.logistic(), data.load("digits"), seeds=2)
    >>> found.steps, found.members, found.memory.parameters >= 4 * 650
    (9, 2, True)
    """
    with estimation.instead_of_training():
        try:
            fit(*args, **kwargs)
        except estimation.Estimated as found:
            return found.estimate
    raise AssertionError("fit returned")


def _fit(plan: Plan, dataset: Dataset, workdir: str | Path | None) -> Run:
    if workdir is None:
        return conclude(Loop(plan, None).run(), None)
    workdir = Path(workdir)
    # it reads: not the folder's mistake
    files = data_files.describe(dataset, plan.model)

    def prepare() -> None:
        run_folder.check_config(workdir, plan.settings, plan.derived)
        with disk.disk_errors(workdir):
            for name, content in files.items():
                run_folder.write_json(workdir / name, content)
                run_files.read(workdir, name)  # as a reader will: not at the end

    with processes.entered_on_first_process(run_folder.lock_run_dir(workdir)):
        processes.on_first_process(prepare)
        with disk.disk_errors(workdir):
            return conclude(Loop(plan, workdir).run(), workdir)
