"""The command `dlworkshop`: it works on what runs leave behind, and on data."""

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
    """Look whether all that is needed is there and works; exit with status 1 if not."""

    def __call__(self) -> int:
        from dlworkshop.workshop.doctor import show

        return show()


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a run's report.html anew, from what the run left in its folder."""

    run: RunFolder

    def __call__(self) -> int:
        from dlworkshop import report

        print(report.write(self.run))
        return 0


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run: its members and their ensemble, on its test split or other data."""

    run: RunFolder
    data: Path | None = None
    """Labelled data (a folder per class, CSV, .npz); else the run's own test split."""
    target: str | None = None
    """Of a table, the column to be told; by default that of the run."""
    data_dir: Path | None = None
    """Where prepared data are kept; a private cache folder by default."""

    def __call__(self) -> int:
        from dlworkshop.serve.evaluate import evaluate, show
        from dlworkshop.serve.load import load

        return show(evaluate(load(self.run), self.data, self.target, self.data_dir))


@dataclasses.dataclass(frozen=True)
class Predict:
    """Answer image files, folders of them, or the rows of a table.

    Of classes, each row has the class, its probability (the mean over the members), the
    standard deviation of that over the members, and the entropy of all classes in nats;
    of numbers the mean over the members, in units of the target, and their standard
    deviation; of several labels the probability of each. Of a run that `autofit` made
    there are also the set of classes, or the interval, that holds the truth nine times
    of ten, and what of an example is unlike those of train.
    """

    run: RunFolder
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILES...")]
    """Image files or folders of them; for a run on a table, CSV files."""
    format: Literal["table", "json", "csv"] = "table"
    """A table to read, one JSON object for each line, or CSV with a header."""
    calibrated: bool = False
    """Divide the logits by the temperature that the run has in answers.json."""

    def __call__(self) -> int:
        from dlworkshop.report.terminal import WRITERS
        from dlworkshop.serve.load import load
        from dlworkshop.serve.predict import write

        run, writer = load(self.run), WRITERS[self.format]
        return write(run, self.files, writer, self.calibrated)


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run as one file that answers without this library."""

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
class Data:
    """Prepare a data set, by its name or your own by its path, and print its card."""

    name: Annotated[Positional[str], arg(metavar="NAME|PATH")]
    """As of data.load: mnist, digits, ...; or a folder, CSV, .npz or IDX files."""
    source: Annotated[Path | None, arg(name="from")] = None
    """Of a data set by name, the folder of its raw files; else they are fetched."""
    data_dir: Path | None = None
    """Where to keep what is prepared; a private cache folder by default."""
    target: str | None = None
    """Of a table, the column to be told from the others."""
    group_by: str | None = None
    """What stays on one side: a regular expression for paths, or a column."""
    image_size: int | None = None
    """Pixels of a side; by default what most files have, or 64."""
    resize: Literal["crop", "pad"] = "crop"
    """Fill the frame and cut the rest off, or show all with black around it."""

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
    for command in (Doctor, Report, Evaluate, Predict, Export, Gallery, Data)
}


def main(args: Sequence[str] | None = None) -> int:
    """Do what the command line says: 0, or 1 if something is amiss, 2 for a mistake."""
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
    """The command with its settings; what tyro says in a box becomes a sentence."""
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
