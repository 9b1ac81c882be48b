"""`sweep`: try many settings, and train the best one again with fresh seeds."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optax

from dlworkshop import identity, report
from dlworkshop.data.content import check_kind, fingerprint
from dlworkshop.errors import UserError
from dlworkshop.files import refuse_link
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.sweeps.bucket import Row, Work, bucketed
from dlworkshop.sweeps.checks import (
    check_engine,
    check_observers,
    check_options,
    check_sampled,
    check_space,
    seeds_of,
)
from dlworkshop.sweeps.engines import local, on_ray, train_all
from dlworkshop.sweeps.importance import importance
from dlworkshop.sweeps.recipe import DEFAULTS, FUNCTIONS, Recipe, check, recipe_of
from dlworkshop.sweeps.space import space_of
from dlworkshop.sweeps.study import JOURNAL, Asked, Listed, Study, assigned, turn
from dlworkshop.train import checks, processes, run_folder
from dlworkshop.train.arguments import in_words
from dlworkshop.train.fit import fit
from dlworkshop.train.result import Run
from dlworkshop.train.settings import best_first, check_survived
from dlworkshop.types import Dataset

AT_ONCE = 16  # settings that a sampler draws
FOLDER = "sweep"  # folder of the trials, inside the run folder of the best setting
# Arguments that may change when a sweep is resumed.
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
    trials: list[Row]  # the best first: trial, bucket, hparams, finite, and for the
    # validation split score -> mean, sem and n over the seeds
    importance: dict[str, float]  # share of each hyper-parameter in the ranking

    def table(self) -> dict[str, list]:
        """The trials as columns, ready for `pandas.DataFrame`."""
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
    trials_at_once: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_options: Mapping[str, Any] | None = None,
    workdir: str | Path | None = None,
    experiment: str = "sweep",
    **options: Any,
) -> Sweep:
    """Try settings with every seed, then train the best one with fresh seeds.

    Hyper-parameters that the function `model` takes, and `batch_size`, `num_epochs`,
    `steps_per_epoch`, `patience`, `optimizer`, `loss`, `objective`, `schedule`,
    `batch_transform`, `make_step` and `eval_params` of `fit`, are static: another value
    needs another program. All others are traced, as in `fit`. Trials with equal static
    values form a bucket, which is trained as one population in one program.

    The best trial has the best mean validation score (the loss, unless `monitor` names
    a metric) among the trials of which most seeds stayed finite. The best of many
    trials owes some of its score to luck, so it is trained again with seeds that were
    not tried, and only this run reads the test split.

    Args:
        model: a model, or a function of static hyper-parameters that returns one.
        dataset, optimizer, options: as in `fit`; `read_test` is not an option.
        hparams: name -> a value, a list of values, or a dict of label -> value (for
            functions with equal names); with a `sampler` also a distribution, as
            `optuna.distributions.FloatDistribution(1e-4, 0.1, log=True)`. Or a list of
            settings, as in `fit`. A name with a dot, as "model.dropout", is traced.
        seeds: of each trial, as in `fit`.
        final_seeds: of the final run; by default the numbers that follow `seeds`, as
            many as those.
        sampler: the constructor of an Optuna sampler (`optuna.samplers.TPESampler`), or
            a function of a seed that returns a sampler; the seed is the number of the
            trial. By default every combination of values is tried.
        num_trials: how many settings the sampler draws.
        trials_at_once: how many settings the sampler draws at a time, by default 16.
            More settings make larger buckets; fewer let the sampler learn from more
            results.
        engine: "local" trains the buckets one after the other in this process, "ray" as
            tasks of a Ray cluster. The results are the same up to rounding.
        ray_options: of each task, as `{"num_gpus": 1, "max_retries": 5}`.
        workdir: the run folder of the best setting; its folder `sweep` contains the
            trials. A sweep that was stopped is resumed. Several processes, also on
            several machines, may use the same folder: they share the trials.
        experiment: the name of the run in its summary and report.

    Returns:
        The run of the best setting, the table of trials, and the importance of each
        hyper-parameter.

    Raises:
        UserError: if an argument is invalid, an extra is not installed, or no member of
            any setting stayed finite.

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
    check_options(options)
    checks.check_places(workdir, options.get("devices"))
    check_kind(dataset)
    checks.check_dataset(dataset)
    check_engine(engine, ray_options, options)
    check_observers(options.get("observe", ()))
    check_sampled(sampler, num_trials, trials_at_once)
    tried, fresh = seeds_of(seeds, final_seeds)
    space = space_of(hparams)
    if processes.count() > 1:  # before the first exchange, which would fit no other
        told = {**options, "model": model, "workdir": workdir, "engine": engine}
        told |= {"seeds": seeds, "final_seeds": final_seeds, "sampler": sampler}
        processes.check_devices()
        processes.check_alike(in_words(told) | {"hparams": space.in_words()})
    check_space(space, sampler)
    options |= {"experiment": experiment, "monitor": options.get("monitor", "loss")}
    if optimizer is not DEFAULTS["optimizer"]:
        options["optimizer"] = optimizer
    recipe = recipe_of(model, space, options)
    settings = space.settings() if sampler is None else space.corners()
    for bucket in bucketed(assigned(enumerate(settings), recipe.static)):
        own = [trial.setting for trial in bucket.trials]
        # a sampler draws the values one by one, and may draw equal ones
        populations = [own] if sampler is None else [[each] for each in own]
        check(recipe, populations, tried, dataset)

    folder = None if workdir is None else Path(workdir).absolute() / FOLDER
    if folder is not None:
        processes.on_first_process(
            lambda: _begin(folder, recipe, dataset, tried, fresh, sampler)
        )
    study: Study = Listed(settings, recipe.static)
    if sampler is not None:
        study = Asked(
            space,
            recipe.static,
            sampler,
            num_trials or 1,
            trials_at_once or AT_ONCE,
            folder,
        )
    _check_unfinished(folder, study, num_trials)
    work = Work(recipe, dataset, tried, folder)
    rows = _tried(work, study, engine, ray_options)
    check_survived(rows[0])
    with _final_turn(folder):
        return _conclude(work, study, rows, fresh, workdir)


