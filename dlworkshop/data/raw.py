"""Parsing of raw bytes: gzip, IDX (the MNIST family) and CIFAR records.

`data` is the content of a whole file, and `where` its name in messages.
"""

import gzip
import io
import math
import zlib
from typing import IO

import numpy as np

from dlworkshop.errors import UserError

MOST_TIMES, LITTLE = 100, 1 << 26  # unpacked data may be larger than packed data


def read_at_most(file: IO[bytes] | gzip.GzipFile, packed: int, where: str) -> bytes:
    """All of a file that is unpacked while it is read.

    Args:
        packed: the bytes that are unpacked.

    Raises:
        UserError: if it has more than MOST_TIMES `packed` + LITTLE bytes. Images of the
            known data sets have up to ten times as many.
    """
    most = MOST_TIMES * packed + LITTLE
    content = file.read(most + 1)
    if len(content) > most:
        raise UserError(
            f"{where} has {packed:,} bytes, and unpacked more than {most:,}: this is "
            "no data set, fetch it again."
        )
    return content


def gunzip(data: bytes, where: str) -> bytes:
    """`data` decompressed if it is gzip, else unchanged.

    Raises:
        UserError: if the gzip stream is cut off, its checksum is wrong, or it is far
            larger unpacked (see `read_at_most`).

    >>> gunzip(gzip.compress(b"abc"), "abc.gz"), gunzip(b"abc", "abc")
    (b'abc', b'abc')
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return read_at_most(gzip.GzipFile(fileobj=io.BytesIO(data)), len(data), where)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{where} is a damaged gzip file ({error}): fetch it again."
        ) from error


def parse_idx(data: bytes, where: str, ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` axes in an unpacked IDX file, as a view.

    Labels have one axis, images three.

    Raises:
        UserError: if the magic number or the length is wrong.

    Source: LeCun, Cortes and Burges, "The MNIST database", FILE FORMATS.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), "labels", ndim=1)
    array([7, 9], dtype=uint8)
    """
    kind = {1: "labels", 3: "images"}[ndim]
    magic, wanted = data[:4], bytes([0, 0, 8, ndim])
    header = 4 + 4 * ndim
    if magic != wanted or len(data) < header:
        raise UserError(
            f"{where} starts with {magic.hex(' ') or 'nothing'}, wanted "
            f"{wanted.hex(' ')} (IDX, {kind}): this is another file, or damaged."
        )
    shape = tuple(np.frombuffer(data, ">u4", ndim, 4).tolist())
    if len(data) - header != math.prod(shape):
        raise UserError(
            f"{where} holds {len(data) - header} bytes after its header, wanted "
            f"{math.prod(shape)} for shape {shape}: fetch it again."
        )
    try:
        return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    except ValueError as error:  # no examples, but an impossible size of each
        raise UserError(
            f"{where} has the shape {shape} ({error}): fetch it again."
        ) from None


def parse_idx_pair(
    images: tuple[str, bytes], labels: tuple[str, bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, 1] and labels [N], uint8, of two IDX files, gzipped or not.

    Each file is given as its name and its content.

    Raises:
        UserError: if a file is damaged, the numbers of images and labels differ, or
            there are none.

    >>> header = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2])
    >>> pair = ("x", header + bytes(4)), ("y", bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    >>> [array.shape for array in parse_idx_pair(*pair)]
    [(1, 2, 2, 1), (1,)]
    """
    image, label = (
        parse_idx(gunzip(data, where), where, ndim)
        for (where, data), ndim in ((images, 3), (labels, 1))
    )
    if len(image) != len(label) or not len(label):
        raise UserError(
            f"{images[0]} has {len(image)} images and {labels[0]} {len(label)} "
            "labels, wanted the same number of both, at least 1: fetch both again."
        )
    return image[..., None], label


def parse_cifar(data: bytes, where: str, num_labels: int) -> tuple[np.ndarray, ...]:
    """Labels [N, num_labels] and images [N, 32, 32, 3], uint8, of CIFAR's records.

    Each image follows `num_labels` bytes: 1 in CIFAR-10, 2 in CIFAR-100.

    Raises:
        UserError: if the length is not a multiple of the size of a record.

    Source: Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html, binary version.

    >>> labels, images = parse_cifar(bytes([4]) + bytes(3072), "test.bin", 1)
    >>> labels.shape, images.shape
    ((1, 1), (1, 32, 32, 3))
    """
    size = num_labels + 3 * 32 * 32
    if not data or len(data) % size:
        raise UserError(
            f"{where} has {len(data)} bytes, wanted a multiple of {size} (one CIFAR "
            "record): this is another file, or cut off; fetch it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    planes = records[:, num_labels:].reshape(-1, 3, 32, 32)  # [N, C, H, W]
    return records[:, :num_labels], planes.transpose(0, 2, 3, 1)
