"""The commands of `dlworkshop`: the fields of a class are flags, and a call runs it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

# Everything else is imported where it is used, so that `--help` is fast.
# ruff: noqa: PLC0415

RunFolder = Annotated[Positional[Path], arg(metavar="RUN", help="A run folder.")]
Folder = Annotated[Positional[Path], arg(metavar="DIR")]
DataName = Annotated[Positional[str], arg(metavar="NAME|PATH")]


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check versions, devices, folders and extras; exit with status 1 on failure.

    If it is started in several processes, it also checks their connections, and sums
    and exchanges over all of their devices.
    """

    coordinator: str | None = None
    """HOST:PORT of process 0, if several processes are checked."""
    num_processes: int | None = None
    """Number of processes. Slurm, Open MPI 4, Kubernetes and TPU pods provide it."""
    process_id: int | None = None
    """Number of this process: 0, 1, ..."""

    def __call__(self) -> int:
        from dlworkshop.workshop.doctor import show

        return show(self.coordinator, self.num_processes, self.process_id)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimate memory, speed and time of the first `fit` of a script.

    The script runs until it calls `fit`. The run is then planned and compiled, a few
    seconds of its steps are trained in memory, and the script ends. Nothing is written
    to a run folder.
    """

    script: Annotated[Positional[Path], arg(metavar="SCRIPT")]
    """A Python script that calls `fit`, as experiments/digits.py."""
    flags: Annotated[Positional[tuple[str, ...]], arg(metavar="[FLAGS...]")] = ()
    """Flags of the script."""

    def __call__(self) -> int:
        from dlworkshop.workshop.estimate import show

        return show(self.script, self.flags)


@dataclasses.dataclass(frozen=True)
class Replay:
    """Name the operation that made a quarantined member of a run not finite.

    The member is trained alone, in memory, from its last finite state in the newest
    checkpoint. The script of the run, which is to be given with its flags, runs until
    it calls `fit`; nothing is written to the run folder, and no code in it is executed.
    The exit status is 1 if the member stays finite when it is alone.

        dlworkshop replay runs/own --member 3 own.py --workdir runs/own
    """

    run: RunFolder
    command: Annotated[
        Positional[tuple[str, ...]], arg(metavar="SCRIPT [FLAGS...]")
    ] = ()
    """The script that trained the run, and its flags."""
    member: int = dataclasses.field(kw_only=True)
    """The number of the member, as in the report and summary.json."""

    def __call__(self) -> int:
        from dlworkshop.workshop.replay import show

        return show(self.run, self.member, self.command)


@dataclasses.dataclass(frozen=True)
class Report:
    """Write the report.html of a run again."""

    run: RunFolder

    def __call__(self) -> int:
        from dlworkshop import report

        print(report.write(self.run))
        return 0


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score the members of a run and their ensemble on its test split or other data."""

    run: RunFolder
    data: Path | None = None
    """Labelled data (a folder per class, CSV, .npz); by default the test split."""
    target: str | None = None
    """Target column of a table; by default the target of the run."""
    data_dir: Path | None = None
    """Folder of prepared data; a private cache folder by default."""

    def __call__(self) -> int:
        from dlworkshop.serve.evaluate import evaluate, show
        from dlworkshop.serve.load import load

        return show(evaluate(load(self.run), self.data, self.target, self.data_dir))


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict image files, folders of images, or the rows of a table.

    For classification, each row contains the predicted class, its probability (mean and
    standard deviation over the members), and the entropy of all classes in nats; for
    regression the mean and the standard deviation over the members, in units of the
    target; for several labels the probability of each. A run of `autofit` adds the
    prediction set or interval that contains the true value in nine of ten cases, and
    flags inputs that are unlike the training data.
    """

    run: RunFolder
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILES...")]
    """Image files or folders; CSV files for a run on a table."""
    format: Literal["table", "json", "csv"] = "table"
    """A table, one JSON object per line, or CSV with a header."""
    calibrated: bool = False
    """Divide the logits by the temperature in answers.json of the run."""

    def __call__(self) -> int:
        from dlworkshop.report.terminal import WRITERS
        from dlworkshop.serve.load import load
        from dlworkshop.serve.predict import write

        run, writer = load(self.run), WRITERS[self.format]
        return write(run, self.files, writer, self.calibrated)


@dataclasses.dataclass(frozen=True)
class Export:
    """Export a run as one file that can be used without this library."""

    run: RunFolder
    format: Literal["stablehlo", "onnx", "safetensors"]
    """For JAX, for an ONNX runtime, or only the parameters of all members."""
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

    folder: Folder
    """The folder of the site."""
    only: tuple[str, ...] = ()
    """Names of experiments, such as digits activations; by default all of them."""

    def __call__(self) -> int:
        from dlworkshop.workshop.gallery import build

        entries = build(self.folder, only=self.only)
        print(f"gallery: {self.folder / 'index.html'}")
        return int(not all(entry.holds for entry in entries))


@dataclasses.dataclass(frozen=True)
class Slides:
    """Write slides of the lessons in a gallery, one page for each chapter."""

    gallery: Annotated[Positional[Path], arg(metavar="GALLERY")]
    """A folder written by dlworkshop gallery."""
    folder: Folder
    """Created if missing; slides in it are overwritten."""

    def __call__(self) -> int:
        from dlworkshop.workshop import slides

        slides.write(self.gallery, self.folder)
        return 0


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Copy the lessons into a folder, to run and change them there."""

    folder: Folder
    """Created if missing; existing files in it are not overwritten."""

    def __call__(self) -> int:
        from dlworkshop.workshop import lessons

        copied = lessons.copy(self.folder)
        print(f"{len(copied)} scripts: python {self.folder / 'xor.py'}, for example")
        return 0


