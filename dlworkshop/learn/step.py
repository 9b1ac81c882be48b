"""Lifts 1 and 2: an objective of one example -> one of a batch -> a train step."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlworkshop.data.leaves import at_least_float32
from dlworkshop.errors import UserError, repr_of
from dlworkshop.learn import schedules
from dlworkshop.learn.checks import check_number
from dlworkshop.learn.hparams import Routes, given, is_bound, keywords, route
from dlworkshop.learn.objective import from_loss, in_evaluation, in_words
from dlworkshop.learn.optimizers import same_dtypes, with_extra_args
from dlworkshop.models.model import BATCH, EXAMPLE, Model, StatefulModel, as_float
from dlworkshop.models.model import stateful as lift_model
from dlworkshop.types import Array, Batch, HParams, PyTree, Start, TrainState

# The purposes of randomness: fold_in(key of the seed, purpose).
INIT, DROPOUT, OPTIMIZER, TRANSFORM = 0, 1, 2, 3

Metrics = Mapping[str, Array]  # "loss" and the metrics, by name


class TrainSpec(NamedTuple):
    """The functions of a train step, without numbers."""

    model: StatefulModel
    objective: Callable  # see `learn.objective`
    optimizer: Callable  # (**numbers) -> optax.GradientTransformation
    # name -> (outputs, targets) -> []
    metrics: Mapping[str, Callable] = MappingProxyType({})
    routes: Routes = Routes()  # which hyper-parameters each of them is given
    schedule: Callable = schedules.constant  # (num_steps) -> (step) -> multiplier
    num_steps: int = 1  # of the whole run, for the schedule
    batch_transform: Callable | None = None  # (key, batch) -> batch, as mixup
    probe: Callable | None = None  # (grads, updates, params) -> {name: []}, logged
    eval_params: Callable | None = None  # (opt_state, params) -> params to evaluate


@dataclass(frozen=True)
class TrainStep:
    """One update of one model, in three parts."""

    # (train, batch, hparams) -> grads, new state of the model, metrics
    gradient: Callable[..., tuple[PyTree, PyTree, dict[str, Array]]]
    # (train, grads, metrics, hparams) -> updates, opt_state, metrics of the probe
    updates: Callable[..., tuple[PyTree, PyTree, dict[str, Array]]]

    def __call__(self, train: TrainState, batch: Batch, hparams: HParams):
        """(state, batch, hparams) -> (state, metrics): one update."""
        grads, state, metrics = self.gradient(train, batch, hparams)
        new, probed = self.advance(train, grads, state, metrics, hparams)
        return new, metrics | probed

    def advance(self, train: TrainState, grads, state, metrics, hparams: HParams):
        """The train state after an update, and the metrics of the probe."""
        updates, opt_state, probed = self.updates(train, grads, metrics, hparams)
        params = optax.apply_updates(train.params, updates)
        new = TrainState(train.step + 1, params, state, opt_state, train.key)
        return new, probed


def spec_of(
    model: Model | StatefulModel,
    optimizer: Callable,
    loss: Callable,
    names: Iterable[str] = ("learning_rate",),
    metrics: Mapping[str, Callable] | None = None,
    schedule: Callable = schedules.constant,
    num_steps: int = 1,
) -> TrainSpec:
    """The spec of training with a loss.

    Args:
        model: of one example.
        optimizer: an optax constructor, such as `optax.adam`.
        loss: (outputs, targets, **hparams) -> [], of one example.
        names: of the hyper-parameters; each is passed to the function that takes it.
        metrics: name -> (outputs, targets) -> [], of one example.
        schedule: (num_steps) -> (step) -> multiplier of the learning rate.
        num_steps: of the whole run.
    """
    lifted, objective = lift_model(model), from_loss(loss)
    routes = route(
        names,
        optimizer=optimizer,
        loss=objective,
        model=lifted.apply,
        schedule=schedule,
    )
    return TrainSpec(
        lifted, objective, optimizer, metrics or {}, routes, schedule, num_steps
    )


def init_state(
    spec: TrainSpec,
    hparams: HParams,
    key: Array,
    example: PyTree,
    start: Start | None = None,
) -> TrainState:
    """The state of one model at step 0.

    Args:
        spec: with the model and the optimizer.
        hparams: of the optimizer, [] each.
        key: of the seed; the parameters are drawn from it.
        example: one input of the model.
        start: initial values to use instead.
    """
    if start is None:
        drawn = spec.model.init(jax.random.fold_in(key, INIT), as_float(example))
        start = Start(*drawn)
    step, opt_state = jnp.zeros((), jnp.int32), start.opt_state
    if opt_state is None:
        opt_state = make_optimizer(spec, hparams, step, key).init(start.params)
    begun = TrainState(step, start.params, start.state, opt_state, key)
    return jax.tree.map(jnp.asarray, begun)  # numbers of Python, too


def make_optimizer(
    spec: TrainSpec, hparams: HParams, step: Array, key: Array
) -> optax.GradientTransformationExtraArgs:
    """The optimizer at a step, built from traced numbers.

    The learning rate is multiplied by the schedule. A constructor that takes a `key`
    or a `seed` gets one of the member, unless `functools.partial` gives it.
    """
    numbers = given(spec.routes.optimizer, hparams)
    takes, own = keywords(spec.optimizer), jax.random.fold_in(key, OPTIMIZER)
    if "key" in takes:
        numbers |= {} if is_bound(spec.optimizer, "key") else {"key": own}
    elif "seed" in takes and not is_bound(spec.optimizer, "seed"):
        numbers["seed"] = jax.random.bits(own)
    if "learning_rate" in numbers and spec.schedule is not schedules.constant:
        schedule = spec.schedule(spec.num_steps, **given(spec.routes.schedule, hparams))
        numbers["learning_rate"] *= schedule(step.astype(float))
    return with_extra_args(spec.optimizer(**numbers))


def make_new_opt_state(spec: TrainSpec) -> Callable:
    """(train, hparams) -> the optimizer's state as it would be at step 0."""

    def new_opt_state(train: TrainState, hparams: HParams) -> PyTree:
        step = jnp.zeros_like(train.step)
        return make_optimizer(spec, hparams, step, train.key).init(train.params)

    return new_opt_state


