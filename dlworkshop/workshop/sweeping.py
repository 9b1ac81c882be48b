"""The command `dlworkshop sweep`: from flags to space, model and sweep."""

import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from dlworkshop import data, models
from dlworkshop.errors import UserError, check_known, check_whole, one_sentence
from dlworkshop.report import terminal
from dlworkshop.report.settings import varied
from dlworkshop.report.words import plain, titled, with_error
from dlworkshop.search import prepared, task_of
from dlworkshop.sweeps.study import imported
from dlworkshop.sweeps.sweep import Sweep, sweep
from dlworkshop.types import Dataset

SAMPLERS = {
    "random": "RandomSampler",
    "tpe": "TPESampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
}
NEEDED = {"cmaes": "cmaes", "gp": "torch"}  # what Optuna imports for a later trial only
ACTIVATIONS = "relu", "gelu", "silu", "elu", "tanh", "sigmoid", "softplus"
RANGE = re.compile(r"(?P<low>[^:]+)\.\.(?P<high>[^:]+?)(?P<log>:log)?")
MOST_SHOWN = 10  # trials


def parse(space: Sequence[str]) -> dict[str, Any]:
    """The space described by flags NAME=VALUE,VALUE,... or NAME=LOW..HIGH[:log].

    Raises:
        UserError: if a flag has another form.

    >>> parse(["width=32,64", "activation=relu", "rate=1e-3,1e-2"])
    {'width': [32, 64], 'activation': ['relu'], 'rate': [0.001, 0.01]}
    """
    found: dict[str, Any] = {}
    for flag in space:
        name, equals, text = flag.partition("=")
        if not (name and equals and text):
            raise UserError(
                f"--space has '{flag}': give NAME=VALUE,VALUE,... or NAME=LOW..HIGH, "
                "as width=32,64 or learning_rate=1e-4..1e-1:log"
            )
        if name in found:
            raise UserError(f"--space contains '{name}' twice: give it once")
        if not all(each.strip() for each in text.split(",")):
            raise UserError(
                f"--space has '{flag}' with an empty value: give one, or leave the "
                "comma out"
            )
        match = RANGE.fullmatch(text)
        values = [_value(each) for each in text.split(",")]
        found[name] = _range(flag, **match.groupdict()) if match else values
    return found


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False, "None": None}.get(text, text)


def _range(flag: str, low: str, high: str, log: str | None) -> Any:
    """An Optuna distribution, of integers if both ends are integers."""
    ends = _value(low), _value(high)
    if not all(type(end) in (int, float) for end in ends):
        raise UserError(f"--space has '{flag}': give two numbers, as 1e-4..1e-1")
    kinds = imported("optuna", "a range of --space").distributions
    whole = all(isinstance(end, int) for end in ends)
    kind = kinds.IntDistribution if whole else kinds.FloatDistribution
    with one_sentence(f"--space has '{flag}'"):
        return kind(*ends, log=log is not None)


def network(dataset: Dataset) -> Callable:
    """A function that makes an MLP on standardised inputs from width, depth, ..."""
    task = task_of(dataset)

    def make(width: int = 128, depth: int = 2, activation: str = "relu"):
        check_whole("width", width)
        check_whole("depth", depth, least=0)
        check_known("activation", activation, ACTIVATIONS)
        function = getattr(jax.nn, activation)
        layers = models.mlp((width,) * depth, function, num_classes=task.outputs)
        return prepared(layers, dataset, task)

    return make


def from_file(where: str) -> Any:
    """The object that FILE.py:NAME refers to.

    Raises:
        UserError: if it does not exist, or the file raises an error.
    """
    file, _, name = where.rpartition(":")
    if not file.endswith(".py"):
        raise UserError(f"--model is '{where}': give FILE.py:NAME, as net.py:make")
    if not Path(file).is_file():
        raise UserError(f"--model is '{where}', and {file} is not there: give its path")
    stem = Path(file).stem
    spec = importlib.util.spec_from_file_location(stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(file).absolute().parent))  # its neighbours, as Python
    before, sys.modules[stem] = sys.modules.get(stem), module  # as for dataclasses
    try:
        with one_sentence(f"{file} does not run"):
            spec.loader.exec_module(module)
    finally:  # Ray does not send its workers what could be imported
        del sys.modules[stem]
        if before is not None:
            sys.modules[stem] = before
    check_known(f"name in {file}", name, vars(module))
    return getattr(module, name)


def run(
    name: str,
    space: Sequence[str],
    *,
    model: str | None,
    target: str | None,
    data_dir: Path | None,
    sampler: str,
    num_cpus: float | None,
    num_gpus: float | None,
    **flags: Any,
) -> Sweep:
    """Run the sweep that the flags of the command describe."""
    found = parse(space)
    options = {flag: value for flag, value in flags.items() if value is not None}
    resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    if resources := {n: v for n, v in resources.items() if v is not None}:
        options["ray_options"] = resources
    if sampler != "grid":
        samplers = imported("optuna", f"--sampler {sampler}").samplers
        needed = NEEDED.get(sampler)
        if needed is not None and importlib.util.find_spec(needed) is None:
            raise UserError(
                f"--sampler {sampler} needs {needed}, which is not installed: "
                f"pip install {needed}"
            )
        options["sampler"] = getattr(samplers, SAMPLERS[sampler])
        if sampler == "tpe":  # keeps trials that are drawn together apart
            options["sampler"] = functools.partial(
                samplers.TPESampler, constant_liar=True
            )
    dataset = data.load(name, data_dir, target=target)
    found.setdefault("learning_rate", 1e-3)
    if "num_epochs" not in found:
        options.setdefault("num_epochs", 10)
    return sweep(
        network(dataset) if model is None else from_file(model),
        dataset,
        optax.adamw,
        hparams=found,
        loss=task_of(dataset).loss,
        **options,
    )


def show(found: Sweep) -> None:
    """Print the best trials, and the final run with fresh seeds."""
    names = varied(found.trials)
    monitor = found.run.summary["monitor"]
    head = ["trial", *names, f"validation {monitor}", "seeds"]
    rows = []
    for row in found.trials[:MOST_SHOWN]:
        stat = row["validation"][monitor]
        setting = [plain(row["hparams"].get(name)) for name in names]
        score = with_error(stat["mean"], stat["sem"], monitor)
        rows.append([str(row["trial"]), *setting, score, str(stat["n"])])
    terminal.show(head, rows)
    if len(rows) < len(found.trials):
        print(f"the best {len(rows)} of {len(found.trials)} trials; the report has all")
    if shares := found.importance.items():
        told = ", ".join(f"{titled(n).lower()} {100 * s:.0f} %" for n, s in shares)
        print(f"importance: {told}")
    seeds = ", ".join(str(row["seed"]) for row in found.run.summary["population"])
    print(f"the best setting with fresh seeds {seeds}:")
    print(found.run)
