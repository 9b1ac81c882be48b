"""Reader of a folder with one folder of images per class."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dlworkshop.data import split
from dlworkshop.data.readers import cards, images, store, workers
from dlworkshop.data.readers.class_folders import Listing, escaped, listing
from dlworkshop.data.readers.examples import inside, shape, to_example
from dlworkshop.data.readers.reader import Options, Source
from dlworkshop.data.readers.split_names import tested
from dlworkshop.data.rows import evenly
from dlworkshop.errors import UserError

__all__ = ["inside", "shape", "to_example"]  # the same for all images

KINDS: tuple[str, ...] = ("image",)
OPTIONS: tuple[str, ...] = ("group_by", "image_size", "resize")
LOOKED_AT = 512  # files whose headers are read to choose a size
COLOUR_LOOKED_AT = 64  # files whose pixels are read to find colour
LARGEST_OWN_SIZE, OTHER_SIZE = 256, 64  # pixels of a side
MOST_SKIPPED, FEW = 0.01, 2  # share and number of the images that may be skipped
SPARE_BITS = 3  # of most files, from which on they are said to be dark
LISTED_IN_CARD = 200  # skipped files


def matches(path: Path) -> bool:
    """Whether `path` is a folder; the readers of IDX files and tables come first."""
    return path.is_dir()


def files(path: Path) -> tuple[list[str], Sequence[str]]:
    """The files of all classes, and the class names, because a class may be empty."""
    found = listing(path)
    return found.files, found.classes


def prepare(path: Path, folder: Path, options: Options) -> store.Prepared:
    """Decode every file below `path` into `folder`.

    Args:
        path: a folder with a folder for each class.
        folder: for the records.
        options: `image_size` is (height, width) of an example; None is the most
            frequent size if it is small, else OTHER_SIZE. `group_by` is a regular
            expression for the paths below the folder; files in which it matches the
            same text (or its first group does) stay in one split.

    Raises:
        UserError: if more than MOST_SKIPPED of the images cannot be read, a class has
            no readable file, or the expression does not match a file.
    """
    found, group_by = listing(path), options.group_by
    names = [escaped(name) for name in found.names]
    by = groups(names, group_by)  # before the slow part, because it may raise
    preprocessing, sentence, dark = choose(
        found.files, options.image_size, options.resize
    )
    answers, records = workers.decode(found.files, preprocessing, folder)
    skipped = [
        [name, row[1]]
        for name, row in zip(names, answers, strict=True)
        if len(row) == 2
    ]
    check_skipped(skipped, len(names), found.root)
    made_of = key(found.names, [row[0] for row in answers], preprocessing, group_by)
    rows = np.flatnonzero([len(row) > 2 for row in answers])
    label, given, by = found.label[rows], found.given[rows], by[rows]
    group = np.unique(by, return_inverse=True)[1]
    there = np.bincount(label[given == 0], minlength=len(found.classes))
    if not there.all():
        raise UserError(
            f"the class '{found.classes[int(there.argmin())]}' has no image that can "
            "be read: add some, or remove its folder"
        )
    names = [names[i] for i in rows]
    seen = [answers[i] for i in rows]
    content = np.unique([row[1] for row in seen], return_inverse=True)[1]
    together = split.merge(group, content)
    splits = split.complete(by, label, together, given, found.classes)
    sizes = Counter(f"{row[2]} x {row[3]}" for row in seen)
    card = {
        "kind": "images",
        "files": len(found.names),
        "sizes": sizes.most_common(8),
        "num_sizes": len(sizes),
        "modes": Counter(row[4] for row in seen).most_common(),
        "prepared": sentence,
        "skipped": skipped[:LISTED_IN_CARD],
        "num_skipped": len(skipped),
        "splits": cards.splits_sentence(given, splits),
        "groups": cards.groups_card(group, group_by, splits),
        "copies": cards.copies_card(names, label, splits, content),
        "warnings": [
            *dark,
            *_warnings(found, preprocessing, seen),
            *cards.absent(found.classes, label, splits),
        ],
    }
    return store.Prepared(
        made_of,
        label,
        splits,
        names,
        found.classes,
        (preprocessing["height"], preprocessing["width"], preprocessing["channels"]),
        "uint8",
        records,
        preprocessing,
        card,
        None if group_by is None else group,
    )


def fingerprint(path: Path, preprocessing: Mapping[str, Any], options: Options) -> str:
    """The content hash that `prepare` would compute, without decoding."""
    found = listing(path)
    digests = store.sha256(found.files)
    return key(found.names, digests, preprocessing, options.group_by)


def labelled(
    path: Path, options: Options, label: Callable[[str], Any]
) -> Iterator[Source]:
    """The files of the test folder, or all if there is none."""
    del options
    found = listing(path)
    labels = [label(name) for name in found.classes]
    named = found.files
    return (
        Source(named[i], Path(named[i]), labels[found.label[i]])
        for i in np.flatnonzero(tested(found.given))
    )


def key(
    names: Sequence[str],
    digests: Sequence[str],
    preprocessing: Mapping[str, Any],
    group_by: str | None,
) -> str:
    """The content hash of the bytes of all files and of the options."""
    files = (value for pair in zip(names, digests, strict=True) for value in pair)
    return store.digest([store.VERSION, dict(preprocessing), group_by, *files])


def choose(
    files: Sequence[str], image_size: tuple[int, int] | None, resize: str
) -> tuple[dict[str, Any], str, list[str]]:
    """Choose the preprocessing from a sample of the files.

    The images are grey if no file of the sample has a mode with colour, or no pixel of
    some of those files has colour. If a file has more than 8 bits, the depth is that of
    all files, because its own would make a dark image bright.

    Returns:
        The preprocessing, a sentence about it, and warnings.
    """
    seen = [
        (file, found)
        for file in _some(files, LOOKED_AT)
        if (found := images.look(file))
    ]
    modes = {mode for _, (_, _, mode) in seen}
    able = [file for file, (_, _, mode) in seen if mode not in images.GREY]
    colour = not seen or any(map(images.is_colourful, _some(able, COLOUR_LOOKED_AT)))
    sizes = Counter((height, width) for _, (width, height, _) in seen)
    [(common, count)] = sizes.most_common(1) or [((OTHER_SIZE, OTHER_SIZE), 0)]
    if image_size is not None:
        size, why = image_size, "as asked"
    elif max(common) <= LARGEST_OWN_SIZE and 2 * count > len(seen):
        size, why = common, "the size of most files"
    else:
        size, why = (OTHER_SIZE, OTHER_SIZE), "the default for files of many sizes"
    rule = images.RESIZES[resize]
    preprocessing = images.as_shaped((*size, 3 if colour else 1)) | {"resize": resize}
    kind = "colour" if colour else "grey"
    if able and not colour:
        kind = "grey, because the three channels of the files are equal"
    dark: list[str] = []
    if modes & images.WIDE:
        with ThreadPoolExecutor(workers.cores()) as pool:
            bits = np.array(list(pool.map(images.bits_in, files)))
        preprocessing["depth"] = images.depth_of(int(bits.max()))
        kind += f", the highest 8 of {preprocessing['depth']} bits"
        dark = _dark(files, bits)
    sentence = f"{size[1]} x {size[0]} pixels, {kind} ({why}); others {rule}"
    return preprocessing, sentence, dark


def _dark(files: Sequence[str], bits: np.ndarray) -> list[str]:
    """A warning if few of the files, whose grey values need `bits` [N], darken most."""
    most = int(np.median(bits[bits > 0])) if bits.any() else 0
    if bits.max() < most + SPARE_BITS:
        return []
    names = [escaped(files[i]) for i in np.flatnonzero(bits == bits.max()).tolist()]
    return [
        f"The grey values of most files need at most {most} bits, and {bits.max()} "
        f"because of {cards.some(names, 3)}: most images are dark unless such files "
        "are mended or removed."
    ]


def _some(files: Sequence[str], most: int) -> list[str]:
    """At most `most` files, evenly spaced."""
    return [files[i] for i in evenly(len(files), most)]


def groups(names: Sequence[str], group_by: str | None) -> np.ndarray:
    """The texts [N] that the expression matches in the names; without it the names.

    Raises:
        UserError: if `group_by` is no regular expression, or a name does not match.
    """
    if group_by is None:
        return np.array(names, object)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(
            f"group_by is '{group_by}', which is no regular expression ({error}): "
            "give one such as '^[^/]*/([^_]*)_'"
        ) from None
    found = [pattern.search(name) for name in names]
    lost = [name for name, match in zip(names, found, strict=True) if not match]
    if lost:
        raise UserError(
            f"group_by '{group_by}' is not found in {len(lost)} of {len(names)} files "
            f"({cards.some(lost, 3)}): give an expression that matches each path"
        )
    texts = [m[1 if pattern.groups else 0] or "" for m in found if m]
    return np.array(texts, object)


def check_skipped(skipped: Sequence[Sequence[str]], total: int, root: Path) -> None:
    """Raise a UserError if more than FEW and MOST_SKIPPED of the images are unreadable.

    Files that are no images by their names, such as notes, do not count.
    """
    lost = [row for row in skipped if is_image_name(row[0])]
    total -= len(skipped) - len(lost)
    if len(lost) > max(FEW, MOST_SKIPPED * total):
        listed = [f"{name} ({reason})" for name, reason in lost]
        raise UserError(
            f"{len(lost)} of {total} files in {root} cannot be used, more than "
            f"{MOST_SKIPPED:.0%}: {cards.some(listed)}; fix or remove them"
        )


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image.

    >>> is_image_name("a.PNG"), is_image_name("a.heic"), is_image_name("notes.pdf")
    (True, True, False)
    """
    ending = Path(name).suffix.lower()
    kind = Image.registered_extensions().get(ending)
    return kind in images.FORMATS or ending in images.OTHER_SUFFIXES


def _warnings(
    found: Listing, preprocessing: Mapping[str, Any], seen: Sequence[Sequence[Any]]
) -> list[str]:
    said = cards.joined(found.parts)
    if found.beside:
        said.append(f"Files in no class folder: {cards.some(found.beside, 5)}.")
    coloured = sum(row[5] for row in seen)
    if preprocessing["channels"] == 1 and coloured:
        said.append(f"{coloured} files have colour, which was dropped: most are grey.")
    if wide := sum(";16" in row[4] and row[4] not in images.WIDE for row in seen):
        said.append(f"{wide} files have 16 bits per channel: only the highest 8 count.")
    return said
