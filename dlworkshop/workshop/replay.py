"""`dlworkshop replay`: run a script until its `fit`, and replay one of its members.

A run folder has no code that could be trusted, so the script comes from the user, and
`fit` checks that its functions and data are those of the run.
"""

from collections.abc import Sequence
from pathlib import Path

from dlworkshop.errors import UserError
from dlworkshop.report import terminal
from dlworkshop.train import replaying
from dlworkshop.workshop import until_fit


def show(run: Path, member: int, command: Sequence[str]) -> int:
    """Replay a member, and print what failed; returns 1 if it did not fail again.

    Args:
        run: a run folder.
        member: its number in `summary.json`.
        command: the script that trained the run, and its flags.

    Raises:
        UserError: if there is no such script, run, or quarantined member.
    """
    replaying.check_folder(run)
    if not command:
        raise UserError(
            f"the model, loss and optimizer of {run} are code, which a run folder does "
            f"not hold: add the script of the run with its flags, as in dlworkshop "
            f"replay {run} --member {member} SCRIPT.py --workdir {run}"
        )
    script, *flags = command
    advice = f" with the run folder {run}: give the script and the flags of that run"
    action = replaying.action(run, member)
    found = until_fit.run(Path(script), flags, action, advice)
    for line in str(found).splitlines():
        terminal.print_line(line)
    return int(not found.repeated)
