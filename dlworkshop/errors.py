"""What a user can mend, in one sentence: what came, what was wanted, what to do."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user, not of the program; scripts print it and leave with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not known, with the nearest one that is.

    >>> print(unknown("data set", "minst", ["mnist", "digits"]))
    unknown data set 'minst': did you mean 'mnist'? Known: digits, mnist.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UserError(f"unknown {kind} '{name}': {hint}Known: {', '.join(known)}.")
