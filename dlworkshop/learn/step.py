"""Lifts 1 and 2: a loss of one example -> a loss of a batch -> a train step."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from dlworkshop.learn.schedules import Schedule
from dlworkshop.models.model import Model
from dlworkshop.types import Batch, HParams, Metrics, PyTree, TrainState

INIT, DROPOUT = 0, 1  # the purposes of randomness: fold_in(key of the seed, purpose)


def supported_kwargs(function: Callable, hparams: HParams) -> dict:
    """The hyper-parameters that are set and that `function` takes by keyword.

    >>> def loss(outputs, target, *, label_smoothing=0.0): ...
    >>> supported_kwargs(loss, HParams(0.1, label_smoothing=0.2, dropout=0.5))
    {'label_smoothing': 0.2}
    """
    names = inspect.signature(function).parameters
    return {
        name: value
        for name, value in hparams._asdict().items()
        if name in names and value is not None
    }


def init_state(
    model: Model, make_optimizer: Callable, hparams: HParams, key, example
) -> TrainState:
    """A model at step 0: parameters drawn from the key of its seed."""
    params = model.init(jax.random.fold_in(key, INIT), example)
    opt_state = make_optimizer(hparams).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, key)


def make_loss_fn(model: Model, loss: Callable, metric: Callable) -> Callable:
    """(params, batch, hparams, keys [B]) -> mean loss, Metrics."""

    def example_fn(params, example, label, hparams, key):
        outputs = model.apply(
            params, example, key=key, **supported_kwargs(model.apply, hparams)
        )
        return loss(outputs, label, **supported_kwargs(loss, hparams)), metric(
            outputs, label
        )

    def loss_fn(params, batch, hparams, keys):
        losses, scores = jax.vmap(example_fn, in_axes=(None, 0, 0, None, 0))(
            params, batch.inputs, batch.targets, hparams, keys
        )  # [B], [B]
        return losses.mean(), Metrics(losses.mean(), scores.mean())

    return loss_fn


@dataclass(frozen=True)
class TrainStep:
    """One update of one model, (state, batch, hparams) -> (state, Metrics), in parts.

    Between them stands the gradient, which can be looked at before it is applied.
    """

    gradient: Callable  # (state, batch, hparams) -> grads, Metrics
    update: Callable  # (state, grads, hparams) -> state

    def __call__(self, state: TrainState, batch: Batch, hparams: HParams):
        grads, metrics = self.gradient(state, batch, hparams)
        return self.update(state, grads, hparams), metrics


def make_train_step(
    model: Model,
    make_optimizer: Callable,
    schedule: Schedule,
    loss: Callable,
    metric: Callable,
    batch_axis: str | None = None,
    micro_batch: int | None = None,
) -> TrainStep:
    """(state, batch, hparams) -> (state, Metrics): one update of one model.

    Args:
        model: pair of pure functions of one example.
        make_optimizer: hparams -> optax.GradientTransformation.
        schedule: step -> multiplier of the learning rate.
        loss, metric: functions of one example, (outputs, target) -> scalar.
        batch_axis: name of the mesh axis over which the batch is split, if it is.
        micro_batch: examples at a time, a divisor of the batch of one device; their
            gradients are averaged. None takes all of them at once.
    """
    grad_fn = jax.grad(make_loss_fn(model, loss, metric), has_aux=True)
    if micro_batch is not None:
        grad_fn = accumulate_gradients(grad_fn, micro_batch)

    def gradient(state: TrainState, batch: Batch, hparams: HParams):
        keys = _example_keys(state, len(batch.targets), batch_axis)  # [B]
        grads, metrics = grad_fn(state.params, batch, hparams, keys)
        if batch_axis is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), batch_axis)
        if hparams.clip_norm is not None:
            grads = clip(grads, hparams.clip_norm)
        return grads, metrics

    def update(state: TrainState, grads: PyTree, hparams: HParams) -> TrainState:
        updates, opt_state = make_optimizer(hparams).update(
            grads, state.opt_state, state.params
        )
        multiplier = schedule(state.step.astype(float))
        updates = jax.tree.map(lambda u: (multiplier * u).astype(u.dtype), updates)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.key)

    return TrainStep(gradient, update)


def accumulate_gradients(grad_fn: Callable, size: int) -> Callable:
    """The means of `grad_fn` over a batch, computed for `size` examples at a time.

    What one part computes stays in the cache of a CPU until its gradient is known.
    """

    def mean(params, batch, hparams, keys):
        count = len(keys) // size
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(count, size, *leaf.shape[1:]), (batch, keys)
        )

        def add(total, part):
            batch, keys = part
            now = grad_fn(params, batch, hparams, keys)
            return jax.tree.map(jnp.add, total, now), None

        one = jax.tree.map(lambda leaf: leaf[0], parts)
        like = jax.eval_shape(grad_fn, params, one[0], hparams, one[1])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        total, _ = jax.lax.scan(add, zeros, parts)
        return jax.tree.map(lambda leaf: leaf / count, total)

    return mean


def make_eval_step(model: Model, loss: Callable, metric: Callable) -> Callable:
    """(params, batch) -> Metrics [B] of each example, without randomness."""

    def example_fn(params, example, label):
        outputs = model.apply(params, example)
        return Metrics(loss(outputs, label), metric(outputs, label))

    def eval_step(params: PyTree, batch: Batch) -> Metrics:
        return jax.vmap(example_fn, in_axes=(None, 0, 0))(params, *batch)

    return eval_step


def clip(grads: PyTree, norm) -> PyTree:
    """Scale the gradients down to the global norm `norm` where theirs is larger.

    Source: Pascanu, Mikolov & Bengio (2013), algorithm 1.

    >>> clip({"w": jnp.array([3.0, 4.0])}, 1.0)["w"].tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    scale = jnp.minimum(1, norm / jnp.maximum(optax.tree.norm(grads), 1e-30))
    return jax.tree.map(lambda g: (g * scale).astype(g.dtype), grads)


def _example_keys(state: TrainState, size: int, batch_axis: str | None) -> jax.Array:
    """A key for each example [B] from (seed, purpose, step, position in the batch)."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), state.step)
    first = 0 if batch_axis is None else jax.lax.axis_index(batch_axis) * size
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        key, first + jnp.arange(size)
    )
