"""`autofit`: settings found by validation, trained again, and told beside baselines."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop import identity, report
from dlworkshop.data.content import fingerprint
from dlworkshop.errors import UserError
from dlworkshop.learn import optimizers, schedules
from dlworkshop.models.augment import Augment
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.report.words import count, duration
from dlworkshop.search import choice, expected
from dlworkshop.search.baselines import baselines
from dlworkshop.search.candidates import Candidate, Setting, candidates, check
from dlworkshop.search.effort import FOLDS as FOLDS_OF_FEW
from dlworkshop.search.effort import (
    LEAST_UPDATES,
    Effort,
    cuts_folds,
    seconds_of_an_update,
    usual,
)
from dlworkshop.search.task import Task, own_units, task_of
from dlworkshop.train import checks, run_folder
from dlworkshop.train.fit import fit
from dlworkshop.train.progress import said_at
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset

log = logging.getLogger(__name__)

FILE = "search.json"  # in the run folder: what was found so far
SEEDS, SEARCH_SEEDS = 4, 2
FRESH = 1000  # seeds of the search begin here, those of the run at 0
SHARE = 0.6  # of the time, at most, that the search takes


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
    """Find settings by validation, train the chosen one anew, read test once.

    Networks (of vectors: linear, and fully connected; on standardised columns, and on
    bins of them), learning rates, weight decays, dropouts, and of images no
    augmentation, shifts, and shifts with flips, are tried as populations, every member
    with early stopping by its validation loss. Few examples, below
    `effort.SMALL` in train and validation, are cut into folds anew for each seed: each
    member holds out one of them, in the search and in the run. The simplest network
    whose best setting is behind the best of all by no more than one standard error of
    their difference is chosen, and trained with fresh seeds.

    Settings are judged by the validation loss; of classes by accuracy where validation
    has a thousand examples or more, and by balanced accuracy where the commonest class
    has more than three times the examples of the rarest.

    Args:
        dataset: classes, several labels of 0 and 1, or numbers to be predicted.
        minutes: what it may take, about. The rate of this machine is measured and the
            plan said; no member is trained for less than some hundred updates, so a
            very short time is exceeded.
        seeds: of the run at the end; by default 4, or fewer where the time is short.
        workdir: the run folder. Called again, it goes on after the last network that
            was tried, or with the run; a finished run is returned.
        model: the only network to be tried, on inputs as they are.
        augment: of images, what is done beside flips and shifts, which are tried.
        hparams: name -> number or numbers, of the learning rate, the weight decay, what
            the model takes, or of images the `shift`, a share of a side, and `flip`, 0
            or 1; a number is obeyed and not searched for.
        num_updates: of each member; by default some 30 passes, 1,000 to 6,000 updates.
        batch_size: examples per update; by default 32 to 256, by the size of train.
        folds: how many; 0 for none, 8 or none by default.
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
    if not np.isfinite(minutes) or minutes <= 0:
        raise UserError(f"minutes is {minutes}: give a number above 0")
    if folds is None:
        folds = FOLDS_OF_FEW if cuts_folds(dataset) else 0
    elif folds != 0:
        checks.check_folds(folds, dataset)
    checks.check_numbers(num_updates=num_updates)
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
    updates, batch = usual(dataset, folds, batch_size, num_updates)
    search = Search(
        dataset=dataset,
        task=task,
        tried=tried,
        usual=Effort((), SEARCH_SEEDS, folds or None, updates, batch),
        seeds=seeds,
        obeyed=num_updates is not None,
        seconds=60 * minutes,
        workdir=None if workdir is None else Path(workdir),
        quiet=quiet,
    )
    search.begin(asked)
    with search.lock:
        chosen = search.choose()
        plan = search.plan(chosen)
    return search.conclude(chosen, plan, experiment)


