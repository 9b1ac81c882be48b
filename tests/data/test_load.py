"""load(): shapes, places, bad input."""

import http.server
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

from dlworkshop.data import decoded, fetch, load, places, prepare
from dlworkshop.data.load import folder_of, prepare_from, reload
from dlworkshop.errors import UserError

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("DLWORKSHOP_SHARED_DATA", ROOT.parent / "shared/data"))


def test_digits(cache):
    digits = load("digits")
    assert [len(split.targets) for split in digits[:3]] == [1257, 180, 360]
    assert (
        digits.train.inputs.dtype == np.uint8 and digits.train.targets.dtype == np.int32
    )
    assert digits.classes == tuple("0123456789")
    from sklearn.datasets import load_digits  # noqa: PLC0415

    image = np.concatenate([split.inputs for split in digits[:3]])[..., 0]
    label = np.concatenate([split.targets for split in digits[:3]])
    bunch = load_digits()
    expected = np.round(bunch.images * 255 / 16).astype(np.uint8)
    assert image.max() == 255
    rows = sorted(zip(map(bytes, image), label.tolist(), strict=True))
    wanted = zip(map(bytes, expected), bunch.target.tolist(), strict=True)
    assert rows == sorted(wanted)
    assert np.bincount(digits.test.targets).min() >= 20  # every class is tested


def test_fingerprint_follows_the_content(mnist_raw, cache, write_idx):
    folder, _ = mnist_raw
    first = load("mnist", folder)
    assert load("mnist", folder).fingerprint == first.fingerprint
    label = np.arange(60, dtype=np.uint8)[::-1] % 10
    write_idx(folder / "train-labels-idx1-ubyte.gz", label)
    second = load("mnist", folder)  # same names, other contents: no collision
    assert second.fingerprint != first.fingerprint
    assert len(list((cache / "from").iterdir())) == 2
    assert not (folder / "mnist").exists()  # nothing is written beside raw files


def test_validation_is_the_last_part_of_train(mnist_raw, cache):
    folder, _ = mnist_raw
    dataset = load("mnist", folder)
    assert [len(split.targets) for split in dataset[:3]] == [55, 5, 20]
    whole = np.load(next(cache.glob("from/*/mnist/*/arrays/train_image.npy")))
    np.testing.assert_array_equal(dataset.validation.inputs, whole[55:])
    assert isinstance(dataset.train.inputs, np.memmap)


def test_unknown_name():
    with pytest.raises(UserError, match="did you mean 'emnist/letters'"):
        load("emnist_letters")


def test_missing_data_is_said_in_two_lines_and_soon(cache, monkeypatch):
    def hang(*args, **kwargs):
        time.sleep(60)

    assert fetch.PROBE_SECONDS + 1 < 10  # as shipped; shorter here to save time
    monkeypatch.setattr(fetch, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", hang)
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load("mnist")
    assert time.monotonic() - start < 10
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "no answer" in lines[0]
    assert "train-images-idx3-ubyte.gz" in lines[1]
    assert str(cache / "downloads" / "mnist") in lines[1]


def test_a_full_disk_is_one_sentence(tmp_path, full_disk):
    with full_disk(100), pytest.raises(UserError, match=r"cannot be used .File too"):
        load("digits", tmp_path)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path}/file.* cannot be used"):
        load("digits", tmp_path / "file" / "below")


def test_full_disk(cache, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr(decoded.np, "save", full)
    with pytest.raises(UserError, match=r"/some/file cannot be used .No space left"):
        load("digits")
    monkeypatch.undo()
    assert not list(cache.glob("digits")) and not list(cache.glob(".dlworkshop-*"))


def test_interrupted_prepare_can_run_again(mnist_raw, cache, monkeypatch):
    folder, _ = mnist_raw

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoded, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load("mnist", folder)
    (cache / "from" / ".dlworkshop-killed" / "mnist" / "3.0.1").mkdir(parents=True)
    assert len(load("mnist", folder).test.targets) == 20


@pytest.mark.slow
def test_two_prepare_at_once(cache):
    code = "from dlworkshop.data import load; print(load('digits').fingerprint)"
    command = [sys.executable, "-c", code]
    env = os.environ | {"DLWORKSHOP_DATA": str(cache)}
    both = [subprocess.Popen(command, env=env, stdout=-1, stderr=-1) for _ in "12"]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert outputs[0] == outputs[1] and len(outputs[0].strip()) == 16


def test_read_only_tfds_folder(mnist_raw, cache, tmp_path, monkeypatch):
    folder, _ = mnist_raw
    elsewhere = tmp_path / "elsewhere"
    records = prepare.prepare("mnist", elsewhere, folder)
    ours = load("mnist", elsewhere)
    for file in (records / "arrays").iterdir():
        file.unlink()
    (records / "arrays").rmdir()  # now as tfds alone would have left it
    monkeypatch.setattr(places, "read_only", lambda path: elsewhere in path.parents)
    assert load("mnist", elsewhere).fingerprint == ours.fingerprint
    assert not (records / "arrays").exists()
    assert list((cache / "arrays").iterdir())
    monkeypatch.undo()


@pytest.mark.parametrize(
    "name", ["train_image.npy", "train_label.npy", "test_label.npy", "about.json"]
)
def test_a_flipped_bit_in_prepared_data_is_noticed(name, tmp_path):
    load("digits", tmp_path)
    (path,) = tmp_path.rglob(name)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"9") if path.suffix == ".json" else -5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="arrays is damaged"):
        load("digits", tmp_path)


