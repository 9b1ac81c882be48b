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
    """Check versions, devices, folders and extras; exit with status 1 on failure."""

    def __call__(self) -> int:
        from dlworkshop.workshop.doctor import show

        return show()


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
