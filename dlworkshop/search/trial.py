"""A search within a time budget: candidates are trained, and one setting is chosen."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from dlworkshop.learn import schedules
from dlworkshop.models.model import Model, StatefulModel
from dlworkshop.report.words import count, duration, humanize
from dlworkshop.search import choice, survival
from dlworkshop.search.budget import Budget
from dlworkshop.search.candidates import Candidate, Setting
from dlworkshop.search.effort import (
    FOLDS,
    LEAST_UPDATES,
    Cost,
    Effort,
    costs_of,
    cuts_folds,
    estimates,
    views_of,
)
from dlworkshop.search.state import SearchState
from dlworkshop.search.task import Task
from dlworkshop.train.fit import fit
from dlworkshop.train.result import Run
from dlworkshop.types import Dataset

SEEDS = 4  # of the final run
FRESH = 1000  # first seed of the search; those of the final run begin at 0
SHORT = 0.15  # of the time, for more rates than one where that is all that is tried
FEW = 6  # settings of images, below which short trainings cannot tell them apart


@dataclasses.dataclass
class Search:
    """A search among candidates.

    Of the last candidate there may be several sizes, of which `size_up` keeps the
    largest that there is time for.
    """

    dataset: Dataset
    task: Task
    tried: list[Candidate]
    seeds: int | None  # of the final run; None lets the time decide
    state: SearchState
    budget: Budget
    sizes: list[Candidate] = dataclasses.field(default_factory=list)

    def size_up(
        self, folds: int | None, batch_size: int | None, updates: int | None
    ) -> None:
        """Decide on folds and on the size of the network, by the time available.

        Folds of few examples take several times as long, so they are used only if there
        is time for them. The network for images is the largest that can be trained in
        the time, after a short search if possible.
        """
        *others, last = self.tried  # the one that takes longest
        sizes, costs = [last, *last.smaller], list[Cost]()
        self.sizes, found = sizes, self.state.found
        if folds is None:
            folds = found.get("folds")
        turns = [FOLDS, 0] if cuts_folds(self.dataset) else [0]
        turns = turns if folds is None else [folds]
        place = found.get("size")
        for each, searched in [(n, True) for n in turns] + [(turns[-1], False)]:
            self.budget.set_usual(each, batch_size, updates)
            if place is not None or not (last.smaller or (each and len(turns) > 1)):
                break  # there is nothing to decide
            fits = functools.partial(self.budget.is_enough, searched)
            args = self.task, self.dataset, self.budget.usual.batch_size
            costs = costs or costs_of(sizes, *args, fits)
            place = next((i for i, cost in enumerate(costs) if fits(cost)), None)
            if place is not None:
                break
            if each and len(turns) > 1:
                self.state.leave_out(
                    f"There are few examples, but there is no time for {FOLDS} folds: "
                    "one validation split was used instead"
                )
        else:
            place = len(sizes) - 1
        if costs and place is not None:
            self.budget.costs[last.name] = costs[place]
            if place:
                self.state.leave_out(_of_size(sizes[place]))
        self.tried = [*others, sizes[place or 0]]
        found |= {"folds": self.budget.usual.folds or 0, "size": place}

    def enlarge(self) -> None:
        """Take a larger network for images, if updates were faster than estimated.

        The cost measured by the search is more accurate than the estimate before it.
        """
        found = self.state.found
        place, name = found["size"], self.tried[-1].name
        known = found["searched"].get(name, {}).get("cost")
        if not place or known is None:
            return
        seconds = estimates(self.sizes, self.dataset)
        for larger in range(place):
            cost = Cost(known[0] * seconds[larger] / seconds[place], known[1])
            if self.sizes[larger].name == name and self.budget.is_enough(False, cost):
                break
        else:
            return
        before = _of_size(self.sizes[place])
        found["left_out"] = [text for text in found["left_out"] if text != before]
        if larger:
            self.state.leave_out(_of_size(self.sizes[larger]))
        found["searched"][name]["cost"] = [*cost]
        found["size"] = larger
        self.tried = [*self.tried[:-1], self.sizes[larger]]

    def choose(self) -> choice.Row:
        """Try every candidate that there is time for, and choose a setting."""
        searched = self.state.found["searched"]
        # those on bins last: they are left out first where the time is short
        in_turn = sorted(self.tried, key=lambda each: "bins" in each.name)
        for place, candidate in enumerate(in_turn):
            if candidate.name not in searched:
                self.try_out(candidate, len(self.tried) - place)
        rows = [choice.Row(*row) for each in searched.values() for row in each["rows"]]
        order = [candidate.name for candidate in self.tried]
        one_split = not self.budget.usual.folds
        noise = self.dataset.validation.num_examples if one_split else None
        row, told = choice.choose(rows, order, self.task, noise)
        if len(rows) > 1:
            self.state.found["told"] = told
            words = (f"{humanize(k)} {v:g}" for k, v in row.hparams.items())
            self.state.log("chosen: %s, %s", row.candidate, ", ".join(words))
        taken = searched[row.candidate].get("taken") or {}
        return row._replace(hparams={**row.hparams, **taken})

    def try_out(self, candidate: Candidate, left: int) -> None:
        """Train as many settings of a candidate as there is time for.

        Args:
            candidate: to be tried.
            left: the number of candidates that are not tried yet, this one included.
        """
        budget, searched = self.budget, self.state.found["searched"]
        settings = candidate.settings
        alone = choice.Row(candidate.name, dict(settings[0]), [0.0], [0.0])
        if len(settings) == 1 and len(self.tried) == 1:  # nothing to choose
            searched[candidate.name] = {"rows": [alone]}
            return
        cost = budget.cost(candidate)
        allowed = budget.left_for_search / left
        whole = dataclasses.replace(budget.usual, settings=settings)
        effort = budget.within(whole, allowed, cost)
        moves = {(each["flip"], each["shift"]) for each in settings if "flip" in each}
        short = len(moves) > 1 and len(effort.settings) < FEW
        if short:  # too short to see whether augmentation pays
            few = min(allowed, SHORT * budget.seconds)
            effort = budget.within(_of_rates(whole), few, cost)
            if len(effort.settings) == 1 and not budget.obeyed:  # no rates to compare
                fewer = min(effort.updates, survival.UPDATES)
                effort = dataclasses.replace(effort, updates=fewer)
        planned = effort.seconds(cost)
        if planned > allowed and len(self.tried) == 1 and len(effort.settings) == 1:
            self.state.leave_out(
                "There was no time for a search: the usual setting was used"
            )
            searched[candidate.name] = {"rows": [alone]}
            return
        if planned > allowed and searched:
            self.state.leave_out(
                f"{candidate.name} was not tried: it takes {duration(planned)}, more "
                "than was left of the time"
            )
            return
        self.state.log(
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
        seconds = run.summary["seconds"]
        update = seconds["train"] / effort.members / effort.updates
        measured = Cost(update, seconds["total"] - seconds["train"])
        budget.learn(candidate, cost, measured)
        taken: dict[str, float] = {}
        if short:
            taken, said = survival.moves(run, self.dataset, self.task, sorted(moves))
            self.state.leave_out(said)
        searched[candidate.name] = {
            "taken": taken,
            "rows": choice.rows_of(candidate.name, run, self.task),
            "cost": [*measured],
            "updates": effort.updates,
            "repeats": repeats(effort),
            "members": effort.members,
            "planned": planned,
            "seconds": time.perf_counter() - begun,
        }
        self.state.save()

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
            quiet=self.state.quiet,
            **options,
        )

    def plan(self, row: choice.Row) -> dict[str, Any]:
        """Decide, once, on seeds and updates of the final run in the remaining time."""
        found, budget = self.state.found, self.budget
        if "run" in found:
            return found["run"]
        self.enlarge()
        known = found["searched"][row.candidate].get("cost")
        cost = Cost(*known) if known else budget.cost(self.candidate(row))
        whole = dataclasses.replace(
            budget.usual,
            settings=(row.hparams,),
            answered=budget.answered,
            views=views_of(self.candidate(row).resolved(row.hparams)[0]),
        )
        left, seeds = budget.left_for_run, self.seeds
        if seeds is None:  # rather a few that are trained to the end than many
            fits = (
                n
                for n in range(SEEDS, 1, -1)
                if dataclasses.replace(whole, seeds=n).seconds(cost) < left
            )
            seeds = next(fits, 1)
        whole = dataclasses.replace(whole, seeds=seeds)
        effort = budget.within(whole, left, cost, seeds)
        found["run"] = {
            "seeds": effort.seeds,
            "updates": effort.updates,
            "usual": whole.updates,
            "seconds": effort.seconds(cost),
        }
        self.state.save()
        return found["run"]

    def candidate(self, row: choice.Row) -> Candidate:
        """The candidate of a row."""
        return next(each for each in self.tried if each.name == row.candidate)


def _of_rates(whole: Effort) -> Effort:
    """The learning rates of an effort, once each, with the least augmentation."""
    least = min((each["flip"], each["shift"]) for each in whole.settings)
    still = [each for each in whole.settings if (each["flip"], each["shift"]) == least]
    # the first of each
    rates = {each["learning_rate"]: each for each in reversed(still)}
    return dataclasses.replace(
        whole,
        settings=tuple(each for each in still if each in rates.values()),
        seeds=1,
        updates=min(whole.updates, LEAST_UPDATES),
    )


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