def test_damaged_arrays(cache):
    load("digits")
    file = next(cache.glob("digits/*/arrays/train_image.npy"))
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match="arrays is damaged"):
        load("digits")


def test_other_record_format(cache):
    load("digits")
    records = places.newest(cache, "digits")
    assert records
    info = records / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match="in tfrecord format, wanted array_record"):
        decoded.write("digits", records, records / "again")


def test_default_cache_is_private(tmp_path, monkeypatch):
    monkeypatch.delenv("DLWORKSHOP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert places.cache_dir() == tmp_path / "xdg" / "dlworkshop" / "data"
    assert places.cache_dir().stat().st_mode & 0o777 == 0o700


def test_newest_version_counts_as_a_number(tmp_path):
    for version in ("3.0.1", "3.0.10", "3.0.9", "incomplete.X_3.1.0"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").write_text("{}")
    assert places.newest(tmp_path, "mnist") == tmp_path / "mnist" / "3.0.10"


@pytest.fixture
def server(mnist_raw, monkeypatch):
    """A web server of the raw files, standing in for the official one."""
    folder, _ = mnist_raw

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    infos = {
        f"http://127.0.0.1:{web.server_port}/{path.name}": types.SimpleNamespace(
            size=path.stat().st_size, checksum=digest
        )
        for path, digest in prepare.checksums.digests(folder.iterdir()).items()
    }
    monkeypatch.setattr(fetch, "official", lambda name: infos)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield infos
    web.shutdown()
    web.server_close()


def test_download(server, cache):
    assert len(load("mnist").test.targets) == 20
    assert len(list((cache / "downloads" / "mnist").iterdir())) == 4


def test_download_of_something_else(server, cache):
    list(server.values())[-1].checksum = "0" * 64
    with pytest.raises(UserError, match=r"has sha256 .*, wanted 0000"):
        load("mnist")
    assert len(list((cache / "downloads" / "mnist").iterdir())) == 3  # no part left


def test_what_is_prepared_from_raw_files_needs_them_no_more(mnist_raw, tmp_path):
    folder, _ = mnist_raw
    prepare_from("mnist", folder, tmp_path / "out")
    dataset = load("mnist", tmp_path / "out")
    assert len(dataset.test.targets) == 20
    assert folder_of(dataset, tmp_path / "out") == tmp_path / "out/mnist/3.0.1"
    with pytest.raises(UserError, match=r"is prepared already in .*: leave .* out"):
        prepare_from("mnist", folder, tmp_path / "out")
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        prepare_from("minst", folder, tmp_path / "out")


def test_the_data_of_a_run_come_again(photos, tmp_path):
    first = load(photos, tmp_path)
    found = reload(first.name, first.fingerprint, tmp_path)
    np.testing.assert_array_equal(found.test.inputs, first.test.inputs)
    digits = load("digits")
    assert reload("digits", digits.fingerprint).name == "digits"
    with pytest.raises(
        UserError, match="differs from the one that the run learnt from"
    ):
        reload("digits", "another")
    with pytest.raises(UserError, match=r"the data 'x' of the run are not in"):
        reload("x", "", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / "mnist").is_dir(),
    reason=f"no MNIST in {SHARED}; set DLWORKSHOP_SHARED_DATA",
)
def test_real_mnist(cache):
    import gzip  # noqa: PLC0415

    mnist = load("mnist", SHARED / "mnist")
    assert [len(split.targets) for split in mnist[:3]] == [55_000, 5_000, 10_000]
    for files, splits in (("train", mnist[:2]), ("t10k", mnist[2:3])):
        packed = (SHARED / f"mnist/{files}-images-idx3-ubyte.gz").read_bytes()
        data = gzip.decompress(packed)[16:]
        packed = (SHARED / f"mnist/{files}-labels-idx1-ubyte.gz").read_bytes()
        labels = gzip.decompress(packed)[8:]
        image = np.concatenate([split.inputs for split in splits])
        label = np.concatenate([split.targets for split in splits])
        raw = [data[i : i + 784] for i in range(0, len(data), 784)]
        rows = sorted(zip(map(bytes, image), label.tolist(), strict=True))
        assert rows == sorted(zip(raw, labels, strict=True))
    start = time.perf_counter()
    load("mnist", SHARED / "mnist")
    assert time.perf_counter() - start < 0.5  # 8 ms where this was measured
