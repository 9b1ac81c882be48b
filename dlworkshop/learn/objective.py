"""Objectives of ONE example: a loss of outputs, or anything else.

An objective is a function

    (model, params, state, inputs, targets, *, key, **hparams) -> loss, (outputs, state)

with a scalar loss. `model` is a `StatefulModel` whose `apply` has its hyper-parameters
bound. `key` is None in evaluation.
"""

import inspect
from collections.abc import Callable

from dlworkshop.errors import UserError
from dlworkshop.learn.hparams import BY_KEYWORD, keywords, name_of
from dlworkshop.types import HParams


def from_loss(loss: Callable) -> Callable:
    """The objective that is a loss of the model's outputs.

    Args:
        loss: (outputs, targets, **hparams) -> [], of ONE example.

    >>> from dlworkshop.models import Model, stateful
    >>> model = stateful(Model(None, lambda w, x, *, key=None: w * x))
    >>> squared = from_loss(lambda outputs, targets: (outputs - targets) ** 2)
    >>> squared(model, 2.0, (), 3.0, 1.0)
    (25.0, (6.0, ()))
    """

    def objective(model, params, state, inputs, targets, *, key=None, **hparams):
        outputs, state = model.apply(params, state, inputs, key=key)
        return loss(outputs, targets, **hparams), (outputs, state)

    # the signature shows the hyper-parameters of the loss
    own = list(inspect.signature(objective).parameters.values())[:-1]
    try:
        taken = list(inspect.signature(loss).parameters.values())
    except ValueError:  # a builtin
        raise UserError(
            f"the loss {name_of(loss)} has no signature: give a function (outputs, "
            "targets, **hparams) -> scalar"
        ) from None
    reserved = {parameter.name for parameter in own}
    if wanted := [each.name for each in taken[2:] if each.name in reserved]:
        raise UserError(
            f"the loss {name_of(loss)} takes '{wanted[0]}', but a loss is given the "
            "outputs and targets only: give an objective, which has it too"
        )
    more = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in taken[2:]
        if parameter.kind in BY_KEYWORD
    ]
    objective.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
    objective.__name__ = name_of(loss)
    objective.loss = loss  # type: ignore[attr-defined]
    return objective


def in_words(objective: Callable) -> str:
    """How messages refer to an objective.

    >>> def huber(outputs, targets): ...
    >>> in_words(from_loss(huber)), in_words(lambda model, params: ...)
    ('the loss huber', 'the objective <lambda>')
    """
    kind = "loss" if hasattr(objective, "loss") else "objective"
    return f"the {kind} {name_of(objective)}"


def in_evaluation(objective: Callable, hparams: HParams) -> dict:
    """The hyper-parameters of an objective that are required in evaluation.

    Others keep their defaults, so that the scores of members can be compared: label
    smoothing, for instance, is for training only.

    >>> def objective(model, params, state, inputs, targets, *, key, beta, gamma=1): ...
    >>> in_evaluation(objective, {"beta": 0.5, "gamma": 2.0})
    {'beta': 0.5}
    """
    required = keywords(objective)
    return {name: value for name, value in hparams.items() if required.get(name)}
