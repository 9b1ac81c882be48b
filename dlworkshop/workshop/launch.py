"""How a process joins the others of a distributed run, and how it leaves."""

import contextlib
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax

from dlworkshop.errors import UserError
from dlworkshop.report import terminal
from dlworkshop.train import processes

PATIENCE = 45  # seconds until all processes must have come
HEARTBEAT = 20  # seconds until one that hangs is given up
GRACE = 2.0  # seconds that the first stays for the others, whose coordinator it is
# What XLA and gloo say of a connection to another process.
GONE = re.compile(
    "gloo|connection (closed|reset|refused)|coordination service|peer|heartbeat|"
    "distributed runtime|task .*(failed|unhealthy|died)",
    re.IGNORECASE,
)


class UnreachableError(UserError):
    """The other processes of a run cannot be reached."""


def by_scheduler() -> bool:
    """Whether a scheduler started this process as one of several.

    Known are Slurm, Open MPI, Kubernetes and TPU pods; JAX finds the others there.
    """
    counts = (
        os.environ.get(name, "1")
        for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    )
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    several = any(count not in ("", "0", "1") for count in counts)
    return several or "JOB_COMPLETION_INDEX" in os.environ or "," in hosts


@contextlib.contextmanager
def joined(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    failed: int = 2,
) -> Iterator[None]:
    """Join the distributed run that flags or the environment describe, if there is one.

    Args:
        coordinator: HOST:PORT at which process 0 answers. Where this or another is
            None, JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID count,
            and then what a scheduler says.
        num_processes: of the whole run.
        process_id: 0, 1, ... of this one.
        failed: exit status where other processes cannot be reached, or are gone.

    What goes wrong inside ends the process at once, in one sentence and with status 2
    if it is a `UserError`, or `failed` if another process is gone: the others wait for
    this one.

    Raises:
        UserError: where one of the three is missing.
        UnreachableError: where the coordinator cannot be reached.
        processes.CollectiveUserError: as it comes, for all processes leave together.
    """
    given = (
        coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        _number("JAX_NUM_PROCESSES", num_processes),
        _number("JAX_PROCESS_ID", process_id),
    )
    if given == (None, None, None) and not by_scheduler():
        yield
        return
    _connect(*given, failed)
    if not processes.is_first():  # one speaks for all, but of what goes wrong
        logging.getLogger("dlworkshop").setLevel(logging.WARNING)
    try:
        yield
    except (processes.CollectiveUserError, SystemExit):
        raise  # all leave together
    except BaseException as error:
        _abandon(error, failed)


def _abandon(error: BaseException, failed: int) -> NoReturn:
    """Exit at once, so that the other processes, which wait, notice it."""
    if isinstance(error, UserError):
        terminal.say_error(error)
        _leave(2)
    if isinstance(error, jax.errors.JaxRuntimeError) and GONE.search(str(error)):
        terminal.say_error(
            UserError(
                "another process of this run has ended or cannot be reached: see what "
                "it said, and start all of them again; a run with a folder goes on "
                "from its last checkpoint"
            )
        )
        _leave(failed)
    traceback.print_exception(error)
    _leave(1)


def _leave(status: int) -> NoReturn:
    if processes.is_first():
        time.sleep(GRACE)
    sys.stderr.flush()
    os._exit(status)


def _number(variable: str, given: int | None) -> int | None:
    if given is not None or variable not in os.environ:
        return given
    if not os.environ[variable].isdecimal():
        raise UserError(f"{variable} is '{os.environ[variable]}': give a whole number")
    return int(os.environ[variable])


def _connect(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    failed: int,
) -> None:
    if None in (coordinator, num_processes, process_id) and not by_scheduler():
        raise UserError(
            "--coordinator, --num-processes and --process-id belong together where no "
            "scheduler tells them: give all three"
        )
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(
            f"--coordinator is '{coordinator}': give HOST:PORT, the same to all"
        )
    if process_id is not None and process_id not in range(num_processes or 1):
        raise UserError(
            f"--process-id is {process_id} of {num_processes} processes: give each its "
            "own: 0, 1, ..."
        )
    jax.config.update("jax_enable_preemption_service", False)  # signals are ours
    where = coordinator or "that the scheduler tells"

    def give_up() -> None:  # XLA would end the process with its own words
        error = UserError(
            f"the coordinator {where} does not answer, or not all processes came, in "
            f"{PATIENCE} s: start all of them, with the address of process 0"
        )
        terminal.say_error(error)
        os._exit(failed)

    timer = threading.Timer(PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=2 * PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        raise UnreachableError(
            f"the coordinator {where} cannot be reached or started "
            f"({str(error).splitlines()[0]}): give the address of process 0, with a "
            "port that is free there"
        ) from error
    finally:
        timer.cancel()