def _tried(
    work: Work, study: Study, engine: str, ray_options: Mapping[str, Any] | None
) -> list[Row]:
    """Train all trials of a study; returns their rows, the best first."""
    if engine == "ray":
        options = {**work.recipe.options, "quiet": True}
        quiet = work._replace(recipe=work.recipe._replace(options=options))
        started = on_ray(quiet, ray_options)
    else:
        started = local(work)
    with started as trains:
        scores = list(train_all(study, trains).values())
    rows = [row for each in scores for row in each.rows]
    rows.sort(key=lambda row: row["trial"])
    return best_first(rows, scores[0].monitor, scores[0].better)


def _conclude(
    work: Work, study: Study, rows: list[Row], fresh: list[int], workdir: Any
) -> Sweep:
    """Train the best setting again, and add the trials to its summary and report."""
    recipe, best = work.recipe, rows[0]["trial"]
    setting = next(each.setting for each in study.trials() if each.number == best)
    with report.left_out():  # it is written below, with the trials
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
    is_new = "sweep" not in run.summary
    if is_new:
        told = {
            "trials": rows,
            "importance": importance(rows),
            "buckets": len({row["bucket"] for row in rows}),
            "seeds": work.seeds,
        }
        run.summary["sweep"] = run_folder.to_jsonable(told)
    processes.on_first_process(
        lambda: run_folder.complete(run.workdir, run.summary, is_new)
    )
    told = run.summary["sweep"]
    return Sweep(run, told["trials"], told["importance"])


def _begin(
    folder: Path,
    recipe: Recipe,
    dataset: Dataset,
    tried: list[int],
    fresh: list[int],
    sampler: Any,
) -> None:
    """Check that the folder contains this sweep, or create it."""
    if (folder.parent / "config.json").is_file() and not folder.is_dir():
        raise UserError(
            f"{folder.parent} contains a run that is not a sweep: choose another "
            "workdir (--workdir)"
        )
    for path in (folder, *folder.glob("*"), *folder.glob("claims/*")):
        lock = f"{JOURNAL}.lock"  # Optuna's, a link
        if not path.name.startswith(lock):
            refuse_link(path)
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
    """Reject more trials if the final run of the sweep has begun.

    Another setting could be the best one then, which that run could not become.
    """
    if folder is None or num_trials is None or len(study.trials()) >= num_trials:
        return
    if run_folder.finished_summary(folder.parent) is not None:
        state = "is finished and has read the test split"
    elif (folder.parent / "config.json").is_file():
        state = "has begun to train its best setting again"
    else:
        return
    raise UserError(
        f"the sweep in {folder.parent} {state}, and num_trials is now {num_trials}: "
        "give the number of before, or choose another workdir (--workdir)"
    )


def _final_turn(folder: Path | None) -> contextlib.AbstractContextManager:
    """Lock the final run, so that only one of the processes trains it at a time."""
    if folder is None or processes.count() > 1:
        return contextlib.nullcontext()
    return turn(folder / "claims" / "final")
