"""Data of one's own: folders, tables and arrays, whole and damaged."""

import io
import json
import os
import re
import struct
import threading
import tracemalloc
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dlworkshop import data
from dlworkshop.data import readers
from dlworkshop.data.readers import images, store
from dlworkshop.data.readers.inference_sources import labelled, sources
from dlworkshop.errors import UserError

COLOURS = {"red": (200, 10, 10), "green": (10, 200, 10), "blue": (10, 10, 200)}


def save(path, size=(12, 10), colour=(10, 20, 30), mode="RGB", seed=None, **more):
    """An image file of one colour, or of noise that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    if seed is not None:
        noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
        image = Image.fromarray(noise)
    image.convert(mode).save(path, **more)


@pytest.fixture
def folder(tmp_path):
    """Three classes of twenty images, each different."""
    for k, name in enumerate(COLOURS):
        for i in range(20):
            save(tmp_path / "photos" / name / f"p{i % 5}_{i:02d}.png", seed=100 * k + i)
    return tmp_path / "photos"


def load(path, **options):
    return data.load(path, path.parent / "cache", **options)


def sentence(path, **options):
    """The message of the mistake, which must leave nothing behind."""
    with pytest.raises(UserError) as raised:
        load(path, **options)
    root = path.parent / "cache/own"
    assert not root.exists() or not list(root.iterdir())
    assert "\n" not in str(raised.value)
    return str(raised.value)


def everything(dataset):
    """Images and labels of all splits together."""
    return [
        np.concatenate([np.asarray(part[i]) for part in dataset[:3]]) for i in (0, 1)
    ]


# --- folders ----


def test_a_folder_of_classes_is_split_in_proportion(folder):
    photos = load(folder)
    assert photos.classes == ("blue", "green", "red") and photos.name == "photos"
    assert photos.train.inputs.shape == (42, 10, 12, 3)
    for part, each in zip(photos[:3], (14, 3, 3), strict=True):
        assert np.bincount(part.targets).tolist() == [each] * 3
    assert photos.card["num_skipped"] == 0


def test_what_is_loaded_are_the_pixels_of_the_files(folder):
    image, label = everything(load(folder))
    found = {(k, row.tobytes()) for k, row in zip(label.tolist(), image, strict=True)}
    wanted = {
        (k, np.asarray(Image.open(path)).tobytes())
        for k, name in enumerate(sorted(COLOURS))
        for path in (folder / name).iterdir()
    }
    assert found == wanted


def test_the_second_load_reads_no_content(folder, monkeypatch):
    first = load(folder)
    monkeypatch.setattr(readers.folder, "prepare", None)
    second = load(folder)
    assert second.fingerprint == first.fingerprint
    np.testing.assert_array_equal(second.train.inputs[:], first.train.inputs[:])


def test_equal_names_with_other_content_do_not_collide(folder):
    before = load(folder)
    path = next((folder / "red").iterdir())
    stat = path.stat()
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 1  # the same length, and the time is put back
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load(folder)
    assert after.fingerprint != before.fingerprint


def test_a_moved_folder_is_the_same_content(folder):
    before = load(folder)
    moved = folder.rename(folder.with_name("elsewhere"))
    assert load(moved).fingerprint == before.fingerprint


def test_classes_whose_numbers_are_equal_have_one_order(tmp_path):
    for name in ("01", "1", "001", "2"):
        for i in range(4):
            save(tmp_path / "p" / name / f"{i}.png", seed=int(name + "7") + 100 * i)
    assert load(tmp_path / "p").classes == ("001", "01", "1", "2")


def test_an_added_photo_moves_no_other_photo(folder):
    def places(dataset):
        return {
            row.tobytes(): number
            for number, part in enumerate(dataset[:3])
            for row in np.asarray(part.inputs)
        }

    before = places(load(folder))
    save(folder / "red" / "new.png", seed=999)
    after = places(load(folder))
    assert sum(after[key] != number for key, number in before.items()) <= 1


def test_given_splits_are_kept_and_the_missing_one_is_cut_off_train(tmp_path):
    for part, count in (("Train", 20), ("test", 4)):
        for name in ("10", "9"):
            for i in range(count):
                save(
                    tmp_path / "p" / part / name / f"{i}.png",
                    seed=hash((part, name, i)) % 2**31,
                )
    loaded = load(tmp_path / "p")
    assert loaded.classes == ("9", "10")
    assert [len(part.targets) for part in loaded[:3]] == [34, 6, 8]
    assert "as given" in loaded.card["splits"]


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("RGBA", "a.png"),
        ("CMYK", "a.jpg"),
        ("P", "a.gif"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("YCbCr", "a.jpg"),
        ("I;16", "a.png"),
        ("I;16", "a.tif"),
    ],
)
def test_every_mode_becomes_colour_or_grey(tmp_path, mode, name):
    grey = np.full((8, 8), 100, np.uint8)
    image = Image.fromarray(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = image.convert("RGB").convert(mode)
    image.save(tmp_path / name)
    for channels in (1, 3):
        preprocessing = images.as_shaped((8, 8, channels))
        out = images.decode((tmp_path / name).read_bytes(), preprocessing)
        assert out.shape == (8, 8, channels) and out.dtype == np.uint8
        if mode != "1":  # dithered to black and white
            assert abs(out.astype(int) - 100).max() <= 3


def test_sixteen_bits_become_eight_with_black_black_and_white_white():
    file = io.BytesIO()
    wide = np.array([[0, 255, 256, 32768, 65280, 65535]], np.uint16)
    Image.fromarray(wide).save(file, "PNG")
    preprocessing = images.as_shaped((1, 6, 1))
    wanted = [0, 0, 1, 128, 255, 255]
    assert images.decode(file.getvalue(), preprocessing).ravel().tolist() == wanted


def test_what_is_transparent_becomes_white():
    file = io.BytesIO()
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, 2:, 3] = 255
    Image.fromarray(pixels).save(file, "PNG")
    preprocessing = images.as_shaped((4, 4, 3))
    out = images.decode(file.getvalue(), preprocessing)
    assert (out[:, :2] == 255).all() and (out[:, 2:] == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_exif_orientation_is_respected(orientation, kind):
    upright = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    # how the camera stored it: the inverse of what a viewer does (EXIF 2.3, 4.6.4)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(file, kind, exif=exif)
    preprocessing = images.as_shaped((4, 6, 3))
    np.testing.assert_array_equal(
        images.decode(file.getvalue(), preprocessing), upright
    )


def test_crop_cuts_evenly_and_pad_shows_all():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    preprocessing = images.as_shaped((10, 10, 3))
    assert (images.decode(file.getvalue(), preprocessing) == 255).all()
    preprocessing |= {"height": 30, "width": 30, "resize": "pad"}
    padded = images.decode(file.getvalue(), preprocessing)
    np.testing.assert_array_equal(padded[10:20], wide)
    assert not padded[:10].any() and not padded[20:].any()


def test_a_large_jpeg_is_decoded_at_a_fraction_with_the_same_picture():
    y, x = np.mgrid[0:1:1500j, 0:1:2000j]
    smooth = (255 * np.stack([x, y, x * y], -1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "JPEG", quality=95)
    preprocessing = images.as_shaped((30, 40, 3))
    whole = Image.open(file).convert("RGB").resize((40, 30), Image.Resampling.BICUBIC)
    out = images.decode(file.getvalue(), preprocessing)
    assert abs(out.astype(int) - np.asarray(whole)).max() <= 4


def test_a_few_bad_files_are_named_counted_and_skipped(folder):
    for i in range(200):
        save(folder / "red" / f"more{i}.png", seed=1000 + i)
    whole = (folder / "red" / "more0.png").read_bytes()
    (folder / "red" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "red" / "notes.txt").write_text("not a photo")
    (folder / "red" / ".DS_Store").write_text("not even looked at")
    photos = load(folder)
    assert photos.card["num_skipped"] == 2 and photos.card["files"] == 262
    skipped = dict(photos.card["skipped"])
    assert skipped["red/notes.txt"] == "not a supported image format"
    assert "truncated" in skipped["red/torn.png"]
    assert sum(len(part.targets) for part in photos[:3]) == 260


def test_more_than_one_percent_stops_with_the_list(folder):
    others = ["README.md", "LICENSE", "paper.pdf", "copying", "labels.json"]
    for name in (*others, "notes.jpg", "photo.HEIC"):
        (folder / "red" / name).write_text("not a photo")
    photos = load(folder)  # two lost images of so few are no reason to stop
    assert photos.card["num_skipped"] == 7
    said = " ".join(data.card.warnings(photos.card))
    assert "red/LICENSE (not a supported image format)" in said
    (folder / "red" / "photo.nef").write_text("not a photo")
    with pytest.raises(UserError) as raised:
        load(folder)
    said = str(raised.value)
    assert "3 of 63 files" in said and "red/notes.jpg (not a supported" in said
    assert not any(name in said for name in others)


@pytest.mark.parametrize("name", ["drawing.eps", "photo.png"])
def test_no_program_is_started_for_an_image(folder, tmp_path, monkeypatch, name):
    started = tmp_path / "started"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    for i in range(200):
        save(folder / "red" / f"more{i}.png", seed=1000 + i)
    Image.new("RGB", (20, 20)).save(folder / "red" / name, "EPS")
    skipped = dict(load(folder).card["skipped"])
    assert skipped == {f"red/{name}": "not a supported image format"}
    assert not images.is_colourful(str(folder / "red" / name))
    assert not started.exists()


def test_what_a_decoder_prints_is_no_answer(folder, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, PIL.Image as Image\n"
        "opened = Image.open\n"
        "def noisy(*args, **kwargs):\n"
        "    os.write(1, b'[]\\n')\n"
        "    return opened(*args, **kwargs)\n"
        "Image.open = noisy\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    assert load(folder).card["num_skipped"] == 0


def test_a_decompression_bomb_is_refused():
    file = io.BytesIO()
    Image.new("1", (30_000, 3_000)).save(file, "PNG")
    preprocessing = images.as_shaped((8, 8, 1))
    with pytest.raises(ValueError, match="decompression bomb"):
        images.decode(file.getvalue(), preprocessing)


def test_copies_stay_on_one_side_and_are_reported(folder):
    for i in range(20):
        (folder / "blue" / f"copy{i}.png").write_bytes(
            (folder / "blue" / f"p{i % 5}_{i:02d}.png").read_bytes()
        )
    photos = load(folder)
    assert photos.card["copies"]["examples"] == 20
    assert photos.card["copies"]["across_splits"] == 0
    sides = [{row.tobytes() for row in np.asarray(p.inputs)} for p in photos[:3]]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_copies_across_given_splits_are_named(tmp_path):
    for part in ("train", "test"):
        for name in ("a", "b"):
            for i in range(6):
                save(
                    tmp_path / "p" / part / name / f"{i}.png",
                    seed=i + 10 * (name == "b") + 50 * (part == "test" and i > 0),
                )
    copies = load(tmp_path / "p").card["copies"]
    assert copies["across_splits"] == 2
    assert any("train/a/0.png" in text for text in copies["across"][0])


def test_a_group_stays_on_one_side(folder):
    photos = load(folder, group_by=r"/(p\d)_")
    groups = photos.card["groups"]
    assert groups["groups"] == 5 and groups["in_several_splits"] == 0
    person = {}  # pixels -> who
    for path in folder.rglob("*.png"):
        person[np.asarray(Image.open(path)).tobytes()] = path.name[:2]
    sides = [
        {person[row.tobytes()] for row in np.asarray(p.inputs)} for p in photos[:3]
    ]
    assert all(sides) and sum(map(len, sides)) == 5


def test_one_file_becomes_the_example_it_was_in_training(folder):
    photos = load(folder, image_size=9, resize="pad")
    preprocessing = json.loads(json.dumps(photos.preprocessing))
    rows = {row.tobytes() for row in everything(photos)[0]}
    for path in (folder / "green").iterdir():
        assert readers.to_example(path, preprocessing).tobytes() in rows


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (lambda f: (f / "train").mkdir(), {}, "class 'train' has no image"),
        (
            lambda f: [save(f.parent / "x" / "a" / "1.png")],
            {"group_by": "("},
            "no regular expression",
        ),
        (lambda f: None, {"group_by": "q"}, "not found in 60 of 60"),
        (lambda f: None, {"group_by": 5}, "group_by is 5: give text"),
        (lambda f: None, {"group_by": "red|green|blue"}, "no class has 3 groups"),
        (lambda f: None, {"target": "x"}, "does not need"),
        (lambda f: None, {"image_size": 0}, "1 to 4096"),
        (lambda f: None, {"image_size": 2.5}, "1 to 4096"),
        (lambda f: None, {"image_size": True}, "1 to 4096"),
        (lambda f: None, {"resize": "squeeze"}, "crop, pad"),
    ],
)
def test_mistakes_with_a_folder_are_one_sentence(folder, spoil, options, said):
    spoil(folder)
    assert said in sentence(folder, **options)


def test_a_folder_without_classes_is_one_sentence(tmp_path):
    save(tmp_path / "p" / "1.png")
    assert "0 folders of a class" in sentence(tmp_path / "p")
    (tmp_path / "p" / "a").mkdir()
    assert "1 folder of a class" in sentence(tmp_path / "p")
    (tmp_path / "p" / "b").mkdir()
    assert "no file in them" in sentence(tmp_path / "p")
    (tmp_path / "p").rename(tmp_path / "q")
    (tmp_path / "p/more").mkdir(parents=True)
    (tmp_path / "q").rename(tmp_path / "p/more/q")
    said = f"has only the folder 'q', which has 2 folders: give the path {tmp_path}"
    assert sentence(tmp_path / "p").endswith(said + "/p/more/q")


def test_a_split_folder_may_be_doubled(tmp_path):
    for k, kind in enumerate(("seg_train/cat", "seg_train/dog", "seg_test/cat")):
        part, name = kind.split("/")
        for i in range(8):
            save(tmp_path / "p" / part / part / name / f"{i}.png", seed=10 * k + i)
    loaded = load(tmp_path / "p")
    assert loaded.classes == ("cat", "dog") and loaded.test.num_examples == 8


def test_a_train_folder_without_two_classes_is_one_sentence(tmp_path):
    for place in ("train/cat", "test/cat"):
        save(tmp_path / "p" / place / "1.png")
    said = "p/train has 1 folder of a class, wanted at least 2: put"
    assert said in sentence(tmp_path / "p")
    save(tmp_path / "p/train/images/dog/1.png")
    (tmp_path / "p/train/cat").rename(tmp_path / "p/train/images/cat")
    said = "p/train has 1 folder of a class ('images' has 2 folders: if these are the"
    assert said in sentence(tmp_path / "p")


def test_a_test_class_unknown_to_train_is_one_sentence(tmp_path):
    for place in ("train/a", "train/b", "test/c"):
        save(tmp_path / "p" / place / "1.png")
    assert "train has no folder 'c'" in sentence(tmp_path / "p")
    (tmp_path / "p/train").rename(tmp_path / "p/validation")
    assert "no train folder" in sentence(tmp_path / "p")


def test_what_is_not_there_or_of_no_known_kind(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        data.load(tmp_path / "nothing.csv")
    with pytest.raises(
        UserError, match="unknown data set 'digts': did you mean 'digits'"
    ):
        data.load("digts")
    (tmp_path / "a.doc").write_text("x")
    assert "has an unknown format" in sentence(tmp_path / "a.doc")
    with pytest.raises(UserError, match="for data of your own"):
        data.load("digits", target="x")


def test_a_worker_that_dies_is_one_sentence_and_nothing_stays(folder, monkeypatch):
    broken = folder.parent / "broken.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(images, "__file__", str(broken))
    assert "ended with 3 between" in sentence(folder)


def test_records_that_cannot_be_written_are_one_sentence(folder, tmp_path):
    found = readers.folder.listing(folder)
    preprocessing = images.as_shaped((8, 8, 3))
    with pytest.raises(UserError, match=r"records-\d+.* cannot be written"):
        readers.folder.workers.decode(found.files, preprocessing, tmp_path / "nowhere")


def test_a_class_that_is_added_empty_is_not_overlooked(folder):
    load(folder)
    (folder / "yellow").mkdir()
    with pytest.raises(UserError, match="class 'yellow' has no image"):
        load(folder)


# --- records as an array ----


@pytest.mark.parametrize(
    "rows",
    [
        0,
        -1,
        slice(3, 9),
        slice(None, None, -2),
        [5, 1, 1],
        np.array([[0, 7], [9, 2]]),
        np.arange(10) % 3 == 0,
        np.int32(4),
        np.array([], int),
    ],
    ids=repr,
)
def test_records_are_indexed_like_an_array(tmp_path, rows):
    values = np.random.default_rng(0).normal(size=(12, 3, 2)).astype(np.float32)
    (tmp_path / "b").mkdir()
    for home, part in (("b", values[:5]), (".", values[5:])):
        store.write_records(tmp_path / home, part)
    files = [tmp_path / home / "records-00000.array_record" for home in ("b", ".")]
    index = np.array([11, 0, 3, 4, 5, 6, 7, 10, 2, 1])
    records = store.Records(files, [0, 5, 12], index, (3, 2), np.float32)
    np.testing.assert_array_equal(records[rows], values[index][rows])
    np.testing.assert_array_equal(np.asarray(records), values[index])
    assert records.shape == (10, 3, 2) and records.ndim == 3 and len(records) == 10
    with pytest.raises(TypeError):
        records[0, 0]
    with pytest.raises(IndexError):
        records[10]


# --- what folders of real life have in them ----


def test_class_names_of_one_number_are_scored_by_name(tmp_path):
    for k, name in enumerate(("1", "01")):
        for i in range(6):
            save(tmp_path / "p" / name / f"{i}.png", seed=100 * k + i)
    loaded = load(tmp_path / "p")
    assert loaded.classes == ("01", "1")
    backwards = ("1", "01")  # as another run may have them
    found = labelled(tmp_path / "p", loaded.preprocessing, backwards, None)
    assert all(
        backwards[source.label] == source.content.parent.name for source in found
    )


def test_a_link_to_nothing_is_named_counted_and_left_out(folder, caplog):
    for i in range(60):
        save(folder / "red" / f"more{i}.png", seed=1000 + i)
    (folder / "red" / "gone.png").symlink_to("/nowhere/at/all.png")
    photos = load(folder)
    assert sum(part.num_examples for part in photos[:3]) == 120
    assert photos.card["skipped"] == [
        ["red/gone.png", "no regular file, or a dangling link"]
    ]
    assert "red/gone.png (no regular file, or a dangling link)" in caplog.text
    again = load(folder)
    assert again.fingerprint == photos.fingerprint
    same = readers.fingerprint(folder, photos.preprocessing, None, None)
    assert same == photos.fingerprint


def test_links_that_are_not_followed_are_named(folder, caplog):
    """To a folder, which may lead back to this one, and to the link itself."""
    (folder / "red" / "more").symlink_to(folder)
    (folder / "red" / "loop").symlink_to("loop")
    photos = load(folder)
    assert sum(part.num_examples for part in photos[:3]) == 60
    assert photos.card["skipped"] == [
        ["red/loop", "no regular file, or a dangling link"],
        ["red/more", "a link to a folder, which is not followed"],
    ]
    found = list(sources([folder], photos.preprocessing))
    assert len([source for source in found if source.name.endswith(".png")]) == 60
    assert "red/more, a link to a folder: give that folder, too" in caplog.text


def test_a_folder_beside_those_of_splits_is_named(folder):
    for name in ("train", "Test_png"):
        for k in COLOURS:
            save(folder.parent / "p" / name / k / "1.png", seed=len(name))
            save(folder.parent / "p" / name / k / "2.png", seed=len(name) + 9)
    assert (
        load(folder.parent / "p").card["splits"].startswith("train and test as given")
    )
    for k in COLOURS:
        save(folder.parent / "p" / "Train_jpg" / k / "3.png", seed=55)
    said = load(folder.parent / "p").card["warnings"]
    assert "'Train_jpg', 'train' together are train." in said
    save(folder.parent / "p" / "sample" / "1.png", seed=77)
    said = "the folder 'sample' beside those of splits (Test_png, Train_jpg, train)"
    with pytest.raises(UserError, match=re.escape(said)):
        load(folder.parent / "p")


def test_train_may_be_a_class(tmp_path):
    for k, name in enumerate(("bus", "car", "train")):
        for i in range(3):
            save(tmp_path / "p" / name / f"{i}.png", seed=10 * k + i)
    assert load(tmp_path / "p").classes == ("bus", "car", "train")


@pytest.mark.parametrize("other", ["test1", "Val", "train2"])
def test_splits_without_classes_are_no_classes(tmp_path, other):
    for k, name in enumerate(("train", other)):
        for i in range(3):
            save(tmp_path / "p" / name / f"cat.{i}.png", seed=10 * k + i)
    assert "has the images of a split in one folder" in sentence(tmp_path / "p")


def test_names_that_are_not_utf_8_are_text_with_escapes(tmp_path):
    for k, name in enumerate((b"caf\xe9", b"tea")):
        home = os.path.join(os.fsencode(tmp_path), b"p", name)
        os.makedirs(home)
        for i in range(4):
            image = io.BytesIO()
            Image.new("L", (4, 4), 20 * i + 100 * k).save(image, "PNG")
            with open(os.path.join(home, b"br\xf6t%d.png" % i), "wb") as file:
                file.write(image.getvalue())
    loaded = load(tmp_path / "p", group_by=r"/(.*)\.png")
    assert loaded.classes == ("caf\\xe9", "tea")
    json.dumps([loaded.card, loaded.classes], ensure_ascii=False).encode()
    found = list(sources([tmp_path / "p"], loaded.preprocessing))
    assert found[0].name.endswith("caf\\xe9/br\\xf6t0.png")
    readers.to_example(found[0].content, loaded.preprocessing)


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    for part, form in (("train", "NFC"), ("test", "NFD")):
        for k, name in enumerate(("café", "thé")):
            for i in range(4):
                home = tmp_path / "p" / part / unicodedata.normalize(form, name)
                save(home / f"{i}.png", seed=10 * k + i + 100 * len(part))
    loaded = load(tmp_path / "p")
    assert loaded.classes == ("café", "thé") and loaded.test.num_examples == 8


def test_a_pipe_or_a_device_is_no_image_and_is_not_waited_for(folder):
    for i in range(140):
        save(folder / "red" / f"more{i}.png", seed=1000 + i)
    os.mkfifo(folder / "red" / "pipe.png")
    (folder / "red" / "zero.png").symlink_to("/dev/zero")
    assert load(folder).card["num_skipped"] == 2
    assert len(list(sources([folder], images.as_shaped((8, 8, 3))))) == 200
    os.mkfifo(folder.parent / "t.csv")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        load(folder.parent / "t.csv", target="y")


def test_only_the_arrays_that_are_wanted_are_read(tmp_path):
    x, y = np.zeros((30, 2, 2), np.uint8), np.arange(30) % 2
    x[:, 0, 0] = np.arange(30)
    large = np.zeros(1 << 25, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y, large=large)
    tracemalloc.start()
    try:
        assert load(tmp_path / "a.npz").classes == ("0", "1")
        assert tracemalloc.get_traced_memory()[1] < large.nbytes // 2
    finally:
        tracemalloc.stop()


def test_damaged_names_are_noticed(folder):
    load(folder)
    (names,) = folder.parent.glob("cache/own/*/names.json")
    names.write_text(names.read_text().replace("red", "rad"))
    with pytest.raises(UserError, match=r"names\.json is not as it was written"):
        load(folder)


def test_an_index_that_is_not_text_is_written_again(folder):
    first = load(folder)
    (index,) = folder.parent.glob("cache/own/index/*")
    index.write_bytes(b"\xff\xfe")
    assert load(folder).fingerprint == first.fingerprint
    assert index.read_text() == first.fingerprint


def test_folders_too_deep_are_one_sentence(folder, monkeypatch):
    def walk(home):
        raise RecursionError

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UserError, match="too deep to be walked"):
        load(folder)


def test_what_machines_leave_is_no_class_and_no_example(folder):
    (folder / "__MACOSX" / "red").mkdir(parents=True)
    (folder / "__MACOSX" / "red" / "._p0.png").write_bytes(b"x")
    (folder / "red" / "Thumbs.db").write_bytes(b"x")
    (folder / "lost+found").mkdir()
    save(folder / "red" / "@eaDir" / "p0.png" / "SYNOPHOTO_THUMB_M.jpg", seed=1)
    assert load(folder).card["num_skipped"] == 0
    found = list(sources([folder], images.as_shaped((8, 8, 3))))
    assert len(found) == 60


def test_notes_beside_images_are_left_out_when_a_folder_is_answered(folder, caplog):
    caplog.set_level("INFO", "dlworkshop")
    (folder / "README.md").write_text("these are photos")
    found = list(sources([folder], images.as_shaped((8, 8, 3))))
    assert len(found) == 60 and "README.md" in caplog.text


@pytest.mark.parametrize(
    ("most", "dtype", "depth"),
    [(255, np.int32, 8), (4095, np.uint16, 12), (65535, np.uint16, 16)],
)
def test_grey_values_have_the_range_of_their_data_set(tmp_path, most, dtype, depth):
    for k, name in enumerate("ab"):
        for i in range(6):
            home = tmp_path / "p" / name
            home.mkdir(parents=True, exist_ok=True)
            top = (64 + 6 * k + i) * (most + 1) // 256
            top = most if (k, i) == (1, 5) else top  # one is bright
            ramp = np.linspace(0, top, 64).reshape(8, 8).astype(dtype)
            Image.fromarray(ramp).save(home / f"{i}.tif")
    loaded = load(tmp_path / "p")
    assert loaded.preprocessing["depth"] == depth
    values = everything(loaded)[0]
    assert sorted(values.max((1, 2, 3)).tolist()) == [*range(64, 75), 255]
    assert f"the highest 8 of {depth} bits" in loaded.card["prepared"]
    alone = readers.to_example(tmp_path / "p/a/0.tif", loaded.preprocessing)
    assert alone.max() == 64
    beyond = np.full((8, 8), 2 * most + 1, np.int32)
    Image.fromarray(beyond).save(tmp_path / "beyond.tif")
    with pytest.raises(UserError, match=f"grey values .* wanted 0 to {most}"):
        readers.to_example(tmp_path / "beyond.tif", loaded.preprocessing)


def test_a_pipe_is_not_waited_for_where_all_files_are_searched_for_wide_greys(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    looking = threading.Thread(
        target=images.bits_in, args=(str(tmp_path / "pipe.png"),), daemon=True
    )
    looking.start()
    looking.join(2)
    assert not looking.is_alive()


def test_one_file_that_darkens_all_others_is_named(tmp_path):
    for i in range(12):
        home = tmp_path / "p" / "ab"[i % 2]
        home.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 2000, (8, 8)).astype(np.uint16)
        noise[0, 0] = 65535 if i == 7 else 0
        Image.fromarray(noise).save(home / f"{i}.png")
    (said,) = load(tmp_path / "p").card["warnings"]
    assert "most files need at most 11 bits, and 16 because of" in said
    assert str(tmp_path / "p/b/7.png") in said and "6.png" not in said


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_wide_colours_of_which_eight_bits_are_kept_are_said(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 4096, (6, 8, 8, 3)).astype(">u2")
    for i, pixels in enumerate(noise):
        home = tmp_path / "p" / "ab"[i % 2]
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{i}.{kind}").write_bytes(wide_colours(pixels, kind))
    loaded = load(tmp_path / "p")
    assert "6 files have 16 bits per channel" in loaded.card["warnings"][0]
    assert np.sort(everything(loaded)[0], None).tolist() == sorted(
        (noise >> 8).ravel().tolist()
    )


def wide_colours(pixels, kind):
    """A file of colours [H, W, 3] of 16 bits, which Pillow cannot write."""
    height, width, _ = pixels.shape
    if kind == "tif":
        entries = [(256, width), (257, height), (258, 122), (259, 1), (262, 2)]
        entries += [(273, 128), (277, 3), (278, height), (279, pixels.nbytes)]
        head = b"MM\0*" + struct.pack(">IH", 8, len(entries))
        for tag, value in entries:
            kind, count = (3, 3) if tag == 258 else (4, 1)
            head += struct.pack(">HHII", tag, kind, count, value)
        return head + b"\0" * 4 + struct.pack(">HHH", 16, 16, 16) + pixels.tobytes()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def test_grey_images_stored_as_colour_become_one_channel_and_that_is_said(tmp_path):
    for k, name in enumerate("ab"):
        for i in range(6):
            noise = np.random.default_rng(10 * k + i).integers(0, 256, (8, 8), np.uint8)
            home = tmp_path / "p" / name
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).convert("RGB").save(home / f"{i}.png")
    loaded = load(tmp_path / "p")
    assert loaded.train.inputs.shape[1:] == (8, 8, 1)
    assert "grey, because the three channels" in loaded.card["prepared"]
    assert not loaded.card["warnings"]


def test_orientation_is_found_wherever_png_keeps_it(tmp_path):
    upright = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = b"exif\n      %d\n%s\n" % (len(exif.tobytes()), exif.tobytes().hex().encode())
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/'
        '1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/'
        'tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    for key, value in (
        ("Raw profile type exif", "\n" + raw.decode()),
        ("XML:com.adobe.xmp", xmp),
    ):
        info = PngImagePlugin.PngInfo()
        info.add_itxt(key, value) if key[0] == "X" else info.add_text(key, value, True)
        file = io.BytesIO()
        stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
        stored.save(file, "PNG", pnginfo=info)
        example = images.decode(file.getvalue(), images.as_shaped((4, 6, 3)))
        np.testing.assert_array_equal(example, upright, err_msg=key)


def test_a_class_of_two_files_is_refused_by_name(folder):
    for i in range(2):
        save(folder / "rare" / f"{i}.png", seed=500 + i)
    assert "the class 'rare' has 2 examples to learn from, wanted" in sentence(folder)


def test_a_named_data_set_may_come_as_a_path(cache, tmp_path, monkeypatch):
    from pathlib import Path  # noqa: PLC0415

    assert data.load(Path("digits")).name == "digits"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match="digits has 0 folders of a class"):
        data.load(Path("digits"))
