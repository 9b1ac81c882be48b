"""Planning of a run: from the arguments of `fit` to a `Plan`."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dlworkshop.data.order import Order
from dlworkshop.errors import UserError
from dlworkshop.learn.hparams import given, name_of
from dlworkshop.models.model import shapes
from dlworkshop.train import (
    autotune,
    chunk_length,
    feeds,
    memory,
    processes,
    run_folder,
)
from dlworkshop.train.arguments import Arguments, check_arguments
from dlworkshop.train.groups import Groups, group_sizes
from dlworkshop.train.mesh import MEMBER, make_mesh
from dlworkshop.train.plan import Plan
from dlworkshop.train.programs import ExecutionConfig, Programs
from dlworkshop.train.progress import log_level
from dlworkshop.train.task import Task, resolve
from dlworkshop.train.workload import Workload
from dlworkshop.types import Array, HParams

log = logging.getLogger(__name__)


def make_plan(asked: Arguments) -> Plan:
    """Check the arguments, resolve the task, and choose how to compute it.

    Raises:
        UserError: if an argument is not valid.
    """
    started = time.perf_counter()
    check_arguments(asked)
    task = resolve(asked)
    mesh = _mesh(task)
    before = _choices_before(task)
    work = _workload(task, mesh, before)
    plan = _assembled(task, work, before, started)
    finished = run_folder.is_finished(asked.workdir, asked.num_epochs)
    if asked.members_at_once is None and not finished:
        plan = _fitting(plan, work)
    if plan.derived["steps_per_chunk"] is None:
        return chunk_length.timed(plan)
    known = asked.steps_per_chunk is not None or work.timed(before) or finished
    if work.draws_on_devices and not plan.by_epochs and not known:
        return chunk_length.adjusted(plan)
    return plan


def _mesh(task: Task) -> Mesh:
    """The devices that the run uses, some of each process."""
    asked = task.asked
    available = jax.devices() if asked.devices is None else list(asked.devices)
    # a batch transform or a custom step needs the whole batch on one device
    split = asked.batch_transform is None and asked.make_step is None
    if split and task.batch_use.on_one_device and len(available) > 1:
        _say(
            task,
            "the batch is not split over devices: the step looks at the examples of "
            "one device (models.BATCH_AXES are those of all)",
        )
    split = split and not task.batch_use.on_one_device
    split = split and (asked.devices is not None or not _fills_the_cpu(task, available))
    mesh = make_mesh(len(task.seeds), asked.batch_size, available, split)
    processes.check_all_used(list(mesh.devices.flat))
    if mesh.size < len(available):
        _say(task, "%d of %d devices are used", mesh.size, len(available))
    return mesh


def _say(task: Task, text: str, *args: Any) -> None:
    log.log(log_level(task.quiet, logging.INFO), text, *args)


def _fills_the_cpu(task: Task, available: list[jax.Device]) -> bool:
    """Whether one device computes a batch on all cores: XLA's convolutions do.

    A light residual network of 64 channels took 1.3 s for an update of 256 images on
    one device, and 1.8 s with the batch split over two of the same two cores.
    """
    alone = len(available) > len(task.seeds) and processes.count() == 1
    on_cpu = alone and available[0].platform == "cpu"
    return on_cpu and autotune.convolves(task.spec.model, task.example)


def _choices_before(task: Task) -> dict[str, Any]:
    """The derived choices of the run in the folder, which continues with them.

    A run may only continue for more epochs if its schedule does not depend on their
    number: then it ends with the same bits as a run that was longer from the start.

    Raises:
        UserError: if the schedule would have had other multipliers so far.
    """
    asked, spec = task.asked, task.spec
    before = run_folder.read_config(asked.workdir)
    derived = before.get("derived", {})
    epochs = before.get("num_epochs", asked.num_epochs)
    if epochs >= asked.num_epochs:
        return derived
    done = spec.num_steps // asked.num_epochs * epochs
    steps = jnp.arange(done, dtype=float)

    def multipliers(num_steps: int, numbers: HParams) -> Array:
        schedule = spec.schedule(num_steps, **given(spec.routes.schedule, numbers))
        return jax.vmap(schedule)(steps)

    # a schedule without hyper-parameters is the same for all members
    for member in range(len(task.seeds) if spec.routes.schedule else 1):
        numbers = {name: values[member] for name, values in task.hparams.items()}
        then, now = (multipliers(n, numbers) for n in (done, spec.num_steps))
        if not np.array_equal(then, now):
            raise UserError(
                f"the run was made for {epochs} epochs, and its schedule "
                f"{name_of(spec.schedule)} depends on their number: train "
                f"{asked.num_epochs} epochs in another folder, or take a constant "
                "schedule"
            )
    return derived


def _members_at_once(task: Task, before: dict[str, Any]) -> int | None:
    """The requested number, or the one that the run began with."""
    return task.asked.members_at_once or before.get("members_at_once")


def _workload(task: Task, mesh: Mesh, before: dict[str, Any]) -> Workload:
    """The work of the run on these devices."""
    members = len(task.seeds)
    most = _members_at_once(task, before) or members
    at_once = memory.equal(members, mesh.shape[MEMBER], most)
    return Workload(
        task.spec,
        task.example,
        task.asked.batch_size,
        members,
        at_once,
        task.num_steps,
        mesh,
    )


def _assembled(
    task: Task, work: Workload, before: dict[str, Any], started: float
) -> Plan:
    """The plan, not yet limited by memory."""
    asked, mesh, every = task.asked, work.mesh, task.order.steps_per_epoch
    make_programs = functools.partial(
        Programs,
        task.spec,
        patience=asked.patience,
        make_step=asked.make_step,
        order=task.order,
        score=task.cost,
    )
    execution = _execution(task, work, before, make_programs)
    feed = feeds.choose(asked.streamed, task.dataset, mesh, task.order)
    chunk = asked.steps_per_chunk or work.chunk(task.has_while, every, before)
    groups = _groups(task, work, work.at_once)
    return Plan(
        **vars(task),
        mesh=mesh,
        programs=make_programs(
            mesh, execution=execution, streamed=feed.name == "streamed"
        ),
        chunk=min(chunk or 1, every),
        by_epochs=(
            work.draws_on_devices
            and type(task.order) is Order  # which a device can draw
            and asked.steps_per_chunk is None
            and chunk is not None
            and chunk >= every
            and feed.name == "resident"
            and groups.all_at_once
            and not task.observers
            and not task.has_split_metrics
        ),
        groups=groups,
        feed=feed,
        derived={
            "platform": work.platform,
            "execution": execution._asdict(),
            "members_at_once": _members_at_once(task, before) or work.at_once,
            "steps_per_chunk": chunk and min(chunk, every),
        },
        flops=work.flops,
        started=started,
    )


def _execution(
    task: Task,
    work: Workload,
    before: dict[str, Any],
    make_programs: Callable[..., Programs],
) -> ExecutionConfig:
    """How a step is computed: as requested, as before, or as measured to be fastest."""
    asked = task.asked
    _, state = shapes(task.spec.model, task.example)
    # running statistics, a loss over the batch, and a custom step, are of all of it
    whole = task.batch_use.whole or asked.make_step is not None
    whole = whole or bool(jax.tree.leaves(state))

    def trial(mesh: Mesh, execution: ExecutionConfig) -> Programs:
        if whole:
            execution = execution._replace(micro_batch=None)
        return make_programs(mesh, execution=execution)

    def measure() -> ExecutionConfig:
        return autotune.measure(
            trial,
            work.mesh,
            task.spec.model,
            task.hparams,
            task.seeds,
            task.dataset,
            asked.batch_size,
            task.num_steps,
            task.quiet,
        )

    execution = work.execution(asked.convolution, before, measure)
    if whole and execution.micro_batch is not None:
        _say(
            task,
            "micro-batches are off: statistics, the loss or the step are of whole "
            "batches",
        )
        execution = execution._replace(micro_batch=None)
    return execution


def _groups(task: Task, work: Workload, largest: int) -> Groups:
    """Groups of at most `largest` members."""
    axis = work.mesh.shape[MEMBER]
    sizes = group_sizes(largest, axis, work.chunks(), task.rungs.values())
    return Groups(work.members, sizes)


def _fitting(plan: Plan, work: Workload) -> Plan:
    """The plan in groups that fit into memory."""
    used = list(plan.mesh.devices.flat)
    predicted = functools.partial(memory.predict, plan, plan.asked.workdir is not None)
    free, margin = memory.free(used), memory.margin(used)
    axis = plan.mesh.shape[MEMBER]
    fits = memory.fitting(work.at_once, axis, predicted, free, margin, plan.quiet)
    if fits == work.at_once:
        return plan
    return dataclasses.replace(
        plan,
        groups=_groups(plan, work, fits),
        derived=plan.derived | {"members_at_once": fits},
        by_epochs=False,
    )
