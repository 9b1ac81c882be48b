"""A population on points of a plane, trained one epoch at a time.

It uses lifts 1 to 4 from `learn` instead of `fit`, because a page requests an epoch
after it has drawn the previous one. Learning rates are arguments of the programs, so
the same number of other learning rates needs no compilation.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from dlworkshop import models
from dlworkshop.data import toy
from dlworkshop.data.order import Order
from dlworkshop.lab.settings import ACTIVATIONS, OPTIMIZERS, POINTS, Settings
from dlworkshop.learn import losses, metrics, population, step
from dlworkshop.learn.population import Population
from dlworkshop.types import Array, Batch, Dataset, HParams

GRID = 64  # places along each side of the plane
SCORES = {"loss": losses.cross_entropy, "accuracy": metrics.accuracy}


class Programs(NamedTuple):
    """Programs that train and evaluate a population, compiled at their first call."""

    begin: Callable  # (hparams [P], seeds [P], example) -> population
    epoch: Callable  # (population, hparams [P], train, order [S, P, B]) -> population
    score: Callable  # (params [P], split) -> name -> [P]
    field: Callable  # (params [P], places [M, 2]) -> logits [P, M, K]


class Training(NamedTuple):
    """A population under training, with its history."""

    settings: Settings
    data: Dataset
    order: Order
    hparams: HParams
    population: Population
    epoch: int
    history: Mapping[str, tuple[np.ndarray, ...]]  # "validation/loss" -> [P] per epoch


class View(NamedTuple):
    """What a page shows of R learning rates with S seeds each."""

    logits: np.ndarray  # [R, S, GRID, GRID, K], the first row is the top
    mean: np.ndarray  # [R, GRID, GRID, K] probabilities, mean over running members
    spread: np.ndarray  # [R, GRID, GRID] standard deviation for the most likely class
    running: np.ndarray  # [R, S] bool; the others were not finite and are stopped
    history: dict[str, np.ndarray]  # name -> [T, R, S]


@functools.lru_cache(maxsize=16)
def programs(
    classes: int, depth: int, width: int, activation: str, optimizer: str
) -> Programs:
    """The programs of a network and an optimizer, shared by all pages."""
    model = models.mlp((width,) * depth, ACTIVATIONS[activation], num_classes=classes)
    spec = step.spec_of(model, OPTIMIZERS[optimizer], losses.cross_entropy)
    on_cpu = jax.default_backend() == "cpu"
    train_step = step.make_train_step(spec)
    chunk = population.make_population_chunk(train_step, on_cpu=on_cpu)

    def begin(hparams, seeds, example):
        def member(numbers, seed):
            return step.init_state(spec, numbers, jax.random.key(seed), example)

        return population.begin(jax.vmap(member)(hparams, seeds))

    def epoch(members, hparams, train, order):
        return chunk(members, hparams, train, order)[0]

    def score(params, split: Batch):
        def member(params):
            outputs = models.predict(model, params, split.inputs)  # [N, K]
            return {
                name: jax.vmap(function)(outputs, split.targets).mean()
                for name, function in SCORES.items()
            }

        return jax.vmap(member)(params)

    def field(params, places):
        return jax.vmap(lambda each: models.predict(model, each, places))(params)

    return Programs(jax.jit(begin), jax.jit(epoch), jax.jit(score), jax.jit(field))


def begin(settings: Settings) -> Training:
    """The initial population of these settings.

    >>> settings = Settings(points="spirals", rates=(0.1, 0.2), seeds=3)
    >>> begin(settings).history["train/loss"][0].shape
    (6,)
    """
    points = POINTS[settings.points](settings.size, noise=settings.noise)
    data = toy.split(points, settings.points)
    seeds = np.tile(np.arange(settings.seeds), len(settings.rates))  # [P]
    rates = np.repeat(np.array(settings.rates, np.float32), settings.seeds)
    hparams = {"learning_rate": jnp.asarray(rates)}
    order = Order(seeds.tolist(), len(data.train.targets), settings.batch)
    members = _programs(settings, data).begin(
        hparams, jnp.asarray(seeds), data.train.inputs[0]
    )
    training = Training(settings, data, order, hparams, members, 0, {})
    return _scored(training)


def advance(training: Training) -> Training:
    """Train one epoch; members that are not finite do not change."""
    steps = training.order.steps_per_epoch
    members = _programs(training.settings, training.data).epoch(
        training.population,
        training.hparams,
        training.data.train,
        training.order.steps(training.epoch * steps, steps),
    )
    return _scored(training._replace(population=members, epoch=training.epoch + 1))


def view(training: Training) -> View:
    """What a page shows of a training.

    >>> seen = view(begin(Settings(points="spirals", rates=(0.1, 0.2), seeds=3)))
    >>> seen.logits.shape, seen.spread.shape, seen.history["train/loss"].shape
    ((2, 3, 64, 64, 3), (2, 64, 64), (1, 2, 3))
    """
    settings = training.settings
    shape = len(settings.rates), settings.seeds
    logits = _programs(settings, training.data).field(
        training.population.train.params, places(half_side(training.data))
    )
    logits = np.nan_to_num(np.asarray(logits)).reshape(*shape, GRID, GRID, -1)
    chance = scipy.special.softmax(logits, -1)
    status = np.asarray(training.population.status)
    running = (status == population.RUNNING).reshape(shape)
    counted = running | ~running.any(1, keepdims=True)  # all, if none is running
    found = [_together(own[who]) for own, who in zip(chance, counted, strict=True)]
    mean, spread = map(np.stack, zip(*found, strict=True))
    history = {
        name: np.array(values).reshape(-1, *shape)
        for name, values in training.history.items()
    }
    return View(logits, mean, spread, running, history)


def _together(chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of members [S, G, G, K], and the spread for its most likely class."""
    mean = chance.mean(0)
    of_it = np.take_along_axis(chance, mean.argmax(-1)[None, ..., None], -1)[..., 0]
    return mean, of_it.std(0, ddof=int(len(chance) > 1))


def half_side(data: Dataset) -> float:
    """Half the side of a square around 0 that contains the points, with a margin."""
    return 1.1 * max(float(np.abs(split.inputs).max()) for split in data[:2])


def places(half: float) -> Array:
    """The points of a grid [GRID * GRID, 2] float32, row by row from the upper left.

    >>> places(1.0)[[0, GRID - 1, -1]].tolist()
    [[-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]]
    """
    side = np.linspace(-half, half, GRID, dtype=np.float32)
    across, up = np.meshgrid(side, side[::-1])
    return np.stack([across.ravel(), up.ravel()], -1)


def _programs(settings: Settings, data: Dataset) -> Programs:
    return programs(
        len(data.classes),
        settings.depth,
        settings.width,
        settings.activation,
        settings.optimizer,
    )


def _scored(training: Training) -> Training:
    score = _programs(training.settings, training.data).score
    found = {
        f"{name}/{quantity}": np.asarray(values)
        for name in ("train", "validation")
        for quantity, values in score(
            training.population.train.params, getattr(training.data, name)
        ).items()
    }
    history = {
        name: (*training.history.get(name, ()), values)
        for name, values in found.items()
    }
    return training._replace(history=history)
