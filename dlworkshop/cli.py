"""The command `dlworkshop` for run folders and data sets."""

import itertools
import os
import sys
from collections.abc import Callable, Sequence

import tyro

from dlworkshop.commands import COMMANDS
from dlworkshop.errors import (
    UserError,
    check_arguments,
    check_flags_once,
    explain_devices,
)
from dlworkshop.report import terminal
from dlworkshop.train import signals

BEFORE_SCRIPT = {"estimate": 0, "replay": 1}  # arguments before that of a script


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for a mistake of the user."""
    terminal.open_streams()
    try:
        with (
            signals.exit_on_signal("no file is half written"),
            terminal.messages(),
            explain_devices(),
        ):
            code = _parse(args)()
        sys.stdout.flush()
        return code
    except UserError as error:
        terminal.print_error(error)
        return 2
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        terminal.print_error(f"{where}{error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(args: Sequence[str] | None) -> Callable[[], int]:
    """Parse the command line."""
    args = list(sys.argv[1:] if args is None else args)
    check_arguments(args)
    if args and args[0] in BEFORE_SCRIPT:
        args[1:] = _flags_of_script_last(args[1:], BEFORE_SCRIPT[args[0]])
    else:  # a script may repeat its flags
        check_flags_once(args)
    with terminal.flags():
        return tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="dlworkshop", description=__doc__, args=args
        )


def _flags_of_script_last(args: list[str], before: int) -> list[str]:
    """Our own flags, "--", and the arguments with those of the script.

    Args:
        args: of the command.
        before: the number of arguments, without flags, before the script.

    >>> _flags_of_script_last("runs/own --member 3 own.py --seeds 2".split(), 1)
    ['--member', '3', '--', 'runs/own', 'own.py', '--seeds', '2']
    """
    own: list[str] = []
    given: list[str] = []
    rest = iter(args)
    for each in rest:
        if each == "--" or (len(given) == before and not each.startswith("-")):
            given += [*([] if each == "--" else [each]), *rest]
        elif each == "--member":
            own += [each, *itertools.islice(rest, 1)]
        elif each.startswith("-"):
            own.append(each)
        else:
            given.append(each)
    return [*own, "--", *given]
