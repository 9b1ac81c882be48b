"""`dlworkshop estimate`: run a script until it calls `fit`, and estimate the run."""

from collections.abc import Sequence
from pathlib import Path

from dlworkshop.report import terminal
from dlworkshop.train import estimation, processes
from dlworkshop.workshop import until_fit


def show(script: Path, flags: Sequence[str]) -> int:
    """Run a script until it calls `fit`, and print the estimate; returns 0.

    Args:
        script: a Python file, run as by `python script flags`.
        flags: of the script.

    Raises:
        UserError: if it is not a Python script, or ends without calling `fit`.
    """
    advice = ": give a script that calls fit"
    found = until_fit.run(script, flags, estimation.of_fit, advice)
    if processes.is_first():
        terminal.print_line(str(found))
        terminal.print_line(
            f"This estimate is for the first call of fit in {script.name} only. The "
            "compiled programs are cached for the run."
        )
    return 0
