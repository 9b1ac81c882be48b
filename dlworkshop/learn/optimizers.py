"""temporary."""

import functools

import jax
import optax

adam, adamw = optax.adam, optax.adamw


def sgd(learning_rate, momentum=None):
    return optax.sgd(learning_rate, momentum)


nesterov = functools.partial(optax.sgd, nesterov=True, momentum=0.9)


def kernels(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


muon = optax.contrib.muon
