"""A search within a time budget: candidates trained, and results recorded."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop import run_files
from dlworkshop.errors import UserError
from dlworkshop.learn import schedules
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.report.words import count, duration
from dlworkshop.search import choice, survival
from dlworkshop.search.candidates import Candidate, Setting
from dlworkshop.search.effort import (
    FOLDS,
    LEAST_UPDATES,
    Cost,
    Effort,
    cost_of,
    costs_of,
    cuts_folds,
    flops_of,
    usual,
)
from dlworkshop.search.task import Task
from dlworkshop.train import run_folder
from dlworkshop.train.fit import fit
from dlworkshop.train.progress import log_level
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset

log = logging.getLogger(__name__)

FILE = "search.json"  # in the run folder: what was found so far
SEEDS, SEARCH_SEEDS = 4, 2
FRESH = 1000  # seeds of the search begin here, those of the run at 0
SHARE = 0.6  # of the time, at most, that the search takes
SHARE_OF_IMAGES = 0.4  # what is learnt of them in a short time tells less
REPORT = 12.0  # seconds that the answers and the report of a run take, about
COVERED = 600  # images with a part covered, of which each member is asked
UNKNOWN = Effort((), SEARCH_SEEDS, None, 1, 1)
SHORT = 0.15  # of the time, for more rates than one where that is all that is tried
FEW = 6  # settings of images: below, they are not what can be told by trying


@dataclasses.dataclass
class Search:
    """The state of one search; what is found is written to `FILE` in the folder."""

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
    costs: dict[str, Cost] = dataclasses.field(default_factory=dict)  # of candidates
    sizes: list[Candidate] = dataclasses.field(default_factory=list)  # of the last one
    locked: bool = False
    found: dict[str, Any] = dataclasses.field(default_factory=dict)
    started: float = dataclasses.field(default_factory=time.perf_counter)
    lock: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def begin(self, asked: dict[str, Any]) -> None:
        """Continue what the folder holds, which must be the same search."""
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
        """Decide on folds and on the size of the network, by the time available.

        Folds of few examples take several times as long; there must be time for them.
        Of networks for images the largest is taken that there is time to train, after
        a short search if possible.
        """
        *others, last = self.tried  # the one that takes longest
        sizes, costs = [last, *last.smaller], list[Cost]()
        self.sizes = sizes
        if folds is None:
            folds = self.found.get("folds")
        turns = [FOLDS, 0] if cuts_folds(self.dataset) else [0]
        turns = turns if folds is None else [folds]
        place = self.found.get("size")
        for each, searched in [(n, True) for n in turns] + [(turns[-1], False)]:
            self.usual = self.effort(each, batch_size, updates)
            if place is not None or not (last.smaller or (each and len(turns) > 1)):
                break  # there is nothing to be decided
            fits = functools.partial(self.is_enough, searched)
            args = self.task, self.dataset, self.usual.batch_size
            costs = costs or costs_of(sizes, *args, fits)
            place = next((i for i, cost in enumerate(costs) if fits(cost)), None)
            if place is not None:
                break
            if each and len(turns) > 1:
                self.leave_out(
                    f"There are few examples, but there is no time for {FOLDS} folds: "
                    "one validation split was taken instead"
                )
        else:
            place = len(sizes) - 1
        if costs and place is not None:
            self.costs[last.name] = costs[place]
            if place:
                self.leave_out(_of_size(sizes[place]))
        self.tried = [*others, sizes[place or 0]]
        self.found |= {"folds": self.usual.folds or 0, "size": place}

    def enlarge(self) -> None:
        """Take a larger network for images, if updates were faster than estimated.

        What the search measured is more certain than what was measured before it.
        """
        place = self.found["size"]
        name = self.tried[-1].name
        known = self.found["searched"].get(name, {}).get("cost")
        if not place or known is None:
            return
        flops = flops_of(self.sizes, self.dataset)
        for larger in range(place):
            cost = Cost(known[0] * flops[larger] / flops[place], known[1])
            if self.sizes[larger].name == name and self.is_enough(False, cost):
                break
        else:
            return
        before = _of_size(self.sizes[place])
        self.found["left_out"] = [t for t in self.found["left_out"] if t != before]
        if larger:
            self.leave_out(_of_size(self.sizes[larger]))
        self.found["searched"][name]["cost"] = [*cost]
        self.found["size"] = larger
        self.tried = [*self.tried[:-1], self.sizes[larger]]

    def effort(self, folds: int, batch_size: int | None, updates: int | None) -> Effort:
        """The usual effort, without settings."""
        several, batch = usual(self.dataset, folds, batch_size, updates)
        splits = [self.dataset.validation, *([self.dataset.train] if folds else [])]
        held = sum(split.num_examples for split in splits)
        return Effort((), SEARCH_SEEDS, folds or None, several, batch, held)

    def is_enough(self, searched: bool, cost: Cost) -> bool:
        """Whether the time suffices to train a network well enough."""
        least = self.usual.updates
        if not self.obeyed:
            least = max(LEAST_UPDATES, least // (2 if self.pictures else 3))
        run = dataclasses.replace(
            self.usual, settings=({},), seeds=1, updates=least, answered=self.answered
        )
        if not self.pictures:
            return run.seconds(cost) <= (1 - self.share) * self.seconds
        spent = self.used
        if searched:
            short = dataclasses.replace(run, updates=min(least, LEAST_UPDATES))
            spent += short.seconds(cost)
            if spent > self.share * self.seconds:
                return False
        return spent + run.seconds(cost) + self.report <= self.seconds

    @property
    def pictures(self) -> bool:
        """Whether examples are images."""
        return len(getattr(self.dataset.train.inputs, "shape", ())) == 4

    @property
    def share(self) -> float:
        """The largest fraction of the time that the search may take."""
        return SHARE_OF_IMAGES if self.pictures else SHARE

    @property
    def report(self) -> float:
        """Seconds for answers and report, besides the members' predictions."""
        return min(REPORT, self.seconds / 4) if self.workdir is not None else 0.0

    @property
    def answered(self) -> int:
        """Examples that each member predicts after training."""
        both = self.dataset.test.num_examples + self.usual.held
        if self.workdir is None:
            return both
        return 3 * both + (COVERED if self.pictures else 0)

    @property
    def path(self) -> Path | None:
        return None if self.workdir is None else self.workdir / FILE

    @property
    def used(self) -> float:
        """Seconds used, including earlier sessions of the same search."""
        return self.found["seconds"] + time.perf_counter() - self.started

    def say(self, text: str, *args: Any) -> None:
        log.log(log_level(self.quiet, logging.INFO), text, *args)

    def leave_out(self, text: str) -> None:
        """Record and log what there was no time for."""
        self.found["left_out"].append(text)
        self.say(text)

    def save(self) -> None:
        """Write what was found; from then on the folder exists and is locked."""
        if self.workdir is None or self.path is None:
            return
        if not self.workdir.is_dir() or not self.locked:
            self.lock.enter_context(run_folder.lock_run_dir(self.workdir))
            self.locked = True
        run_folder.write_json(self.path, {**self.found, "seconds": self.used})

    def choose(self) -> choice.Row:
        """Try every candidate that there is time for, and choose a setting."""
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
        """Train as many settings of a candidate as there is time for."""
        settings = candidate.settings
        alone = choice.Row(candidate.name, dict(settings[0]), [0.0], [0.0])
        if len(settings) == 1 and len(self.tried) == 1:  # nothing to choose
            self.found["searched"][candidate.name] = {"rows": [alone]}
            return
        cost = self.cost(candidate)
        whole = dataclasses.replace(self.usual, settings=settings)
        allowed = max(0.0, self.share * self.seconds - self.used) / left
        first = not self.found["searched"]
        effort = self.within(whole, allowed, cost)
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
            few = min(allowed, SHORT * self.seconds)
            effort = self.within(whole, few, cost)
        planned = effort.seconds(cost)
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
            candidate.optimizer,
            effort,
            FRESH,
            effort.settings,
            read_test=False,
            experiment=candidate.name,
        )
        if run.summary["interrupted"]:
            raise KeyboardInterrupt
        trained = run.summary["seconds"]["train"] / effort.members / effort.updates
        self.slower *= float(np.clip(trained / cost.update, 0.25, 4))
        compiling = run.summary["seconds"]["total"] - run.summary["seconds"]["train"]
        self.costs[candidate.name] = Cost(trained, compiling)
        taken: dict[str, float] = {}
        if short:
            taken, said = survival.moves(run, self.dataset, self.task, sorted(moves))
            self.leave_out(said)
        self.found["searched"][candidate.name] = {
            "taken": taken,
            "rows": choice.rows_of(candidate.name, run, self.task),
            "cost": [trained, compiling],
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
        optimizer: Callable,
        effort: Effort,
        seed: int,
        settings: Sequence[Setting],
        **options: Any,
    ) -> Run:
        """Train settings of a network with consecutive seeds from `seed` on."""
        rounds = effort.num_epochs
        return fit(
            network,
            self.dataset,
            optimizer,
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
        """Seeds and updates of the final run in the remaining time; decided once."""
        if "run" in self.found:
            return self.found["run"]
        self.enlarge()
        known = self.found["searched"][row.candidate].get("cost")
        cost = Cost(*known) if known else self.cost(self.candidate(row))
        whole = dataclasses.replace(
            self.usual, settings=(row.hparams,), answered=self.answered
        )
        left, seeds = self.seconds - self.used - self.report, self.seeds
        if seeds is None:  # rather a few that are trained to the end than many
            fits = (
                n
                for n in range(SEEDS, 1, -1)
                if dataclasses.replace(whole, seeds=n).seconds(cost) < left
            )
            seeds = next(fits, 1)
        whole = dataclasses.replace(whole, seeds=seeds)
        effort = self.within(whole, left, cost, seeds)
        self.found["run"] = {
            "seeds": effort.seeds,
            "updates": effort.updates,
            "usual": whole.updates,
            "seconds": effort.seconds(cost),
        }
        self.save()
        return self.found["run"]

    def within(
        self, whole: Effort, seconds: float, cost: Cost, least_seeds: int = 1
    ) -> Effort:
        """As much of an effort as there is time for; what was asked for is kept."""
        least = whole.updates if self.obeyed else LEAST_UPDATES
        return whole.within(seconds, cost, least_seeds, least)

    def cost(self, candidate: Candidate) -> Cost:
        """The best known cost of an update."""
        if candidate.name not in self.costs:
            args = self.task, self.dataset, self.usual.batch_size
            self.costs[candidate.name] = cost_of(candidate, *args)
        cost = self.costs[candidate.name]
        return cost._replace(update=self.slower * cost.update)

    def candidate(self, row: choice.Row) -> Candidate:
        return next(each for each in self.tried if each.name == row.candidate)


def repeats(effort: Effort) -> str:
    """How often each setting is trained, in words.

    >>> repeats(Effort((), 2, 8, 1000, 32)), repeats(Effort((), 1, None, 1000, 32))
    ('8 folds x 2 seeds', '1 seed')
    """
    seeds = count(effort.seeds, "seed")
    return f"{effort.folds} folds x {seeds}" if effort.folds else seeds


def _of_size(candidate: Candidate) -> str:
    """Describe a network that the time budget decided on."""
    config = candidate.model.config
    said = f"The time decides on a {candidate.name} of {config['features'][0]} channels"
    if "coarser" in config:
        side = config["coarser"]["factor"]
        said += f" that sees the means of squares of {side}x{side} pixels"
    return f"{said}; more minutes give a larger one"


def in_words(hparams: Mapping[str, float]) -> str:
    """>>> in_words({"learning_rate": 0.01, "dropout": 0.3})
    'learning rate 0.01, dropout 0.3'
    """
    return ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in hparams.items())