@dataclasses.dataclass
class Search:
    """One search, and how far it is: what is found goes to `FILE`, if there is one."""

    dataset: Dataset
    task: Task
    tried: list[Candidate]
    usual: Effort  # of one candidate, without its settings
    seeds: int | None  # of the run, where asked for
    obeyed: bool  # whether the number of updates was asked for
    seconds: float
    workdir: Path | None
    quiet: bool
    slower: float = 1.0  # than was counted, as far as is known
    locked: bool = False
    found: dict[str, Any] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.perf_counter)
    lock: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def begin(self, asked: dict[str, Any]) -> None:
        """Take up what is in the folder, which must be of the same search."""
        asked = run_folder.to_jsonable(asked)
        self.found = {"asked": asked, "searched": {}, "left_out": [], "seconds": 0.0}
        path = self.path
        if path is None or not path.is_file():
            if path is not None and (path.parent / "config.json").is_file():
                raise UserError(
                    f"{path.parent} holds a run of another kind: choose another "
                    "folder with --workdir"
                )
            return
        before = run_folder.read_json(path)
        then, now = (run_folder.flatten(each) for each in (before["asked"], asked))
        differ = [
            f"{name} was {then.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted(then.keys() | now.keys())
            if then.get(name) != now.get(name)
        ]
        if differ:
            raise UserError(
                f"{path.parent} holds a search of something else ({'; '.join(differ)}):"
                " go on with the same settings or choose another folder with --workdir"
            )
        self.found = before

    @property
    def path(self) -> Path | None:
        return None if self.workdir is None else self.workdir / FILE

    @property
    def used(self) -> float:
        """Seconds, with those of earlier parts."""
        return self.found["seconds"] + time.perf_counter() - self.started

    @property
    def held(self) -> int:
        """Examples of which validation takes the loss."""
        splits = [self.dataset.validation]
        if self.usual.folds:
            splits.append(self.dataset.train)
        return sum(split.num_examples for split in splits)

    def say(self, text: str, *args: Any) -> None:
        log.log(said_at(self.quiet, logging.INFO), text, *args)

    def save(self) -> None:
        """Write down what was found; the folder is made, and held, from then on."""
        if self.workdir is None or self.path is None:
            return
        if not self.workdir.is_dir() or not self.locked:
            self.lock.enter_context(run_folder.lock_run_dir(self.workdir))
            self.locked = True
        run_folder.write_json(self.path, {**self.found, "seconds": self.used})

    def choose(self) -> choice.Row:
        """Try every candidate that there is time for; the setting to be kept."""
        # those on bins last: where the time is short, they are what is left out
        in_turn = sorted(self.tried, key=lambda each: "bins" in each.name)
        for place, candidate in enumerate(in_turn):
            if candidate.name not in self.found["searched"]:
                self.try_out(candidate, len(self.tried) - place)
        rows = [
            choice.Row(*row)
            for searched in self.found["searched"].values()
            for row in searched["rows"]
        ]
        order = [candidate.name for candidate in self.tried]
        noise = None if self.usual.folds else self.dataset.validation.num_examples
        row, told = choice.choose(rows, order, self.task, noise)
        if len(rows) > 1:
            self.found["told"] = told
            self.say("chosen: %s, %s", row.candidate, in_words(row.hparams))
        return row

    def try_out(self, candidate: Candidate, left: int) -> None:
        """Train the settings of a candidate, as many as there is time for."""
        settings = candidate.settings
        alone = choice.Row(candidate.name, dict(settings[0]), [0.0], [0.0])
        if len(settings) == 1 and len(self.tried) == 1:  # nothing to choose
            self.found["searched"][candidate.name] = {"rows": [alone]}
            return
        update = self.slower * seconds_of_an_update(
            candidate, self.task, self.dataset, self.usual.batch_size
        )
        whole = dataclasses.replace(self.usual, settings=settings)
        allowed = max(0.0, SHARE * self.seconds - self.used) / left
        first = not self.found["searched"]
        effort = self.within(whole, allowed, update)
        planned = effort.seconds(update, self.held)
        if planned > allowed and len(self.tried) == 1 and len(effort.settings) == 1:
            text = "There was no time for a search: the usual setting was taken"
            self.found["left_out"].append(text)
            self.say(text)
            self.found["searched"][candidate.name] = {"rows": [alone]}
            return
        if planned > allowed and not first:
            text = (
                f"{candidate.name} was not tried: it takes {duration(planned)}, more "
                f"than was left of the time"
            )
            self.found["left_out"].append(text)
            self.say(text)
            return
        self.say(
            "%s: %s with %s, %d updates of %d examples, about %s",
            candidate.name,
            count(len(effort.settings), "setting"),
            repeats(effort),
            effort.updates,
            effort.batch_size,
            duration(planned),
        )
        begun = time.perf_counter()
        run = self.fit(candidate.model, effort, FRESH, effort.settings, read_test=False)
        if run.summary["interrupted"]:
            raise KeyboardInterrupt
        trained = run.summary["seconds"]["train"] / effort.members / effort.updates
        self.slower *= float(np.clip(trained / update, 0.25, 4))
        self.found["searched"][candidate.name] = {
            "rows": choice.rows_of(candidate.name, run, self.task),
            "update": trained,
            "updates": effort.updates,
            "repeats": repeats(effort),
            "members": effort.members,
            "planned": planned,
            "seconds": time.perf_counter() - begun,
        }
        self.save()

    def fit(
        self,
        network: Model | StatefulModel,
        effort: Effort,
        seed: int,
        settings: Sequence[Setting],
        **options: Any,
    ) -> Run:
        """Train settings of a network with so many seeds from `seed` on."""
        rounds = effort.num_epochs
        return fit(
            network,
            self.dataset,
            optimizers.adamw,
            hparams=[dict(setting) for setting in settings],
            seeds=range(seed, seed + effort.seeds),
            num_epochs=rounds,
            steps_per_epoch=effort.steps_per_epoch,
            batch_size=effort.batch_size,
            folds=effort.folds,
            patience=max(1, rounds // 2),
            schedule=schedules.cosine,
            loss=self.task.loss,
            quiet=self.quiet or options.get("workdir") is None,
            **options,
        )

    def plan(self, row: choice.Row) -> dict[str, Any]:
        """Seeds and updates of the run, in the time that is left; always the same."""
        if "run" in self.found:
            return self.found["run"]
        candidate = self.candidate(row)
        update = self.found["searched"][row.candidate].get("update")
        if update is None:
            args = self.task, self.dataset, self.usual.batch_size
            update = seconds_of_an_update(candidate, *args)
        seeds = self.seeds or SEEDS
        whole = dataclasses.replace(self.usual, settings=(row.hparams,), seeds=seeds)
        fixed = 1 if self.seeds is None else seeds
        effort = self.within(whole, self.seconds - self.used, update, fixed)
        self.found["run"] = {
            "seeds": effort.seeds,
            "updates": effort.updates,
            "usual": whole.updates,
            "seconds": effort.seconds(update, self.held),
        }
        self.save()
        return self.found["run"]

    def within(
        self, whole: Effort, seconds: float, update: float, least_seeds: int = 1
    ) -> Effort:
        """As much of an effort as there is time for; what was asked for is obeyed."""
        least = whole.updates if self.obeyed else LEAST_UPDATES
        return whole.within(seconds, update, self.held, least_seeds, least)

    def candidate(self, row: choice.Row) -> Candidate:
        return next(each for each in self.tried if each.name == row.candidate)

    def conclude(self, row: choice.Row, plan: dict[str, Any], experiment: str) -> Run:
        """Train the chosen setting with fresh seeds, and tell what is to be told."""
        network, setting = self.candidate(row).settled(row.hparams)
        effort = dataclasses.replace(
            self.usual,
            settings=(setting,),
            seeds=plan["seeds"],
            updates=plan["updates"],
        )
        self.say(
            "the run: %s, %d updates of %d examples, about %s",
            repeats(effort),
            effort.updates,
            effort.batch_size,
            duration(plan["seconds"]),
        )
        run = self.fit(
            network,
            effort,
            0,
            (setting,),
            workdir=self.workdir,
            experiment=experiment,
        )
        if "search" in run.summary or run.summary["interrupted"]:
            return run
        more = self.told(run, row, effort)
        run.summary.update(run_folder.to_jsonable(more))
        if self.workdir is not None:
            run_folder.write_json(self.workdir / "summary.json", run.summary)
            report.write(self.workdir)
        for note in more["notes"]:
            self.say(note)
        return run

    def told(self, run: Run, row: choice.Row, effort: Effort) -> dict[str, Any]:
        """What the summary has more than that of `fit`."""
        factor, unit = own_units(self.dataset)
        test = self.dataset.test
        said = np.asarray(run.predict(test.inputs))[run.finite]
        together = self.task.scores(said, test, factor)
        simple = baselines(self.dataset, self.task, factor)
        of_new = None
        if effort.folds:
            of_new = expected.of_folds(run, self.dataset, self.task, effort, factor)
        notes = self.notes(run)
        searched = self.found["searched"]
        return {
            "search": {
                "chosen": {"candidate": row.candidate, "hparams": row.hparams},
                "judged_by": self.task.judged_by,
                "headline": self.task.headline,
                "rule": choice.RULE,
                "rows": self.found.get("told", []),
                "tried": {
                    name: {k: v for k, v in each.items() if k != "rows"}
                    for name, each in searched.items()
                },
                "left_out": self.found["left_out"],
            },
            "ensemble": together,
            "baselines": simple,
            "expected": of_new,
            "budget": {
                "minutes": self.seconds / 60,
                "used_seconds": self.used,
                "planned_seconds": self.found["run"]["seconds"]
                + sum(each.get("planned", 0.0) for each in searched.values()),
            },
            "notes": notes,
            "finding": expected.finding(
                run, row.candidate, self.task, together, simple, of_new, unit
            ),
        }

    def notes(self, run: Run) -> list[str]:
        """What a user must know, in sentences."""
        notes = [self.task.why + "."] if self.task.why else []
        plan = self.found["run"]
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
        if self.used > 1.5 * self.seconds:
            notes.append(
                f"It took {duration(self.used)}, more than the "
                f"{duration(self.seconds)} that were given: less is not enough for a "
                "few hundred updates."
            )
        return [note[:1].upper() + note[1:] for note in notes]


def repeats(effort: Effort) -> str:
    """How often each setting is trained, in words.

    >>> repeats(Effort((), 2, 8, 1000, 32)), repeats(Effort((), 1, None, 1000, 32))
    ('8 folds x 2 seeds', '1 seed')
    """
    seeds = count(effort.seeds, "seed")
    return f"{effort.folds} folds x {seeds}" if effort.folds else seeds


def in_words(hparams: Mapping[str, float]) -> str:
    """>>> in_words({"learning_rate": 0.01, "dropout": 0.3})
    'learning rate 0.01, dropout 0.3'
    """
    return ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in hparams.items())
