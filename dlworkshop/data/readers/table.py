"""A CSV file -> vectors and what is to be told from them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlworkshop.data import split
from dlworkshop.data.readers import cards, columns, csv_file, store, table_target
from dlworkshop.data.readers.reader import NO_LABEL, Options, Source
from dlworkshop.data.units import standardised
from dlworkshop.errors import UserError, unknown

KINDS: tuple[str, ...] = ("table",)
OPTIONS: tuple[str, ...] = ("target", "group_by", "task")
SUFFIXES = (".csv", ".tsv", ".txt")


def matches(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in SUFFIXES


def files(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """It is one file."""
    return [path], ()


def fingerprint(path: Path, preprocessing: Mapping[str, Any], options: Options) -> str:
    """Of the content, as `prepare` would say; nothing is prepared."""
    task = preprocessing["target"]["task"]
    return key(csv_file.read(path), options._replace(task=task))


def key(table: csv_file.Table, options: Options) -> str:
    """Of the content, and of what is made of it."""
    cells = (
        value for name, column in table.columns.items() for value in (name, *column)
    )
    asked = options.target, options.group_by, options.task
    return store.digest([store.VERSION, *asked, *cells])


def prepare(path: Path, folder: Path, options: Options) -> store.Prepared:
    """Choose columns, cut splits, fit statistics on train, write every row.

    Args:
        path: of a CSV file with a header.
        folder: where the records go.
        options: `target`, the column to be told from the others, or several; see
            `table_target.read`. `group_by`, a column; rows with the same value are on
            one side, and it is no feature.

    Raises:
        UserError: if a column is not there, or cannot be what it is wanted for.
    """
    table, group_by = csv_file.read(path), options.group_by
    cells = dict(table.columns)
    target = options.target
    if not target:
        raise UserError(
            f"{path} needs a target: name one of its columns with --target "
            f"(target=...): {', '.join(cells)}"
        )
    names = (target,) if isinstance(target, str) else target
    for name in (*names, group_by):
        if name is not None and name not in cells:
            raise unknown(f"column of {path}", name, cells)
    if group_by in names:
        raise UserError(
            f"'{group_by}' is target and group_by at once: choose two columns"
        )
    said: list[str] = []
    wanted = table_target.read(str(path), cells, target, options.task)
    if not wanted.known.all():
        absent = int((~wanted.known).sum())
        said.append(f"{absent} rows have no '{', '.join(names)}' and were left out.")
    cells = {name: _rows(values, wanted.known) for name, values in cells.items()}
    number_of = [f"row {i + 2}" for i in np.flatnonzero(wanted.known)]  # as editors do
    by = cells.get(group_by or "")
    group = (
        np.arange(len(number_of))
        if by is None
        else np.unique(by, return_inverse=True)[1]
    )
    others = {
        name: [csv_file.cell(value) for value in values]
        for name, values in cells.items()
        if name not in (*names, group_by)
    }
    features = columns.choose(others, wanted.is_leak, said)
    if not features:
        raise UserError(
            f"{path} has no column left to tell '{', '.join(names)}' from "
            f"({' '.join(said)}): add one that says something"
        )
    rows = zip(*(others[name] for name in features), strict=True)
    content = ["\0".join(row) for row in rows]
    # Where most rows equal another, they are no copies but the same thing seen twice.
    apart = len(set(content)) <= len(content) // 2
    if apart:
        said.append("Most rows equal another one, and are taken as seen separately.")
    splits = split.complete(
        number_of,
        wanted.label,
        group if apart else split.merge(group, content),
        np.zeros(len(group), np.int8),
    )
    train = splits == 0
    preprocessing: dict[str, Any] = {
        "kind": "table",
        "columns": [
            columns.fit(name, _rows(others[name], train), numeric)
            for name, numeric in features.items()
        ],
        "target": table_target.fit(wanted, train),
    }
    said += [
        f"'{column['name']}' has no value in train, and was left out."
        for column in preprocessing["columns"]
        if not column.get("values", True)
    ]
    examples = columns.transform({n: others[n] for n in features}, preprocessing)
    targets = (
        wanted.values
        if wanted.classes
        else standardised(wanted.values, preprocessing["target"])
    )
    shown = {name: others[name] for name in features}
    card = {
        "kind": "table",
        "source": path.name,
        "rows": len(number_of),
        "target": target if isinstance(target, str) else list(target),
        "task": wanted.task,
        "columns": columns.rows_of_card(preprocessing, shown),
        "prepared": (
            f"{examples.shape[1]} numbers for each row: numbers less their mean, "
            "divided by their standard deviation; categories one-hot; what is missing "
            "is the mean (or no category) and is marked in a column of its own; all "
            "statistics are those of train"
        ),
        "splits": cards.splits_sentence(np.zeros(1), bool(wanted.classes)),
        "groups": cards.groups_card(group, group_by, splits),
        "copies": cards.copies_card(
            number_of, wanted.label, splits, number_of if apart else content
        ),
        "warnings": said,
    }
    return store.Prepared(
        key(table, options._replace(task=wanted.task)),
        targets,
        splits,
        wanted.classes,
        examples.shape[1:],
        "float32",
        store.write_records(folder, examples),
        preprocessing,
        card,
    )


def to_example(source: Any, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """A row, column -> text, as [D] float32."""
    if not isinstance(source, Mapping):
        raise UserError(f"{source} is given, wanted a row")
    cells = {name: [value] for name, value in source.items()}
    return columns.transform(cells, preprocessing)[0]


def shape(preprocessing: Mapping[str, Any]) -> list[int]:
    """[D] of an example that `to_example` makes.

    >>> shape({"kind": "table", "columns": [columns.fit("x", ["1", ""], True)]})
    [2]
    """
    each = preprocessing["columns"]
    return [sum(len(c.get("values", "1")) + c["missing"] for c in each)]


def inside(file: Path, preprocessing: Mapping[str, Any]) -> Iterator[Source]:
    """Its rows."""
    del preprocessing
    yield from (Source(name, row) for name, row in csv_file.rows(file))


def labelled(
    path: Path, options: Options, label: Callable[[Any], Any]
) -> Iterator[Source]:
    """Its rows that have a target, and what is wrong with the others."""
    target = options.target
    if not target:
        raise UserError(f"{path} needs a target: name its column with --target")
    names = (target,) if isinstance(target, str) else target
    for where, row in csv_file.rows(path):
        if isinstance(row, UserError):
            yield Source(where, row)
            continue
        for name in names:
            if name not in row:
                raise UserError(
                    f"{path} has no column '{name}' (it has {', '.join(row)}): name "
                    "the column of the target with --target"
                )
        texts = tuple(csv_file.plain(row[name]) for name in names)
        content: Any = row
        try:
            known = all(texts) and label(texts[0] if len(texts) == 1 else texts)
        except UserError:
            if all(map(csv_file.cell, texts)):
                raise
            known = False  # NA and its like, where that is no class
        if known is False:
            content = UserError(f"{where} has no '{', '.join(names)}'")
        yield Source(where, content, NO_LABEL if known is False else known)


def _rows(values: list[str], mask: np.ndarray) -> list[str]:
    return [value for value, there in zip(values, mask, strict=True) if there]
