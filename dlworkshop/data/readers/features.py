"""Choice of the feature columns of a table, and the reasons to leave others out."""

import datetime
import re
from collections.abc import Callable, Mapping

import numpy as np

from dlworkshop.data.readers import cards
from dlworkshop.data.readers.columns import Column
from dlworkshop.data.readers.dialect import ROW_NUMBERS
from dlworkshop.data.readers.written import ODD_SHARE, have_units

MOST_VALUES = 50  # of a category; a column with more is free text
# Such as user_id, Row Index and CustomerId, not paid; pandas writes Unnamed: 0.
ID_NAME = re.compile(
    r"(?i:(^|[_\s])(id|idx|index|uuid|key))$|[a-z](Id|ID)$|^Unnamed: [0-9.]+$"
)
# How months begin in several languages.
MONTH = (
    r"(?:jan|ene|gen|feb|f[ée]v|m[aäe]r|a[pbv]r|ma[iyg]|mei|juin|ju[iln]|giu|lug|aug"
    r"|ago|ao[uû]|se[pt]|o[ckt]t|out|nov|de[czs]|d[ée]c|dic)[^\W\d_]*\.?"
)
# A date, also with a weekday or a time; or a month, or a time.
DATE = re.compile(
    rf"""(?:[^\W\d_]{{2,10}}\.?,?\s+)?(?:
    \d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}} | \d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}
    | \d{{1,2}}(?:\.|st|nd|rd|th)?[-\s]*(?:de\s|of\s)?{MONTH}(?:\sde)?[-\s,]*\d{{2,4}}
    | \d{{4}}[-\s]{MONTH}[-\s]\d{{1,2}} | {MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{4}}
    )(?:[T\s,].*)?
    | {MONTH}[-\s]\d{{4}} | (?:19|20)\d\d[-/](?:0?[1-9]|1[0-2])
    | \d{{1,2}}:\d{{2}}(?::\d{{2}}(?:[.,]\d+)?)?(?:\s?[ap]\.?m\.?)?
    """,
    re.IGNORECASE | re.VERBOSE,
)


def choose(
    columns: Mapping[str, Column], is_leak: Callable[[Column], bool], said: list[str]
) -> dict[str, Column]:
    """Choose the feature columns.

    Args:
        columns: all columns but the target and the groups.
        is_leak: whether a column determines the target.
        said: gets a sentence for each reason to drop columns.
    """
    features: dict[str, Column] = {}
    left_out: dict[str, list[str]] = {}
    for name, column in columns.items():
        why = _useless(name, column, is_leak)
        if why is None:
            features[name] = column
        else:
            left_out.setdefault(why, []).append(name)
    for why, names in left_out.items():
        were = "were" if len(names) > 1 else "was"
        said.append(f"{cards.quoted(names)} {were} left out: {why}.")
    for name, column in features.items():
        if column.odd:
            cells = [f"'{word}' ({count})" for word, count in column.odd]
            said.append(
                f"'{name}' is a column of numbers, and other cells count as missing: "
                f"{cards.some(cells, 5)}."
            )
        if column.padded:
            said.append(
                f"'{name}' is a column of numbers, although some begin with 0, such as "
                f"{column.padded}: if they are codes, put a letter before each."
            )
        said += cards.spelled_alike(name, column.words, "categories")
    return features


def _useless(
    name: str, column: Column, is_leak: Callable[[Column], bool]
) -> str | None:
    """The reason why a column cannot be a feature, or None."""
    present = column.present
    if column.numbers is None:
        distinct = len(column.words)
    else:
        distinct = len(np.unique(column.numbers[present]))
    marked = min(present.sum(), (~present).sum())  # rows that missing cells set apart
    if distinct < 2 and (distinct == 0 or marked < 2):
        return "always the same"
    if is_leak(column):
        return "a leak, which determines the target"
    if name == ROW_NUMBERS or _is_identifier(name, column, distinct):
        return "like an identifier, which names rows and does not describe them"
    if _are_dates(column):
        return "dates or times; give numbers instead, such as the days since another"
    if column.numbers is None and distinct > min(MOST_VALUES, present.sum() - 1):
        with_unit = f"numbers with a unit, such as '{column.words[0]}'; give them alone"
        text = f"text, more than {MOST_VALUES} different words"
        return with_unit if have_units(column.words) else text
    return None


def _is_identifier(name: str, column: Column, distinct: int) -> bool:
    """Whether all values differ, and are words, or whole numbers that are consecutive
    or named an id.
    """
    if distinct < column.present.sum():
        return False
    if column.numbers is None:
        return not _are_dates(column) and not have_units(column.words)
    numbers = column.numbers[column.present]
    if not (numbers == np.floor(numbers)).all():
        return False
    if ID_NAME.search(name):
        return not _are_dates(column)
    return numbers.max() - numbers.min() == len(numbers) - 1


def _are_dates(column: Column) -> bool:
    """Whether nearly all words are dates or times, or all numbers are like 20240131."""
    if column.numbers is not None:
        return all(map(_is_date, np.unique(column.numbers[column.present]).tolist()))
    dates = np.array([bool(DATE.fullmatch(word)) for word in column.words])
    known = column.code[column.code >= 0]
    return bool(len(dates)) and dates[known].mean() >= 1 - ODD_SHARE


def _is_date(number: float) -> bool:
    """Whether a number is a date in YYYYMMDD.

    >>> _is_date(20240229.0), _is_date(20230229.0), _is_date(2024.0)
    (True, False, False)
    """
    if not (number.is_integer() and 1900_00_00 < number < 2101_00_00):
        return False
    try:
        datetime.date(int(number) // 10000, int(number) // 100 % 100, int(number) % 100)
    except ValueError:
        return False
    return True