@dataclasses.dataclass(frozen=True)
class Notebooks:
    """Write the lessons as Jupyter notebooks into a folder."""

    folder: Folder
    """Created if missing; existing files in it are not overwritten."""
    install: str | None = None
    """Argument of pip install where the library is missing: wheel, git+https, name."""

    def __call__(self) -> int:
        from dlworkshop.workshop import notebooks

        written = notebooks.write(self.folder, self.install)
        print(f"{len(written)} notebooks: jupyter lab {self.folder}")
        return 0


@dataclasses.dataclass(frozen=True)
class Data:
    """Prepare a named data set or your own data, and print its card."""

    name: DataName
    """mnist, digits, ... as in data.load; or a folder, CSV, .npz or IDX files."""
    source: Annotated[Path | None, arg(name="from")] = None
    """Folder with the raw files of a named data set; by default a download."""
    data_dir: Path | None = None
    """Folder of prepared data; a private cache folder by default."""
    target: str | None = None
    """Target column of a table."""
    group_by: str | None = None
    """Keep groups in one split: a regular expression for paths, or a column."""
    image_size: int | None = None
    """Height and width in pixels; by default the most common size, or 64."""
    resize: Literal["crop", "pad"] = "crop"
    """Crop images to fill the frame, or pad them with black borders."""

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
    """Try settings of a network on a data set, and train the best one again.

    Trials that differ only in numbers such as the learning rate train together in one
    program; another width, depth, activation or batch size needs another program. The
    same command resumes a sweep that was stopped. Several such commands at once, also
    on several machines with a common folder, share the trials.

        dlworkshop sweep digits --space width=32,128 depth=1,2 learning_rate=1e-3,1e-2
    """

    name: DataName
    """mnist, digits, ... as in data.load; or a folder, CSV, .npz or IDX files."""
    space: tuple[str, ...]
    """NAME=VALUE,VALUE,... or, with a sampler, NAME=LOW..HIGH or NAME=LOW..HIGH:log:
    width, depth and activation of an MLP, batch_size, num_epochs, learning_rate,
    weight_decay and other arguments of AdamW."""
    model: Annotated[str | None, arg(metavar="FILE.py:NAME")] = None
    """A model, or a function with arguments named in --space, instead of an MLP."""
    sampler: Literal["grid", "random", "tpe", "cmaes", "gp"] = "grid"
    """Every combination of values, or an Optuna sampler (pip install optuna)."""
    num_trials: int | None = None
    """Settings that the sampler draws, for all processes that share the folder."""
    trials_at_once: int | None = None
    """Settings that the sampler draws at a time; by default 16."""
    seeds: int = 3
    """Number of models in each trial."""
    final_seeds: int | None = None
    """Number of models with the best setting at the end; by default as many."""
    num_epochs: int | None = None
    """Passes over the training split; by default 10."""
    batch_size: int | None = None
    """Examples per step and model; by default 128."""
    monitor: str = "loss"
    """Validation score that ranks the trials: loss, accuracy, rmse, ..."""
    engine: Literal["local", "ray"] = "local"
    """Train programs one after the other here, or at once on a Ray cluster."""
    num_cpus: float | None = None
    """CPUs of each program on Ray; by default one GPU, or one CPU without GPUs."""
    num_gpus: float | None = None
    """GPUs of each program on Ray."""
    target: str | None = None
    """Target column of a table."""
    data_dir: Path | None = None
    """Folder of prepared data; a private cache folder by default."""
    workdir: Path = Path("runs/sweep")
    """Run folder of the best setting; its folder `sweep` contains the trials."""

    def __call__(self) -> int:
        from dlworkshop.workshop import sweeping

        sweeping.show(sweeping.run(**dataclasses.asdict(self)))
        print(f"report: {self.workdir / 'report.html'}")
        return 0


@dataclasses.dataclass(frozen=True)
class Lab:
    """Open local pages in a browser to train, draw and explore."""

    run: Annotated[Positional[Path | None], arg(metavar="[RUN]")] = None
    """Run folder for the pages that show a run."""
    port: int = 2730
    """Port on 127.0.0.1; 0 chooses a free one."""
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
        Slides,
        Lessons,
        Notebooks,
        Data,
        Sweep,
        Estimate,
        Replay,
        Lab,
    )
}
