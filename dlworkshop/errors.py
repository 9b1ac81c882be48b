"""User errors of one sentence: what was given, what was expected, what to do."""

import contextlib
import dataclasses
import difflib
import itertools
import math
import numbers
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any


class UserError(ValueError):
    """A mistake of the user; scripts print the message and exit with status 2."""


def repr_of(value: Any) -> str:
    """A value in a message: short values by their `repr`, others by their type.

    >>> repr_of(0.5), repr_of("mlp"), repr_of((1, 2)), repr_of(dict)
    ('0.5', "'mlp'", 'a tuple', 'the class dict')
    """
    if value is None or isinstance(value, str | numbers.Number):
        return f"{value!r:.60}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    return f"a {type(value).__name__}"


def nearest(name: Any, known: Iterable[str]) -> str | None:
    """The name in `known` that is most similar, or None if none is."""
    near = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.4)
    return near[0] if near else None


def unknown(kind: str, name: Any, known: Iterable[str]) -> UserError:
    """The error for an unknown name, with the most similar known name.

    >>> print(unknown("data set", "minst", ["mnist", "digits"]))
    unknown data set 'minst': did you mean 'mnist'? (known: digits, mnist)
    """
    known = sorted(known)
    near = nearest(name, known)
    hint = f": did you mean '{near}'?" if near else ""
    return UserError(f"unknown {kind} '{name}'{hint} (known: {', '.join(known)})")


@dataclasses.dataclass(frozen=True)
class Range:
    """The finite numbers from `low` (included if `closed`) to below `high`.

    >>> 0 in Range(0, 1), 1 in Range(0, 1), str(Range(0, 1, closed=False))
    (True, False, '(0, 1)')
    """

    low: float = -math.inf
    high: float = math.inf
    closed: bool = True

    def __contains__(self, value: Any) -> bool:
        above = self.low <= value if self.closed else self.low < value
        return above and value < self.high and abs(value) <= sys.float_info.max

    def __str__(self) -> str:
        bracket = "[" if self.closed and math.isfinite(self.low) else "("
        return f"{bracket}{self.low:g}, {self.high:g})"


def check_number(name: str, value: Any, inside: Range = Range()) -> None:
    """Raise an error unless `value` is a number in the range.

    >>> check_number("dropout", 2.0, Range(0, 1))
    Traceback (most recent call last):
    dlworkshop.errors.UserError: dropout is 2.0: give a number in [0, 1)
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or value not in inside:
        raise UserError(f"{name} is {repr_of(value)}: give a number in {inside}")


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise an error unless `value` is a whole number of at least `least`."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < least:
        raise UserError(
            f"{name} is {repr_of(value)}: give a whole number of at least {least}"
        )


def check_flag(name: str, value: Any) -> None:
    """Raise an error unless `value` is True or False."""
    if not isinstance(value, bool):
        raise UserError(f"{name} is {repr_of(value)}: give True or False")


def check_function(name: str, value: Any) -> None:
    """Raise an error unless `value` is callable."""
    if not callable(value):
        raise UserError(f"{name} is {repr_of(value)}: give a function")


LONGEST = 255, 3840  # bytes of a name, and of a path with room for files below it


def check_path(name: str, value: Any) -> None:
    """Raise an error unless `value` is a path that a file can have.

    >>> check_path("workdir", "")
    Traceback (most recent call last):
    dlworkshop.errors.UserError: workdir is empty: give a path, or '.' for this folder
    """
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{name} is {repr_of(value)}: give a path")
    if not (path := os.fsdecode(value)):
        raise UserError(f"{name} is empty: give a path, or '.' for this folder")
    try:
        content = os.fsencode(path)
    except ValueError:  # a surrogate
        content = b"\0"
    if b"\0" in content:
        raise UserError(f"{name} is {path!r:.60}, which no file can be called")
    parts = content.split(os.fsencode(os.sep))
    if max(map(len, parts)) > LONGEST[0] or len(content) > LONGEST[1]:
        raise UserError(
            f"{name} is '{path:.60}...', which is too long: a name has at most "
            f"{LONGEST[0]} bytes, and a path {LONGEST[1]:,}"
        )


def check_arguments(args: Iterable[str]) -> None:
    """Raise an error if an argument of the command line is empty.

    >>> check_arguments(["predict", "--calibrated"])
    """
    for arg in args:
        flag, _, value = arg.partition("=")
        if not value and (not flag or (arg != flag and flag.startswith("--"))):
            raise UserError(
                f"{flag or 'an argument'} is empty, as a shell variable that is not "
                "set: give a value, or leave it out"
            )


def check_flags_once(args: Iterable[str]) -> None:
    """Raise an error if a flag of the command line is repeated: the last would count.

    >>> check_flags_once(["--space", "width=8", "--space", "depth=1"])
    Traceback (most recent call last):
    dlworkshop.errors.UserError: --space is given twice: give it once, with all of its
    values
    """
    seen = set()
    for arg in itertools.takewhile(lambda arg: arg != "--", args):
        flag = arg.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag in seen:
            raise UserError(
                f"{flag} is given twice: give it once, with all of its values"
            )
        seen.add(flag)


def check_known(kind: str, name: Any, known: Iterable[str]) -> None:
    """Raise an error unless `name` is a known name."""
    known = list(known)
    if not isinstance(name, str) or name not in known:
        raise unknown(kind, name, known)


def check_text(name: str, value: Any) -> None:
    """Raise an error unless `value` is text that can be written as UTF-8.

    >>> check_text("experiment", "\\udcff")  # a byte of the command line
    Traceback (most recent call last):
    dlworkshop.errors.UserError: experiment is '\\udcff', which is no valid text
    """
    if not isinstance(value, str):
        raise UserError(f"{name} is {repr_of(value)}: give text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name} is {value!r:.60}, which is no valid text") from None


@contextlib.contextmanager
def explain_devices() -> Iterator[None]:
    """Turn the error of JAX for a missing device into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Unable to initialize backend"):
            raise
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX finds no device with JAX_PLATFORMS='{wanted}': unset it, or install "
            "the extra for the device, as dlworkshop[cuda13] or dlworkshop[tpu]"
        ) from None


@contextlib.contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Turn an exception raised inside into a `UserError` of one sentence.

    Errors of the device, such as out of memory, are not changed.
    """
    import jax  # noqa: PLC0415 (slow, and other checks do not need it)

    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else ""
        if isinstance(error, jax.errors.ConcretizationTypeError):
            reason = (
                "Python code needs the value of a traced number: use jax.numpy, or "
                "bind the number with functools.partial"
            )
        if "PRNG key type <class 'NoneType'>" in reason:
            reason = (
                "the key is None in evaluation: use it only if it is not None, or "
                "another one then, such as jax.random.key(0)"
            )
        raise UserError(f"{what}: {type(error).__name__}: {reason:.300}") from error
