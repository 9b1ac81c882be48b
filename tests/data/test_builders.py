"""Prepared folders are tfds folders, made and read without TensorFlow or a network."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from dlworkshop.data import NAMES, load, prepare

# Hidden, not just broken: tfds asks whether TensorFlow is installed.
ISOLATED = """
import builtins, importlib.machinery, socket, sys
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] == "tensorflow"
    else find(name, *rest)
)
def no_network(*args, **kwargs):
    raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = no_network
"""


def run_isolated(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", ISOLATED + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_whole_path_without_tensorflow_and_network(mnist_raw, cache, tmp_path):
    folder, _ = mnist_raw
    done = run_isolated(
        """
        from pathlib import Path
        raw, cache = map(Path, sys.argv[1:])
        from dlworkshop.data import load, prepare
        assert not {"tensorflow_datasets", "PIL", "sklearn"} & set(sys.modules)
        assert load("digits").train.inputs.shape == (1257, 8, 8, 1)
        prepare.prepare("mnist", cache, raw)
        import numpy as np
        import tensorflow_datasets as tfds
        for name, num_train in (("digits", 1437), ("mnist", 60)):
            ours = load(name)
            plain = tfds.data_source(name, data_dir=cache, split="train")
            assert len(plain) == num_train
            image = np.concatenate([ours.train.inputs, ours.validation.inputs])
            label = np.concatenate([ours.train.targets, ours.validation.targets])
            for i, row in enumerate(plain):
                assert (row["image"] == image[i]).all() and row["label"] == label[i]
        try:
            import tensorflow
        except ModuleNotFoundError:
            print("read without TensorFlow")
        """,
        folder,
        cache,
    )
    assert done.stdout.strip() == "read without TensorFlow", done.stderr[-3000:]


@pytest.mark.slow
def test_second_load_does_not_import_tfds(cache):
    load("digits")
    done = run_isolated(
        """
        import sys
        from dlworkshop.data import load
        load("digits")
        print({"tensorflow_datasets", "PIL", "sklearn"} & set(sys.modules))
        """
    )
    assert done.stdout.strip() == "set()", done.stderr


def test_records_are_the_raw_arrays(mnist_raw, cache):
    folder, made = mnist_raw
    dataset = load("mnist", folder)
    image = np.concatenate([dataset.train.inputs, dataset.validation.inputs])
    label = np.concatenate([dataset.train.targets, dataset.validation.targets])

    def rows(images, labels):  # order is tfds' own, so compare as sets
        return sorted(zip(map(bytes, images), labels.tolist(), strict=True))

    assert rows(image, label) == rows(*made["train"])
    assert rows(*dataset.test[:2]) == rows(*made["t10k"])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(cifar_raw, cache, tmp_path, name):
    import tensorflow_datasets as tfds  # noqa: PLC0415

    folder, records = cifar_raw(name)
    prepare.prepare(name, cache, folder)
    dataset = load(name)
    prefix = "thing" if name == "cifar10" else "fine"
    assert dataset.classes[:2] == (f"{prefix}0", f"{prefix}1")
    labels = records.shape[1] - 3072
    plain = tfds.data_source(name, data_dir=cache, split="train")
    assert len(plain) == len(records)
    for row in plain:
        record = records[int(row["id"].decode().removeprefix("train_"))]
        image = record[labels:].reshape(3, 32, 32).transpose(1, 2, 0)
        np.testing.assert_array_equal(row["image"], image)
        assert row["label"] == record[labels - 1]
        assert labels == 1 or row["coarse_label"] == record[0]


def test_emnist_letters_are_upright_and_counted_from_0(make_idx, cache, tmp_path):
    import tensorflow_datasets as tfds  # noqa: PLC0415

    prefixes = ("emnist-letters-train", "emnist-letters-test")
    make_idx(tmp_path / "raw", prefixes, first=1, count=26)
    prepare.prepare("emnist/letters", cache, tmp_path / "raw")
    dataset = load("emnist/letters")
    plain = tfds.data_source("emnist/letters", data_dir=cache, split="test")
    assert dataset.classes[0] == "A" and len(dataset.classes) == 26
    for row, image, label in zip(plain, *dataset.test[:2], strict=True):
        np.testing.assert_array_equal(image, row["image"].swapaxes(0, 1))
        assert label == row["label"] - 1


def test_names_features_and_versions_are_official():
    import tensorflow_datasets as tfds  # noqa: PLC0415

    from dlworkshop.data.builders import builder_class  # noqa: PLC0415
    from dlworkshop.data.checksums import official as checksums_of  # noqa: PLC0415

    for name in set(NAMES) - {"digits"}:
        ours, official = builder_class(name), tfds.builder_cls(name.partition("/")[0])
        assert ours is not official  # ours is not registered in its place
        assert (ours.name, ours.VERSION) == (official.name, official.VERSION)
        assert all(len(i.checksum) == 64 for i in checksums_of(name).values())
        assert checksums_of(name)
