"""The protocol of readers of your own data; each is a module beside this one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlworkshop.data.readers import store
from dlworkshop.errors import UserError

NO_LABEL = -1


class Options(NamedTuple):
    """The options of `data.load`; None where not given."""

    target: str | tuple[str, ...] | None = None
    group_by: str | None = None
    image_size: tuple[int, int] | None = None
    resize: str = "crop"
    task: str | None = None


class Source(NamedTuple):
    """The source of an example, or the error that says why it cannot be read."""

    name: str  # the file, or the file and the row
    content: Path | Mapping[str, str] | np.ndarray | UserError
    label: Any = NO_LABEL  # place in the classes; or numbers, as in `Batch.targets`
    found: bool = False  # in a folder, that may hold other things; else it was named


class Reader(Protocol):
    """One format of data on disk.

    Readers are asked in turn; the first whose form it is does the rest. What it has
    prepared says in `preprocessing["kind"]` how one more example is made.
    """

    KINDS: tuple[str, ...]  # of preprocessing, whose examples it makes
    OPTIONS: tuple[str, ...]  # of `Options`, which it reads; others are refused

    def matches(self, path: Path) -> bool:
        """Whether what is at `path` has this format; opens no file."""

    def files(self, path: Path) -> tuple[Sequence[str | Path], Sequence[str]]:
        """The files that hold the content, and names that are content as well.

        Raises:
            UserError: if something is missing that every data set of this form has.
        """

    def prepare(self, path: Path, folder: Path, options: Options) -> store.Prepared:
        """Write the examples into `folder`, and describe them.

        Raises:
            UserError: if the content is not what it must be.
        """

    def fingerprint(
        self, path: Path, preprocessing: Mapping[str, Any], options: Options
    ) -> str:
        """The content hash that `prepare` would compute, without preparing."""

    def to_example(self, source: Any, preprocessing: Mapping[str, Any]) -> np.ndarray:
        """One file, row or array [...] as model input.

        Raises:
            UserError: if it cannot become such an example.
        """

    def shape(self, preprocessing: Mapping[str, Any]) -> list[int]:
        """The shape of an example that `to_example` makes."""

    def inside(self, file: Path, preprocessing: Mapping[str, Any]) -> Iterator[Source]:
        """The examples in a file for inference; labels are not needed."""

    def labelled(
        self, path: Path, options: Options, label: Callable[[Any], Any]
    ) -> Iterator[Source]:
        """The examples at `path`, each with its label mapped by `label`.

        Of its test split, where it has one.
        """
