"""Decoding of image files; run as a program, this module is a worker process.

It imports nothing of this library, so that a worker starts in a quarter of a second.
"""

import hashlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

RESIZES = {
    "crop": "scaled until they fill the frame and cut evenly on both sides",
    "pad": "scaled until they fit into the frame, with black around them",
}
# The decoders that a file may reach, whatever its name: others of Pillow start programs
# (Ghostscript for EPS) or read formats of no photograph.
FORMATS = ["AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000"]
FORMATS += ["PNG", "PPM", "TGA", "TIFF", "WEBP"]
# Pillow warns above this limit: such an image takes a quarter of a gigabyte.
MOST_PIXELS = 89_478_485
RECORDS = "group_size:1,uncompressed"  # ArrayRecord options for random access
GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
WIDE = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # more than 8 bits for a grey value
DEPTHS = (8, 10, 12, 14, 16, 24, 31)  # usual bits of a grey value
MOST_LOOKED_AT = 256  # pixels of a side that are checked for colour
# Suffixes of images that are in none of `FORMATS`; the second line has raw photographs.
OTHER_SUFFIXES = {".heic", ".heif", ".jxl", ".psd", ".eps", ".svg", ".mpo"}
OTHER_SUFFIXES |= {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}
# Entries of `Image.info` that may hold the orientation.
TURNED_BY = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}


