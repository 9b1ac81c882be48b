"""`dlworkshop estimate`: run a script until it calls `fit`, and estimate the run."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from dlworkshop.errors import UserError
from dlworkshop.report import terminal
from dlworkshop.train import estimation, processes

HELP = {"-h", "--help"}


def show(script: Path, flags: Sequence[str]) -> int:
    """Run a script until it calls `fit`, and print the estimate; returns 0.

    Args:
        script: a Python file, run as by `python script flags`.
        flags: of the script.

    Raises:
        UserError: if it is not a Python script, or ends without calling `fit`.
    """
    _check(script)
    if (found := _estimated(script, flags)) is None:
        raise UserError(
            f"{script} ended without calling fit: give a script that calls fit"
        )
    if processes.is_first():
        terminal.print_line(str(found))
        terminal.print_line(
            f"This estimate is for the first call of fit in {script.name} only. The "
            "compiled programs are cached for the run."
        )
    return 0


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


def _estimated(script: Path, flags: Sequence[str]) -> estimation.Estimate | None:
    before = sys.argv, sys.path
    sys.argv = [str(script), *flags]
    sys.path = [str(script.absolute().parent), *sys.path]  # as Python does
    try:
        with estimation.instead_of_training():
            runpy.run_path(str(script), run_name="__main__")
    except estimation.Estimated as found:
        return found.estimate
    except SystemExit as left:
        if left.code or HELP.intersection(flags):
            raise
    finally:
        sys.argv, sys.path = before
    return None
