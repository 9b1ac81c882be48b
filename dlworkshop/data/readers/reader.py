"""The protocol of the readers of your own data; each reader is a module."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from dlworkshop.data.readers import store
from dlworkshop.errors import UserError

NO_LABEL = -1


class Options(NamedTuple):
    """The options of `data.load`; None if not given."""

    target: str | tuple[str, ...] | None = None
    group_by: str | None = None
    image_size: tuple[int, int] | None = None
    resize: str = "crop"
    task: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The names in `target`."""
        if isinstance(self.target, str):
            return (self.target,)
        return self.target or ()


class Source(NamedTuple):
    """The source of an example, or the error with which reading it failed."""

    name: str  # the file, or the file and the row
    content: Path | Mapping[str, str] | np.ndarray | UserError
    label: Any = NO_LABEL  # index in the classes; or numbers, as in `Batch.targets`
    found: bool = False  # in a given folder, which may hold other files too


class Reader(Protocol):
    """One format of data on disk.

    The first reader that matches prepares the data. `preprocessing["kind"]` then names
    the kind of conversion for further examples.
    """

    KINDS: tuple[str, ...]  # of preprocessing that this reader can apply
    OPTIONS: tuple[str, ...]  # of `Options` that it supports; others are rejected

    def matches(self, path: Path) -> bool:
        """Whether `path` has this format; opens no file."""

    def files(self, path: Path) -> tuple[Sequence[str | Path], Sequence[str]]:
        """The files of the data set, and names that are part of its content.

        Raises:
            UserError: if a part is missing that every data set of this format has.
        """

    def prepare(self, path: Path, folder: Path, options: Options) -> store.Prepared:
        """Write the examples into `folder`, and describe them.

        Raises:
            UserError: if the content is invalid.
        """

    def fingerprint(
        self, path: Path, preprocessing: Mapping[str, Any], options: Options
    ) -> str:
        """The content hash that `prepare` would compute, without preparing."""

    def to_example(self, source: Any, preprocessing: Mapping[str, Any]) -> np.ndarray:
        """One file, row or array [...] as model input.

        Raises:
            UserError: if the source cannot be converted.
        """

    def shape(self, preprocessing: Mapping[str, Any]) -> list[int]:
        """The shape of the examples of `to_example`."""

    def inside(self, file: Path, preprocessing: Mapping[str, Any]) -> Iterator[Source]:
        """The examples in a file for inference; labels are not needed."""

    def labelled(
        self, path: Path, options: Options, label: Callable[[Any], Any]
    ) -> Iterator[Source]:
        """The examples of the test split, or all if there is none.

        `label` maps the label of each.
        """
