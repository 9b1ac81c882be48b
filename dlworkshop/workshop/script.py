"""Entry point of experiment scripts: from flags to results and a report."""

import dataclasses
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import jax

from dlworkshop.errors import (
    UserError,
    check_arguments,
    check_flags_once,
    check_path,
    explain_devices,
    repr_of,
)
from dlworkshop.report import settings, terminal
from dlworkshop.report.words import format_claim, is_fraction, with_error
from dlworkshop.train import instead, processes, signals
from dlworkshop.train.cache import use_compilation_cache
from dlworkshop.train.result import Run, metric_name
from dlworkshop.workshop import launch, lesson
from dlworkshop.workshop.lesson import Lesson


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of all experiments; each experiment adds defaults and its own flags."""

    workdir: Path | None = None
    """The run folder; runs/NAME by default. Run the same command again to resume."""
    seeds: int = 5
    """Number of models to train together, with seeds 0, 1, ..."""
    coordinator: str | None = None
    """HOST:PORT of process 0, if several processes train one population."""
    num_processes: int | None = None
    """Number of processes. Slurm, Open MPI 4, Kubernetes and TPU pods provide it."""
    process_id: int | None = None
    """Number of this process: 0, 1, ..."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Config):
    """Flags of the experiments that train on a data set."""

    num_epochs: int = 10
    """Passes over the training split."""
    batch_size: int = 128
    """Examples per step and model."""
    data_dir: Path | None = None
    """Folder of raw or prepared data; a private cache folder by default."""


RESUME = "run the same command again to resume"

AnyConfig = TypeVar("AnyConfig", bound=Config)


@signals.exit_on_signal(RESUME)
def start(
    main: Callable[[AnyConfig], Run | Lesson], config_class: type[AnyConfig]
) -> None:
    """Run `main` with the flags of the command line; exit with 2 for a `UserError`.

    The docstring of the module is the text of `--help`, and its file name is the name
    of the run. A lesson prints a line for each claim. If a claim fails, the report is
    still written, with the claim in red, and the script exits with status 1.
    """
    import tyro  # noqa: PLC0415 (needed by scripts only)

    terminal.open_streams()
    script = sys.modules[main.__module__]
    name = Path(script.__file__ or "experiment").stem
    try:
        check_arguments(sys.argv[1:])
        check_flags_once(sys.argv[1:])
        with terminal.flags():
            config = tyro.cli(
                config_class, prog=f"{name}.py", description=_docstring(script)
            )
        workdir = config.workdir or Path("runs") / name
        check_path("--workdir", workdir)
        config = dataclasses.replace(config, workdir=workdir)
        quiet_checkpoints()
        use_all_cores(config.seeds or 0)  # 0: the number is chosen later
        meeting = config.coordinator, config.num_processes, config.process_id
        with terminal.messages(), explain_devices(), launch.joined(*meeting):
            result = perform(main, config)
            if not processes.is_first():  # only the first process prints
                return
    except UserError as error:
        terminal.print_error(error)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # raised by `main`, not by a signal
        print(f"stopped: {RESUME}", file=sys.stderr)
        raise SystemExit(130) from None
    print(finding(result))
    if isinstance(result, Lesson):
        for claim in dict.fromkeys([*result.claims, *result.failed]):
            print(format_claim(claim._asdict()))
    print(f"report: {workdir / 'report.html'}")
    if isinstance(result, Lesson) and result.failed:
        raise SystemExit(1)


def perform(
    main: Callable[[AnyConfig], Run | Lesson], config: AnyConfig
) -> Run | Lesson:
    """Run `main`, and write the run folder of a lesson; `fit` writes that of a `Run`.

    Args:
        main: of the module of an experiment.
        config: its settings; without a `workdir` nothing is written.

    Raises:
        UserError: if `main` returns neither, or `fit` is to answer instead of
            training, but was not called.
    """
    script = sys.modules[main.__module__]
    file, doc = Path(script.__file__ or ""), _docstring(script)
    use_compilation_cache()
    started = time.perf_counter()
    result = main(config)
    seconds = {"total": time.perf_counter() - started}
    if instead.is_wanted():
        raise instead.unanswered(file.name)
    if not isinstance(result, Run | Lesson):
        raise UserError(
            f"main of {file.name} returned {repr_of(result)}: return the Run of fit, "
            "or a Lesson"
        )
    if isinstance(result, Run) or config.workdir is None or not processes.is_first():
        return result
    return lesson.write(result, config.workdir, file, doc, config, seconds)


def _docstring(script: ModuleType) -> str:
    """The docstring, whose command has the path of the script as seen from here."""
    file, text = Path(script.__file__ or "").absolute(), script.__doc__ or ""
    if not file.is_relative_to(Path.cwd()):
        return text
    path = file.relative_to(Path.cwd())
    return text.replace(f"python experiments/{file.name}", f"python {path}")


def quiet_checkpoints() -> None:
    """Report a failed checkpoint only once, by the exception that ends the run.

    Orbax logs a traceback before that, and its threads continue for a moment.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    usual = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            usual(unraisable)

    sys.unraisablehook = hook


def use_all_cores(seeds: int) -> None:
    """Make each CPU core a device if the members divide evenly among the cores.

    Two cores as two devices train two members at once, without synchronising at every
    matrix product. This has no effect on accelerators, or if the user set the number
    of devices.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "XLA_FLAGS" in os.environ
    if cores > 1 and seeds % cores == 0 and not chosen:
        jax.config.update("jax_num_cpu_devices", cores)


def finding(run: Run | Lesson) -> str:
    """The result in one line: the finding of a lesson, or mean, standard error and n.

    >>> summary = {"metric": "accuracy", "test": {"accuracy": {}, "loss": {}}}
    >>> summary["test"]["accuracy"] = {"mean": 0.9912, "sem": 0.0011, "n": 8}
    >>> print(finding(Run(None, None, summary, None)))
    test accuracy 99.12 % ± 0.11 % (mean ± standard error, n = 8)
    >>> summary = {"validation": {"rmse": {"mean": 0.0012, "sem": 0.0001, "n": 2}}}
    >>> print(finding(Run(None, None, summary, None)))
    validation rmse 0.00120 ± 0.00010 (mean ± standard error, n = 2)
    """
    if isinstance(run, Lesson):
        return run.stated
    if "finding" in run.summary:
        return run.summary["finding"]
    name = metric_name(run.summary)
    split = "test" if run.summary.get("test") else "validation"
    scores = run.summary[split][name]
    mean, sem, how = scores["mean"], scores["sem"], f"n = {scores['n']}"
    if mean is None:
        return f"{split} {name} is unknown: no member has a finite one"
    text = f"{split} {name} {with_error(mean, sem, name)}"
    if is_fraction(name):  # two decimals tell the tests of MNIST apart
        numbers = (f"{100 * x:.2f} %" for x in (mean, sem) if x is not None)
        text = f"{split} {name} {' ± '.join(numbers)}"
    if sem is not None:
        how = f"mean ± standard error, {how}"
    if setting := settings.in_words(run.summary):
        how += f"; {setting}"
    return f"{text} ({how})"
