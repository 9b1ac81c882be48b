"""`fit`: what came is checked, planned, and handed to the loop."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlworkshop.data.order import Order
from dlworkshop.learn import losses, metrics, optimizers, schedules
from dlworkshop.models.convolution import has_convolutions
from dlworkshop.models.model import Model
from dlworkshop.train import autotune, checks, data_files, feeds, memory, run_folder
from dlworkshop.train.cache import use_compilation_cache
from dlworkshop.train.groups import Groups, group_sizes
from dlworkshop.train.loop import Loop, Plan
from dlworkshop.train.members import check_used, name_of, product
from dlworkshop.train.mesh import BATCH, MEMBER, make_mesh
from dlworkshop.train.programs import (
    ExecutionConfig,
    Programs,
    chunk_flops,
    chunk_steps,
    update_flops,
)
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset


def fit(
    model: Model,
    dataset: Dataset,
    optimizer: Callable = optimizers.adam,
    *,
    hparams: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 1,
    num_epochs: int = 1,
    batch_size: int = 128,
    workdir: str | Path | None = None,
    schedule: Callable = schedules.constant,
    loss: Callable = losses.cross_entropy,
    metric: Callable = metrics.accuracy,
    patience: int | None = None,
    save_every_steps: int | None = None,
    save_every_seconds: float | None = 60.0,
    steps_per_chunk: int | None = None,
    convolution: str | None = None,
    streamed: bool | None = None,
    members_at_once: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    experiment: str = "fit",
) -> Run:
    """Train a population: every combination of `hparams` with every seed.

    The population is one program on all devices. With a `workdir` it is logged,
    checkpointed and reported there, and a run that was stopped goes on where it was;
    its end is the same, bit for bit, as if it had not been stopped.

    Args:
        model: pair of pure functions of one example.
        dataset: arrays of the three splits; `data.load` makes one.
        optimizer: hparams -> optax.GradientTransformation.
        hparams: name -> a value or a list of values; see `types.HParams`.
        seeds: how many, or which.
        num_epochs: passes over the training split; its last partial batch is left
            out, and the order differs in each.
        batch_size: examples per step and member.
        workdir: the run folder; None keeps everything in memory.
        schedule: num_steps -> (step -> multiplier of the learning rate).
        loss, metric: functions of one example, (outputs, target) -> scalar.
        patience: stop a member after this many epochs without a lower validation
            loss and take its best parameters; None takes the last ones.
        save_every_steps, save_every_seconds: how often a record is written, at the
            end of a chunk; the last record is written in any case.
        steps_per_chunk: steps between two looks of the host at the program; by
            default one or two seconds of work.
        convolution: how to compute convolutions, one of
            `models.convolution.CONV_IMPLS`; by default what is measured to be fastest,
            where the run is long enough.
        streamed: whether the examples stay in host memory or on disk and are brought
            to the devices batch by batch; by default where the splits would take more
            than half of the memory that is free. The batches are the same.
        members_at_once: the most members that train together; the others wait in the
            memory of the host. By default as many as are predicted to fit.
        devices: all local ones by default.
        experiment: the name of the run in its summary and report.

    Returns:
        The trained members with the summary; the test split was read once.

    Raises:
        UserError: where an argument cannot be, in one sentence.
        SystemExit: 128 + the number of the signal that stopped the run, saved.

    >>> from dlworkshop import data, models
    >>> digits = data.load("digits")
    >>> run = fit(models.logistic(), digits, hparams={"learning_rate": 0.01}, seeds=2)
    >>> run.summary["members"], run.predict(digits.test.inputs[:3]).shape
    (2, (2, 3, 10))
    """
    started = time.perf_counter()
    use_compilation_cache()
    hparams = {"learning_rate": 1e-3} if hparams is None else hparams
    members, member_seeds = product(hparams, seeds)
    checks.check_numbers(
        num_epochs,
        batch_size,
        patience=patience,
        steps_per_chunk=steps_per_chunk,
        members_at_once=members_at_once,
    )
    checks.check_dataset(dataset, batch_size)
    checks.check_outputs(model, dataset, loss)
    check_used(members, optimizer, model, loss)

    size = len(dataset.train.targets)
    order = Order(member_seeds, size, batch_size)
    num_steps = num_epochs * order.steps_per_epoch
    mesh = make_mesh(len(member_seeds), batch_size, devices or jax.local_devices())
    used = list(mesh.devices.flat)
    free = memory.free(used)
    example = dataset.train.inputs[0]
    params = jax.eval_shape(model.init, jax.random.key(0), example)
    before = run_folder.read_config(workdir)
    example_flops = update_flops(model, example)
    flops = example_flops * batch_size * len(member_seeds)
    chunk = steps_per_chunk or chunk_steps(flops, order.steps_per_epoch)
    make_programs = functools.partial(
        Programs,
        model,
        optimizer,
        schedule(num_steps),
        loss,
        metric,
        mesh,
        patience=patience,
    )
    convolutions = has_convolutions(model.apply, params, example)
    choice = autotune.rule_of_thumb(
        batch_size // mesh.shape[BATCH], example_flops, convolutions=convolutions
    )
    if convolution is not None:
        how = checks.check_convolution(convolution, convolutions)
        choice = choice._replace(convolution=how)
    elif "computed" in before:
        choice = ExecutionConfig(
            **before["computed"]
        )  # a resumed run computes as it did
    elif convolutions and flops * num_steps > autotune.WORTH:
        choice = autotune.measure(
            make_programs, mesh, model, members, member_seeds, dataset, order
        )
    feed = feeds.choose(streamed, dataset, mesh, order)
    count, axis = len(member_seeds), mesh.shape[MEMBER]
    asked = members_at_once or before.get("members_at_once")
    at_once = memory.equal(count, axis, asked or count)
    chunks = flops / count * num_steps / chunk_flops()
    plan = Plan(
        model,
        dataset,
        make_programs(choice=choice, streamed=feed.name == "streamed"),
        mesh,
        jax.tree.map(lambda values: np.asarray(values, float), members),
        member_seeds,
        order,
        num_steps,
        min(chunk, order.steps_per_epoch),
        Groups(count, group_sizes(at_once, axis, chunks)),
        {
            "experiment": experiment,
            "dataset": {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                "classes": list(dataset.classes),
                "shape": list(example.shape),
                "dtype": str(example.dtype),
                "train": size,
                "validation": len(dataset.validation.targets),
                "test": len(dataset.test.targets),
            },
            "model": dict(model.config),
            "optimizer": name_of(optimizer),
            "schedule": name_of(schedule),
            "loss": name_of(loss),
            "metric": name_of(metric),
            "hparams": {k: v for k, v in members._asdict().items() if v is not None},
            "seeds": member_seeds,
            "num_epochs": num_epochs,
            "batch_size": batch_size,
            "patience": patience,
            "steps_per_chunk": chunk,
            "computed": choice._asdict(),
        },
        save_every_steps,
        save_every_seconds,
        feed,
        started,
    )
    # A run goes on in groups of the size it began with, if they fit; one that has come
    # to its end needs no memory.
    if members_at_once is None and not run_folder.is_finished(workdir):
        predicted = functools.partial(memory.predict, plan, workdir is not None)
        at_once = memory.fitting(at_once, axis, predicted, free, memory.margin(used))
        plan = plan._replace(groups=Groups(count, group_sizes(at_once, axis, chunks)))
    plan.config["members_at_once"] = asked or at_once
    if workdir is None:
        return Loop(plan, None).run()
    workdir = Path(workdir)
    about = data_files.describe(dataset, model)  # it reads: not the folder's mistake
    with run_folder.owned(workdir):
        run_folder.check_config(workdir, plan.config)
        with checks.disk_errors(workdir):
            for name, content in about.items():
                run_folder.write_json(workdir / name, content)
            return Loop(plan, workdir).run()
