"""Class names as shown on a page: on one line, short, and unique."""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len

from dlworkshop.report.elements import Html, tag
from dlworkshop.report.svg import is_drawn

MOST = 18  # columns of a name in a picture or a sentence
MOST_IN_TABLE = 100
JOINER = "\u200d"  # combines several emoji into one
LINE = 16  # columns after which a word may be broken; earlier after punctuation
BREAK = "\u200b"  # `one_line` removes it from names
UNSEEN = "\u200c", JOINER  # invisible characters that `one_line` keeps


def short(name: str, most: int = MOST) -> str:
    r"""A name on one line, shortened in the middle; wide letters count as two columns.

    Right-to-left text is isolated, so that it does not reorder the text around it.

    >>> short("a name\n of two"), short("0123456789", 5)
    ('a name of two', '01…89')
    >>> short("\u7d05\u8272\u306e\u8d64\u3044\u82b1", 7) == "\u7d05…\u82b1"
    True
    """
    text = one_line(name)
    if cell_len(text) > most:
        parts = _letters(text)
        head, tail = _fitting(parts, most // 2), _fitting(parts[::-1], (most - 1) // 2)
        text = "".join(parts[:head]) + "…" + "".join(parts[len(parts) - tail :])
    turned = any(unicodedata.bidirectional(each) in ("R", "AL") for each in text)
    return f"\u2068{text}\u2069" if turned else text


def one_line(name: str) -> str:
    r"""A text without line breaks and invisible control characters.

    >>> one_line("a\tb \u202ec\x00")
    'a b c'
    """
    seen = (
        each
        for each in " ".join(str(name).split())
        if each in UNSEEN or unicodedata.category(each) not in ("Cc", "Cf")
    )
    return "".join(seen)


def numbered(names: Sequence[str]) -> list[bool]:
    r"""Which names need their class number in a picture.

    These are names that are equal after shortening, and names with letters that our
    font lacks, so that their look depends on the reader's fonts.

    >>> numbered(["cat", "a" * 30, "a" * 40, "\u732b"])
    [False, True, True, True]
    """
    cut = [short(name) for name in names]
    times = Counter(cut)
    return [times[name] > 1 or not name or not is_drawn(name) for name in cut]


def in_picture(names: Sequence[str]) -> list[str]:
    r"""All class names, shortened and made unique by the class number.

    >>> in_picture(["cat", "\u732b"])
    ['cat', '#1 猫']
    """
    return [
        f"#{k} {short(name)}".rstrip() if number else short(name)
        for k, (name, number) in enumerate(zip(names, numbered(names), strict=True))
    ]


def in_table(name: str) -> Html:
    """A name that can wrap, keeps its writing direction, and is shortened if very long.

    >>> in_table("cat"), in_table("photographs_of_cats_and_dogs")
    ('<bdi>cat</bdi>', '<bdi>photographs_<wbr>of_cats_and_<wbr>dogs</bdi>')
    """
    whole, text = one_line(name), short(name, MOST_IN_TABLE)
    line = LINE * len(text) // max(cell_len(text), 1)  # in letters
    long_word = rf"(\S{{{line // 2},{line}}}?[_\-./]|\S{{{line}}})(?=\S)"
    broken = re.sub(long_word, rf"\1{BREAK}", text)
    inside = html.escape(broken).replace(BREAK, "<wbr>")
    title = whole if len(text) < len(whole) else None
    return tag("bdi", Html(inside), title=title)


def in_tables(names: Sequence[str]) -> list[Html]:
    """All class names for a table, with numbers if a picture shows numbers.

    >>> in_tables(["no", "yes"])
    ['<bdi>no</bdi>', '<bdi>yes</bdi>']
    >>> in_tables(["no", ""])
    ['#0 <bdi>no</bdi>', '#1 <bdi></bdi>']
    """
    with_numbers = any(numbered(names))
    return [
        Html(f"#{k} " * with_numbers + in_table(name)) for k, name in enumerate(names)
    ]


def _letters(text: str) -> list[str]:
    """The grapheme clusters of a text: letters with their combining marks."""
    found: list[str] = []
    for each in text:
        joins = unicodedata.category(each)[0] == "M" or each == JOINER
        joins |= 0x1F3FB <= ord(each) <= 0x1F3FF  # skin tones of emoji
        if found and (joins or found[-1].endswith(JOINER)):
            found[-1] += each
        else:
            found.append(each)
    return found


def _fitting(letters: Sequence[str], columns: int) -> int:
    """How many of the first letters fit into so many columns."""
    used = 0
    for number, letter in enumerate(letters):
        used += cell_len(letter)
        if used > columns:
            return number
    return len(letters)
