"""The command `dlworkshop`: it works on run folders and data sets."""

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from dlworkshop.errors import UserError, explain_devices
from dlworkshop.report import terminal
from dlworkshop.train import signals

# Everything else is imported where it is used: `--help` waits for no compiler.
# ruff: noqa: PLC0415

RunFolder = Annotated[Positional[Path], arg(metavar="RUN", help="A run's folder.")]


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check versions, devices, folders and extras; exit with status 1 on failure.

    Started in several processes, it checks that they reach each other and that sums and
    exchanges over all of their devices are right.
    """

    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes are checked."""
    num_processes: int | None = None
    """How many they are. Slurm, Open MPI, Kubernetes and TPU pods tell it."""
    process_id: int | None = None
    """Which of them this one is: 0, 1, ..."""

    def __call__(self) -> int:
        from dlworkshop.workshop.doctor import show

        return show(self.coordinator, self.num_processes, self.process_id)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimate memory, speed and time of a script's first `fit`, before it trains.

    The script runs until it calls `fit`, which plans and compiles the run, trains a few
    seconds of steps in memory, and ends it. Nothing is written to a run folder.
    """

    script: Annotated[Positional[Path], arg(metavar="SCRIPT")]
    """A Python script that calls `fit`, as experiments/digits.py."""
    flags: Annotated[Positional[tuple[str, ...]], arg(metavar="[FLAGS...]")] = ()
    """The script's own flags."""

    def __call__(self) -> int:
        from dlworkshop.workshop.estimate import show

        return show(self.script, self.flags)


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html of a run again."""

    run: RunFolder

    def __call__(self) -> int:
        from dlworkshop import report

        print(report.write(self.run))
        return 0


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run's members and their ensemble, on its test split or other data."""

    run: RunFolder
    data: Path | None = None
    """Labelled data (a folder per class, CSV, .npz); else the run's own test split."""
    target: str | None = None
    """Target column of a table; by default that of the run."""
    data_dir: Path | None = None
    """Where prepared data are kept; a private cache folder by default."""

    def __call__(self) -> int:
        from dlworkshop.serve.evaluate import evaluate, show
        from dlworkshop.serve.load import load

        return show(evaluate(load(self.run), self.data, self.target, self.data_dir))


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict image files, folders of them, or the rows of a table.

    For classes, each row has the predicted class, its probability (the mean over the
    members), the standard deviation of that over the members, and the entropy of all
    classes in nats; for numbers the mean over the members, in units of the target, and
    the standard deviation; for several labels the probability of each. A run of
    `autofit` adds the set of classes, or the interval, that contains the truth in nine
    of ten cases, and what is unlike the training data.
    """

    run: RunFolder
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILES...")]
    """Image files or folders; CSV files for a run on a table."""
    format: Literal["table", "json", "csv"] = "table"
    """A table, one JSON object per line, or CSV with a header."""
    calibrated: bool = False
    """Divide the logits by the temperature in the run's answers.json."""

    def __call__(self) -> int:
        from dlworkshop.report.terminal import WRITERS
        from dlworkshop.serve.load import load
        from dlworkshop.serve.predict import write

        run, writer = load(self.run), WRITERS[self.format]
        return write(run, self.files, writer, self.calibrated)


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run as one file that is used without this library."""

    run: RunFolder
    format: Literal["stablehlo", "onnx", "safetensors"]
    """For JAX alone, for an ONNX runtime, or the parameters of all members."""
    output: Path | None = None
    """The file; RUN/model.FORMAT by default."""

    def __call__(self) -> int:
        from dlworkshop.serve.export import export
        from dlworkshop.serve.load import load

        path = self.output or self.run / f"model.{self.format}"
        print(export(load(self.run), path, self.format))
        return 0


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Run all experiments as one static site; exit with status 1 if a claim fails."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder of the site."""

    def __call__(self) -> int:
        from dlworkshop.workshop.gallery import build

        entries = build(self.folder)
        print(f"gallery: {self.folder / 'index.html'}")
        return int(not all(entry.holds for entry in entries))


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Copy the lessons into a folder, to be run and changed there."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """Made if it is missing; files of yours in it are not replaced."""

    def __call__(self) -> int:
        from dlworkshop.workshop import lessons

        copied = lessons.copy(self.folder)
        print(f"{len(copied)} scripts: python {self.folder / 'xor.py'}, for example")
        return 0


@dataclasses.dataclass(frozen=True)
class Notebooks:
    """Write the lessons as Jupyter notebooks into a folder."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """Made if it is missing; files of yours in it are not replaced."""
    install: str = "dlworkshop"
    """What pip installs where the library is missing: a name, wheel or git+https."""

    def __call__(self) -> int:
        from dlworkshop.workshop import notebooks

        written = notebooks.write(self.folder, self.install)
        print(f"{len(written)} notebooks: jupyter lab {self.folder}")
        return 0


@dataclasses.dataclass(frozen=True)
class Data:
    """Prepare a data set, named or your own, and print its card."""

    name: Annotated[Positional[str], arg(metavar="NAME|PATH")]
    """mnist, digits, ... as in data.load; or a folder, CSV, .npz or IDX files."""
    source: Annotated[Path | None, arg(name="from")] = None
    """Folder with the raw files of a named data set; else they are downloaded."""
    data_dir: Path | None = None
    """Where prepared data are kept; a private cache folder by default."""
    target: str | None = None
    """Target column of a table."""
    group_by: str | None = None
    """Keeps groups in one split: a regular expression for paths, or a column."""
    image_size: int | None = None
    """Height and width in pixels; by default those of most files, or 64."""
    resize: Literal["crop", "pad"] = "crop"
    """Fill the frame and crop, or show everything with black borders."""

    def __call__(self) -> int:
        from dlworkshop.data import card
        from dlworkshop.data.load import folder_of, load, prepare_from
        from dlworkshop.report import data_card

        options = dataclasses.asdict(self)
        name, source = options.pop("name"), options.pop("source")
        if source is not None:
            prepare_from(name, source, self.data_dir)
        dataset = load(name, **options)
        data_card.show(card.describe(dataset), folder_of(dataset, self.data_dir))
        return 0


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Try settings of a network on a data set; the best by validation is trained again.

    Trials that differ only in numbers such as the learning rate train together in one
    program; those of another width, depth, activation or batch size in another. The
    same command goes on where it was stopped, and run several times at once, also on
    several machines that share the folder, it shares the trials.

        dlworkshop sweep digits --space width=32,128 depth=1,2 learning_rate=1e-3,1e-2
    """

    name: Annotated[Positional[str], arg(metavar="NAME|PATH")]
    """mnist, digits, ... as in data.load; or a folder, CSV, .npz or IDX files."""
    space: tuple[str, ...]
    """NAME=VALUE,VALUE,... or, with a sampler, NAME=LOW..HIGH or NAME=LOW..HIGH:log:
    width, depth and activation of a perceptron, batch_size, num_epochs, learning_rate,
    weight_decay and others of AdamW."""
    model: Annotated[str | None, arg(metavar="FILE.py:NAME")] = None
    """A model, or a function whose arguments --space names; instead of a perceptron."""
    sampler: Literal["grid", "random", "tpe", "cmaes", "gp"] = "grid"
    """Every combination of values, or a sampler of Optuna (pip install optuna)."""
    num_trials: int | None = None
    """Settings that a sampler draws, of all processes that share the folder."""
    trials_at_once: int = 16
    """Of these, how many a sampler draws at a time."""
    seeds: int = 3
    """Models of each trial."""
    final_seeds: int | None = None
    """Models of the best setting in the end, with other seeds; by default as many."""
    num_epochs: int | None = None
    """Passes over the training split; by default 10."""
    batch_size: int | None = None
    """Examples per step and model; by default 128."""
    monitor: str = "loss"
    """What decides on validation: loss, accuracy, rmse, ..."""
    engine: Literal["local", "ray"] = "local"
    """Programs one after the other here, or side by side on a Ray cluster."""
    num_cpus: float | None = None
    """Of each program on Ray; by default a GPU, or a CPU where there is none."""
    num_gpus: float | None = None
    """Of each program on Ray."""
    target: str | None = None
    """Target column of a table."""
    data_dir: Path | None = None
    """Where prepared data are kept; a private cache folder by default."""
    workdir: Path = Path("runs/sweep")
    """The run folder of the best setting; its folder `sweep` has what was tried."""

    def __call__(self) -> int:
        from dlworkshop.workshop import sweeping

        sweeping.show(sweeping.run(**dataclasses.asdict(self)))
        print(f"report: {self.workdir / 'report.html'}")
        return 0