def bound(model: StatefulModel, numbers: Mapping[str, Any]) -> StatefulModel:
    """The model with these hyper-parameters bound to `apply`."""
    if not numbers:
        return model
    return model._replace(apply=functools.partial(model.apply, **numbers))


def make_example_fn(spec: TrainSpec) -> Callable:
    """(params, state, example, hparams, key) -> loss and metrics, new state.

    Loss and metrics of an example are multiplied by its weight, if there is one.
    """

    def example_fn(params, state, example: Batch, hparams, key):
        model = bound(spec.model, given(spec.routes.model, hparams))
        numbers = given(spec.routes.loss, hparams)
        inputs, targets = as_float((example.inputs, example.targets))
        loss, (outputs, new) = _minimised(
            spec, model, params, state, inputs, targets, key=key, **numbers
        )
        values = {"loss": loss, **_scores(spec, loss, outputs, targets)}
        if example.weights is not None:
            values = {k: value * example.weights for k, value in values.items()}
        return values, new

    return example_fn


def make_loss_fn(
    spec: TrainSpec,
    batch_axis: str | None = None,
    example_axis: str | None = EXAMPLE,
) -> Callable:
    """(params, state, batch, hparams, keys [B]) -> mean loss, (metrics, new state)."""
    # the state is shared: layers with a state average it over the examples
    lifted = jax.vmap(
        make_example_fn(spec),
        (None, None, 0, None, 0),
        out_axes=(0, None),
        axis_name=example_axis,
    )

    def loss_fn(params, state, batch: Batch, hparams, keys):
        args = params, state, batch, hparams, keys
        if batch_axis is None and example_axis is not None:
            values, new = _on_one_device(lifted, *args)
        else:
            values, new = lifted(*args)  # [B] each
        means = {name: at_least_float32(value).mean() for name, value in values.items()}
        return means["loss"], (means, new)

    return loss_fn


def _on_one_device(lifted: Callable, *args: PyTree) -> tuple[dict, PyTree]:
    """`lifted(*args)`, with a batch axis of size 1 if something in it names the axis.

    The axis would cost all others some operations.
    """
    try:
        return lifted(*args)
    except NameError as error:
        if f"axis name: {BATCH}" not in str(error):
            raise
    one = jax.vmap(lifted, (None,) * len(args), (0, None), BATCH, axis_size=1)
    values, new = one(*args)
    return jax.tree.map(lambda leaf: leaf[0], values), new


def make_train_step(
    spec: TrainSpec,
    batch_axis: str | None = None,
    micro_batch: int | None = None,
    example_axis: str | None = EXAMPLE,
) -> TrainStep:
    """(state, batch, hparams) -> (state, metrics): one update of one model.

    Args:
        spec: the functions of the step.
        batch_axis: name of the mesh axis over which the batch is split; None without a
            mesh.
        micro_batch: examples at a time, a divisor of the batch of one device; their
            gradients are averaged. None computes the whole batch at once.
        example_axis: name of the axis of the examples on one device; None leaves both
            axes without a name.
    """
    grad_fn = jax.grad(make_loss_fn(spec, batch_axis, example_axis), has_aux=True)
    if micro_batch is not None:
        grad_fn = accumulate_gradients(grad_fn, micro_batch)

    def gradient(train: TrainState, batch: Batch, hparams: HParams):
        if spec.batch_transform is not None:
            key = _step_key(train, TRANSFORM)
            numbers = given(spec.routes.batch_transform, hparams)
            inputs, targets = as_float((batch.inputs, batch.targets))
            batch = batch._replace(inputs=inputs, targets=targets)
            batch = spec.batch_transform(key, batch, **numbers)
        keys = _example_keys(train, batch.num_examples, batch_axis)  # [B]
        grads, (metrics, state) = grad_fn(
            train.params, train.state, batch, hparams, keys
        )
        if is_split(batch_axis):
            grads, metrics = jax.lax.pmean((grads, metrics), batch_axis)
        # of a complex number JAX returns the conjugate of the steepest ascent
        return jax.tree.map(jnp.conj, grads), state, metrics

    def updates(train: TrainState, grads: PyTree, metrics: Metrics, hparams: HParams):
        optimizer = make_optimizer(spec, hparams, train.step, train.key)
        updates, opt_state = optimizer.update(
            grads, train.opt_state, train.params, value=metrics["loss"], grad=grads
        )
        opt_state = same_dtypes(opt_state, train.opt_state)
        probed = {}
        if spec.probe is not None:
            probed = dict(spec.probe(grads, updates, train.params))
        return updates, opt_state, probed

    return TrainStep(gradient, updates)


