"""`fit`: plan, train, evaluate, and write a run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from dlworkshop import identity, run_files
from dlworkshop.errors import UserError, check_path
from dlworkshop.learn import losses, schedules
from dlworkshop.learn.metrics import Metric
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.train import (
    data_files,
    disk,
    estimation,
    instead,
    processes,
    replaying,
    run_folder,
)
from dlworkshop.train.arguments import Arguments, in_words
from dlworkshop.train.cache import compilation_cache
from dlworkshop.train.conclusion import conclude
from dlworkshop.train.loop import Loop
from dlworkshop.train.members import Settings
from dlworkshop.train.plan import Plan
from dlworkshop.train.planning import make_plan
from dlworkshop.train.progress import log_level, logging_kept
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset, PyTree, Start

log = logging.getLogger(__name__)


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

    The population is one compiled program on all devices. With a `workdir` the run is
    logged, checkpointed and reported there, and a stopped run continues from its last
    checkpoint; it ends with the same bits as a run that was not stopped.

    Each hyper-parameter is passed by name to the function that takes a keyword of that
    name: the optimizer's constructor, the loss or objective, `model.apply`, the
    schedule or the batch transform. Hyper-parameters are arguments of the compiled
    program, so another value does not compile anything.

    Args:
        model: pair of pure functions of one example.
        dataset: arrays of the three splits, made by `data.load` or `data.from_arrays`.
        optimizer: an optax constructor as it is (`optax.adamw`), or any function of
            numbers that returns a gradient transformation; fix arguments that are not
            numbers with `functools.partial`. If it takes a keyword `key` or `seed`, it
            gets one of the member.
        hparams: name -> a number or a list of numbers, every combination of which is a
            setting; or a list of settings. By default `{"learning_rate": 1e-3}` if the
            optimizer needs a learning rate, else {}. If two functions take the same
            name, write `"optimizer.eps"`.
        seeds: the number of seeds, or a list of them.
        num_epochs: passes over the training split, each in another order; the last
            partial batch of a pass is dropped. A finished run in `workdir` continues
            if more epochs are requested and its schedule does not depend on their
            number.
        batch_size: examples per step and member.
        steps_per_epoch: the number of steps in an epoch, after which validation is
            evaluated. Passes then follow one another and no example is dropped. By
            default an epoch is one pass.
        folds: the number of folds of cross-validation. Train and validation are pooled
            and cut into folds, stratified by class and drawn anew for each seed; groups
            (`Dataset.groups`, exact copies) stay together. Each setting and seed is
            trained once per fold, with that fold as its validation split.
        workdir: the run folder; None keeps everything in memory.
        loss: (outputs, targets, **hparams) -> scalar, of one example.
        objective: a function of one example to minimise instead of a loss, see
            `learn.objective`.
        schedule: num_steps -> (step -> multiplier of the learning rate).
        metrics: name -> function of one example, (outputs, targets) -> scalar, or a
            `Metric`; the default depends on the loss and the targets. Errors such as
            `metrics.mae` of a table are in the units of its target.
        monitor: "loss" or a metric. Its value on validation determines the best
            parameters, early stopping, and the choice of a sweep.
        patience: stop a member after this many epochs without a better `monitor` and
            return its best parameters; None returns the last ones.
        batch_transform: (key, batch) -> batch, applied in training, such as mixup.
        make_step: (`TrainStep`, **hparams) -> (train, batch, hparams) -> (train,
            metrics), for a custom step; its metrics must include "loss".
        probe: (grads, updates, params) -> {name: scalar}, logged with the training
            loss.
        eval_params: (opt_state, params) -> params to evaluate, keep as the best and
            return, such as averages.
        observe: functions of a `Snapshot`, called between chunks; they may return which
            members [P] to stop. Schedulers such as `observers.successive_halving()` are
            such functions. Other observers are not compared with those of an earlier
            call, and not called if the run in `workdir` is finished.
        start: a `Run`, whose parameters and running statistics are the initial values;
            or parameters, of as many members or of one for all. A `Start` may include
            the optimizer's state: `Start(run.params, run.state, run.opt_state)`; a run
            that `load_run` returns has none.
        outputs: what the model's outputs are: "logits", "binary_logits",
            "probabilities" or "values"; by default what the loss expects.
        read_test: False does not read the test split, for example while settings are
            being chosen. A finished run in `workdir` reads it later, with True.
        save_every_steps, save_every_seconds: how often a checkpoint is written, at the
            end of a chunk; the last step is always saved.
        steps_per_chunk: steps per call of the device; the host logs, saves and handles
            signals between calls. By default one or two seconds of work, counted in
            operations, or measured if the model loops until a condition holds or the
            device is not a CPU. On such devices several short epochs are one call,
            unless there are observers or metrics of a whole split, members take turns,
            or data is streamed.
        convolution: how to compute convolutions, one of
            `models.convolution.CONV_IMPLS`; by default the fastest one, which is
            measured if the run is long enough.
        streamed: True keeps the examples in host memory or on disk and copies them to
            the devices batch by batch. By default, splits are streamed if they need
            more than half of the free memory. The batches are the same.
        members_at_once: the most members that train together; the others wait in host
            memory. By default as many as are predicted to fit.
        devices: by default all devices, including those of other processes of the run.
        experiment: the name of the run in its summary and report.
        quiet: True shows neither progress nor messages.

    Returns:
        The trained members with the summary; the test split was read once. After
        Ctrl-C without a `workdir`: the run so far.

    Raises:
        UserError: if an argument is not valid.
        SystemExit: 128 + the number of the signal that stopped the run, after saving.

    >>> from dlworkshop import data, models
    >>> digits = data.load("digits")
    >>> run = fit(models.logistic(), digits, hparams={"learning_rate": 0.01}, seeds=2)
    >>> run.summary["members"], run.predict(digits.test.inputs[:3]).shape
    (2, (2, 3, 10))
    """
    asked = Arguments(**locals())
    with compilation_cache(quiet), logging_kept():
        processes.check_devices()  # what differs would hang several of them later
        processes.check_alike(in_words(vars(asked)))
        instead.answer(asked)  # before the folder is touched
        processes.check_shared_folder(workdir)
        return _fit(make_plan(asked))


