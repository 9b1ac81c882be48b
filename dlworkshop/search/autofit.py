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
    check_whole,
    repr_of,
)
from dlworkshop.models.augment import Augment
from dlworkshop.models.model import Model, StatefulModel, check_model
from dlworkshop.report.words import duration
from dlworkshop.search import choice, expected
from dlworkshop.search.baselines import baselines
from dlworkshop.search.candidates import candidates, check
from dlworkshop.search.effort import Effort
from dlworkshop.search.task import own_units, task_of
from dlworkshop.search.trial import Search, repeats
from dlworkshop.train import checks, estimation, finite, processes, run_folder
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset


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

    Networks (of vectors: linear, and fully connected; on standardised columns, and on
    bins of them), learning rates, weight decays, dropouts, and of images no
    augmentation, shifts, and shifts with flips, are tried as populations, every member
    with early stopping by its validation loss. Few examples, below
    `effort.SMALL` in train and validation, are cut into folds anew for each seed: each
    member holds out one of them, in the search and in the run. The simplest network
    whose best setting is behind the best of all by no more than one standard error of
    their difference is chosen, and trained with fresh seeds.

    The network for images is the largest that can be trained in the time, after a short
    search; where there is little, it sees the images coarser.

    Settings are judged by the validation loss; of classes by accuracy where validation
    has a thousand examples or more, and by balanced accuracy where the commonest class
    has more than three times the examples of the rarest.

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
    if estimation.is_wanted():
        raise UserError(
            f"autofit takes the {minutes:g} minutes that it is given, and chooses what "
            "fits into them: estimate a call of fit"
        )
    if processes.count() > 1:  # each would choose by its own clock
        raise UserError("autofit works in one process: start it without the others")
    if folds is not None and folds != 0:
        checks.check_folds(folds, dataset)
    for name, number in {
        "num_updates": num_updates,
        "batch_size": batch_size,
        "seeds": seeds,
    }.items():
        if number is not None:
            check_whole(name, number)
    if model is not None:
        check_model(model)
    else:
        finite.refuse(dataset)
    if augment is not None and not isinstance(augment, Augment):
        raise UserError(f"augment is {repr_of(augment)}: give a models.Augment")
    if hparams is not None and not isinstance(hparams, Mapping):
        raise UserError(
            f"hparams is {repr_of(hparams)}: give a dict of names and numbers"
        )
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
    search = Search(
        dataset=dataset,
        task=task,
        tried=tried,
        seeds=seeds,
        obeyed=num_updates is not None,
        seconds=60 * minutes,
        workdir=None if workdir is None else Path(workdir),
        quiet=quiet,
    )
    search.begin(asked)
    search.size_up(folds, batch_size, num_updates)
    with search.lock:
        chosen = search.choose()
        plan = search.plan(chosen)
    return _conclude(search, chosen, plan, experiment)


def _conclude(
    search: Search, row: choice.Row, plan: dict[str, Any], experiment: str
) -> Run:
    """Train the chosen setting with fresh seeds, and complete the summary."""
    candidate = search.candidate(row)
    network, setting = candidate.settled(row.hparams)
    effort = dataclasses.replace(
        search.usual, settings=(setting,), seeds=plan["seeds"], updates=plan["updates"]
    )
    search.say(
        "the run: %s, %d updates of %d examples, about %s",
        repeats(effort),
        effort.updates,
        effort.batch_size,
        duration(plan["seconds"]),
    )
    run = search.fit(
        network,
        candidate.optimizer,
        effort,
        0,
        (setting,),
        workdir=search.workdir,
        experiment=experiment,
    )
    if "search" in run.summary or run.summary["interrupted"]:
        return run
    more = _told(search, run, row, effort)
    if search.workdir is not None:
        found = answers.study(run, search.dataset, search.task.headline)
        more["answers"] = _numbers(found)
        more["notes"] += answers.notes(found)
    more["budget"]["used_seconds"] = search.used
    more["notes"] += _of_time(search)
    run.summary.update(run_folder.to_jsonable(more))
    if search.workdir is not None:
        run.summary.update(run_folder.write_summary(search.workdir, run.summary))
        report.write(search.workdir)
    for note in more["notes"]:
        search.say(note)
    given, used = duration(search.seconds), duration(search.used)
    search.say("all of it took %s of the %s that were given", used, given)
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
    notes = _notes(search, run)
    searched = search.found["searched"]
    return {
        "search": {
            "chosen": {"candidate": row.candidate, "hparams": row.hparams},
            "judged_by": search.task.judged_by,
            "headline": search.task.headline,
            "rule": choice.RULE,
            "rows": search.found.get("told", []),
            "tried": {
                name: {k: v for k, v in each.items() if k != "rows"}
                for name, each in searched.items()
            },
            "left_out": search.found["left_out"],
        },
        "ensemble": together,
        "baselines": simple,
        "expected": of_new,
        "budget": {
            "minutes": search.seconds / 60,
            "planned_seconds": search.found["run"]["seconds"]
            + sum(each.get("planned", 0.0) for each in searched.values()),
        },
        "notes": notes,
        "finding": expected.finding(
            run, row.candidate, search.task, together, simple, of_new, unit
        ),
    }


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the summary that come from `answers.json`."""
    told = ("level", "sets", "intervals", "temperature")
    numbers = {name: found[name] for name in told if name in found}
    if "unlike" in found:
        numbers["unlike"] = {k: found["unlike"][k] for k in ("rate", "test")}
    return numbers


def _notes(search: Search, run: Run) -> list[str]:
    """What a user should know, in sentences."""
    notes = [search.task.why + "."] if search.task.why else []
    if "on_first_channel" in run.model.config:
        notes.append("The images are grey, kept as RGB: one channel is looked at.")
    plan = search.found["run"]
    if plan["updates"] < plan["usual"] // 2:
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


def _of_time(search: Search) -> list[str]:
    """A sentence where much more time was used than was given."""
    if search.used < 1.5 * search.seconds:
        return []
    return [
        f"It took {duration(search.used)}, more than the {duration(search.seconds)} "
        "that were given: they are too few for some hundred updates, or the machine "
        "was busy."
    ]
