"""What `fit` was asked for -> a `Plan`: every check and every choice of a run."""

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
from dlworkshop.errors import UserError
from dlworkshop.learn import losses, schedules
from dlworkshop.learn.hparams import (
    Routes,
    check_required,
    given,
    keywords,
    name_of,
    route,
)
from dlworkshop.learn.metrics import as_metrics, cost, default_metrics
from dlworkshop.learn.objective import from_loss
from dlworkshop.learn.step import TrainSpec, init_state
from dlworkshop.models.convolution import has_convolutions
from dlworkshop.models.model import (
    BATCH,
    Model,
    StatefulModel,
    seen,
    shapes,
    stand_ins,
    stateful,
)
from dlworkshop.train import (
    autotune,
    checks,
    chunk_length,
    feeds,
    memory,
    run_folder,
)
from dlworkshop.train.folds import held_out, pooled
from dlworkshop.train.groups import Groups, group_sizes
from dlworkshop.train.members import product
from dlworkshop.train.mesh import MEMBER, make_mesh, places
from dlworkshop.train.orders import EndlessOrder
from dlworkshop.train.plan import Plan
from dlworkshop.train.predictions import fitted_target
from dlworkshop.train.programs import (
    ExecutionConfig,
    Programs,
    chunk_flops,
    chunk_steps,
    update_flops,
)
from dlworkshop.train.result import Run, describe_example
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
    observers = list(observe) if isinstance(observe, Sequence) else [observe]
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
        optimizer,
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
        held = held_out(dataset.train, folds, member_seeds)
        members = {name: np.repeat(value, folds) for name, value in members.items()}
        member_seeds = [seed for seed in member_seeds for _ in range(folds)]
    outputs = outputs or (losses.outputs_of(loss) if objective is None else None)
    measured = (
        default_metrics(outputs, dataset.classes, fitted_target(dataset.preprocessing))
        if metrics is None
        else as_metrics(metrics)
    )
    checks.check_monitor(monitor, measured)
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
    step = checks.check_step(spec, make_step, dataset, members, outputs)

    example = dataset.train.rows(0).inputs
    _, state = shapes(model, example)
    mesh = make_mesh(
        len(member_seeds),
        batch_size,
        devices or jax.local_devices(),
        split=batch_transform is None and make_step is None,
    )
    if mesh.size < len(devices or jax.local_devices()):
        log.info(
            "%d devices are used: members and examples divide no further", mesh.size
        )
    derived = _derived(workdir, spec, num_epochs, members)
    monitored = measured.get(monitor)
    make_programs = functools.partial(
        Programs,
        spec,
        mesh,
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
    work = Work(spec, example, batch_size, count, at_once, num_steps, mesh)

    # statistics, and a step of the user's own, are of the whole batch
    whole = bool(jax.tree.leaves(state)) or make_step is not None

    def trial(execution: ExecutionConfig) -> Programs:
        if whole:
            execution = execution._replace(micro_batch=None)
        return make_programs(execution=execution)

    def measure() -> ExecutionConfig:
        return autotune.measure(
            trial,
            mesh,
            spec.model,
            members,
            member_seeds,
            dataset,
            order,
            num_steps,
            quiet,
        )

    execution = work.execution(convolution, derived, measure)
    if whole and execution.micro_batch is not None:
        log.info("micro-batches are off: statistics, or the step, are of whole batches")
        execution = execution._replace(micro_batch=None)
    feed = feeds.choose(streamed, dataset, mesh, order)
    chunk = steps_per_chunk or work.chunk(step.jaxpr, order.steps_per_epoch, derived)
    groups = Groups(count, group_sizes(at_once, axis, work.chunks()))
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
    begun = _start(start, spec, example, members, count)
    settings = {
        "experiment": experiment,
        "dataset": {
            "name": dataset.name,
            "fingerprint": "" if workdir is None else fingerprint(given_dataset),
            "classes": list(dataset.classes),
            "example": describe_example(example),
            **_one_array(example),
            "train": given_dataset.train.num_examples,
            "validation": given_dataset.validation.num_examples,
            "test": given_dataset.test.num_examples,
        },
        "model": dict(model.config),
        "optimizer": name_of(optimizer),
        "schedule": name_of(schedule),
        "loss": name_of(objective or loss),
        "metric": next(iter(measured), "loss"),
        "metrics": {name: metric.better for name, metric in measured.items()},
        "units": {
            name: metric.unit for name, metric in measured.items() if metric.unit
        },
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
    }
    if workdir is not None:  # by content: the names above do not tell all
        asked_for = {"model": model, "optimizer": optimizer, "metrics": measured}
        settings["identity"] = identity.describe(asked_for | functions)
        settings["start"] = begun and identity.digest(begun)

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
        save_every_steps=save_every_steps,
        save_every_seconds=save_every_seconds,
        quiet=quiet,
        settings=settings,
        order=order,
        held_out=held,
        mesh=mesh,
        programs=make_programs(execution=execution, streamed=feed.name == "streamed"),
        chunk=min(chunk or 1, order.steps_per_epoch),
        by_epochs=by_epochs,
        groups=groups,
        feed=feed,
        derived={
            "platform": work.platform,
            "execution": execution._asdict(),
            "members_at_once": asked or at_once,
            "steps_per_chunk": chunk and min(chunk, order.steps_per_epoch),
        },
        flops=work.flops,
        started=started,
    )

    # A run goes on in groups of the size it began with, if they fit; one that has come
    # to its end needs no memory.
    if members_at_once is None and not run_folder.is_finished(workdir, num_epochs):
        used = list(mesh.devices.flat)
        predicted = functools.partial(memory.predict, plan, workdir is not None)
        free, margin = memory.free(used), memory.margin(used)
        fits = memory.fitting(at_once, axis, predicted, free, margin, quiet)
        if fits != at_once:
            groups = Groups(count, group_sizes(fits, axis, work.chunks()))
            now = plan.derived | {"members_at_once": fits}
            plan = dataclasses.replace(
                plan, groups=groups, derived=now, by_epochs=False
            )
    if not chunk:
        return chunk_length.timed(plan)
    finished = run_folder.is_finished(workdir, num_epochs)
    known = steps_per_chunk is not None or work.timed(derived) or finished
    if work.draws_on_devices and not plan.by_epochs and not known:
        return chunk_length.adjusted(plan)
    return plan


