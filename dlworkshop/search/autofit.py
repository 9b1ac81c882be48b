"""`autofit`: settings chosen by validation, retrained, and compared with baselines."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop import answers, identity, report
from dlworkshop.data.content import check_kind, fingerprint
from dlworkshop.errors import (
    Range,
    UserError,
    check_flag,
    check_function,
    check_number,
    check_text,
    repr_of,
)
from dlworkshop.models.augment import Augment
from dlworkshop.models.model import Model, StatefulModel, check_model
from dlworkshop.report.words import duration
from dlworkshop.search import choice, expected
from dlworkshop.search.baselines import baselines
from dlworkshop.search.budget import Budget
from dlworkshop.search.candidates import candidates, check
from dlworkshop.search.effort import Effort, views_of
from dlworkshop.search.state import SearchState
from dlworkshop.search.task import Task, own_units, task_of
from dlworkshop.search.trial import Search, repeats
from dlworkshop.train import checks, finite, instead, processes, run_folder
from dlworkshop.train.members import RANGES
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset

OURS = "learning_rate", "weight_decay", "dropout"  # others may be of a user's model
EXACT = 0.9999  # R2 of a linear model, from which columns may be parts of the target


def autofit(
    dataset: Dataset,
    *,
    minutes: float = 3.0,
    seeds: int | None = None,
    workdir: str | Path | None = None,
    model: Model | StatefulModel | None = None,
    augment: Augment | None = None,
    hparams: Mapping[str, Any] | None = None,
    num_updates: int | None = None,
    batch_size: int | None = None,
    folds: int | None = None,
    loss: Callable | None = None,
    experiment: str = "autofit",
    quiet: bool = False,
) -> Run:
    """Choose settings by validation, retrain the chosen one, read test once.

    For vectors the candidates are a linear model and a multilayer perceptron, each on
    standardised columns and on bins of them, trained with AdamW; for images it is a
    convolutional network trained with Muon. Learning rates, weight decays, for vectors
    dropouts, and for images flips and shifts, are tried as populations with early
    stopping by the validation loss of each member. If train and validation together
    have fewer than `effort.SMALL` examples, they are cut into folds anew for each seed,
    and each member holds out one fold, in the search and in the final run. The simplest
    candidate whose best setting is within one standard error of the best of all is
    chosen, and trained with fresh seeds.

    The network for images is the largest that can be trained in the time after a short
    search; if there is little time, images are averaged to fewer pixels.

    Settings are judged by the validation loss; for classes by the accuracy if the
    validation split has a thousand examples or more, and by the balanced accuracy if
    the commonest class has more than three times the examples of the rarest.

    Args:
        dataset: classes, several labels of 0 and 1, or numbers to be predicted.
        minutes: what it may take, about. The rate of this machine is measured and the
            plan said; no member is trained for less than some hundred updates, so a
            very short time is exceeded.
        seeds: of the run at the end; by default 4, or fewer where the time is short.
        workdir: the run folder; `answers.study` measures there what the answers of the
            run are worth. Called again, it goes on after the last network that was
            tried, or with the run; a finished run is returned.
        model: the only network to be tried, on inputs as they are.
        augment: of images, what is done beside flips and shifts, which are tried.
        hparams: name -> number or numbers, of the learning rate, the weight decay, what
            the model takes, or of images the `shift`, a share of a side, and `flip`, 0
            or 1; a number is obeyed and not searched for.
        num_updates: of each member; by default some 30 passes, 1,000 to 6,000 updates.
        batch_size: examples per update; by default 32 to 256, by the size of train.
        folds: how many; 0 for none. By default 8 of few examples, if there is time.
        loss: of one example, instead of the one that goes with the targets.
        experiment: the name of the run.
        quiet: show nothing.

    Returns:
        The members of the chosen setting. Its `summary` has more than that of `fit`:
        the `search` (every setting with its scores), the scores of the `ensemble` and
        of `baselines` on test, what to expect of new data with an interval
        (`expected`, of folds), the `budget`, and `notes` in sentences.

    Raises:
        UserError: where an argument or the data cannot be.

    >>> from dlworkshop import data
    >>> x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    >>> dataset = data.from_arrays(x, np.where(x[:, 0] > 0, "right", "left"))
    >>> run = autofit(dataset, minutes=0.01, hparams={"weight_decay": 0.01}, seeds=1)
    >>> run.summary["search"]["chosen"]["candidate"]
    'linear'
    >>> run.summary["ensemble"]["accuracy"] > 0.9
    True
    """
    check_kind(dataset)
    checks.check_dataset(dataset)
    check_number("minutes", minutes, Range(0, closed=False))
    if instead.is_wanted():
        raise UserError(
            f"autofit always uses the {minutes:g} minutes that it is given, so there "
            "is nothing to estimate or to replay: use a call of fit instead"
        )
    if processes.count() > 1:  # each would choose by its own clock
        raise UserError("autofit works in one process: start it without the others")
    if folds == 1:
        raise UserError("folds is 1: give 0 for none, or at least 2")
    if folds is not None and folds != 0:
        checks.check_folds(folds, dataset)
    checks.check_numbers(num_updates=num_updates, seeds=seeds)
    if batch_size is not None:
        checks.check_numbers(batch_size=batch_size)
        checks.check_batch_size(dataset, batch_size)
    if model is not None:
        check_model(model)
    else:
        finite.refuse(dataset)
    if augment is not None and not isinstance(augment, Augment):
        raise UserError(f"augment is {repr_of(augment)}: give a models.Augment")
    if augment is not None and (augment.flip or augment.shift):
        raise UserError(
            "augment has a flip or a shift, which autofit chooses: give them in "
            'hparams, as {"flip": 1, "shift": 0.1}, or leave them out'
        )
    if hparams is not None:
        _check_hparams(hparams)
    if loss is not None:
        check_function("loss", loss)
    checks.check_places(workdir, None)
    check_text("experiment", experiment)
    check_flag("quiet", quiet)
    task = task_of(dataset, loss)
    asked = {
        "seeds": seeds,
        "model": None if model is None else dict(model.config),
        "augment": augment and dataclasses.asdict(augment),
        "hparams": hparams,
        "num_updates": num_updates,
        "batch_size": batch_size,
        "folds": folds,
        "dataset": None if workdir is None else fingerprint(dataset),
        "loss": identity.digest(task.loss),
    }
    tried = candidates(dataset, task, model, hparams, augment)
    for candidate in tried:
        check(candidate, dataset)
    state = SearchState(None if workdir is None else Path(workdir), quiet)
    state.begin(asked)
    budget = Budget(dataset, task, state, 60 * minutes, num_updates is not None)
    search = Search(dataset, task, tried, seeds, state, budget)
    search.size_up(folds, batch_size, num_updates)
    with state.lock:
        chosen = search.choose()
        plan = search.plan(chosen)
    return _conclude(search, chosen, plan, experiment)


def _check_hparams(hparams: Any) -> None:
    """Check for a dict of numbers, and the ranges of what is our own."""
    if not isinstance(hparams, Mapping):
        raise UserError(
            f"hparams is {repr_of(hparams)}: give a dict of names and numbers"
        )
    if empty := [name for name, value in hparams.items() if not np.size(value)]:
        raise UserError(f"hyper-parameter '{empty[0]}' has no value: give a number")
    for name, values in hparams.items():
        if name in ("flip", "shift"):  # of images, see `candidates.augmenting`
            continue
        for value in np.ravel(values).tolist():
            check_number(name, value, RANGES[name] if name in OURS else Range())


def _conclude(
    search: Search, row: choice.Row, plan: dict[str, Any], experiment: str
) -> Run:
    """Train the chosen setting with fresh seeds, and complete the summary."""
    state, candidate = search.state, search.candidate(row)
    network, setting = candidate.resolved(row.hparams)
    effort = dataclasses.replace(
        search.budget.usual,
        settings=(setting,),
        seeds=plan["seeds"],
        updates=plan["updates"],
        views=views_of(network),
    )
    state.log(
        "the run: %s, %d updates of %d examples, about %s",
        repeats(effort),
        effort.updates,
        effort.batch_size,
        duration(plan["seconds"]),
    )
    with report.left_out():  # it is written below, with the search
        run = search.fit(
            network,
            candidate.optimizer,
            effort,
            0,
            (setting,),
            workdir=state.workdir,
            experiment=experiment,
        )
    if run.summary["interrupted"]:
        return run
    if "search" in run.summary:  # it was finished before
        run_folder.complete(state.workdir, run.summary, has_more=False)
        return run
    more = _told(search, run, row, effort)
    if state.workdir is not None:
        found = answers.study(run, search.dataset, search.task.headline)
        more["answers"] = _numbers(found)
        more["notes"] += answers.notes(found)
    more["budget"]["used_seconds"] = state.used
    more["notes"] += _of_time(search.budget)
    run.summary.update(run_folder.to_jsonable(more))
    run_folder.complete(state.workdir, run.summary, has_more=True)
    for note in more["notes"]:
        state.log(note)
    given, used = duration(search.budget.seconds), duration(state.used)
    state.log("the whole search and run took %s of the given %s", used, given)
    return run


def _told(search: Search, run: Run, row: choice.Row, effort: Effort) -> dict[str, Any]:
    """The entries of the summary that `fit` does not write."""
    factor, unit = own_units(search.dataset)
    test = search.dataset.test
    said = np.asarray(run.predict(test.inputs))[run.chosen]
    together = search.task.scores(said, test, factor)
    simple = baselines(search.dataset, search.task, factor)
    of_new = None
    if effort.folds:
        of_new = expected.of_folds(run, search.dataset, search.task, factor)
    found = search.state.found
    searched = found["searched"]
    return {
        "search": {
            "chosen": {"candidate": row.candidate, "hparams": row.hparams},
            "judged_by": search.task.judged_by,
            "headline": search.task.headline,
            "rule": choice.RULE,
            "rows": found.get("told", []),
            "tried": {
                name: {k: v for k, v in each.items() if k != "rows"}
                for name, each in searched.items()
            },
            "left_out": found["left_out"],
        },
        "ensemble": together,
        "baselines": simple,
        "expected": of_new,
        "budget": {
            "minutes": search.budget.seconds / 60,
            "planned_seconds": found["run"]["seconds"]
            + sum(each.get("planned", 0.0) for each in searched.values()),
        },
        "notes": _notes(search.task, found["run"], run, simple),
        "finding": expected.finding(
            run,
            row.candidate,
            search.task,
            test.num_examples,
            together,
            simple,
            of_new,
            unit,
        ),
    }


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the summary that come from `answers.json`."""
    told = ("level", "sets", "intervals", "temperature")
    numbers = {name: found[name] for name in told if name in found}
    if "unlike" in found:
        numbers["unlike"] = {k: found["unlike"][k] for k in ("rate", "test")}
    return numbers


