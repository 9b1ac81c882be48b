"""Reader of a CSV file, or one per split: feature vectors and targets."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from dlworkshop.data import split
from dlworkshop.data.readers import (
    cards,
    columns,
    csv_file,
    store,
    table_files,
    table_target,
    written,
)
from dlworkshop.data.readers.cells import cell, plain
from dlworkshop.data.readers.features import choose
from dlworkshop.data.readers.reader import NO_LABEL, Options, Source
from dlworkshop.data.readers.table_files import matches
from dlworkshop.data.units import standardised
from dlworkshop.errors import UserError, unknown

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["matches"]  # of files by their names

KINDS: tuple[str, ...] = ("table",)
OPTIONS: tuple[str, ...] = ("target", "group_by", "task")
LISTED_IN_CARD = 200  # columns


def files(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The file itself, or those of each split."""
    return [file for file, _ in table_files.checked_files(path, {0})], ()


def fingerprint(path: Path, preprocessing: Mapping[str, Any], options: Options) -> str:
    """The content hash that `prepare` would compute, without preparing."""
    return key(path, options._replace(task=preprocessing["target"]["task"]))


def key(path: Path, options: Options) -> str:
    """The content hash of the files and options."""
    asked = options.target, options.group_by, options.task
    parts = table_files.split_files(path)
    numbers = [number for _, number in parts]
    content = store.sha256([file for file, _ in parts])
    return store.digest([store.VERSION, *asked, *numbers, *content])


def prepare(path: Path, folder: Path, options: Options) -> store.Prepared:
    """Choose columns, cut off splits, fit statistics on train, write every row.

    Args:
        path: of a CSV file, or of a folder with train.csv, test.csv and so on.
        folder: for the records.
        options: `target` is the column to predict, or several; see `table_target.read`.
            `group_by` is a column, which is no feature; rows with the same value stay
            in one split.

    Raises:
        UserError: if a column is missing or cannot be used.
    """
    said: list[str] = []
    cells, number_of, given, decimals = table_files.read(path, said)
    _check_names(path, cells, options)
    wanted, how = _target(path, cells, options)
    said += wanted.said
    known, group_by = wanted.known, options.group_by
    if not known.all():
        said.append(
            f"{int((~known).sum())} rows have no '{', '.join(wanted.names)}' and were "
            "left out."
        )
    number_of, given = number_of[known], given[known]
    group, names_of = np.arange(len(number_of)), number_of
    if group_by is not None:
        group, names_of = _groups(path, group_by, cells[group_by], known, number_of)
    features = _features(path, cells, wanted, group_by, how, said)
    splits, content = _split(features, wanted, group, names_of, given, said)
    preprocessing = _fit(features, wanted, how, decimals, splits == 0)
    if nowhere := [
        c["name"] for c in preprocessing["columns"] if c.get("values") == []
    ]:
        said.append(f"{cards.quoted(nowhere)} left out: no value in train.")
    examples = columns.encode(features, preprocessing)
    targets = wanted.values
    if not wanted.classes:
        targets = standardised(targets, preprocessing["target"])
    listed = columns.rows_of_card(preprocessing, features)
    card = {
        "kind": "table",
        "rows": len(number_of),
        "target": options.target,
        "task": wanted.task,
        "columns": listed[:LISTED_IN_CARD],
        "num_columns": len(listed),
        "prepared": (
            f"{examples.shape[1]} numbers for each row: numbers minus their mean, "
            "divided by their standard deviation; categories one-hot; missing cells "
            "are the mean (or no category) and are marked in another column; all "
            "statistics are those of train"
        ),
        "splits": cards.splits_sentence(given, splits, bool(wanted.classes)),
        "groups": cards.groups_card(group, group_by, splits),
        "copies": cards.copies_card(number_of, wanted.label, splits, content),
        "warnings": said + cards.absent(wanted.classes, wanted.label, splits),
    }
    return store.Prepared(
        key(path, options._replace(task=wanted.task)),
        targets,
        splits,
        number_of.tolist(),
        wanted.classes,
        examples.shape[1:],
        "float32",
        store.write_records(folder, examples),
        preprocessing,
        card,
        None if group_by is None else group,
    )


def _check_names(path: Path, cells: Mapping[str, Any], options: Options) -> None:
    """Check that the table has the columns of the target and `group_by`."""
    names, group_by = options.targets, options.group_by
    if not options.target:
        raise UserError(
            f"{path} needs a target: name one of its columns with --target "
            f"(target=...): {cards.some(list(cells))}"
        )
    for name in (*names, group_by):
        if name is not None and name not in cells:
            raise unknown(f"column of {path}", name, cells)
    if group_by in names:
        raise UserError(
            f"'{group_by}' is target and group_by at once: choose two columns"
        )


def _features(
    path: Path,
    cells: "dict[str, pa.ChunkedArray]",
    wanted: table_target.Target,
    group_by: str | None,
    how: dict[str, dict[str, str]],
    said: list[str],
) -> dict[str, columns.Column]:
    """The feature columns of the rows with a target.

    They are removed from `cells`, which saves memory; `how` gets the notation of their
    numbers, and `said` sentences for the data card.
    """
    others: dict[str, columns.Column] = {}
    for name in list(cells):
        if name not in (*wanted.names, group_by):
            plain, own = written.as_plain(name, cells.pop(name))
            how |= {name: own} if own else {}
            others[name] = columns.read(plain).rows(wanted.known)
    said += [written.sentence(name, own) for name, own in how.items()]
    features = choose(others, wanted.is_leak, said)
    if not features:
        raise UserError(
            f"{path} has no column from which to predict '{', '.join(wanted.names)}' "
            f"({' '.join(said)}): add a column that can be a feature"
        )
    return features


