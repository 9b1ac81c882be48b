"""Damaged and mixed-up raw files: one sentence that names the file."""

import gzip
import hashlib
import io
import tarfile
import tracemalloc
import types
import zipfile

import numpy as np
import pytest

from dlworkshop.data import checksums, raw, sources
from dlworkshop.errors import UserError

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def rewrite(path, change):
    data = bytearray(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(bytes(change(data))))


def wrong_magic(folder, write_idx):
    rewrite(folder / IMAGES, lambda data: b"\0\0\x09\x03" + data[4:])


def truncated(folder, write_idx):
    data = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(data[: len(data) // 2])


def bit_flipped(folder, write_idx):
    data = bytearray((folder / IMAGES).read_bytes())
    data[-6] ^= 1  # in the checksum at the end of gzip
    (folder / IMAGES).write_bytes(data)


def short(folder, write_idx):
    rewrite(folder / IMAGES, lambda data: data[:-1])


def web_page(folder, write_idx):
    (folder / IMAGES).write_bytes(b"<html>not found</html>")


def empty_file(folder, write_idx):
    (folder / IMAGES).write_bytes(b"")


def fewer_images(folder, write_idx):
    write_idx(folder / IMAGES, np.zeros([59, 28, 28], np.uint8))


def no_examples(folder, write_idx):
    write_idx(folder / IMAGES, np.zeros([0, 28, 28], np.uint8))
    write_idx(folder / LABELS, np.zeros([0], np.uint8))


def other_shape(folder, write_idx):
    write_idx(folder / IMAGES, np.zeros([60, 27, 28], np.uint8))


def label_out_of_range(folder, write_idx):
    rewrite(folder / LABELS, lambda data: data[:-1] + b"\x0a")


def missing_file(folder, write_idx):
    (folder / LABELS).unlink()


@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (wrong_magic, IMAGES, "starts with 00 00 09 03, wanted 00 00 08 03"),
        (truncated, IMAGES, "damaged gzip file"),
        (bit_flipped, IMAGES, "damaged gzip file"),
        (short, IMAGES, "holds 47039 bytes after its header, wanted 47040"),
        (web_page, IMAGES, "starts with 3c 68 74 6d"),
        (empty_file, IMAGES, "starts with nothing"),
        (fewer_images, IMAGES, "59 images"),
        (no_examples, IMAGES, "at least 1"),
        (other_shape, IMAGES, r"wanted \(28, 28\)"),
        (label_out_of_range, LABELS, "label 10 at example 59, wanted 0 to 9"),
        (missing_file, LABELS[:-3], "missing raw files of mnist"),
    ],
)
def test_damage_is_named(mnist_raw, write_idx, damage, file, said):
    folder, _ = mnist_raw
    sources.read("mnist", sources.find("mnist", folder))
    damage(folder, write_idx)
    with pytest.raises(UserError, match=said) as caught:
        sources.read("mnist", sources.find("mnist", folder))
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_idx_plain_and_packed_are_the_same(tmp_path, make_idx):
    made = make_idx(tmp_path, suffix="")
    read = sources.read("mnist", sources.find("mnist", tmp_path))
    image, label = made["train"]
    np.testing.assert_array_equal(read.train["image"], image[..., None])
    np.testing.assert_array_equal(read.train["label"], label)