def make_own_step(
    make_step: Callable, step: TrainStep, numbers: Mapping[str, str]
) -> Callable:
    """The step that a user's `make_step` makes from ours.

    Args:
        make_step: (step, **numbers) -> (train, batch, hparams) -> (train, metrics).
        step: ours, with its parts.
        numbers: keyword of `make_step` -> name of the hyper-parameter. If there are
            any, `make_step` is called inside the step, with traced numbers.
    """
    if not numbers:
        return make_step(step)

    def train_step(train: TrainState, batch: Batch, hparams: HParams):
        return make_step(step, **given(numbers, hparams))(train, batch, hparams)

    return train_step


def accumulate_gradients(grad_fn: Callable, size: int) -> Callable:
    """The mean of `grad_fn` over a batch, in micro-batches of `size` examples.

    The activations of one micro-batch stay in the CPU cache until its gradient is
    computed.
    """

    def mean_grads(params, state, batch, hparams, keys):
        count = len(keys) // size
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(count, size, *leaf.shape[1:]), (batch, keys)
        )

        def add(total, part):
            batch, keys = part
            now = grad_fn(params, state, batch, hparams, keys)
            return jax.tree.map(jnp.add, total, now), None

        one = jax.tree.map(lambda leaf: leaf[0], parts)
        like = jax.eval_shape(grad_fn, params, state, one[0], hparams, one[1])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        total, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda leaf: leaf / count, total)

    return mean_grads


class Evaluated(NamedTuple):
    """Evaluation results of each example."""

    scores: dict[str, Array]  # "loss" and the metrics, [B] each; not yet weighted
    outputs: PyTree  # [B, ...]; None if outputs were not requested


def make_eval_step(spec: TrainSpec, with_outputs: bool = False) -> Callable:
    """(params, state, batch, hparams) -> `Evaluated`, without randomness.

    The objective is called without a key, and only with the hyper-parameters that it
    requires; the model gets its hyper-parameters in evaluation, too.
    """

    def eval_step(params, state, batch: Batch, hparams: HParams) -> Evaluated:
        model = bound(spec.model, given(spec.routes.model, hparams))
        numbers = in_evaluation(spec.objective, given(spec.routes.loss, hparams))

        def example_fn(inputs, targets):
            inputs, targets = as_float((inputs, targets))
            loss, (outputs, _) = _minimised(
                spec, model, params, state, inputs, targets, key=None, **numbers
            )
            scores = _scores(spec, loss, outputs, targets)
            wide = jax.tree.map(at_least_float32, {"loss": loss, **scores})
            return Evaluated(wide, outputs if with_outputs else None)

        return jax.vmap(example_fn)(batch.inputs, batch.targets)

    return eval_step


def _minimised(spec: TrainSpec, *args: Any, **keywords: Any) -> tuple:
    """The objective of one example: loss, (outputs, state)."""
    found = spec.objective(*args, **keywords)
    try:
        loss, (outputs, state) = found
        if hasattr(found[1], "shape"):  # an array of two outputs
            raise TypeError
    except (TypeError, ValueError):
        raise UserError(
            f"{in_words(spec.objective)} returns {repr_of(found)}: return "
            "loss, (outputs, state)"
        ) from None
    return loss, (outputs, state)


def _scores(spec: TrainSpec, loss: Any, outputs: PyTree, targets: PyTree) -> dict:
    """The metrics of one example; they and the loss are checked to be numbers."""
    scores = {name: m(outputs, targets) for name, m in spec.metrics.items()}
    check_number(in_words(spec.objective), loss)
    for name, value in scores.items():
        check_number(f"the metric '{name}'", value, integers=True)
    return scores


def is_split(batch_axis: str | None) -> bool:
    """Whether a batch is sharded, inside a program on a mesh."""
    return batch_axis is not None and jax.lax.axis_size(batch_axis) > 1


def _step_key(train: TrainState, purpose: int) -> Array:
    return jax.random.fold_in(jax.random.fold_in(train.key, purpose), train.step)


def _example_keys(train: TrainState, size: int, batch_axis: str | None) -> jax.Array:
    """A key for each example [B] from (seed, purpose, step, position in the batch)."""
    first = jax.lax.axis_index(batch_axis) * size if is_split(batch_axis) else 0
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        _step_key(train, DROPOUT), first + jnp.arange(size)
    )
