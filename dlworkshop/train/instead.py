"""What `fit` does instead of training, for commands that run a script up to it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from dlworkshop.errors import UserError
from dlworkshop.train.arguments import Arguments

# The arguments of `fit` -> an answer, or None if that call is to train as usual.
Action = Callable[[Arguments], Any]


class Answered(SystemExit):
    """Raised by `fit` instead of training; ends a script that does not catch it."""

    def __init__(self, answer: Any):
        super().__init__(0)
        self.answer = answer


class _State:
    """What is wanted: `fit` may be called deep inside a script."""

    action: Action | None = None
    advice: str = ""


_state = _State()


def is_wanted() -> bool:
    """Whether `fit` is to answer instead of training."""
    return _state.action is not None


@contextlib.contextmanager
def of_training(action: Action, advice: str) -> Iterator[None]:
    """Make `fit` raise what `action` answers instead of training while inside.

    Args:
        action: see `Action`.
        advice: what to do with a script that ends without an answer.
    """
    before = _state.action, _state.advice
    _state.action, _state.advice = action, advice
    try:
        yield
    finally:
        _state.action, _state.advice = before


def answer(asked: Arguments) -> None:
    """Raise `Answered` if `fit` is to answer instead of training."""
    if _state.action is None:
        return
    if (found := _state.action(asked)) is not None:
        raise Answered(found)


def unanswered(script: str) -> UserError:
    """The error of a script that ended without an answer, while one is wanted."""
    return UserError(f"{script} ended without calling fit{_state.advice}")
