"""The text of a cell of a table, and the spellings of a missing value."""

import re

# Of these, case does not matter.
WORDS = ["", "na", "n/a", "n.a.", "nan", "null", "none", "nil", "(null)", r"\n", "nat"]
WORDS += ["?", "-", "--", "---", ".", "..", "...", "\u2013", "\u2014", "<na>", "#na"]
WORDS += ["+nan", "-nan", "nan(ind)", "-nan(ind)", "#n/a n/a"]
WORDS += ["1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"]
# The error values of spreadsheets, in any language: #DIV/0!, #BEZUG!, #NV, ####.
WORDS += ["#n/a", "#value!", "#div/0!", "#ref!", "#name?", "#num!", "#null!", "#nv"]
ERROR = r"#[^ a-z#]+[!?]|#[^ a-z#]{1,2}/[^ a-z#]{1,2}|#{2,}|#GETTING_DATA|Err:[0-9]{3}"
# A pattern of a whole cell, for Python and for RE2 (Arrow and ONNX).
MISSING = f"(?i:{'|'.join(map(re.escape, WORDS))})|{ERROR}"
# A number with the Unicode minus, which is the mark of subtraction in typeset text.
MINUS = "^\u2212([0-9.,][0-9.,eE+%€$£ -]*)$"


def cell(value: str) -> str:
    """The stripped text of a cell; "" if it marks a missing value.

    >>> cell(" 3 "), cell("NA"), cell("TRUE"), cell("#BLACK"), cell("#BEZUG!")
    ('3', '', 'True', '#BLACK', '')
    """
    value = plain(value)
    return "" if is_missing(value) else value


def is_missing(text: str) -> bool:
    """Whether a stripped cell marks a missing value."""
    return re.fullmatch(MISSING, text) is not None


def plain(value: str) -> str:
    """The stripped text of a cell, with booleans capitalised and "-" as minus.

    In a target, words such as "None" are classes, so only an empty cell is missing.

    >>> plain(" None "), plain("FALSE"), plain("\\u22123.1")
    ('None', 'False', '-3.1')
    """
    value = str(value).strip()
    if value.lower() in ("true", "false"):
        return value.capitalize()
    return value if value.isascii() else re.sub(MINUS, r"-\1", value)
