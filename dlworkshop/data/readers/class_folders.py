"""Listing of a folder with one folder per class: files, classes and splits."""

import os
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlworkshop.data.readers import cards
from dlworkshop.data.readers.split_names import split_of
from dlworkshop.errors import UserError

# Besides names that begin with a dot.
IGNORED = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found"}
IGNORED |= {"$recycle.bin", "system volume information"}


class Listing(NamedTuple):
    """The files below a folder, sorted, with classes and splits."""

    root: Path
    names: list[str]  # [N] paths below root, as in the file system
    label: np.ndarray  # [N] int32
    given: np.ndarray  # [N] int8, places in SPLITS; 0 if there are no split folders
    classes: tuple[str, ...]  # [K]
    beside: list[str]  # files in no class folder
    parts: list[tuple[str, int]]  # name and place in SPLITS of the split folders

    @property
    def files(self) -> list[str]:
        """[N] paths."""
        return [f"{self.root}{os.sep}{name}" for name in self.names]


def listing(root: Path) -> Listing:
    """List a folder with one folder per class, possibly inside split folders.

    A split folder may be doubled, as in train/train/cat, which unpacking does.

    Raises:
        UserError: if there are no classes, a class is missing from train, or another
            folder is beside the split folders.
    """
    parts = _splits(root)
    inner = [(_undoubled(top, number), number) for top, number in parts]
    homes = [(home, number) for top, number in inner for home in _folders(top)]
    named = {class_name(home.name) for home, number in homes if number == 0}
    classes = sorted(named, key=_natural)
    if len(classes) < 2:
        raise _too_few(next(top for top, number in inner if number == 0), root)
    names, label, given = [], [], []
    for home, number in homes:
        name = class_name(home.name)
        if name not in classes:
            raise UserError(
                f"{home} is a class, but train has no folder '{name}' (it has "
                f"{cards.some(classes)}): add that folder, or remove this one"
            )
        found = _files(home, root, deep=True)
        names += found
        label += [classes.index(name)] * len(found)
        given += [number] * len(found)
    beside = [
        name
        for home in {root, *(top for top, _ in [*parts, *inner])}
        for name in _files(home, root)
    ]
    if not names:
        raise UserError(
            f"{root} has {len(classes)} folders but no file in them: put the images of "
            "each class into its folder"
        )
    numbers = np.array(label, np.int32), np.array(given, np.int8)
    tops = [(class_name(top.name), number) for top, number in parts]
    return Listing(root, names, *numbers, tuple(classes), beside, tops)


def _too_few(train: Path, root: Path) -> UserError:
    """The reason why the folder of train, which may be the root, has no two classes."""
    inner, size = _only(train), len(_folders(train))
    name, more = class_name(inner.name), len(_folders(inner))
    if more > 1 and train == root:
        return UserError(
            f"{root} has only the folder '{name}', which has {more} folders: give the "
            f"path {escaped(str(inner))}"
        )
    nested = f" ('{name}' has {more} folders: if these are the classes, move them up)"
    return UserError(
        f"{escaped(str(train))} has {size} folder{'' if size == 1 else 's'} of a class"
        f"{nested * (more > 1)}, wanted at least 2: put the images of each class into "
        "a folder named after it"
    )


def _undoubled(top: Path, number: int) -> Path:
    """A split folder, or the only folder in it if that is of the same split."""
    while len(inside := _folders(top)) == 1 and _folders(inside[0]):
        if split_of(inside[0].name) != number:
            break
        [top] = inside
    return top


def _only(root: Path) -> Path:
    """The first folder below that does not only have one folder in it."""
    while len(inside := _folders(root)) == 1:
        [root] = inside
    return root


def _splits(root: Path) -> list[tuple[Path, int]]:
    """The folders that hold class folders: the split folders, or the root itself.

    A split folder has the name of a split, such as Train_png, and has folders in it,
    because "train" may also be a class.
    """
    tops = _folders(root)
    named = {top: split_of(top.name) for top in tops}
    parts = [
        (top, number)
        for top, number in named.items()
        if number is not None and _folders(top)
    ]
    if not parts and len(tops) > 1 and all(map(_is_split, tops)):
        names = [class_name(top.name) for top in tops]
        raise UserError(
            f"{root} has the images of a split in one folder ({cards.quoted(names, 3)})"
            f": put those of each class into a folder in it, such as {names[-1]}/cat"
        )
    if not parts or (len(parts) < len(tops) and not any(n == 0 for _, n in parts)):
        return [(root, 0)]
    odd = [top.name for top in tops if top not in dict(parts)]
    splits = ", ".join(class_name(top.name) for top, _ in parts)
    if odd:
        raise UserError(
            f"{root} has the folder {cards.quoted([class_name(o) for o in odd], 3)} "
            f"beside those of splits ({splits}): move it elsewhere, or, if these are "
            "classes, give them other names"
        )
    if not any(number == 0 for _, number in parts):
        raise UserError(
            f"{root} has {splits} but no train folder: put the images to learn from "
            "into a folder 'train'"
        )
    return parts


def _is_split(top: Path) -> bool:
    """Whether a folder has the name of a split, or of a part of one, such as test1."""
    return split_of(top.name.rstrip("0123456789")) is not None


def class_name(name: str) -> str:
    """The name of a folder as text: Unicode NFC, with escapes if it is not UTF-8.

    >>> class_name("cafe\\u0301") == "caf\\u00e9", class_name("caf\\udce9")
    (True, 'caf\\\\xe9')
    """
    return unicodedata.normalize("NFC", escaped(name))


def _folders(root: Path) -> list[Path]:
    inside = [path for path in root.iterdir() if not is_ignored(path.name)]
    return sorted(
        (path for path in inside if path.is_dir()), key=lambda p: _natural(p.name)
    )


def _files(home: Path, root: Path, deep: bool = False) -> list[str]:
    """Paths below `root` of the files in `home`, sorted, as strings for speed.

    A link to a folder, which may lead back, is not followed but listed as a file.
    """
    found = []
    for place, folders, files in os.walk(home):
        folders[:] = [name for name in folders if deep and not is_ignored(name)]
        links = [name for name in folders if os.path.islink(f"{place}{os.sep}{name}")]
        below = Path(place).relative_to(root).as_posix()
        found += [
            f"{below}/{name}" if below != "." else name
            for name in (*files, *links)
            if not is_ignored(name)
        ]
    return sorted(found)


def is_ignored(name: str) -> bool:
    """Whether a file or folder belongs to the operating system, such as .DS_Store."""
    return name.startswith(".") or name.lower() in IGNORED


def escaped(name: str) -> str:
    """The name of a file as text, with escapes if it is not UTF-8.

    >>> escaped("br\\udcf6ken.png")
    'br\\\\xf6ken.png'
    """
    return os.fsencode(name).decode(errors="backslashreplace")


def _natural(name: str) -> tuple[int, str]:
    """Natural sort key: numbers by value, before words.

    >>> sorted(["10", "9", "b", "a"], key=_natural)
    ['9', '10', 'a', 'b']
    """
    return (int(name) if name.isdecimal() else 2**63), name
