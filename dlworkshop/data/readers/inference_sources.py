"""Files, rows and arrays for inference, read one after the other.

`data.readers.to_example` converts what they yield to examples.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlworkshop.data.readers import cards, reader_for, reader_of, table, table_target
from dlworkshop.data.readers.class_folders import escaped, is_ignored
from dlworkshop.data.readers.folder import is_image_name
from dlworkshop.data.readers.reader import Options, Source
from dlworkshop.data.readers.table_files import SUFFIXES
from dlworkshop.errors import UserError

log = logging.getLogger(__name__)


def sources(
    paths: Iterable[Path], preprocessing: Mapping[str, Any]
) -> Iterator[Source]:
    """The contents of files, and of all files below folders, sorted by name.

    A table yields its rows and an .npz file those of its array x; for a model of images
    any other file is an image. Files of other kinds in a folder, such as a README, are
    logged and skipped.
    """
    inside = reader_for(preprocessing).inside
    wanted = _WANTED[preprocessing["kind"]]
    for path in paths:
        found = path.is_dir()
        for file in _files(path, wanted):
            try:
                for source in inside(file, preprocessing):
                    yield source._replace(name=escaped(source.name), found=found)
            except UserError as error:
                yield Source(escaped(str(file)), error, found=found)


def labelled(
    path: Path,
    preprocessing: Mapping[str, Any],
    classes: Sequence[str],
    target: str | tuple[str, ...] | None,
) -> Iterator[Source]:
    """The labelled examples at `path`: its test split, or all if there is none.

    Args:
        path: any data that `data.load` reads.
        preprocessing: of a `Dataset`.
        classes: [K] names of all classes; () for a table with numeric targets, whose
            labels are standardised numbers.
        target: of a table or an .npz file, the columns or the array of the labels.

    Raises:
        UserError: if `path` has no labelled data, or an unknown class.
    """
    is_table = preprocessing["kind"] == "table"
    values = table_target.values if is_table else list  # folders 1 and 01 are two
    place = {value: k for k, value in enumerate(values(classes))}

    @functools.cache
    def label(name: str) -> int:
        value = values([*classes, name])[-1]
        if value not in place:
            raise UserError(
                f"{path} has a class '{name}', and the run knows "
                f"{cards.some(classes)}: give data with these classes"
            )
        return place[value]

    def numbers(texts: str | Sequence[str]) -> Any:
        return table_target.to_target(texts, preprocessing["target"])

    options = Options(target=tuple(target) if isinstance(target, list) else target)
    make: Callable[[Any], Any] = label if classes else numbers
    if is_table:  # whatever the name of the file
        return table.labelled(path, options, make, preprocessing)
    if not path.is_dir() and path.suffix.lower() in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{path} has no labels: give a folder with one for each class")
    return reader_of(path).labelled(path, options, make)


# Kind of preprocessing -> whether a file in a folder is used, by its name.
_WANTED: dict[str, Callable[[str], bool]] = {
    "image": lambda name: (
        is_image_name(name) or Path(name).suffix.lower() in ("", ".npz")
    ),
    "table": lambda name: name.lower().endswith(SUFFIXES),
    "array": lambda name: name.lower().endswith(".npz"),
}


def _files(path: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for home, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for link in filter(os.path.islink, (os.path.join(home, f) for f in folders)):
            log.warning("skipped %s, a link to a folder: give that folder, too", link)
        for name in sorted(name for name in files if not is_ignored(name)):
            file = Path(home, name)
            is_special = file.exists() and not file.is_file()  # a pipe or a device
            if wanted(name) and not is_special:
                yield file
            else:
                log.info("skipped %s, which is of another kind", file)