def _notes(
    task: Task,
    plan: Mapping[str, Any],
    run: Run,
    simple: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """What a user should know, in sentences."""
    notes = [task.why + "."] if task.why else []
    if any(scores.get("r2", 0.0) > EXACT for scores in simple.values()):
        notes.append(
            "A linear model is nearly exact: leave out inputs that together are the "
            "target, such as columns that are its parts, if they are not known before "
            "it."
        )
    if "on_first_channel" in run.model.config:
        notes.append("The images are grey but stored as RGB: one channel is used.")
    if "mirrored" in run.model.config:
        notes.append(
            "Trained with flips: the outputs are means over an image and its mirror "
            "image."
        )
    stopped = [row["status"] == "stopped early" for row in run.summary["population"]]
    if plan["updates"] < plan["usual"] // 2 and not all(stopped):
        notes.append(
            f"Undertrained: the time was enough for {plan['updates']:,} updates, "
            f"and {plan['usual']:,} are usual for so many examples; give more "
            "minutes."
        )
    if (rest := expected.still_falling(run)) is not None:
        notes.append(
            "Undertrained: the validation loss was still falling at the end "
            f"({100 * rest:.0f} % of its way in the last fifth of the updates); "
            "give more updates."
        )
    return [note[:1].upper() + note[1:] for note in notes]


def _of_time(budget: Budget) -> list[str]:
    """A sentence if much more time was used than was given."""
    given, used = budget.seconds, budget.state.used
    if used < 1.5 * given:
        return []
    return [
        f"It took {duration(used)} before the report, more than the given "
        f"{duration(given)}: some hundred updates take longer than that, or the "
        "machine was busy."
    ]
