"""Running a script up to its call of `fit`, which answers instead of training."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlworkshop.errors import UserError
from dlworkshop.train import instead

HELP = {"-h", "--help"}


def run(script: Path, flags: Sequence[str], action: instead.Action, advice: str) -> Any:
    """Run a script as by `python script flags`, until `fit` answers by `action`.

    Args:
        script: a Python file.
        flags: of the script.
        action: what `fit` does; see `instead.Action`.
        advice: what to do with a script that ends without an answer.

    Raises:
        UserError: if it is not a Python script, or ends without an answer.
    """
    _check(script)
    before = sys.argv, sys.path
    sys.argv = [str(script), *flags]
    sys.path = [str(script.absolute().parent), *sys.path]  # as Python does
    try:
        with instead.of_training(action, advice):
            try:
                runpy.run_path(str(script), run_name="__main__")
            except instead.Answered as found:
                return found.answer
            except SystemExit as left:
                if left.code or HELP.intersection(flags):
                    raise
            raise instead.unanswered(str(script))
    finally:
        sys.argv, sys.path = before


def _check(script: Path) -> None:
    wanted = "give a Python script that calls fit"
    try:
        compile(script.read_bytes(), str(script), "exec")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{script} cannot be read ({reason}): {wanted}") from None
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{script} is not a Python script ({reason}): {wanted}"
        ) from None