def _split(
    features: Mapping[str, columns.Column],
    wanted: table_target.Target,
    group: np.ndarray,
    names_of: np.ndarray,
    given: np.ndarray,
    said: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """The splits of the rows, and numbers that are equal for copies: both [N]."""
    content = columns.equal_rows(features)
    if split.are_observations(content, [len(features)]):
        said.append(
            f"There are {content.max() + 1} different rows among {len(content):,}, so "
            "equal ones are separate observations, and are in several splits."
        )
        together, content = group, np.arange(len(content))
    else:
        together = split.merge(group, content)
    advice = "add more, or join rare classes"
    if all(map(columns.is_number, wanted.classes)):
        advice += f", or {table_target.AS_NUMBERS}"
    label, classes = wanted.label, wanted.classes
    splits = split.complete(names_of, label, together, given, classes, advice)
    return splits, content


def _fit(
    features: Mapping[str, columns.Column],
    wanted: table_target.Target,
    how: Mapping[str, Mapping[str, str]],
    decimals: Mapping[str, str],
    train: np.ndarray,
) -> dict[str, Any]:
    """The preprocessing: statistics of the rows `train` [N] bool, and notations."""
    preprocessing: dict[str, Any] = {
        "kind": "table",
        "columns": [columns.fit(n, c.rows(train)) for n, c in features.items()],
        "target": table_target.fit(wanted, train),
    }
    for part in (preprocessing, preprocessing["target"]):
        for column in part["columns"]:
            name = column["name"]
            column.update(how.get(name, {}), decimal=decimals[name])
    return preprocessing


def _target(
    path: Path, cells: "dict[str, pa.ChunkedArray]", options: Options
) -> tuple[table_target.Target, dict[str, dict[str, str]]]:
    """The target, and the notation of its numbers; {} for classes, such as "5 %"."""
    names, task = options.targets, options.task
    read = {name: written.as_plain(name, cells[name]) for name in names}
    how = {name: own for name, (_, own) in read.items() if own}
    if how and task != "classification":
        plain = {name: column for name, (column, _) in read.items()}
        found = table_target.read(str(path), plain, names, task)
        if not found.classes:
            return found, how
    return table_target.read(str(path), cells, names, task), {}


def _groups(
    path: Path,
    name: str,
    by: "pa.ChunkedArray",
    known: np.ndarray,
    number_of: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The group number and the group name of each row [N].

    Raises:
        UserError: if a group is missing; such rows would be one large group.
    """
    words, code = csv_file.coded(by)
    names, code = words.to_pylist(), code[known]
    lost = number_of[np.array([not cell(word) for word in names], bool)[code]]
    if len(lost):
        raise UserError(
            f"{path} has no '{name}' in {lost[0]} ({len(lost)} in all): give each such "
            "row a group of its own, or leave it out"
        )
    return code, np.array(names, object)[code]


def to_example(source: Any, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """A row, column -> text, as [D] float32."""
    if not isinstance(source, Mapping):
        raise UserError(f"{source} is given, wanted a row")
    cells = {name: [value] for name, value in source.items()}
    return columns.transform(cells, preprocessing)[0]


def shape(preprocessing: Mapping[str, Any]) -> list[int]:
    """The shape [D] of the examples of `to_example`.

    >>> shape({"columns": [{"name": "x", "values": ["a", "b"], "missing": True}]})
    [3]
    """
    return [sum(map(columns.width, preprocessing["columns"]))]


def inside(file: Path, preprocessing: Mapping[str, Any]) -> Iterator[Source]:
    """The rows of a file."""
    wanted = [column["name"] for column in preprocessing["columns"]]
    rows = csv_file.rows(file, wanted, _decimals(preprocessing))
    yield from (Source(name, row) for name, row in rows)


def _decimals(preprocessing: Mapping[str, Any]) -> dict[str, str]:
    """The decimal mark of each column in training, if it is known."""
    parts = preprocessing, preprocessing.get("target", {})
    found = [column for part in parts for column in part.get("columns", [])]
    return {each["name"]: each["decimal"] for each in found if "decimal" in each}


def labelled(
    path: Path,
    options: Options,
    label: Callable[[Any], Any],
    preprocessing: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Source]:
    """The rows with a target, and the errors of the others.

    `preprocessing` has the decimal marks of training.
    """
    names = options.targets
    if not options.target:
        raise UserError(f"{path} needs a target: name its column with --target")
    parts = table_files.checked_files(path, {0, 1, 2})
    tested = [file for file, number in parts if number == 2] or [f for f, _ in parts]
    learnt = _decimals(preprocessing)
    for where, row in (r for file in tested for r in csv_file.rows(file, (), learnt)):
        if isinstance(row, UserError):
            yield Source(where, row)
            continue
        for name in names:
            if name not in row:
                raise UserError(
                    f"{path} has no column '{name}' (it has {', '.join(row)}): name "
                    "the column of the target with --target"
                )
        texts = tuple(plain(row[name]) for name in names)
        content: Any = row
        try:
            known = all(texts) and label(texts[0] if len(texts) == 1 else texts)
        except UserError:
            if all(map(cell, texts)):
                raise
            known = False  # a word such as NA that is no class
        if known is False:
            content = UserError(f"{where} has no '{', '.join(names)}'")
        yield Source(where, content, NO_LABEL if known is False else known)
