"""What a user can mend, in one sentence: what came, what was wanted, what to do."""

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator


class UserError(ValueError):
    """A mistake of the user, not of the program; scripts print it and exit with 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not known, with the nearest one that is.

    >>> print(unknown("data set", "minst", ["mnist", "digits"]))
    unknown data set 'minst': did you mean 'mnist'? Known: digits, mnist.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return UserError(f"unknown {kind} '{name}': {hint}Known: {', '.join(known)}.")


@contextlib.contextmanager
def explain_devices() -> Iterator[None]:
    """Where JAX finds no device, say so as a mistake of the user, who can mend it."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Unable to initialize backend"):
            raise
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX finds no device with JAX_PLATFORMS='{wanted}': unset it, or install "
            "what it needs, as dlworkshop[cuda13] or dlworkshop[tpu]"
        ) from None