def test_idx_in_the_official_zip(tmp_path, make_idx):
    prefixes = ("emnist-letters-train", "emnist-letters-test")
    made = make_idx(tmp_path / "gzip", prefixes, first=1, count=26)
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as box:
        for file in sorted((tmp_path / "gzip").iterdir()):
            box.write(file, f"gzip/{file.name}")
            file.unlink()
    paths = sources.find("emnist/letters", tmp_path)
    assert paths == [tmp_path / "gzip.zip"]
    read = sources.read("emnist/letters", paths)
    np.testing.assert_array_equal(read.test["image"][..., 0], made[prefixes[1]][0])
    with pytest.raises(UserError, match=r"gzip.zip lacks emnist-digits-train-images"):
        sources.read("emnist/digits", paths)
    (tmp_path / "gzip.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"gzip.zip is a damaged archive"):
        sources.read("emnist/letters", paths)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_folder_and_archive(tmp_path, cifar_raw, name):
    folder, records = cifar_raw(name)
    labels = records.shape[1] - 3072
    read = sources.read(name, sources.find(name, folder))
    assert read.train["image"].shape == (len(records), 32, 32, 3)
    # Pixel (row 2, column 5) of the green plane of example 3, by hand.
    expected = records[3, labels + 1024 + 2 * 32 + 5]
    assert read.train["image"][3, 2, 5, 1] == expected
    np.testing.assert_array_equal(read.train["label"], records[:, labels - 1])
    assert len(read.class_names["label"]) == (10 if name == "cifar10" else 100)

    packed = tmp_path / "packed"
    packed.mkdir()
    archive = packed / f"cifar-{name[5:]}-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, f"anything-{name}")
    again = sources.read(name, sources.find(name, packed))
    np.testing.assert_array_equal(again.train["image"], read.train["image"])
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(UserError, match=f"{archive.name} is a damaged archive"):
        sources.read(name, [archive])


def test_cifar_damage(cifar_raw):
    folder, _ = cifar_raw("cifar10")
    file = folder / "data_batch_2.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"data_batch_2.bin has 12291 bytes, wanted a"):
        sources.read("cifar10", sources.find("cifar10", folder))
    file.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(UserError, match=r"data_batch_2.bin has label 10 at example 0"):
        sources.read("cifar10", sources.find("cifar10", folder))


def test_cifar_pickles_are_refused(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"pickle.*put cifar-10-binary.tar.gz there"):
        sources.find("cifar10", tmp_path)


def test_official_checksums(mnist_raw, monkeypatch):
    folder, _ = mnist_raw
    paths = sources.find("mnist", folder)
    checksums.check_official("mnist", paths)  # of other sizes: a user's own, accepted
    path = folder / IMAGES
    wrong, right = "0" * 64, hashlib.sha256(path.read_bytes()).hexdigest()

    def claim(checksum, owner="mnist"):
        info = types.SimpleNamespace(size=path.stat().st_size, checksum=checksum)
        infos = {owner: {f"http://x/{IMAGES}": info}}
        monkeypatch.setattr(checksums, "official", lambda name: infos.get(name, {}))

    claim(right)
    checksums.check_official("mnist", paths)
    claim(wrong)
    with pytest.raises(UserError, match=f"{IMAGES} has sha256 {right}, wanted {wrong}"):
        checksums.check_official("mnist", paths)
    claim(right, owner="kmnist")
    with pytest.raises(UserError, match=f"{IMAGES} is the file of kmnist"):
        checksums.check_official("mnist", paths)


@pytest.mark.parametrize("kind", ["gzip", "tar", "zip"])
def test_what_grows_without_end_is_not_unpacked(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "LITTLE", 1 << 16)
    size, path = 1 << 25, tmp_path / "mnist.gz"
    if kind == "tar":
        info = tarfile.TarInfo("mnist")
        info.size = size
        with tarfile.open(path, "w:gz") as tar:
            tar.addfile(info, io.BytesIO(bytes(size)))
    elif kind == "zip":
        path = tmp_path / "mnist.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
            box.writestr("mnist", bytes(size))
    else:
        path.write_bytes(gzip.compress(bytes(size)))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="and unpacked more than"):
            if kind == "gzip":
                raw.gunzip(path.read_bytes(), str(path))
            else:
                sources._unpack(path, ("mnist",))
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()


def test_parse_idx_refuses_a_header_cut_short():
    with pytest.raises(UserError, match="starts with 00 00 08 03"):
        raw.parse_idx(bytes([0, 0, 8, 3, 0, 0]), "images", ndim=3)