@dataclasses.dataclass(frozen=True)
class Lab:
    """Open pages to train, draw and explore in a browser, on this machine only."""

    run: Annotated[Positional[Path | None], arg(metavar="RUN")] = None
    """A run's folder, for the pages that are about a run."""
    port: int = 2730
    """Port on 127.0.0.1; 0 takes a free one."""
    browser: bool = True
    """Open a browser."""

    def __call__(self) -> int:
        from dlworkshop.lab.server import serve

        serve(self.run, self.port, self.browser)


COMMANDS: dict[str, Callable[..., Any]] = {
    command.__name__.lower(): command
    for command in (
        Doctor,
        Report,
        Evaluate,
        Predict,
        Export,
        Gallery,
        Lessons,
        Notebooks,
        Data,
        Sweep,
        Estimate,
        Lab,
    )
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for a mistake of the user."""
    for stream in (sys.stdout, sys.stderr):  # file names may be no text at all
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with (
            signals.exit_on_signal("nothing is half written"),
            terminal.messages(),
            explain_devices(),
        ):
            code = _parse(args)()
        sys.stdout.flush()
        return code
    except UserError as error:
        terminal.say_error(error)
        return 2
    except BrokenPipeError:  # whoever reads has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        terminal.say_error(f"{error.filename}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        return 130


def _parse(args: Sequence[str] | None) -> Callable[[], int]:
    """Parse the command line; tyro's error box becomes one sentence."""
    import tyro

    args = list(sys.argv[1:] if args is None else args)
    if args[:1] == ["estimate"] and args[1:] and not args[1].startswith("-"):
        args[2:] = ["--", *args[2:]]  # the rest is the script's
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="dlworkshop", description=__doc__, args=args
            )
    except SystemExit as left:
        if not left.code:  # --help
            raise
        lines = [line.strip("│ .") for line in said.getvalue().splitlines()[1:-1]]
        words = " ".join(s if any(map(str.isalnum, s)) else ";" for s in lines)
        raise UserError(words.replace(" ;", ";").strip("; ")) from None