@dataclasses.dataclass(frozen=True)
class Work:
    """How much there is to do, and what follows from it."""

    spec: TrainSpec
    example: PyTree
    batch_size: int
    members: int
    at_once: int  # of them, on all devices
    num_steps: int
    mesh: Mesh

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu."""
        return self.mesh.devices.flat[0].platform

    @property
    def draws_on_devices(self) -> bool:
        """Whether the order of examples is drawn where they are trained on.

        On a CPU both are the same cores, and NumPy sorts sooner.
        """
        return self.platform != "cpu"

    @functools.cached_property
    def flops(self) -> float:
        """Operations of a step of all members."""
        each = update_flops(self.spec.model, self.example)
        return each * self.batch_size * self.members

    def chunk(
        self, step: Any, steps_per_epoch: int, derived: Mapping[str, Any]
    ) -> int | None:
        """Steps of a chunk, by what a device of this kind does in a second or two.

        None where that cannot be counted, and was not measured before either.
        """
        if chunk_length.has_while(step) or self.timed(derived):
            return derived.get("steps_per_chunk")
        wanted = chunk_flops(self.platform) / max(self.flops, 1.0)
        return chunk_steps(wanted, steps_per_epoch)

    def timed(self, derived: Mapping[str, Any]) -> bool:
        """Whether the chunk of the run that goes on was measured on such a device."""
        return derived.get("timed", False) and derived["platform"] == self.platform

    def chunks(self) -> float:
        """Chunks of work that the whole run of one member is."""
        return self.flops / self.members * self.num_steps / chunk_flops(self.platform)

    def execution(
        self,
        convolution: str | None,
        derived: Mapping[str, Any],
        measure: Callable[[], ExecutionConfig],
    ) -> ExecutionConfig:
        """How a step is computed: as asked, as before, or as is fastest here."""
        model = self.spec.model
        params, state = shapes(model, self.example)
        arguments = params, state, seen(self.example)
        found = has_convolutions(model.apply, *arguments, **stand_ins(model))
        each = self.flops / self.batch_size / self.members
        split = self.batch_size // self.mesh.shape[BATCH]
        by_rule = autotune.rule_of_thumb(
            split,
            each,
            self.at_once // self.mesh.shape[MEMBER],
            convolutions=found,
            platform=self.platform,
        )
        if convolution is not None:
            how = checks.check_convolution(convolution, found)
            return by_rule._replace(convolution=how)
        before = derived.get("execution", {})
        here = derived.get("platform") == self.platform
        if here and set(before) == set(ExecutionConfig._fields):
            return ExecutionConfig(**before)
        least = autotune.WORTH.get(self.platform, autotune.WORTH_ELSEWHERE)
        if found and self.flops * self.num_steps > least:
            return measure()
        return by_rule


def _order(
    seeds: list[int],
    dataset: Dataset,
    batch_size: int,
    steps_per_epoch: int | None,
    held_out: np.ndarray | None,
) -> Order:
    """The order of examples that was asked for.

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
    """What was derived for the run in a folder, which goes on with it.

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
    """What commands on files want to know, where an example is one array."""
    if not hasattr(example, "dtype"):
        return {"shape": None, "dtype": None}
    return {"shape": list(example.shape), "dtype": str(example.dtype)}


def _routes(
    spec: TrainSpec, make_step: Callable | None, names: Sequence[str]
) -> Routes:
    """Who is given which hyper-parameter; all of them have a reader."""
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


def _start(
    start: Run | Start | PyTree | None,
    spec: TrainSpec,
    example: PyTree,
    hparams: HParams,
    members: int,
) -> Start | None:
    """What the members begin with [P, ...], of a run or of parameters."""
    if start is None:
        return None
    if isinstance(start, Run):
        start = Start(start.params, start.state)
    elif not isinstance(start, Start):
        start = Start(start)
    one = {name: jnp.asarray(values[0], float) for name, values in hparams.items()}
    like = jax.eval_shape(
        lambda e: init_state(spec, one, jax.random.key(0), e), seen(example)
    )
    if jax.tree.leaves(like.state) and not jax.tree.leaves(start.state):
        raise UserError(
            "start has parameters only, and the model keeps a state too: start from a "
            "Run, or from Start(params, state)"
        )
    found = [
        _stacked(start.params, like.params, members, "parameters"),
        _stacked(start.state, like.state, members, "a state"),
    ]
    if start.opt_state is not None:
        what = "an optimizer's state"
        found.append(_stacked(start.opt_state, like.opt_state, members, what))
    return Start(*found)


def _stacked(tree: PyTree, like: PyTree, members: int, what: str) -> PyTree:
    """`tree` [P, ...], where it is of one model, of one member or of all of them."""
    given, wanted = jax.tree.structure(tree), jax.tree.structure(like)
    if str(given) != str(wanted):
        raise UserError(
            f"start has {what} of another structure than this run: begin from a run of "
            "the same model and optimizer"
        )

    def leaf(path, found, wanted):
        shape = tuple(found.shape)
        if shape == wanted.shape:
            return jnp.broadcast_to(jnp.asarray(found), (members, *shape))
        if shape == (1, *wanted.shape):
            return jnp.broadcast_to(jnp.asarray(found), (members, *wanted.shape))
        if shape == (members, *wanted.shape):
            return jnp.asarray(found)
        raise UserError(
            f"start has {jax.tree_util.keystr(path)} of shape {list(shape)}, and the "
            f"model wants {list(wanted.shape)} for each of {members} members: give one "
            "model, or as many members"
        )

    return jax.tree.map_with_path(leaf, tree, like)
