"""The settings that a sweep tries: those of a list, or those that Optuna suggests."""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dlworkshop.errors import UserError, one_sentence, repr_of
from dlworkshop.files import open_for_update
from dlworkshop.sweeps.space import Setting, Space
from dlworkshop.train.run_folder import InUseError, lock_run_dir

JOURNAL = "study.journal"  # Optuna's file, in the folder of the sweep
BUCKET = "bucket"  # user attribute of an Optuna trial
RETRY = 0.1  # seconds until a lock is tried again


class Trial(NamedTuple):
    """A setting that is tried with every seed."""

    number: int
    setting: Setting
    bucket: int  # number of the first trial that is trained in the same program


class Study(Protocol):
    """The trials of a sweep; more may be added."""

    def trials(self) -> list[Trial]:
        """The trials so far, ordered by number."""

    def ask(self) -> bool:
        """Add trials; False if the study has enough of them."""

    def tell(self, number: int, cost: float | None) -> None:
        """Report the cost of a trial, lower is better; None if it is not finite."""


class Listed:
    """A study of settings that are known in advance."""

    def __init__(self, settings: Iterable[Setting], static: Iterable[str]):
        self._trials = assigned(enumerate(settings), static)

    def trials(self) -> list[Trial]:
        return self._trials

    def ask(self) -> bool:
        return False

    def tell(self, number: int, cost: float | None) -> None:
        pass


class Asked:
    """A study whose settings an Optuna sampler draws, given the earlier trials.

    The setting of trial n depends on n and on the costs reported so far, but not on
    how often the process was restarted.

    Args:
        space: the space to sample from.
        static: names of the static hyper-parameters.
        sampler: seed -> sampler.
        num_trials: of all processes that share the folder together.
        at_once: how many trials each call of `ask` adds.
        folder: where the study is stored; None keeps it in memory.
    """

    def __init__(
        self,
        space: Space,
        static: Iterable[str],
        sampler: Callable,
        num_trials: int,
        at_once: int,
        folder: Path | None,
    ):
        optuna = imported("optuna", "a sampler")
        self._state = optuna.trial.TrialState
        self._fixed = {n: next(iter(v)) for n, v in space.values.items() if len(v) == 1}
        self._distributions = space.distributions(optuna)
        self._order = space.names
        self._static, self._sampler = list(static), sampler
        self._num_trials, self._at_once, self._folder = num_trials, at_once, folder
        if not self._distributions:
            raise UserError(
                "a sampler is given, but every hyper-parameter has one value: give "
                "several values or a distribution for some of them"
            )
        made = self._sampler_of(0)
        if not isinstance(made, optuna.samplers.BaseSampler):
            raise UserError(
                f"the sampler made {repr_of(made)}: give a constructor of an Optuna "
                "sampler, as optuna.samplers.TPESampler"
            )
        storage = None
        if folder is not None:
            # absolute, because Optuna's lock is a symbolic link to this path
            file = str((folder / JOURNAL).absolute())
            try:
                open_for_update(file).close()  # Optuna would write through a link
            except OSError as error:
                raise UserError(
                    f"{file} cannot be written ({error.strerror}): choose another "
                    "workdir (--workdir)"
                ) from error
            backend = optuna.storages.journal.JournalFileBackend(file)
            with one_sentence(
                f"{file} cannot be read, so restore a copy of it or choose another "
                "workdir (--workdir)"
            ):
                storage = optuna.storages.JournalStorage(backend)
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._study = optuna.create_study(
                study_name="sweep", storage=storage, sampler=made, load_if_exists=True
            )
        finally:
            optuna.logging.set_verbosity(level)

    def trials(self) -> list[Trial]:
        with self._turn():  # no other process is inside `ask`
            return [
                Trial(each.number, self._setting(each.params), each.user_attrs[BUCKET])
                for each in self._study.get_trials(deepcopy=False)
                if BUCKET in each.user_attrs
            ]

    def ask(self) -> bool:
        with self._turn():
            known = 0
            for each in self._study.get_trials(deepcopy=False):
                if BUCKET in each.user_attrs:
                    known += 1
                elif not each.state.is_finished():  # its process was killed in `ask`
                    self._study.tell(each.number, state=self._state.FAIL)
            asked = {}
            for place in range(known, min(known + self._at_once, self._num_trials)):
                self._study.sampler = self._sampler_of(place)
                with one_sentence("the sampler draws no trial"):  # Optuna imports late
                    trial = self._study.ask(self._distributions)
                asked[trial.number] = trial
            settings = [(n, self._setting(each.params)) for n, each in asked.items()]
            for trial in assigned(settings, self._static):
                asked[trial.number].set_user_attr(BUCKET, trial.bucket)
        return bool(asked)

    def tell(self, number: int, cost: float | None) -> None:
        how = {"state": self._state.FAIL} if cost is None else {"values": cost}
        self._study.tell(number, **how, skip_if_finished=True)

    def _setting(self, params: Mapping[str, Any]) -> Setting:
        drawn = {**self._fixed, **params}
        return {name: drawn[name] for name in self._order}

    def _sampler_of(self, seed: int) -> Any:
        with one_sentence("the sampler cannot be made with a seed"):
            return self._sampler(seed=seed)

    def _turn(self) -> contextlib.AbstractContextManager:
        if self._folder is None:
            return contextlib.nullcontext()
        return turn(self._folder / "asking")


def assigned(
    settings: Iterable[tuple[int, Setting]], static: Iterable[str]
) -> list[Trial]:
    """Trials of numbered settings; those with equal static values share a bucket.

    >>> settings = [{"width": 8, "rate": 1}, {"width": 9, "rate": 1},
    ...             {"width": 8, "rate": 2}]
    >>> [trial.bucket for trial in assigned(enumerate(settings), ["width"])]
    [0, 1, 0]
    """
    first: dict[str, int] = {}
    static = sorted(static)
    return [
        Trial(n, own, first.setdefault(repr([own[name] for name in static]), n))
        for n, own in settings
    ]


def imported(package: str, what: str) -> Any:
    """Import a package that is the extra of the same name.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{what} needs {package}, which is not installed: "
            f"pip install 'dlworkshop[{package}]'"
        ) from error


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Lock a folder; yields False if another process has locked it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_run_dir(folder))
        except InUseError:
            yield False
            return
        yield True


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Lock a folder, waiting while another process has locked it."""
    while True:
        with claimed(folder) as mine:
            if mine:
                yield
                return
        time.sleep(RETRY)
