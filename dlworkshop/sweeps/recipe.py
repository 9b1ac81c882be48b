"""The conversion of a setting of a sweep into the arguments of `fit`."""

import inspect
import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from dlworkshop.errors import UserError, one_sentence, repr_of, unknown
from dlworkshop.learn.hparams import RESERVED, check_required, keywords, name_of, route
from dlworkshop.models.model import Model, StatefulModel, check_model
from dlworkshop.sweeps.space import Setting, Space
from dlworkshop.train import checks
from dlworkshop.train.arguments import Arguments, check_arguments
from dlworkshop.train.fit import fit
from dlworkshop.train.members import check_ranges, product
from dlworkshop.train.task import metrics_of
from dlworkshop.types import Dataset

# Arguments of `fit` that a setting may contain, besides hyper-parameters.
COUNTS = "batch_size", "num_epochs", "steps_per_epoch", "patience"
FUNCTIONS = (
    "optimizer",
    "loss",
    "objective",
    "schedule",
    "batch_transform",
    "make_step",
    "eval_params",
)
SWEPT = COUNTS + FUNCTIONS
READERS = "optimizer", "loss", "schedule", "batch_transform", "make_step"
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}


class Recipe(NamedTuple):
    """The function that receives each hyper-parameter.

    Keywords of the function that makes the model and arguments of `fit` are static:
    another value needs another program. All other hyper-parameters are traced.
    """

    model: Any  # a model, or a function of static values that returns one
    space: Space
    of_model: frozenset[str]  # names of the static values that the model takes
    of_fit: frozenset[str]  # and of those that `fit` takes
    options: Mapping[str, Any]  # of `fit`, the same for all settings

    @property
    def static(self) -> list[str]:
        return sorted(self.of_model | self.of_fit)

    def made(self, setting: Setting) -> Model | StatefulModel:
        """The model of a setting.

        Raises:
            UserError: if the function fails, or returns something else.
        """
        if isinstance(self.model, Model | StatefulModel):
            return self.model
        told = ", ".join(f"{n}={setting[n]}" for n in setting if n in self.of_model)
        values = self._values(setting, self.of_model)
        for name, value in values.items():
            _check_int(name, value, inspect.signature(self.model).parameters[name])
        with one_sentence(f"{name_of(self.model)}({told}) makes no model"):
            model = self.model(**values)
        check_model(model)
        return model

    def arguments(self, setting: Setting) -> dict[str, Any]:
        """The arguments of `fit` for a setting, without the traced ones."""
        return {**self.options, **self._values(setting, self.of_fit)}

    def traced(self, setting: Setting) -> dict[str, Any]:
        """The traced hyper-parameters of a setting."""
        return self._values(setting, setting.keys() - set(self.static))

    def _values(self, setting: Setting, names: Collection[str]) -> dict[str, Any]:
        space = self.space
        return {n: space.value(n, own) for n, own in setting.items() if n in names}


def _check_int(name: str, value: Any, parameter: inspect.Parameter) -> None:
    """Raise an error if a parameter is annotated as an int, and the value is none."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if parameter.annotation in (int, "int") and not is_whole:
        raise UserError(
            f"hyper-parameter '{name}' is {repr_of(value)}: give whole numbers"
        )


def recipe_of(model: Any, space: Space, options: Mapping[str, Any]) -> Recipe:
    """Assign each hyper-parameter of a space to the function that receives it.

    Raises:
        UserError: if two functions take the same name, or a name is an argument of
            `fit` that must be the same for all settings.
    """
    is_model = isinstance(model, Model | StatefulModel)
    if not is_model and not callable(model):
        check_model(model)
    makes = set() if is_model else set(keywords(model))
    for name in space.names:
        swept = name in SWEPT
        if name in DEFAULTS and not swept:
            raise UserError(
                f"hparams contains '{name}', which must be the same for all settings: "
                "give it as an argument of its own"
            )
        if swept and name in makes:
            raise UserError(
                f"hyper-parameter '{name}' is an argument of both {name_of(model)} and "
                f"fit: rename it in {name_of(model)}"
            )
        if swept and name in options:
            raise UserError(
                f"{name} is given twice, as an argument and in hparams: give it once"
            )
    if {"loss", "objective"} & set(space.names) and options["monitor"] == "loss":
        raise UserError(
            "values of different losses cannot be compared: choose a metric, as "
            "monitor='accuracy'"
        )
    of_model = frozenset(makes & set(space.names))
    of_fit = frozenset(name for name in space.names if name in SWEPT)
    return Recipe(model, space, of_model, of_fit, options)


def check(
    recipe: Recipe,
    populations: Sequence[Sequence[Setting]],
    seeds: Any,
    dataset: Dataset,
) -> None:
    """Check settings with equal static values before the first step.

    Args:
        populations: the settings of each are distinct; all have equal static values.

    Raises:
        UserError: if a setting is invalid.
    """
    first = populations[0][0]
    model, options = recipe.made(first), DEFAULTS | recipe.arguments(first)
    asked = Arguments(model=model, dataset=dataset, **options)
    check_arguments(asked)
    metrics_of(asked, dataset)
    if asked.steps_per_epoch is None and asked.folds is None:
        checks.check_batch_size(dataset, asked.batch_size)
    traced = recipe.traced(first)
    if not traced:
        return
    readers = {name: options[name] for name in READERS}
    readers["loss"] = asked.objective or asked.loss
    readers["model"] = model.apply
    known = {
        word
        for reader, function in readers.items()
        if function is not None
        for word in keywords(function).keys() - RESERVED[reader]
    }
    for name in traced:
        if "." not in name and name not in known:
            static = set() if recipe.model is model else set(keywords(recipe.model))
            raise unknown("hyper-parameter", name, known.union(static, SWEPT))
    routes = route(traced, **readers)
    check_required(routes, **readers)
    module = model.module
    for settings in populations:
        check_ranges(
            product([recipe.traced(setting) for setting in settings], seeds)[0],
            routes,
            optimizer=readers["optimizer"],
            loss=readers["loss"],
            model=model.apply if module is None else type(module),
            schedule=readers["schedule"],
        )
