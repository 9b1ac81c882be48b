"""One image file -> one example; run as a program, a worker that decodes many.

It imports nothing of this library, so that a worker is there in a quarter of a second.
"""

import hashlib
import io
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

RESIZES = {
    "crop": "scaled until they fill it, what stands out cut off evenly",
    "pad": "scaled until they fit in, with black around them",
}
# Pillow's own limit before it warns: such an image takes a quarter of a gigabyte.
MOST_PIXELS = 89_478_485
RECORDS = "group_size:1,uncompressed"  # of ArrayRecord: rows are read in any order
GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
WIDE = {"I", "I;16", "I;16B", "I;16L", "I;16N"}  # more than 8 bits for a grey value
DEPTHS = (8, 10, 12, 14, 16, 24, 31)  # bits of a grey value, of cameras and scanners
# where Pillow keeps what may say how an image is turned
MOST_LOOKED_AT = 256  # pixels of a side, of which one in colour makes it colourful
TURNED_BY = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}


def decode(content: bytes, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Decode an image file, upright, as [H, W, C] uint8.

    EXIF's orientation is respected, what is transparent becomes white, palettes and
    CMYK become red-green-blue. Of `depth` bits for a grey value the highest 8 are kept.
    "crop" fills the frame and cuts what stands out on both sides; "pad" shows all of
    the image, with black around it.

    Args:
        content: the file, of any format and mode that Pillow reads.
        preprocessing: `height`, `width`, `channels` (1 grey, 3 colour), `resize`, one
            of `RESIZES`, and, where grey values may be wide, their `depth`; by default
            one of `DEPTHS` in which those of this file have room.

    Raises:
        ValueError: saying why the file cannot be read as an image.

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
    """The example; size and mode of the file, and whether colour was lost."""
    size = preprocessing["width"], preprocessing["height"]
    try:
        with Image.open(io.BytesIO(content)) as image:
            found = [*image.size, image.mode]
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
        raise ValueError("not an image") from None
    except (OSError, SyntaxError, EOFError, IndexError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(reason.partition("\n")[0]) from None
    except Exception as error:  # decoders of damaged files raise what they like
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if picture.size != size:
        fill = {"crop": ImageOps.fit, "pad": ImageOps.pad}[preprocessing["resize"]]
        picture = fill(picture, size, Image.Resampling.BICUBIC)
    pixels = np.asarray(picture)
    return (pixels[..., None] if pixels.ndim == 2 else pixels), found


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; few files have one, and looking it up is slow."""
    tagged = not TURNED_BY.isdisjoint(image.info) or image.format in ("TIFF", "MPO")
    return ImageOps.exif_transpose(image) if tagged else image


def _flat(image: Image.Image, preprocessing: Mapping[str, Any]) -> Image.Image:
    """Convert to mode L or RGB."""
    if image.mode in WIDE:
        wide = np.asarray(image)
        depth = preprocessing.get("depth") or depth_of(wide)
        if wide.min() < 0 or int(wide.max()) >> depth:
            raise ValueError(
                f"grey values from {wide.min()} to {wide.max()}, wanted 0 to "
                f"{2**depth - 1}"
            )
        image = Image.fromarray((wide >> (depth - 8)).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("grey values that are not whole numbers")
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


def depth_of(wide: np.ndarray) -> int:
    """The first of `DEPTHS` that holds grey values [...], which are integers.

    >>> depth_of(np.array([0, 255])), depth_of(np.array([4095])), depth_of(np.array(-1))
    (8, 12, 8)
    """
    bits = int(wide.max()).bit_length() if wide.max() > 0 else 0
    return next((depth for depth in DEPTHS if depth >= bits), DEPTHS[-1])


def as_shaped(shape: Sequence[int]) -> dict[str, Any]:
    """The preprocessing that decodes files to the shape [H, W, C] of other images."""
    height, width, channels = shape
    return {
        "kind": "image",
        "height": int(height),
        "width": int(width),
        "channels": int(channels),
        "resize": "crop",
    }


def changed(path: str, preprocessing: Mapping[str, Any]) -> str | None:
    """A sentence on how `decode` changes a file; None where it does not.

    Size and number of channels are looked at, in the head of the file.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     Image.new("RGB", (40, 20)).save(file.name)
    ...     said = changed(file.name, as_shaped((20, 40, 3)))
    ...     changed(file.name, as_shaped((8, 8, 1))).removeprefix(file.name)
    ' is 40 x 20 pixels in colour, and the run learnt from 8 x 8 pixels in grey: such
    files are scaled until they fill it, what stands out cut off evenly, made grey'
    >>> said is None
    True
    """
    if (seen := look(path)) is None:  # why, is said when it is decoded
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
    if not os.path.isfile(path):
        return None
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # lies on its side
                width, height = height, width
            return width, height, image.mode
    except Exception:  # whatever is wrong is said when it is decoded
        return None


def is_colourful(path: str) -> bool:
    """Whether an image has colour; False where it is unreadable."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            size = MOST_LOOKED_AT, MOST_LOOKED_AT
            image.draft("RGB", size)  # of a JPEG the small picture is enough
            return _has_colour(_flat(image, {}))
    except Exception:
        return False


def depth_in(path: str) -> int:
    """Bits of the grey values in a file of more than 8; 0 where it is unreadable."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return depth_of(np.asarray(image)) if image.mode in WIDE else 0
    except Exception:
        return 0


def work() -> None:
    """Decode jobs from stdin, one JSON object per line, until it ends.

    A job names `files`, their `preprocessing` and the `records` to write. The answer is
    one line: for each file the sha256 of its bytes, and either that of its pixels with
    the width, height and mode it had and whether colour was lost, or the reason why it
    has no record. Where nothing can be written, the answer is the reason alone.
    """
    from array_record.python.array_record_module import (  # noqa: PLC0415
        ArrayRecordWriter,
    )

    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # `decode` refuses them itself, by the same number
    for line in sys.stdin:
        job = json.loads(line)
        answer: list[list[Any]] | str
        try:
            writer = ArrayRecordWriter(job["records"], RECORDS)
            answer = [
                _record(file, job["preprocessing"], writer) for file in job["files"]
            ]
            writer.close()
        except Exception as error:  # the writer's own: a full disk, mostly
            answer = f"{type(error).__name__}: {error}".partition("\n")[0]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _record(file: str, preprocessing: Mapping[str, Any], writer: Any) -> list[Any]:
    """Decode one file into a record; returns the answer of `work`."""
    digest = ""
    if not os.path.isfile(file):  # a pipe would be waited for
        return [digest, "no file, or a link to what is not there"]
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
