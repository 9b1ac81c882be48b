"""How a process joins the other processes of a distributed run, and how it leaves."""

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

from dlworkshop.errors import UserError, check_whole
from dlworkshop.report import terminal
from dlworkshop.train import processes

PATIENCE = 45  # seconds within which all processes must connect
HEARTBEAT = 20  # seconds after which a process that hangs counts as lost
GRACE = 2.0  # seconds that process 0, the coordinator, waits for the others to leave
# Messages of XLA and gloo about a lost connection to another process.
GONE = re.compile(
    "gloo|connection (closed|reset|refused)|coordination service|peer|heartbeat|"
    "distributed runtime|task .*(failed|unhealthy|died)",
    re.IGNORECASE,
)


class UnreachableError(UserError):
    """The other processes of a run cannot be reached."""


def by_scheduler() -> bool:
    """Whether a scheduler started this process as one of several.

    Slurm, Open MPI, Kubernetes and TPU pods are detected; JAX finds the other processes
    by itself there, except with Open MPI 5.
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

    An error inside this context ends the process immediately, because the other
    processes wait for it. The status is 2 for a `UserError`, `failed` if another
    process is lost, and else 1.

    Args:
        coordinator: HOST:PORT of process 0. An argument that is None is taken from
            JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES or JAX_PROCESS_ID, else from the
            scheduler.
        num_processes: of the whole run.
        process_id: of this process: 0, 1, ...
        failed: exit status if another process is lost or cannot be reached.

    Raises:
        UserError: if only some of the three arguments are known.
        UnreachableError: if the coordinator cannot be reached.
        processes.CollectiveUserError: raised inside by all processes together.
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
    if not processes.is_first():  # only warnings and errors of the other processes
        logging.getLogger("dlworkshop").setLevel(logging.WARNING)
    try:
        yield
    except (processes.CollectiveUserError, SystemExit):
        raise  # all processes leave together
    except BaseException as error:
        _abandon(error, failed)


def _abandon(error: BaseException, failed: int) -> NoReturn:
    """Exit immediately, so that the waiting processes notice it."""
    if isinstance(error, UserError):
        terminal.print_error(error)
        _leave(2)
    if isinstance(error, jax.errors.JaxRuntimeError) and GONE.search(str(error)):
        terminal.print_error(
            UserError(
                "another process of this run has ended or cannot be reached: read its "
                "messages, and start all processes again; a run with a folder resumes "
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


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and int(port) in range(1, 2**16)


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
            "--coordinator, --num-processes and --process-id belong together unless a "
            "scheduler provides them: give all three"
        )
    if coordinator is not None and not _is_address(coordinator):
        raise UserError(
            f"--coordinator is '{coordinator}': give HOST:PORT, the same to all "
            "processes"
        )
    if num_processes is not None:
        check_whole("--num-processes", num_processes)
    if process_id is not None:
        check_whole("--process-id", process_id, 0)
    if num_processes and process_id is not None and process_id >= num_processes:
        raise UserError(
            f"--process-id is {process_id}, but there are {num_processes} processes: "
            "give each process its own number: 0, 1, ..."
        )
    jax.config.update("jax_enable_preemption_service", False)  # we handle signals
    where = coordinator or "of the scheduler"

    def give_up() -> None:  # XLA would end the process with its own message
        error = UserError(
            f"the coordinator {where} did not answer, or not all processes connected, "
            f"within {PATIENCE} s: start all of them, each with a number of its own "
            "(--process-id) and the address of process 0"
        )
        terminal.print_error(error)
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
    except ValueError as error:
        if "process_id <" in str(error):
            raise UserError(
                f"--process-id is {process_id}, and there are not so many processes: "
                "give each process its own number, 0, 1, ..., or leave it out"
            ) from error
        raise UnreachableError(
            "the scheduler does not say how its processes connect "
            f"({str(error).splitlines()[0]}): give --coordinator, --num-processes and "
            "--process-id"
        ) from error
    except RuntimeError as error:
        raise UnreachableError(
            f"the coordinator {where} cannot be reached or started "
            f"({str(error).splitlines()[0]}): give the address of process 0 and a free "
            "port there"
        ) from error
    finally:
        timer.cancel()