def estimate(*args: Any, **kwargs: Any) -> estimation.Estimate:
    """Estimate the memory and time of a run before it trains.

    Memory is what the compiled programs report. Steps per second are measured on a few
    seconds of steps, and compilation is timed. Compiled programs are cached, so the run
    itself starts sooner. The run folder is not touched: the estimate is for a whole
    run, from its first step, without its report and checkpoints.

    Args:
        args, kwargs: as in `fit`. With a `workdir`, the memory of a CPU includes the
            copy of the population that is being saved.

    Returns:
        Bytes on each device, steps and examples per second, and seconds; `print` shows
        a table.

    Raises:
        UserError: as `fit` does.

    >>> from dlworkshop import data, models
    >>> found = estimate(models.logistic(), data.load("digits"), seeds=2)
    >>> found.steps, found.members, found.memory.parameters >= 4 * 650
    (9, 2, True)
    """
    return _answer(estimation.of_fit, *args, **kwargs)


def replay(member: int, *args: Any, **kwargs: Any) -> replaying.Replay:
    """Repeat the step at which a member was quarantined, and name what failed in it.

    The member starts from its last finite state, in the newest intact checkpoint of the
    run folder, and is trained alone in memory. Nothing is written to the folder, and
    the run may still be training.

    Args:
        member: its number, as in `run.summary["population"]`.
        args, kwargs: of the call of `fit` that trained the run, with its `workdir`.

    Returns:
        The member with its settings, its last steps, and the operation behind the first
        number that is not finite; `print` shows them.

    Raises:
        UserError: if the member does not exist or was not quarantined, the folder has
            no checkpoint, or the arguments are not those of its run.

    >>> import tempfile, jax.numpy as jnp
    >>> from dlworkshop import data, models
    >>> def loss(outputs, target, *, shift):
    ...     return jnp.log(shift + (outputs**2).sum())
    >>> run = {"loss": loss, "hparams": {"learning_rate": 0.1, "shift": [9, -9]}}
    >>> run |= {"metrics": {}, "workdir": tempfile.mkdtemp(), "quiet": True}
    >>> digits = data.load("digits")
    >>> _ = fit(models.logistic(), digits, **run)
    >>> found = replay(1, models.logistic(), digits, **run)
    >>> found.steps[-1].step, found.hparams["shift"], found.why
    (1, -9.0, 'the loss is not finite because of log at ...')
    """
    if kwargs.get("workdir") is None:
        raise UserError("workdir is None: give the folder of the run to replay")
    check_path("workdir", kwargs["workdir"])
    of_fit = replaying.action(Path(kwargs["workdir"]), member)
    return _answer(of_fit, *args, **kwargs)


def _answer(action: instead.Action, *args: Any, **kwargs: Any) -> Any:
    with instead.of_training(action, ""):
        try:
            fit(*args, **kwargs)
        except instead.Answered as found:
            return found.answer
    raise AssertionError("fit returned")


def _fit(plan: Plan) -> Run:
    if plan.asked.workdir is None:
        return conclude(Loop(plan, None).run())
    workdir = Path(plan.asked.workdir)
    # before the folder is locked, so that errors of the data are not taken for its own
    files = data_files.describe(plan.asked.dataset, plan.asked.model)

    def prepare() -> None:
        if unseen := ", ".join(identity.opaque(plan.settings["identity"])):
            level = log_level(plan.quiet, logging.WARNING)
            log.log(level, "%s cannot be compared, so this run cannot resume", unseen)
        with disk.disk_errors(workdir):
            run_folder.check_config(workdir, plan.settings, plan.derived)
            for name, content in files.items():
                run_folder.write_json(workdir / name, content)
                run_files.read(workdir, name)  # fails now rather than at the end

    with processes.entered_on_first_process(run_folder.lock_run_dir(workdir)):
        processes.on_first_process(prepare)
        with disk.disk_errors(workdir):
            return conclude(Loop(plan, workdir).run())
