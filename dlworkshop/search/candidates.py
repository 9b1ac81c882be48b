"""The search space: networks, the simplest first, each with its settings."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dlworkshop import models
from dlworkshop.data.readers.arrays import are_grey
from dlworkshop.data.rows import evenly
from dlworkshop.errors import (
    Range,
    UserError,
    check_number,
    one_sentence,
    repr_of,
    unknown,
)
from dlworkshop.learn import optimizers
from dlworkshop.learn.hparams import keywords
from dlworkshop.models.augment import Moves
from dlworkshop.models.model import input_struct, shapes, stand_ins, stateful
from dlworkshop.models.scaling import fitted_edges, fitted_scale
from dlworkshop.search.task import Task, own_units
from dlworkshop.train.mesh import row_structs
from dlworkshop.types import Array, Dataset

Setting = Mapping[str, float]
AnyModel = Any  # a `Model` or `StatefulModel`; what wraps one is of the same kind

WIDTHS = (128, 128)
MOST_ENCODED = 512  # numbers that the bins of all columns together may give
PER_BIN = 16  # training examples, at least
BINS = (2, 32)
LARGE = 32  # pixels of a side, from which on a network is residual
USUAL = 32  # channels of its first stage
CHANNELS = (64, 48, USUAL, 24, 16, 12, 8)  # where there is more time, or less
SHIFT = 0.1  # of a side
LOOKED_AT = 1000  # images, to see whether they are grey
# The likeliest first. A decay is per update and unit of the learning rate.
RATES = {optimizers.adamw: (0.003, 0.001, 0.01), optimizers.muon: (0.03, 0.01, 0.1)}
LINEAR = {"learning_rate": (0.03, 0.01, 0.1), "weight_decay": (0.01, 0.1, 0.001)}
DENSE = {
    "learning_rate": RATES[optimizers.adamw],
    "weight_decay": (0.1, 0.01, 1.0),
    "dropout": (0.0, 0.3),
}
MOVES = (0.0, 0.0), (0.0, SHIFT), (0.5, SHIFT)  # chance of a flip, share of a side
INPUTS = {"params", "state", "inputs", "key"}  # of `apply`, no hyper-parameters
ANYWHERE = ("dropout",)  # may be asked for where one network of several has it
# Of images. With batch normalisation the stronger decay was better (docs/own_data.md).
DECAY, DECAYS = (0.05, 0.5), {"resnet": (0.5, 0.05)}


class Candidate(NamedTuple):
    """A network, and the settings it is trained with, the likeliest first.

    `resolved` gives the network of one setting, and what of the setting is left to be a
    hyper-parameter: what members differ in is fixed once it is chosen. Where there is
    no time for it, one that is `smaller` is tried instead.
    """

    name: str
    model: AnyModel
    settings: tuple[Setting, ...]
    resolved: Callable[[Setting], tuple[AnyModel, dict[str, float]]]
    smaller: tuple["Candidate", ...] = ()  # the same on coarser images, or narrower
    optimizer: Callable = optimizers.adamw


def candidates(
    dataset: Dataset,
    task: Task,
    model: AnyModel | None = None,
    asked: Mapping[str, Any] | None = None,
    augment: models.Augment | None = None,
) -> list[Candidate]:
    """The networks to try, the simplest first.

    Args:
        dataset: whose training split gives the statistics.
        task: of it.
        model: the only one to be tried.
        asked: hyper-parameters that are not swept: name -> number or numbers.
        augment: of images, what is done to them in training beside the flips and shifts
            that are tried.

    Raises:
        UserError: where no network here takes such inputs, or one of the `asked`.
    """
    asked = dict(asked or {})
    found = _networks(dataset, task, model, asked, augment)
    for key in ANYWHERE:
        if key in asked and not any(key in each.settings[0] for each in found):
            names = ", ".join(each.name for each in found)
            raise UserError(
                f"hyper-parameter '{key}' has no effect, because no network that would "
                f"be trained ({names}) has it: leave it out"
            )
    return found


def _networks(
    dataset: Dataset,
    task: Task,
    model: AnyModel | None,
    asked: Mapping[str, Any],
    augment: models.Augment | None,
) -> list[Candidate]:
    shape = tuple(getattr(dataset.train.inputs, "shape", (0,))[1:])
    picture = len(shape) == 3
    if not picture and (augment is not None or {"flip", "shift"} & set(asked)):
        raise UserError(
            f"an example of '{dataset.name}' is {list(shape)}, no image, and nothing "
            "else is augmented: leave flip, shift and the like out"
        )
    if model is not None and picture:
        side = min(shape[:2])
        return [augmenting("the model given", model, side, asked, augment)]
    if model is not None:
        return [_candidate("the model given", model, DENSE, asked)]
    if picture:
        first, *smaller = _of_images(dataset, task, asked, augment)
        return [first._replace(smaller=tuple(smaller))]
    if len(shape) != 1:
        raise UserError(
            f"an example of '{dataset.name}' is {list(shape) or 'several arrays'}, and "
            "networks are known here for vectors and images: give a model of your own"
        )
    found, edges = [], _edges(dataset.train.inputs)
    for name, widths, grid in (("linear", (), LINEAR), ("mlp", WIDTHS, DENSE)):
        network = models.mlp(widths, num_classes=task.outputs)
        scaled = prepared(network, dataset, task)
        found.append(_candidate(name, scaled, grid, asked))
        if edges is not None:
            binned = in_units(models.piecewise_linear(network, edges), dataset, task)
            found.append(_candidate(f"{name} on bins", binned, grid, asked))
    return found


def prepared(model: AnyModel, dataset: Dataset, task: Task) -> AnyModel:
    """A network on standardised inputs, with outputs in the units of the targets.

    All statistics are those of the training split.
    """
    scaled = models.standardized(model, *fitted_scale(dataset.train.inputs))
    return in_units(scaled, dataset, task)


def in_units(model: AnyModel, dataset: Dataset, task: Task) -> AnyModel:
    """A network whose outputs are rescaled to targets that are not standardised."""
    if task.kind != "values" or own_units(dataset)[1]:  # standardised already
        return model
    targets = np.asarray(dataset.train.targets, np.float64)
    mean, deviation = targets.mean(0), targets.std(0)
    return models.rescaled(model, mean, np.where(deviation > 0, deviation, 1.0))


def _edges(inputs: Array) -> list[list[float]] | None:
    """Quantiles of train; None where no column can be cut into bins."""
    size, columns = inputs.shape
    low, high = BINS
    most = min(size // PER_BIN, MOST_ENCODED // columns, high)
    if most < low:
        return None
    edges = fitted_edges(inputs, most)
    return edges if any(len(one) > 2 for one in edges) else None


def sizes(side: int) -> list[tuple[int, int]]:
    """Sizes of networks for images with a side of so many pixels, the largest first.

    Each is the side of the squares whose pixels are averaged, and the channels of the
    first stage. Images become coarser before networks become narrower than usual.

    >>> sizes(100)[:5], sizes(28)[:2]
    ([(1, 64), (1, 48), (1, 32), (2, 32), (3, 32)], [(1, 32), (1, 24)])
    """
    coarsest = max(1, side // LARGE)
    wide = [(1, width) for width in CHANNELS if width > USUAL and side >= LARGE]
    usual = [(factor, USUAL) for factor in range(1, coarsest + 1)]
    return wide + usual + [(coarsest, width) for width in CHANNELS if width < USUAL]


def _of_images(
    dataset: Dataset,
    task: Task,
    asked: Mapping[str, Any],
    augment: models.Augment | None,
) -> list[Candidate]:
    """Convolutional networks for images of this size, the largest first."""
    side = min(dataset.train.inputs.shape[1:3])
    if side < 4:  # it cannot be halved twice
        scaled = prepared(models.mlp(WIDTHS, num_classes=task.outputs), dataset, task)
        return [_candidate("mlp", scaled, DENSE, asked)]
    mean, deviation = fitted_scale(dataset.train.inputs)
    grey = is_grey(dataset.train.inputs)
    found = []
    for factor, width in sizes(side):
        name, network = _convolutional(side // factor, width, task.outputs)
        if grey:
            network = models.standardized(network, mean[:1], deviation[:1])
            network = models.on_first_channel(network)
        else:
            network = models.standardized(network, mean, deviation)
        network = models.coarser(network, factor) if factor > 1 else network
        network = in_units(network, dataset, task)
        args = name, network, side, asked, augment
        found.append(augmenting(*args, optimizer=optimizers.muon))
    return found


def _convolutional(side: int, width: int, outputs: int) -> tuple[str, AnyModel]:
    """A network for images of this size: name and model."""
    halved = int(np.log2(side))
    if side >= LARGE:
        middle = [2 * width] * (side >= 2 * LARGE)
        wide = [4 * width] * max(2, min(3, halved - 4))
        stages = [width, *middle, *wide]
        return "resnet", models.resnet(
            stages, norm="batch", block="light", num_classes=outputs
        )
    network = models.cnn(
        [width, 2 * width, 4 * width][: min(3, halved - 1)],
        (128,),
        pooling=models.max_pool,
        dropout=0.3,
        num_classes=outputs,
    )
    return "cnn", network


def augmenting(
    name: str,
    network: AnyModel,
    side: int,
    asked: Mapping[str, Any],
    augment: models.Augment | None = None,
    optimizer: Callable = optimizers.adamw,
) -> Candidate:
    """A network for images [side, side, C], and the augmentations to try.

    If it is trained with flips, its outputs are means over an image and its mirror
    image; in the search they are not.

    Args:
        name: of the candidate.
        network: as it is without augmentation.
        side: pixels of the shorter side.
        asked: hyper-parameters that are not swept; `shift`, a share of a side, and
            `flip`, 0 or 1, may be among them.
        augment: what is done to all, without a flip or a shift.
        optimizer: a key of `RATES`.
    """
    others = augment or models.Augment()
    chance, share = asked.get("flip", 0), asked.get("shift", 0)
    if np.ndim(chance) or chance not in (0, 1):
        raise UserError(f"flip is {repr_of(chance)}: give 0 or 1")
    check_number("shift", share, Range(0, 1))
    if share and not round(share * side):
        raise UserError(
            f"shift is {share}, less than a pixel of {side}: give a larger share of a "
            "side, or 0"
        )
    rest = {key: value for key, value in asked.items() if key not in ("flip", "shift")}
    moves = dict.fromkeys(
        (
            float(asked.get("flip", 2 * flip)) / 2,  # the chance, of half of them
            round(float(asked.get("shift", shift)) * side),
        )
        for flip, shift in MOVES
    )
    grid = {
        "learning_rate": RATES[optimizer],
        "moves": tuple(moves),
        "weight_decay": DECAYS.get(name, DECAY),
    }
    found = _candidate(name, network, grid, rest)
    settings = []
    for setting in found.settings:
        numbers: dict[str, Any] = dict(setting)
        flip, shift = numbers.pop("moves")
        settings.append({**numbers, "flip": flip, "shift": float(shift)})
    most = max(pixels for _, pixels in moves)
    model = models.augmented(network, Moves(most, others))

    def resolved(setting: Setting) -> tuple[AnyModel, dict[str, float]]:
        left = {k: v for k, v in setting.items() if k not in ("flip", "shift")}
        flip, shift = setting["flip"] > 0, int(setting["shift"])
        chosen = dataclasses.replace(others, flip=flip, shift=shift)
        if chosen == models.Augment():  # nothing
            return network, left
        whole = models.mirrored(network) if flip else network
        return models.augmented(whole, chosen), left

    return Candidate(name, model, tuple(settings), resolved, optimizer=optimizer)


def is_grey(images: Array) -> bool:
    """Whether images [N, H, W, 3] have three equal channels, judged by a sample.

    >>> is_grey(np.ones((2, 4, 4, 3))), is_grey(np.ones((2, 4, 4, 1)))
    (True, False)
    """
    return are_grey(np.asarray(images[evenly(len(images), LOOKED_AT)]))


def _candidate(
    name: str,
    model: AnyModel,
    grid: Mapping[str, Sequence[Any]],
    asked: Mapping[str, Any],
) -> Candidate:
    """A candidate with all combinations of a grid, the likeliest first.

    Raises:
        UserError: for a hyper-parameter that is asked for and has no effect.
    """
    takes = set(keywords(model.apply)) - INPUTS
    if model.config.get("widths") == []:  # nothing there to be dropped
        takes -= {"dropout"}
    known = {"learning_rate", "weight_decay", "moves"} | takes
    values = {key: tuple(own) for key, own in grid.items() if key in known}
    for key, value in asked.items():
        if key in known:
            values[key] = tuple(np.atleast_1d(value).tolist())
        elif key not in ANYWHERE:
            raise unknown("hyper-parameter", key, {*known, *ANYWHERE})
    places = itertools.product(*(range(len(own)) for own in values.values()))
    in_order = sorted(places, key=lambda place: (max(place), sum(place)))
    settings = [
        {key: values[key][i] for key, i in zip(values, place, strict=True)}
        for place in in_order
    ]
    return Candidate(name, model, tuple(settings), lambda one: (model, dict(one)))


def check(candidate: Candidate, dataset: Dataset) -> None:
    """Check that the network takes the examples, in training too.

    Raises:
        UserError: in one sentence.
    """
    model = stateful(candidate.model)
    example = input_struct(row_structs(dataset.train.inputs))
    apply = functools.partial(model.apply, **stand_ins(model))
    with one_sentence(f"{candidate.name} does not take the examples"):
        params, state = shapes(model, example)
        if not jax.tree.leaves(state):  # or else it looks at its batch
            jax.eval_shape(apply, params, state, example, key=jax.random.key(0))
