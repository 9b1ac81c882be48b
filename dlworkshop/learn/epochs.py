"""Whole epochs on the device: chunks of steps, evaluation, early stopping."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlworkshop.learn import population as pop
from dlworkshop.learn.population import Population
from dlworkshop.types import Array, Batch, HParams, PyTree


class Epochs(NamedTuple):
    """The measurements of epochs, a row [E, ...] for each."""

    train: Mapping[str, Array]  # name -> [E, P], means over the steps
    validation: Mapping[str, Array]  # name -> [E, P, 2]; see `population.add_exactly`
    running: Array  # [E, P] bool, at the end of the last step


class EvalSplit(NamedTuple):
    """A split to evaluate, with the order of its examples; see `make_evaluate`."""

    data: Batch  # [N, ...]
    feed: PyTree  # [T, B]
    share: Array  # [T, B]


def make_epochs(
    chunk: Callable,
    evaluate: Callable,
    draw: Callable,
    *,
    score: Callable,
    keep_best: Callable,
    judged: Callable,
    names: tuple[str, ...],
    room: int,
    total: Callable,
) -> Callable:
    """(population, hparams, seeds, data, held, first, last, fewest) -> three results.

    Trains every member for the epochs first ... last - 1, and stops earlier if at most
    `fewest` members are running. Returns the population, the next epoch, and `Epochs`
    with a row for each finished epoch.

    Args:
        chunk: see `population.make_population_chunk`.
        evaluate: see `population.make_evaluate`.
        draw: (seeds [P], epoch) -> the feed of a chunk [S, P, ...].
        score: means of validation, name -> [P], -> the monitored score, lower is
            better.
        keep_best: (population, score) -> population.
        judged: population -> params and state to evaluate.
        names: of the scores of an evaluation.
        room: the number of allocated rows, at least last - first.
        total: (value, "example" or "member") -> its sum over the devices which share
            the examples of a batch, or the members.
    """

    def one(population: Population, epoch, hparams, seeds, data, held: EvalSplit):
        fed = draw(seeds, epoch)
        population, metrics = chunk(population, hparams, data, fed)
        running = population.status == pop.RUNNING
        zeros = jnp.zeros((len(seeds), 2), jnp.result_type(float))
        params, state = judged(population)
        totals = dict.fromkeys(names, zeros)
        totals, _ = evaluate(params, state, hparams, totals, *held)
        weight = total(held.share.sum(), "example")
        means = {name: value.sum(-1) / weight for name, value in totals.items()}
        population = keep_best(population, score(means))
        train = {name: pop.mean_of_finite(value) for name, value in metrics.items()}
        return population, Epochs(train, totals, running)

    def epochs(population, hparams: HParams, seeds, data, held, first, last, fewest):
        def go_on(carry):
            epoch, population, _ = carry
            running = (population.status == pop.RUNNING).sum()
            return (epoch < last) & (total(running, "member") > fewest)

        def turn(carry):
            epoch, population, rows = carry
            population, row = one(population, epoch, hparams, seeds, data, held)
            put = partial(
                jax.lax.dynamic_update_index_in_dim, index=epoch - first, axis=0
            )
            return epoch + 1, population, jax.tree.map(put, rows, row)

        _, like = jax.eval_shape(one, population, first, hparams, seeds, data, held)
        rows = jax.tree.map(
            lambda leaf: jnp.zeros((room, *leaf.shape), leaf.dtype), like
        )
        epoch, population, rows = jax.lax.while_loop(
            go_on, turn, (first, population, rows)
        )
        return population, epoch, rows

    return epochs
