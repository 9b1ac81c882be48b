"""What every reader of one's own data can do; each is a module beside this one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlworkshop.data.readers import store
from dlworkshop.errors import UserError

NO_LABEL = -1


class Options(NamedTuple):
    """What `data.load` was asked for; see there. None: nothing."""

    target: str | tuple[str, ...] | None = None
    group_by: str | None = None
    image_size: tuple[int, int] | None = None
    resize: str = "crop"
    task: str | None = None


class Source(NamedTuple):
    """What an example is to be made of, or the mistake that says why it cannot be."""

    name: str  # the file, or the file and the row
    content: Path | Mapping[str, str] | np.ndarray | UserError
    label: Any = NO_LABEL  # place in the classes; or numbers, as in `Batch.targets`
    found: bool = False  # in a folder, that may hold other things; else it was named


class Reader(Protocol):
    """Data of one form on disk, from recognising them to examples of them.

    Readers are asked in turn; the first whose form it is does the rest. What it has
    prepared says in `preprocessing["kind"]` how one more example is made.
    """

    KINDS: tuple[str, ...]  # of preprocessing, whose examples it makes
    OPTIONS: tuple[str, ...]  # of `Options`, which it reads; others are refused

    def matches(self, path: Path) -> bool:
        """Whether what is at `path` has this form; opens no file."""

    def files(self, path: Path) -> tuple[Sequence[str | Path], Sequence[str]]:
        """The files that the content is in, and names that are content as well.

        Raises:
            UserError: if something is missing that every data set of this form has.
        """

    def prepare(self, path: Path, folder: Path, options: Options) -> store.Prepared:
        """Write the examples into `folder`, and say what they are.

        Raises:
            UserError: if the content is not what it must be.
        """

    def fingerprint(
        self, path: Path, preprocessing: Mapping[str, Any], options: Options
    ) -> str:
        """Of the content, as `prepare` would say; nothing is prepared."""

    def to_example(self, source: Any, preprocessing: Mapping[str, Any]) -> np.ndarray:
        """One file, row or array [...] as the model takes it.

        Raises:
            UserError: if it cannot become such an example.
        """

    def shape(self, preprocessing: Mapping[str, Any]) -> list[int]:
        """Of an example that `to_example` makes."""

    def inside(self, file: Path, preprocessing: Mapping[str, Any]) -> Iterator[Source]:
        """What is in a file that no run has seen; labels are not needed."""

    def labelled(
        self, path: Path, options: Options, label: Callable[[Any], Any]
    ) -> Iterator[Source]:
        """The examples at `path`, each with `label` of what it says there.

        Of its test split, where it has one.
        """
