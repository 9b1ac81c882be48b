"""A search: candidates trained within a time, and what was found written down."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop import run_files
from dlworkshop.errors import UserError
from dlworkshop.learn import optimizers, schedules
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.report.words import count, duration
from dlworkshop.search import choice, survival
from dlworkshop.search.candidates import Candidate, Setting
from dlworkshop.search.effort import (
    FOLDS,
    LEAST_UPDATES,
    Effort,
    cuts_folds,
    seconds_of_an_update,
    usual,
)
from dlworkshop.search.task import Task
from dlworkshop.train import run_folder
from dlworkshop.train.fit import fit
from dlworkshop.train.progress import said_at
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset

log = logging.getLogger(__name__)

FILE = "search.json"  # in the run folder: what was found so far
SEEDS, SEARCH_SEEDS = 4, 2
FRESH = 1000  # seeds of the search begin here, those of the run at 0
SHARE = 0.6  # of the time, at most, that the search takes
UNKNOWN = Effort((), SEARCH_SEEDS, None, 1, 1)
FEW = 6  # settings of images: below, they are not what can be told by trying


@dataclasses.dataclass
class Search:
    """One search, and how far it is: what is found goes to `FILE`, if there is one."""

    dataset: Dataset
    task: Task
    tried: list[Candidate]
    seeds: int | None  # of the run, where asked for
    obeyed: bool  # whether the number of updates was asked for
    seconds: float
    workdir: Path | None
    quiet: bool
    usual: Effort = UNKNOWN  # of a candidate, without settings; `size_up` says
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
                    "workdir (--workdir)"
                )
            return
        before = run_files.read(path.parent, FILE)
        then, now = (run_folder.flatten(each) for each in (before["asked"], asked))
        differ = [
            f"{name} was {then.get(name)!r} and is now {now.get(name)!r}"
            for name in sorted(then.keys() | now.keys())
            if then.get(name) != now.get(name)
        ]
        if differ:
            raise UserError(
                f"{path.parent} holds a search of something else ({'; '.join(differ)}):"
                " go on with the same settings or choose another workdir (--workdir)"
            )
        self.found = before

    def size_up(
        self, folds: int | None, batch_size: int | None, updates: int | None
    ) -> None:
        """How a candidate is trained: in folds, where that is asked for or pays.

        Folds of few examples take several times as long; there must be time for them.
        """
        if folds is None:
            folds = self.found.get("folds")
        if folds is None:
            folds = FOLDS if cuts_folds(self.dataset) else 0
            several, batch = usual(self.dataset, folds, batch_size, updates)
            args = self.tried[-1], self.task, self.dataset, batch
            if folds:
                whole = Effort((), 1, folds, max(LEAST_UPDATES, several // 3), batch)
                one = dataclasses.replace(whole, settings=({},))
                needed = one.seconds(seconds_of_an_update(*args), self.held_of(folds))
                if needed > (1 - SHARE) * self.seconds:
                    folds = 0
                    self.leave_out(
                        f"There are few examples, but {FOLDS} folds would take "
                        f"{duration(needed)}: one validation split was taken instead"
                    )
        self.found["folds"] = folds
        several, batch = usual(self.dataset, folds, batch_size, updates)
        self.usual = Effort((), SEARCH_SEEDS, folds or None, several, batch)

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
        return self.held_of(self.usual.folds)

    def held_of(self, folds: int | None) -> int:
        """Examples of which validation takes the loss, in folds or not."""
        splits = [self.dataset.validation, *([self.dataset.train] if folds else [])]
        return sum(split.num_examples for split in splits)

    def say(self, text: str, *args: Any) -> None:
        log.log(said_at(self.quiet, logging.INFO), text, *args)

    def leave_out(self, text: str) -> None:
        """Say what there was no time for."""
        self.found["left_out"].append(text)
        self.say(text)

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
        taken = self.found["searched"][row.candidate].get("taken") or {}
        return row._replace(hparams={**row.hparams, **taken})

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
        moves = {(each["flip"], each["shift"]) for each in settings if "flip" in each}
        short = len(moves) > 1 and len(effort.settings) < FEW
        if short:  # too short to see whether augmentation pays
            still = tuple(each for each in settings if not each["flip"] + each["shift"])
            rates = {each["learning_rate"]: each for each in reversed(still)}
            whole = dataclasses.replace(
                whole,
                settings=tuple(each for each in still if each in rates.values()),
                seeds=1,
                updates=min(whole.updates, LEAST_UPDATES),
            )
            effort = self.within(whole, allowed, update)
        planned = effort.seconds(update, self.held)
        if planned > allowed and len(self.tried) == 1 and len(effort.settings) == 1:
            self.leave_out(
                "There was no time for a search: the usual setting was taken"
            )
            self.found["searched"][candidate.name] = {"rows": [alone]}
            return
        if planned > allowed and not first:
            self.leave_out(
                f"{candidate.name} was not tried: it takes {duration(planned)}, more "
                "than was left of the time"
            )
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
        run = self.fit(
            candidate.model,
            effort,
            FRESH,
            effort.settings,
            read_test=False,
            experiment=candidate.name,
        )
        if run.summary["interrupted"]:
            raise KeyboardInterrupt
        trained = run.summary["seconds"]["train"] / effort.members / effort.updates
        self.slower *= float(np.clip(trained / update, 0.25, 4))
        taken: dict[str, float] = {}
        if short:
            taken, said = survival.moves(run, self.dataset, self.task, sorted(moves))
            self.leave_out(said)
        self.found["searched"][candidate.name] = {
            "taken": taken,
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
            quiet=self.quiet,
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
        whole = dataclasses.replace(self.usual, settings=(row.hparams,))
        left, seeds = self.seconds - self.used, self.seeds
        if seeds is None:  # rather a few that are trained to the end than many
            fits = (
                n
                for n in range(SEEDS, 1, -1)
                if dataclasses.replace(whole, seeds=n).seconds(update, self.held) < left
            )
            seeds = next(fits, 1)
        whole = dataclasses.replace(whole, seeds=seeds)
        effort = self.within(whole, left, update, seeds)
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
