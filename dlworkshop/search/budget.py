"""The time budget of a search, and what training costs of it."""

import dataclasses

import numpy as np

from dlworkshop.search import survival
from dlworkshop.search.candidates import Candidate
from dlworkshop.search.effort import LEAST_UPDATES, Cost, Effort, cost_of, usual
from dlworkshop.search.state import SearchState
from dlworkshop.search.task import Task
from dlworkshop.types import Dataset

SEARCH_SEEDS = 2
SHARE = 0.6  # largest fraction of the time for the search
SHARE_OF_IMAGES = 0.4  # less, as short trainings say less about images
REPORT = 12.0  # approximate seconds for the answers and the report of a run
COVERED = 600  # predictions of partly covered images by each member
UNKNOWN = Effort((), SEARCH_SEEDS, None, 1, 1)


@dataclasses.dataclass
class Budget:
    """The time of a search, in seconds, and the costs of its candidates."""

    dataset: Dataset
    task: Task
    state: SearchState
    seconds: float
    obeyed: bool  # whether the user gave the number of updates
    usual: Effort = UNKNOWN  # of a candidate, without settings
    slower: float = 1.0  # measured cost of an update over its estimate
    costs: dict[str, Cost] = dataclasses.field(default_factory=dict)  # of candidates

    def set_usual(
        self, folds: int, batch_size: int | None, updates: int | None
    ) -> None:
        """Set the usual effort of a candidate."""
        several, batch = usual(self.dataset, folds, batch_size, updates)
        train, validation = self.dataset.train, self.dataset.validation
        held = validation.num_examples + (train.num_examples if folds else 0)
        self.usual = Effort((), SEARCH_SEEDS, folds or None, several, batch, held)

    @property
    def pictures(self) -> bool:
        """Whether examples are images."""
        return len(getattr(self.dataset.train.inputs, "shape", ())) == 4

    @property
    def share(self) -> float:
        """The largest fraction of the time that the search may take."""
        return SHARE_OF_IMAGES if self.pictures else SHARE

    @property
    def left_for_search(self) -> float:
        """Seconds that the search may still take."""
        return max(0.0, self.share * self.seconds - self.state.used)

    @property
    def left_for_run(self) -> float:
        """Seconds that the final run may still take."""
        return self.seconds - self.state.used - self.report

    @property
    def report(self) -> float:
        """Seconds for answers and report, besides the members' predictions."""
        saved = self.state.workdir is not None
        return min(REPORT, self.seconds / 4) if saved else 0.0

    @property
    def answered(self) -> int:
        """The number of examples that each member predicts after training."""
        both = self.dataset.test.num_examples + self.usual.held
        if self.state.workdir is None:
            return both
        return 3 * both + (COVERED if self.pictures else 0)

    def is_enough(self, searched: bool, cost: Cost) -> bool:
        """Whether the time suffices to train a network well enough.

        Args:
            searched: whether a short search comes first.
            cost: of the network.
        """
        least = self.usual.updates
        if not self.obeyed:
            least = max(LEAST_UPDATES, least // 3)
        run = dataclasses.replace(
            self.usual, settings=({},), seeds=1, updates=least, answered=self.answered
        )
        if not self.pictures:
            return run.seconds(cost) <= (1 - self.share) * self.seconds
        spent = self.state.used
        if searched:
            short = dataclasses.replace(run, updates=min(least, survival.UPDATES))
            spent += short.seconds(cost)
            if spent > self.share * self.seconds:
                return False
        return spent + run.seconds(cost) + self.report <= self.seconds

    def within(
        self, whole: Effort, seconds: float, cost: Cost, least_seeds: int = 1
    ) -> Effort:
        """As much of an effort as fits into some seconds.

        What the user asked for is kept, even where it takes longer.
        """
        least = whole.updates if self.obeyed else LEAST_UPDATES
        return whole.within(seconds, cost, least_seeds, least)

    def cost(self, candidate: Candidate) -> Cost:
        """The best known cost of an update."""
        if candidate.name not in self.costs:
            args = self.task, self.dataset, self.usual.batch_size
            self.costs[candidate.name] = cost_of(candidate, *args)
        cost = self.costs[candidate.name]
        return cost._replace(update=self.slower * cost.update)

    def learn(self, candidate: Candidate, estimated: Cost, measured: Cost) -> None:
        """Replace the cost of a candidate, and correct the estimates of the others."""
        self.slower *= float(np.clip(measured.update / estimated.update, 0.25, 4))
        self.costs[candidate.name] = measured
