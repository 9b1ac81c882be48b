"""The members of a population: settings of hyper-parameters times seeds."""

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dlworkshop.errors import Range, UserError, check_text, repr_of
from dlworkshop.learn.hparams import Routes, name_of

# Ranges of hyper-parameters of optax's functions and ours. Other names, and those of
# functions of the user, may have any finite value.
RANGES = {
    "learning_rate": Range(0),
    "momentum": Range(0, 1),
    "b1": Range(0, 1),
    "b2": Range(0, 1),
    "beta": Range(0, 1),
    "adam_b1": Range(0, 1),
    "adam_b2": Range(0, 1),
    "decay": Range(0, 1),
    "eps": Range(0, closed=False),
    "weight_decay": Range(0),
    "clip_norm": Range(0, closed=False),
    "dropout": Range(0, 1),
    "label_smoothing": Range(0, 1),
    "warmup": Range(0, 1),
    "delta": Range(0, closed=False),
}

MOST_SEEDS = 10**7

Settings = Mapping[str, Any] | Sequence[Mapping[str, Any]]


def product(
    hparams: Settings, seeds: int | Sequence[int]
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Every setting of the hyper-parameters with every seed.

    Args:
        hparams: name -> one number or a list of numbers, every combination of which is
            a setting; or a list of settings, name -> number, with the same names.
        seeds: the number of seeds (0, 1, ...), or a list of seeds.

    Returns:
        name -> float array [P], and the seed of each member [P]; seeds vary fastest.
        Numbers are rounded to JAX's float dtype, in which a run computes, and have the
        fewest digits that identify them.

    >>> members, seeds = product({"learning_rate": [0.1, 0.2]}, seeds=2)
    >>> members["learning_rate"].tolist(), seeds
    ([0.1, 0.1, 0.2, 0.2], [0, 1, 0, 1])
    >>> listed = [{"b1": 0.8, "eps": 1e-8}, {"b1": 0.9, "eps": 1e-4}]
    >>> product(listed, seeds=1)[0]["b1"].tolist()
    [0.8, 0.9]
    >>> product({"b1": 0.12345678901}, seeds=1)[0]["b1"].tolist()  # in float32
    [0.12345679]
    """
    seeds = _seeds(seeds)
    columns = _listed(hparams) if not isinstance(hparams, Mapping) else _grid(hparams)
    count = len(next(iter(columns.values()))) if columns else 1
    rows = list(zip(*(values.tolist() for values in columns.values()), strict=True))
    (commonest, times), *_ = [*collections.Counter(rows).most_common(1), ((), 0)]
    if times > 1:
        setting = ", ".join(f"{k}={v}" for k, v in zip(columns, commonest, strict=True))
        raise UserError(
            f"hparams has the setting {setting} more than once, in "
            f"{jnp.result_type(float)}, in which a run computes: give each setting "
            "once, and more seeds for more members"
        )
    members = {name: np.repeat(values, len(seeds)) for name, values in columns.items()}
    return members, seeds * count


def _grid(hparams: Mapping[str, Any]) -> dict[str, np.ndarray]:
    values = [_values(name, value) for name, value in hparams.items()]
    axes = np.meshgrid(*values, indexing="ij") if values else []
    return dict(zip(hparams, (axis.ravel() for axis in axes), strict=True))


def names_of(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that all settings of a list have.

    Raises:
        UserError: if it is not a list of settings, is empty, or their names differ.

    >>> names_of([{"rate": 1, "decay": 2}, {"decay": 0, "rate": 1}])
    ['rate', 'decay']
    """
    if not isinstance(settings, Sequence) or not all(
        isinstance(setting, Mapping) for setting in settings
    ):
        raise UserError(
            f"hparams is {repr_of(settings)}: give a dict of names and values, or a "
            "list of such dicts"
        )
    if not settings:
        raise UserError("hparams is an empty list: give at least one setting")
    names = list(settings[0])
    for setting in settings:
        if set(setting) != set(names):
            raise UserError(
                f"hparams lists the settings {sorted(names)} and {sorted(setting)}: "
                "give all of them the same names"
            )
    return names


def _listed(settings: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {
        name: np.concatenate([_values(name, s[name], one=True) for s in settings])
        for name in names_of(settings)
    }


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        if seeds < 1:
            raise UserError(f"seeds is {seeds}: train at least one member")
        if seeds > MOST_SEEDS:
            raise UserError(
                f"seeds is {seeds}, the number of models, of which there may be "
                f"{MOST_SEEDS:,}: give seeds=[{seeds}] for one of that seed"
            )
        return list(range(int(seeds)))
    try:
        listed = [int(seed) for seed in seeds]  # type: ignore[union-attr]
        whole = all(a == b for a, b in zip(listed, seeds, strict=True))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        whole = False
    if not whole or isinstance(seeds, (str, bytes)):
        raise UserError(
            f"seeds is {seeds!r:.80}: give a whole number or a list of them"
        )
    if not listed or min(listed) < 0 or max(listed) >= 2**32:
        raise UserError(f"seeds are {listed}: give one or more in 0 ... 2**32 - 1")
    if len(set(listed)) < len(listed):
        raise UserError(f"seeds are {listed}: each may come once only")
    return listed


def _values(name: str, value: Any, one: bool = False) -> np.ndarray:
    check_text("the name of a hyper-parameter", name)
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "iufV":  # V: bfloat16
            raise TypeError
        values = np.atleast_1d(given.astype(np.float64))
    except (TypeError, ValueError):
        raise UserError(
            f"hyper-parameter '{name}' is {value!r:.80}: give a number or a list of "
            "them; fix other arguments with functools.partial"
        ) from None
    whole = values.ndim == 1 and values.size and np.isfinite(values).all()
    if not whole or (one and len(values) > 1):
        raise UserError(
            f"hyper-parameter '{name}' is {value!r:.80}: give "
            f"{'one finite number' if one else 'one or more finite numbers'}"
        )
    known = jnp.finfo(jnp.result_type(float))
    with np.errstate(over="ignore"):
        trained = values.astype(known.dtype)
    lost = np.isinf(trained) | ((values != 0) & (np.abs(trained) < known.tiny))
    if lost.any():
        raise UserError(
            f"hyper-parameter '{name}' is {values[lost][0]:g}, and a run computes in "
            f"{known.dtype}, from {known.tiny:.2g} to {known.max:.2g}: give a number "
            "in this range, or 0"
        )
    return rounded(values)


def rounded(values: np.ndarray) -> np.ndarray:
    """Numbers in the dtype of a run, with the fewest digits that identify them.

    >>> rounded(np.array([0.12345678901, 0.1])).tolist()
    [0.12345679, 0.1]
    """
    dtype = jnp.result_type(float)
    return np.array([float(str(each)) for each in np.asarray(values).astype(dtype)])


def check_ranges(
    members: Mapping[str, np.ndarray], routes: Routes, **functions: Callable | None
) -> None:
    """Refuse values outside the range of a function of optax or of ours.

    Args:
        members: name of each hyper-parameter -> [P].
        routes: which function takes which.
        functions: name of the reader, one of the fields of `Routes` -> function, or
            the class of a model's module.
    """
    for reader, function in functions.items():
        if function is None or not _is_known(function):
            continue
        for keyword, name in getattr(routes, reader).items():
            inside = RANGES.get(keyword, Range())
            wrong = [value for value in members[name].tolist() if value not in inside]
            if wrong:
                raise UserError(
                    f"hyper-parameter '{name}' is {wrong[0]:g}: {name_of(function)} "
                    f"takes numbers in {inside}"
                )


def _is_known(function: Any) -> bool:
    """Whether a function is optax's or ours; partials and wrappers are unwrapped."""
    while isinstance(function, functools.partial):
        function = function.func
    home = getattr(function, "__module__", None) or ""
    return home.partition(".")[0] in ("optax", "dlworkshop")
