"""`sweep`: many settings, the best by validation trained again with fresh seeds."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optax

from dlworkshop import identity, report
from dlworkshop.data.content import check_kind, fingerprint
from dlworkshop.errors import UserError, unknown
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.sweeps.bucket import Row, Work
from dlworkshop.sweeps.checks import (
    check_engine,
    check_observers,
    check_sampled,
    check_space,
    seeds_of,
)
from dlworkshop.sweeps.engines import local, on_ray, train_all
from dlworkshop.sweeps.importance import importance
from dlworkshop.sweeps.recipe import DEFAULTS, FUNCTIONS, Recipe, check, recipe_of
from dlworkshop.sweeps.space import space_of
from dlworkshop.sweeps.study import Asked, Listed, Study, assigned, turn
from dlworkshop.train import checks, processes, run_folder
from dlworkshop.train.fit import fit
from dlworkshop.train.result import Run
from dlworkshop.train.settings import best_first, check_survived
from dlworkshop.types import Dataset

FOLDER = "sweep"  # of what was tried, in the run folder of the best
# What may be another where a sweep goes on.
FREE = {
    "convolution",
    "devices",
    "members_at_once",
    "observe",
    "quiet",
    "save_every_seconds",
    "save_every_steps",
    "steps_per_chunk",
    "streamed",
}


class Sweep(NamedTuple):
    """The result of a sweep."""

    run: Run  # of the best setting, trained again; only it has read the test split
    trials: list[Row]  # the best first: trial, bucket, hparams, finite, and of the
    # validation split score -> mean, sem and n over the seeds
    importance: dict[str, float]  # share of each hyper-parameter in how trials rank

    def table(self) -> dict[str, list]:
        """The trials as columns, as pandas.DataFrame takes them."""
        names = dict.fromkeys(name for row in self.trials for name in row["hparams"])
        columns: dict[str, list] = {"trial": [row["trial"] for row in self.trials]}
        for name in names:
            columns[name] = [row["hparams"].get(name) for row in self.trials]
        for score in self.trials[0]["validation"]:
            for part in ("mean", "sem", "n"):
                columns[f"validation_{score}_{part}"] = [
                    row["validation"][score][part] for row in self.trials
                ]
        return columns

    def __repr__(self) -> str:
        return repr(self.run)


def sweep(
    model: Model | StatefulModel | Callable,
    dataset: Dataset,
    optimizer: Callable = optax.adam,
    *,
    hparams: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    seeds: int | Sequence[int] = 1,
    final_seeds: int | Sequence[int] | None = None,
    sampler: Callable | None = None,
    num_trials: int | None = None,
    trials_at_once: int = 16,
    engine: Literal["local", "ray"] = "local",
    ray_options: Mapping[str, Any] | None = None,
    workdir: str | Path | None = None,
    experiment: str = "sweep",
    **options: Any,
) -> Sweep:
    """Try settings with every seed, then train the best one with fresh seeds.

    A hyper-parameter that the function `model` takes, or that is the `batch_size`,
    `num_epochs`, `steps_per_epoch`, `patience`, `optimizer`, `loss`, `objective`,
    `schedule`, `batch_transform`, `make_step` or `eval_params` of `fit`, is static:
    another value is another program. All others are traced, as those of `fit`. Trials
    of equal static values are a bucket, which is one population in one program.

    The best has the best mean of what is monitored on the validation split (the loss,
    unless `monitor` names a metric), among those trials of which most seeds stayed
    finite. It is trained again with seeds that were not tried, as the best of many owes
    some of its score to luck; only then the test split is read.

    Args:
        model: a model, or a function of static hyper-parameters that returns one.
        dataset, optimizer, options: as `fit` takes them; but `read_test`.
        hparams: name -> a value; a list of values; where functions are swept that have
            one name, a dict of label -> value; with a `sampler` also a distribution, as
            `optuna.distributions.FloatDistribution(1e-4, 0.1, log=True)`. Or a list of
            settings, as of `fit`. A name with a dot, as "model.dropout", is traced.
        seeds: of each trial: how many, or which.
        final_seeds: of the best one in the end; by default as many as there are
            `seeds`, the numbers that follow them.
        sampler: a constructor of Optuna's (`optuna.samplers.TPESampler`), or a function
            of a seed that returns a sampler; a trial is given its number as the seed.
            By default every combination of values is tried.
        num_trials: how many settings a sampler draws.
        trials_at_once: how many of them it draws at a time. More make larger buckets;
            fewer leave it more to learn from.
        engine: "local" trains buckets one after the other in this process, "ray" as
            tasks of a Ray cluster, with the same results up to rounding.
        ray_options: of each task, as `{"num_gpus": 1, "max_retries": 5}`.
        workdir: the run folder of the best setting; in its folder `sweep` is what was
            tried. A sweep that was stopped goes on where it was. Several processes,
            also of several machines, may be given one folder: they share the trials.
        experiment: the name of the run in its summary and report.

    Returns:
        The run of the best setting, the table of trials, and the importance of each
        hyper-parameter.

    Raises:
        UserError: where an argument cannot be, an extra is missing, or no member of any
            setting stayed finite.

    >>> from dlworkshop import data, models
    >>> digits = data.load("digits")
    >>> def network(width):
    ...     return models.mlp((width,))
    >>> space = {"width": [4, 32], "learning_rate": [1e-6, 0.01]}
    >>> found = sweep(network, digits, hparams=space, seeds=2, quiet=True)
    >>> [row["hparams"] for row in found.trials][0]
    {'width': 32, 'learning_rate': 0.01}
    >>> [row["seed"] for row in found.run.summary["population"]]
    [2, 3]
    """
    if "read_test" in options:
        raise UserError(
            "a sweep reads test with the best setting only: leave read_test out"
        )
    for name in options:
        if name not in DEFAULTS:
            raise unknown("argument of a sweep", name, DEFAULTS)
    checks.check_places(workdir, options.get("devices"))
    check_kind(dataset)
    checks.check_dataset(dataset)
    check_engine(engine, ray_options, options)
    check_observers(options.get("observe", ()))
    check_sampled(sampler, num_trials, trials_at_once)
    tried, fresh = seeds_of(seeds, final_seeds)
    space = space_of(hparams)
    check_space(space, sampler)
    options |= {"experiment": experiment, "monitor": options.get("monitor", "loss")}
    if optimizer is not DEFAULTS["optimizer"]:
        options["optimizer"] = optimizer
    recipe = recipe_of(model, space, options)
    settings = space.settings() if sampler is None else space.corners()
    alike: dict[int, list] = {}
    for trial in assigned(enumerate(settings), recipe.static):
        alike.setdefault(trial.bucket, []).append(trial.setting)
    for own in alike.values():
        check(recipe, own if sampler is None else own[:1], tried, dataset)

    folder = None if workdir is None else Path(workdir).absolute() / FOLDER
    if folder is not None:
        processes.on_first_process(
            lambda: _begin(folder, recipe, dataset, tried, fresh, sampler)
        )
    study: Study = Listed(settings, recipe.static)
    if sampler is not None:
        study = Asked(
            space, recipe.static, sampler, num_trials or 1, trials_at_once, folder
        )
    _check_unfinished(folder, study, num_trials)
    work = Work(recipe, dataset, tried, folder)
    if engine == "ray":
        quiet = recipe._replace(options={**options, "quiet": True})
        started = on_ray(work._replace(recipe=quiet), ray_options)
    else:
        started = local(work)
    with started as trains:
        scores = train_all(study, trains)
    rows = [row for each in scores.values() for row in each.rows]
    first = next(iter(scores.values()))
    rows = best_first(
        sorted(rows, key=lambda row: row["trial"]), first.monitor, first.better
    )
    check_survived(rows[0])
    with _final_turn(folder):
        return _conclude(work, study, rows, fresh, workdir)


def _conclude(
    work: Work, study: Study, rows: list[Row], fresh: list[int], workdir: Any
) -> Sweep:
    """Train the best setting again, and complete its summary and report."""
    recipe, best = work.recipe, rows[0]["trial"]
    setting = next(each.setting for each in study.trials() if each.number == best)
    run = fit(
        recipe.made(setting),
        work.dataset,
        hparams=recipe.traced(setting) or None,
        seeds=fresh,
        workdir=workdir,
        **recipe.arguments(setting),
    )
    if run.summary["interrupted"]:
        raise KeyboardInterrupt
    if "sweep" not in run.summary:
        told = {
            "trials": rows,
            "importance": importance(rows),
            "buckets": len({row["bucket"] for row in rows}),
            "seeds": work.seeds,
        }
        run.summary["sweep"] = run_folder.to_jsonable(told)
        if run.workdir is not None:
            processes.on_first_process(lambda: _rewritten(run))
    told = run.summary["sweep"]
    return Sweep(run, told["trials"], told["importance"])


def _rewritten(run: Run) -> None:
    assert run.workdir is not None
    run.summary.update(run_folder.write_summary(run.workdir, run.summary))
    report.write(run.workdir)


def _begin(
    folder: Path,
    recipe: Recipe,
    dataset: Dataset,
    tried: list[int],
    fresh: list[int],
    sampler: Any,
) -> None:
    """Check that the folder holds this sweep, or nothing yet."""
    if (folder.parent / "config.json").is_file() and not folder.is_dir():
        raise UserError(
            f"{folder.parent} holds a run of another kind: choose another workdir "
            "(--workdir)"
        )
    asked = {n: v for n, v in recipe.options.items() if n not in FREE}
    start = asked.pop("start", None)
    functions = {n: asked.pop(n) for n in [*FUNCTIONS, "metrics"] if n in asked}
    brought = {"model": recipe.model, "values": recipe.space.values, **functions}
    settings = {
        "experiment": asked.pop("experiment"),
        "dataset": {"name": dataset.name, "fingerprint": fingerprint(dataset)},
        "space": recipe.space.in_words(),
        "sampler": sampler is not None,
        "seeds": tried,
        "final_seeds": fresh,
        "options": asked,
        "start": start and identity.digest(getattr(start, "params", start)),
        "identity": identity.describe(brought | {"sampler": sampler}),
    }
    with turn(folder):
        run_folder.check_config(folder, settings, {})


def _check_unfinished(
    folder: Path | None, study: Study, num_trials: int | None
) -> None:
    """Refuse more trials of a sweep whose best one has read the test split."""
    if folder is None or num_trials is None:
        return
    told = run_folder.finished_summary(folder.parent)
    if told is not None and len(study.trials()) < num_trials:
        raise UserError(
            f"the sweep in {folder.parent} is finished and has read the test split, "
            f"and num_trials is now {num_trials}: choose another workdir (--workdir)"
        )


def _final_turn(folder: Path | None) -> contextlib.AbstractContextManager:
    """Let one of the processes that share a sweep train the best setting."""
    if folder is None or processes.count() > 1:
        return contextlib.nullcontext()
    return turn(folder / "claims" / "final")
