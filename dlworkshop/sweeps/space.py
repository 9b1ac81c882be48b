"""The space of a sweep: the values that each hyper-parameter may take."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from dlworkshop.errors import UserError, check_text, repr_of
from dlworkshop.learn.hparams import name_of
from dlworkshop.train.members import names_of

Label = None | bool | int | float | str  # represents a value in tables and files
Setting = dict[str, Label]


class Space(NamedTuple):
    """The values that each hyper-parameter may take, identified by their labels."""

    values: dict[str, dict[Label, Any]]  # name -> label -> value
    ranges: dict[str, Any]  # name -> Optuna distribution
    listed: list[Setting] | None = None  # settings that were given as a list

    @property
    def names(self) -> list[str]:
        return [*self.values, *self.ranges]

    def value(self, name: str, label: Label) -> Any:
        """The value of a label; a number from a range is its own label."""
        return self.values[name][label] if name in self.values else label

    def settings(self) -> list[Setting]:
        """All settings: the listed ones, or every combination of values.

        >>> space_of({"width": [8, 16], "rate": 0.1}).settings()
        [{'width': 8, 'rate': 0.1}, {'width': 16, 'rate': 0.1}]
        """
        if self.listed is not None:
            return self.listed
        combinations = itertools.product(*self.values.values())
        return [dict(zip(self.values, each, strict=True)) for each in combinations]

    def corners(self) -> list[Setting]:
        """Settings that contain each value and each end of a range at least once.

        >>> space_of({"a": [1, 2, 3], "b": ["x", "y"]}).corners()
        [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}, {'a': 3, 'b': 'x'}]
        """
        if self.listed is not None:
            return self.listed
        ends = {name: [each.low, each.high] for name, each in self.ranges.items()}
        columns = {**{name: list(each) for name, each in self.values.items()}, **ends}
        count = max(map(len, columns.values()), default=1)
        return [
            {name: column[i % len(column)] for name, column in columns.items()}
            for i in range(count)
        ]

    def distributions(self, optuna: Any) -> dict[str, Any]:
        """What Optuna samples: the ranges, and hyper-parameters with several values."""
        categorical = optuna.distributions.CategoricalDistribution
        several = {n: list(each) for n, each in self.values.items() if len(each) > 1}
        return {n: categorical(each) for n, each in several.items()} | self.ranges

    def in_words(self) -> dict[str, Any]:
        """The space as JSON."""
        words: dict[str, Any] = {name: list(each) for name, each in self.values.items()}
        words |= {name: repr(each) for name, each in self.ranges.items()}
        return words if self.listed is None else {"listed": self.listed}


def space_of(hparams: Any) -> Space:
    """The space that `hparams` of a sweep describes.

    Args:
        hparams: name -> a value, a list of values, a dict of label -> value, or an
            Optuna distribution; or a list of settings, each name -> value.

    Raises:
        UserError: if a name or a value is invalid.

    >>> space_of({"width": (8, 16), "loss": {"mine": abs}}).values
    {'width': {8: 8, 16: 16}, 'loss': {'mine': <built-in function abs>}}
    """
    if isinstance(hparams, Mapping):
        values, ranges = {}, {}
        for name, given in hparams.items():
            check_text("the name of a hyper-parameter", name)
            if _is_range(given):
                ranges[name] = given
            else:
                values[name] = _choices(name, given)
        return Space(values, ranges)
    names = names_of(hparams)
    listed = [{name: label_of(each[name]) for name in names} for each in hparams]
    values = {name: {label_of(s[name]): s[name] for s in hparams} for name in names}
    for name in names:
        for setting in hparams:
            known = values[name][label_of(setting[name])]
            if callable(known) and known is not setting[name]:
                raise UserError(
                    f"hyper-parameter '{name}' has two values that are both called "
                    f"'{label_of(known)}': give a grid with a label for each value, "
                    "as {'label': value, ...}"
                )
    return Space(values, {}, listed)


def label_of(value: Any) -> Label:
    """The label of a value: itself if it is a number or text, else its name.

    >>> label_of(0.1), label_of((32, 64)), label_of(abs)
    (0.1, '(32, 64)', 'abs')
    """
    if getattr(value, "ndim", None) == 0:  # of NumPy or JAX
        return float(str(value)) if value.dtype.kind in "fV" else value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return f"({', '.join(str(label_of(each)) for each in value)})"
    return name_of(value) if callable(value) else repr_of(value)


def _is_range(given: Any) -> bool:
    """Whether `given` is an Optuna distribution with two ends."""
    ours = type(given).__module__.startswith("optuna.")
    return ours and hasattr(given, "low") and hasattr(given, "high")


def _choices(name: str, given: Any) -> dict[Label, Any]:
    if isinstance(given, Mapping):
        pairs: list[tuple[Any, Any]] = list(given.items())
    else:
        several = isinstance(given, list | tuple | range)
        several = several or getattr(given, "ndim", 0) == 1
        # a CategoricalDistribution has `choices`
        values = getattr(given, "choices", given if several else [given])
        pairs = [(label_of(each), each) for each in values]
    found = dict(pairs)
    if not found:
        raise UserError(f"hyper-parameter '{name}' has no value: give at least one")
    if len(found) < len(pairs):
        labels = [label for label, _ in pairs]
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UserError(
            f"hyper-parameter '{name}' has the value {twice} more than once: give each "
            "value once, and functions with equal names as {'label': function, ...}"
        )
    return found