def decode(content: bytes, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Decode an image file, upright, as [H, W, C] uint8.

    The EXIF orientation is applied, transparent pixels become white, and palettes and
    CMYK become RGB. Grey values of `depth` bits keep the highest 8. "crop" fills the
    frame and cuts the rest on both sides; "pad" shows the whole image with black around
    it.

    Args:
        content: of the file, in one of `FORMATS` and any mode that Pillow reads.
        preprocessing: `height`, `width`, `channels` (1 grey, 3 colour), `resize` (one
            of `RESIZES`), and `depth` for grey values of more than 8 bits; by default
            the smallest of `DEPTHS` that holds those of this file.

    Raises:
        ValueError: if the file cannot be read as an image.

    >>> file = io.BytesIO()
    >>> Image.new("CMYK", (40, 20)).save(file, "JPEG")
    >>> preprocessing = {"height": 8, "width": 8, "channels": 3, "resize": "crop"}
    >>> decode(file.getvalue(), preprocessing).shape
    (8, 8, 3)
    """
    with warnings.catch_warnings(action="ignore"):
        return _decode(content, preprocessing)[0]


def _decode(
    content: bytes, preprocessing: Mapping[str, Any]
) -> tuple[np.ndarray, list[Any]]:
    """The example; and [width, height, mode, whether colour was lost] of the file.

    The mode is the raw one, such as RGB;16B, if Pillow keeps 8 of its 16 bits.
    """
    size = preprocessing["width"], preprocessing["height"]
    try:
        with _opened(io.BytesIO(content)) as image:
            found = [*image.size, _mode(image)]
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are refused as a "
                    "decompression bomb"
                )
            least = 2 * max(size)
            if min(image.size) > least:  # a JPEG is decoded at half its size or less
                image.draft(None, (least, least))
            image.load()
            picture = _flat(_upright(image), preprocessing)
            is_grey = preprocessing["channels"] == 1
            found.append(is_grey and _has_colour(picture))
            picture = picture.convert("L" if is_grey else "RGB")
    except ValueError:
        raise
    except UnidentifiedImageError:
        raise ValueError("not a supported image format") from None
    except (OSError, SyntaxError, EOFError, IndexError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(reason.partition("\n")[0]) from None
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if picture.size != size:
        fill = {"crop": ImageOps.fit, "pad": ImageOps.pad}[preprocessing["resize"]]
        picture = fill(picture, size, Image.Resampling.BICUBIC)
    pixels = np.asarray(picture)
    return (pixels[..., None] if pixels.ndim == 2 else pixels), found


def _opened(file: str | io.BytesIO) -> Image.Image:
    """The image of a file, whose pixels are not decoded yet."""
    return Image.open(file, formats=FORMATS)


def _mode(image: Image.Image) -> str:
    """The mode of an image that is not loaded, or its raw mode of wide colours."""
    tiles = getattr(image, "tile", None)  # of a file; not of AVIF and the like
    arguments = tiles[0][3] if tiles else ""
    raw = arguments if isinstance(arguments, str) else str(next(iter(arguments), ""))
    return raw if ";16" in raw and image.mode not in WIDE else image.mode


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; only files that may have one are searched for it."""
    tagged = not TURNED_BY.isdisjoint(image.info) or image.format in ("TIFF", "MPO")
    return ImageOps.exif_transpose(image) if tagged else image


def _flat(image: Image.Image, preprocessing: Mapping[str, Any]) -> Image.Image:
    """Convert to mode L or RGB."""
    if image.mode in WIDE:
        wide = np.asarray(image)
        depth = preprocessing.get("depth") or depth_of(bits_of(wide))
        if wide.min() < 0 or int(wide.max()) >> depth:
            raise ValueError(
                f"grey values from {wide.min()} to {wide.max()}, wanted 0 to "
                f"{2**depth - 1}"
            )
        image = Image.fromarray((wide >> (depth - 8)).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("grey values that are not integers")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("L" if image.mode in GREY else "RGB")


def _has_colour(image: Image.Image) -> bool:
    """Whether red, green and blue differ at one of many evenly spaced pixels."""
    if image.mode == "L":
        return False
    size = [min(side, MOST_LOOKED_AT) for side in image.size]
    pixels = np.asarray(image.resize(size, Image.Resampling.NEAREST))
    return bool((pixels != pixels[..., :1]).any())


def bits_of(wide: np.ndarray) -> int:
    """The number of bits of the largest of integer grey values [...].

    >>> bits_of(np.array([0, 255])), bits_of(np.array([4095])), bits_of(np.array(-1))
    (8, 12, 0)
    """
    return int(wide.max()).bit_length() if wide.max() > 0 else 0


def depth_of(bits: int) -> int:
    """The smallest of `DEPTHS` that holds grey values of so many bits.

    >>> depth_of(0), depth_of(11), depth_of(99)
    (8, 12, 31)
    """
    return next((depth for depth in DEPTHS if depth >= bits), DEPTHS[-1])


def as_shaped(shape: Sequence[int]) -> dict[str, Any]:
    """The preprocessing that decodes files to the shape [H, W, C]."""
    height, width, channels = shape
    return {
        "kind": "image",
        "height": int(height),
        "width": int(width),
        "channels": int(channels),
        "resize": "crop",
    }


def changed(path: str, preprocessing: Mapping[str, Any]) -> str | None:
    """A sentence on how `decode` changes a file; None if it does not.

    Size and number of channels are read from the header of the file.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     Image.new("RGB", (40, 20)).save(file.name)
    ...     said = changed(file.name, as_shaped((20, 40, 3)))
    ...     changed(file.name, as_shaped((8, 8, 1))).removeprefix(file.name)
    ' is 40 x 20 pixels in colour, and the run learnt from 8 x 8 pixels in grey: such
    files are scaled until they fill the frame and cut evenly on both sides, made grey'
    >>> said is None
    True
    """
    if (seen := look(path)) is None:  # `decode` reports the reason
        return None
    width, height, mode = seen
    wanted = preprocessing["width"], preprocessing["height"]
    grey = mode in GREY, preprocessing["channels"] == 1
    same = width == wanted[0] and height == wanted[1]
    if same and grey[0] == grey[1]:
        return None
    now, learnt = ("in grey" if each else "in colour" for each in grey)
    done = [] if same else [RESIZES[preprocessing["resize"]]]
    if grey[0] != grey[1]:
        done.append("made grey" if grey[1] else "given three equal channels")
    return (
        f"{path} is {width} x {height} pixels {now}, and the run learnt from "
        f"{wanted[0]} x {wanted[1]} pixels {learnt}: such files are {', '.join(done)}"
    )


def look(path: str) -> tuple[int, int, str] | None:
    """Displayed width and height, and mode, from the header of a file."""

    def seen(image: Image.Image) -> tuple[int, int, str]:
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # rotated by 90 degrees
            width, height = height, width
        return width, height, image.mode

    return _found(path, seen)


def is_colourful(path: str) -> bool:
    """Whether an image has colour; False if it is unreadable."""

    def seen(image: Image.Image) -> bool:
        image.draft("RGB", (MOST_LOOKED_AT, MOST_LOOKED_AT))  # a smaller JPEG
        return _has_colour(_flat(image, {}))

    return _found(path, seen) or False


def bits_in(path: str) -> int:
    """The `bits_of` a file whose mode has more than 8 bits; 0 for other files."""
    return _found(path, lambda x: bits_of(np.asarray(x)) if x.mode in WIDE else 0) or 0


def _found(path: str, seen: Callable[[Image.Image], Any]) -> Any:
    """What is seen in a file; None if it is unreadable, for which `decode` says why."""
    if not os.path.isfile(path):  # opening a pipe would block
        return None
    try:
        with warnings.catch_warnings(action="ignore"), _opened(path) as image:
            return seen(image)
    except Exception:
        return None


def work() -> None:
    """Decode jobs from stdin, one JSON object per line, until it ends.

    A job has `files`, their `preprocessing` and the path of the `records` to write. The
    answer is one line: for each file the sha256 of its bytes, and either the sha256 of
    its pixels, width, height, mode and whether colour was lost, or the reason why it
    has no record. If the records cannot be written, the answer is the reason alone.
    """
    from array_record.python.array_record_module import (  # noqa: PLC0415
        ArrayRecordWriter,
    )

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a decoder prints is no answer
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # `_decode` checks the same limit
    for line in sys.stdin:
        job = json.loads(line)
        answer: list[list[Any]] | str
        try:
            writer = ArrayRecordWriter(job["records"], RECORDS)
            answer = [
                _record(file, job["preprocessing"], writer) for file in job["files"]
            ]
            writer.close()
        except Exception as error:  # from the writer, usually a full disk
            answer = f"{type(error).__name__}: {error}".partition("\n")[0]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _record(file: str, preprocessing: Mapping[str, Any], writer: Any) -> list[Any]:
    """Decode one file into a record; returns the answer of `work`."""
    digest = ""
    if os.path.isdir(file):
        return [digest, "a link to a folder, which is not followed"]
    if not os.path.isfile(file):  # reading a pipe would block
        return [digest, "no regular file, or a dangling link"]
    try:
        with open(file, "rb") as opened:
            content = opened.read()
        digest = hashlib.sha256(content).hexdigest()
        example, found = _decode(content, preprocessing)
    except (ValueError, OSError) as error:
        return [digest, str(error)]
    pixels = example.tobytes()
    writer.write(pixels)
    return [digest, hashlib.sha256(pixels).hexdigest()[:16], *found]


if __name__ == "__main__":
    work()
