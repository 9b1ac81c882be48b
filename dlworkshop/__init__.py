"""dlworkshop: one pure function of ONE example, lifted five times.

The whole library on a tiny batch. A model is a pair of pure functions of one example:

>>> import jax, jax.numpy as jnp, optax
>>> from dlworkshop import losses, models
>>> from dlworkshop.learn import chunk, population, step
>>> from dlworkshop.types import Batch
>>> image = jax.random.uniform(jax.random.key(0), (6, 8, 8, 1))  # [B, H, W, C]
>>> data = Batch(image, jnp.arange(6) % 2)
>>> model = models.mlp((16,), num_classes=2)
>>> params = model.init(jax.random.key(0), image[0])
>>> model.apply(params, image[0]).shape
(2,)

1. One example -> a batch:

>>> models.predict(model, params, image).shape
(6, 2)

2. A loss -> a train step, whose hyper-parameters are arguments:

>>> spec = step.spec_of(model, optax.adam, losses.cross_entropy)
>>> train_step = step.make_train_step(spec)
>>> hparams = {"learning_rate": jnp.array(0.01)}
>>> key = jax.random.key(0)
>>> state = step.init_state(spec, hparams, key, image[0])
>>> int(jax.jit(train_step)(state, data, hparams)[0].step)
1

3. A step -> a chunk of steps, one program on the device:

>>> order = jnp.zeros((9, 1), int) + jnp.arange(6)  # nine steps on all six examples
>>> state, seen = jax.jit(chunk.make_chunk(train_step))(state, hparams, data, order)
>>> seen["loss"].shape, bool(seen["loss"][-1] < seen["loss"][0])
((9,), True)

4. One model -> a population, here of three learning rates:

>>> rates = {"learning_rate": jnp.array([0.001, 0.01, 0.1])}
>>> begin = lambda h: step.init_state(spec, h, key, image[0])
>>> states = population.begin(jax.jit(jax.vmap(begin))(rates))
>>> many = population.make_population_chunk(train_step)
>>> orders = jnp.broadcast_to(order[:, None], (9, 3, 6))  # each member its own
>>> states, seen = jax.jit(many)(states, rates, data, orders)
>>> seen["loss"].shape
(9, 3)

5. One device -> all devices: `fit`, which also has the loop, the clock and the disk.
"""

import importlib
from typing import Any

_PUBLIC = {  # name -> where it is defined; imported on first access
    "Batch": "dlworkshop.types:Batch",
    "Dataset": "dlworkshop.types:Dataset",
    "Run": "dlworkshop.train.result:Run",
    "Start": "dlworkshop.types:Start",
    "UserError": "dlworkshop.errors:UserError",
    "autofit": "dlworkshop.search:autofit",
    "data": "dlworkshop.data",
    "estimate": "dlworkshop.train.fit:estimate",
    "fit": "dlworkshop.train.fit:fit",
    "load_run": "dlworkshop.serve.load:load",
    "losses": "dlworkshop.learn.losses",
    "metrics": "dlworkshop.learn.metrics",
    "models": "dlworkshop.models",
    "observers": "dlworkshop.train.observers",
    "optimizers": "dlworkshop.learn.optimizers",
    "replay": "dlworkshop.train.fit:replay",
    "schedules": "dlworkshop.learn.schedules",
    "sweep": "dlworkshop.sweeps.sweep:sweep",
    "verify": "dlworkshop.verify",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dlworkshop' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = importlib.import_module(module)
    return getattr(value, attribute) if attribute else value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
