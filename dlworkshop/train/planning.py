"""Planning of a run: every check and choice, from `fit`'s arguments to a `Plan`."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dlworkshop import identity
from dlworkshop.data.content import fingerprint
from dlworkshop.data.order import Order
from dlworkshop.errors import Range, UserError, check_number, check_text
from dlworkshop.learn import losses, schedules
from dlworkshop.learn.checks import check_split_metrics
from dlworkshop.learn.hparams import (
    Routes,
    check_required,
    given,
    keywords,
    name_of,
    route,
)
from dlworkshop.learn.metrics import Metric, as_metrics, cost, default_metrics
from dlworkshop.learn.objective import from_loss
from dlworkshop.learn.step import TrainSpec, make_eval_step
from dlworkshop.models.model import (
    Model,
    StatefulModel,
    shapes,
    stateful,
)
from dlworkshop.train import (
    autotune,
    checks,
    chunk_length,
    feeds,
    finite,
    memory,
    processes,
    run_folder,
)
from dlworkshop.train.folds import held_out, pooled
from dlworkshop.train.groups import Groups, group_sizes
from dlworkshop.train.members import check_ranges, product
from dlworkshop.train.mesh import MEMBER, make_mesh, places
from dlworkshop.train.observers.scheduler import only_scheduler, planned_rungs
from dlworkshop.train.orders import EndlessOrder
from dlworkshop.train.plan import Plan
from dlworkshop.train.predictions import fitted_target
from dlworkshop.train.programs import (
    ExecutionConfig,
    Programs,
)
from dlworkshop.train.result import Run, describe_example, versions
from dlworkshop.train.starting import stacked_start
from dlworkshop.train.step_checks import check_step
from dlworkshop.train.workload import Workload
from dlworkshop.types import Array, Dataset, HParams, PyTree, Start

log = logging.getLogger(__name__)


def make_plan(  # noqa: PLR0915 - every choice, in the order in which they depend
    *,
    model: Model | StatefulModel,
    dataset: Dataset,
    optimizer: Callable,
    hparams: Any,
    seeds: int | Sequence[int],
    num_epochs: int,
    batch_size: int,
    steps_per_epoch: int | None,
    folds: int | None,
    workdir: str | Path | None,
    loss: Callable,
    objective: Callable | None,
    schedule: Callable,
    metrics: Mapping[str, Any] | None,
    monitor: str,
    patience: int | None,
    batch_transform: Callable | None,
    make_step: Callable | None,
    probe: Callable | None,
    eval_params: Callable | None,
    observe: Sequence[Callable],
    start: Run | Start | PyTree | None,
    outputs: str | None,
    read_test: bool,
    save_every_steps: int | None,
    save_every_seconds: float | None,
    steps_per_chunk: int | None,
    convolution: str | None,
    streamed: bool | None,
    members_at_once: int | None,
    devices: Sequence[jax.Device] | None,
    experiment: str,
    quiet: bool,
    started: float,
) -> Plan:
    """The plan of a run; see `fit` for the arguments.

    Raises:
        UserError: where an argument cannot be.
    """
    checks.check_places(workdir, devices)
    observers = list(observe) if isinstance(observe, Sequence) else [observe]
    scheduler = only_scheduler(observers)
    functions = {
        "loss": loss,
        "objective": objective,
        "schedule": schedule,
        "batch_transform": batch_transform,
        "make_step": make_step,
        "probe": probe,
        "eval_params": eval_params,
    }
    checks.check_types(
        model,
        dataset,
        optimizer=optimizer,
        **functions,
        **{f"observe[{i}]": observer for i, observer in enumerate(observers)},
    )
    checks.check_numbers(
        num_epochs=num_epochs,
        batch_size=batch_size,
        patience=patience,
        steps_per_epoch=steps_per_epoch,
        steps_per_chunk=steps_per_chunk,
        members_at_once=members_at_once,
        save_every_steps=save_every_steps,
    )
    checks.check_flags(read_test=read_test, quiet=quiet, streamed=streamed)
    check_text("experiment", experiment)
    if save_every_seconds is not None:
        check_number("save_every_seconds", save_every_seconds, Range(0))
    checks.check_dataset(dataset)
    given_dataset = dataset
    if folds is not None:
        checks.check_folds(folds, dataset)
        dataset = pooled(dataset)
    if objective is not None and loss is not losses.cross_entropy:
        raise UserError("both a loss and an objective are given: give one of them")
    rate = {"learning_rate": 1e-3} if "learning_rate" in keywords(optimizer) else {}
    members, member_seeds = product(rate if hparams is None else hparams, seeds)
    held = None
    if folds is not None:
        held = held_out(dataset, folds, member_seeds)
        members = {name: np.repeat(value, folds) for name, value in members.items()}
        member_seeds = [seed for seed in member_seeds for _ in range(folds)]
    checks.check_outputs(outputs, None if objective else loss)
    outputs = outputs or (losses.outputs_of(loss) if objective is None else None)
    measured = (
        default_metrics(outputs, dataset.classes, fitted_target(dataset.preprocessing))
        if metrics is None
        else as_metrics(metrics)
    )
    checks.check_monitor(monitor, measured, metrics)
    of_splits = {name: metric for name, metric in measured.items() if metric.split}
    check_split_metrics(of_splits)  # the others are traced with the step
    order = _order(member_seeds, dataset, batch_size, steps_per_epoch, held)
    num_steps = num_epochs * order.steps_per_epoch
    spec = TrainSpec(
        stateful(model),
        objective or from_loss(loss),
        optimizer,
        {name: m.function for name, m in measured.items() if not m.split},
        schedule=schedule,
        num_steps=num_steps,
        batch_transform=batch_transform,
        probe=probe,
        eval_params=eval_params,
    )
    spec = spec._replace(routes=_routes(spec, make_step, list(members)))
    made_of = None if model.module is None else type(model.module)
    check_ranges(
        members if scheduler is None else scheduler.reached(members),
        spec.routes,
        optimizer=optimizer,
        loss=objective or loss,
        model=made_of or model.apply,
        schedule=schedule,
    )
    repetitions = len(set(member_seeds)) * (folds or 1)
    before = run_folder.read_config(workdir).get("num_epochs")
    rungs = planned_rungs(scheduler, members, repetitions, num_epochs, before)
    step = check_step(spec, make_step, dataset, members, outputs, batch_size)
    finite.check_inputs(spec, dataset, members)

    example = dataset.train.rows(0).inputs
    params, state = shapes(spec.model, example)
    begun = stacked_start(start, spec, example, members, len(member_seeds))
    settings = _settings(
        model, given_dataset, optimizer, functions, measured, workdir, begun
    ) | {
        "experiment": experiment,
        "monitor": monitor,
        "outputs": outputs,
        "hparams": members,
        "model_hparams": dict(spec.routes.model),
        "seeds": member_seeds,
        "num_epochs": num_epochs,
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "folds": folds,
        "patience": patience,
        **({} if scheduler is None else {"scheduler": scheduler.config}),
    }
    if processes.count() > 1:
        processes.check_alike(
            "what it was asked for",
            run_folder.to_jsonable({**settings, "versions": versions()}),
        )
        quiet = quiet or not processes.is_first()
    used = jax.devices() if devices is None else list(devices)
    mesh = make_mesh(
        len(member_seeds),
        batch_size,
        used,
        split=batch_transform is None and make_step is None,
    )
    processes.check_all_used(list(mesh.devices.flat))
    if mesh.size < len(used):
        log.info(
            "%d devices are used: members and examples divide no further", mesh.size
        )
    derived = _derived(workdir, spec, num_epochs, members)
    monitored = measured.get(monitor)
    make_programs = functools.partial(
        Programs,
        spec,
        patience=patience,
        make_step=make_step,
        order=order,
        score=lambda means: cost(monitored, means[monitor]),
    )
    count, axis = len(member_seeds), mesh.shape[MEMBER]
    asked = members_at_once or derived.get("members_at_once")
    everyone = places(mesh, count)
    most = asked if asked and asked < count else everyone
    at_once = memory.equal(count, axis, most)
    work = Workload(spec, example, batch_size, count, at_once, num_steps, mesh)

    # statistics, and a step of the user's own, are of the whole batch
    whole = bool(jax.tree.leaves(state)) or make_step is not None

    def trial(mesh: Mesh, execution: ExecutionConfig) -> Programs:
        if whole:
            execution = execution._replace(micro_batch=None)
        return make_programs(mesh, execution=execution)

    def measure() -> ExecutionConfig:
        return autotune.measure(
            trial,
            mesh,
            spec.model,
            members,
            member_seeds,
            dataset,
            batch_size,
            num_steps,
            quiet,
        )

    execution = work.execution(convolution, derived, measure)
    if whole and execution.micro_batch is not None:
        log.info("micro-batches are off: statistics, or the step, are of whole batches")
        execution = execution._replace(micro_batch=None)
    feed = feeds.choose(streamed, dataset, mesh, order)
    chunk = steps_per_chunk or work.chunk(step.jaxpr, order.steps_per_epoch, derived)
    sizes = group_sizes(at_once, axis, work.chunks(), rungs.values())
    groups = Groups(count, sizes)
    by_epochs = (
        work.draws_on_devices
        and type(order) is Order  # which a device can draw
        and chunk is not None
        and chunk >= order.steps_per_epoch
        and steps_per_chunk is None
        and feed.name == "resident"
        and groups.all_at_once
        and not observers
        and not any(metric.split for metric in measured.values())
    )
    plan = Plan(
        model=model,
        dataset=dataset,
        spec=spec,
        metrics=measured,
        monitor=monitor,
        outputs=outputs,
        hparams=members,
        seeds=member_seeds,
        start=begun,
        num_steps=num_steps,
        patience=patience,
        read_test=read_test,
        observers=observers,
        scheduler=scheduler,
        save_every_steps=save_every_steps,
        save_every_seconds=save_every_seconds,
        quiet=quiet,
        settings=settings,
        order=order,
        held_out=held,
        mesh=mesh,
        programs=make_programs(
            mesh, execution=execution, streamed=feed.name == "streamed"
        ),
        chunk=min(chunk or 1, order.steps_per_epoch),
        by_epochs=by_epochs,
        groups=groups,
        rungs=rungs,
        feed=feed,
        derived={
            "platform": work.platform,
            "execution": execution._asdict(),
            "members_at_once": asked or at_once,
            "steps_per_chunk": chunk and min(chunk, order.steps_per_epoch),
        },
        answer=jax.eval_shape(
            make_eval_step(spec, with_outputs=True),
            params,
            state,
            dataset.train.rows(slice(0, 1)),
            dict.fromkeys(members, np.ones((), float)),
        ).outputs,
        flops=work.flops,
        started=started,
    )

    finished = run_folder.is_finished(workdir, num_epochs)
    if members_at_once is None and not finished:  # one that is at its end needs none
        plan = _fitting(plan, work, saves=workdir is not None)
    if not chunk:
        return chunk_length.timed(plan)
    known = steps_per_chunk is not None or work.timed(derived) or finished
    if work.draws_on_devices and not plan.by_epochs and not known:
        return chunk_length.adjusted(plan)
    return plan


def _fitting(plan: Plan, work: Workload, *, saves: bool) -> Plan:
    """The plan in groups that fit into memory, or as the run began."""
    used = list(plan.mesh.devices.flat)
    predicted = functools.partial(memory.predict, plan, saves)
    free, margin = memory.free(used), memory.margin(used)
    axis = plan.mesh.shape[MEMBER]
    fits = memory.fitting(work.at_once, axis, predicted, free, margin, plan.quiet)
    if fits == work.at_once:
        return plan
    sizes = group_sizes(fits, axis, work.chunks(), plan.rungs.values())
    groups = Groups(work.members, sizes)
    derived = plan.derived | {"members_at_once": fits}
    return dataclasses.replace(plan, groups=groups, derived=derived, by_epochs=False)


def _settings(
    model: Model | StatefulModel,
    dataset: Dataset,
    optimizer: Callable,
    functions: Mapping[str, Any],  # all the others
    metrics: Mapping[str, Metric],
    workdir: str | Path | None,
    start: Start | None,
) -> dict[str, Any]:
    """The config of a run folder: names to read, contents to compare.

    Names do not tell everything; the identity, which costs reading the data and the
    code, does, and is of a run in a folder only.
    """
    example = dataset.train.rows(0).inputs
    loss = functions["objective"] or functions["loss"]
    compared = workdir is not None or processes.count() > 1
    settings: dict[str, Any] = {
        "dataset": {
            "name": dataset.name,
            "fingerprint": fingerprint(dataset) if compared else "",
            "classes": list(dataset.classes),
            "example": describe_example(example),
            **_one_array(example),
            "train": dataset.train.num_examples,
            "validation": dataset.validation.num_examples,
            "test": dataset.test.num_examples,
        },
        "model": dict(model.config),
        "optimizer": name_of(optimizer),
        "schedule": name_of(functions["schedule"]),
        "loss": name_of(loss),
        "metric": next(iter(metrics), "loss"),
        "metrics": {name: metric.better for name, metric in metrics.items()},
        "units": {name: metric.unit for name, metric in metrics.items() if metric.unit},
    }
    if compared:
        brought: dict[str, Any] = {"model": model, "optimizer": optimizer}
        brought |= {"metrics": metrics, **functions}
        settings["identity"] = identity.describe(brought)
        settings["start"] = start and identity.digest(start)
    return settings


def _order(
    seeds: list[int],
    dataset: Dataset,
    batch_size: int,
    steps_per_epoch: int | None,
    held_out: np.ndarray | None,
) -> Order:
    """The requested order of examples.

    Raises:
        UserError: where an epoch would have no step.
    """
    size = dataset.train.num_examples
    if steps_per_epoch is not None or held_out is not None:
        learnt = size if held_out is None else size - int(held_out.sum(1).max())
        steps = steps_per_epoch or max(1, learnt // batch_size)
        return EndlessOrder(seeds, size, batch_size, steps, held_out)
    checks.check_batch_size(dataset, batch_size)
    return Order(seeds, size, batch_size)


def _derived(
    workdir: str | Path | None, spec: TrainSpec, num_epochs: int, hparams: HParams
) -> dict[str, Any]:
    """The derived choices of the run in a folder, which is continued with them.

    It goes on for more epochs only if its schedule does not know how many there are:
    then it ends with the same bits as if it had been longer from the start.

    Raises:
        UserError: if the multipliers of the steps that are done would be others.
    """
    before = run_folder.read_config(workdir)
    derived = before.get("derived", {})
    epochs = before.get("num_epochs", num_epochs)
    if epochs >= num_epochs:
        return derived
    done = spec.num_steps // num_epochs * epochs
    steps = jnp.arange(done, dtype=float)

    def multipliers(num_steps: int, numbers: HParams) -> Array:
        schedule = spec.schedule(num_steps, **given(spec.routes.schedule, numbers))
        return jax.vmap(schedule)(steps)

    size = max((len(values) for values in hparams.values()), default=1)
    for member in range(size):
        numbers = {name: values[member] for name, values in hparams.items()}
        then, now = (multipliers(n, numbers) for n in (done, spec.num_steps))
        if not np.array_equal(then, now):
            raise UserError(
                f"the run was made for {epochs} epochs, and its schedule "
                f"{name_of(spec.schedule)} depends on their number: train "
                f"{num_epochs} epochs in another folder, or take a constant schedule"
            )
        if not spec.routes.schedule:  # the same for all members
            break
    return derived


def _one_array(example: PyTree) -> dict[str, Any]:
    """The shape that commands on files need, where an example is one array."""
    if not hasattr(example, "dtype"):
        return {"shape": None, "dtype": None}
    return {"shape": list(example.shape), "dtype": str(example.dtype)}


def _routes(
    spec: TrainSpec, make_step: Callable | None, names: Sequence[str]
) -> Routes:
    """The hyper-parameters of each function; every one has a reader."""
    functions = {
        "optimizer": spec.optimizer,
        "loss": spec.objective,
        "model": spec.model.apply,
        "schedule": spec.schedule,
        "batch_transform": spec.batch_transform,
        "make_step": make_step,
    }
    routes = route(names, **functions)
    check_required(routes, **functions)
    is_constant = spec.schedule is schedules.constant
    if not is_constant and "learning_rate" not in routes.optimizer:
        raise UserError(
            f"the schedule {name_of(spec.schedule)} has no effect, as "
            f"{name_of(spec.optimizer)} is given no learning_rate: give it in hparams, "
            "or leave the schedule out"
        )
    return routes
