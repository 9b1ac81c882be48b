"""A data set of plain arrays: what y is, how splits are cut, and what is refused."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from dlworkshop import data
from dlworkshop.data.rows import Rows
from dlworkshop.errors import UserError
from dlworkshop.types import Batch, Dataset

N = 200
RNG = np.random.default_rng(0)
X = RNG.random((N, 3))
Y = np.arange(N) % 4


def everything(dataset, field=0):
    """The rows of all splits together, sorted."""
    rows = np.concatenate([np.asarray(part[field]) for part in dataset[:3]])
    return np.sort(rows, axis=0)


def test_one_line_gives_three_splits_of_the_same_examples():
    dataset = data.from_arrays(X, Y)
    assert [part.num_examples for part in dataset[:3]] == [136, 32, 32]
    np.testing.assert_array_equal(everything(dataset), np.sort(X.astype("f4"), axis=0))
    pairs = {(row.tobytes(), y) for row, y in zip(X.astype("f4"), Y, strict=True)}
    for part in dataset[:3]:  # each input keeps its target, each class its share
        assert all((x.tobytes(), y) in pairs for x, y in zip(*part[:2], strict=True))
        counts = np.bincount(part.targets)
        assert counts.max() == counts.min()
    assert dataset.classes == ("0", "1", "2", "3") and dataset.name == "data"
    assert dataset.train.targets.dtype == np.int32 and dataset.train.weights is None


def test_the_cut_is_that_of_the_seed():
    one, same, other = (data.from_arrays(X, Y, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.test.inputs, same.test.inputs)
    assert data.fingerprint(one) == data.fingerprint(same) != data.fingerprint(other)


@pytest.mark.parametrize(
    ("y", "classes", "names", "dtype", "label"),
    [
        (Y.astype(np.uint8), None, ("0", "1", "2", "3"), np.int32, Y),
        (Y[:, None].astype(np.uint8), None, ("0", "1", "2", "3"), np.int32, Y),
        (jnp.asarray(Y), None, ("0", "1", "2", "3"), np.int32, Y),
        (Y.tolist(), None, ("0", "1", "2", "3"), np.int32, Y),
        (Y % 2 == 0, None, ("False", "True"), np.int32, 1 - Y % 2),
        (Y, "abcde", tuple("abcde"), np.int32, Y),  # one of them occurs nowhere
        (np.array(list("dcba"))[Y], None, tuple("abcd"), np.int32, 3 - Y),
        (np.array(list("dcba"))[Y].astype(object), None, tuple("abcd"), "i4", 3 - Y),
        (np.array(list("dcba"))[Y].astype("S"), None, tuple("abcd"), "i4", 3 - Y),
        (np.array(list("dcba"))[Y], "dcba", tuple("dcba"), np.int32, Y),
        (Y, (), (), np.int32, Y),
        (Y.astype(np.uint8), (), (), np.int32, Y),
        (Y % 2 == 0, (), (), np.float32, 1 - Y % 2),
        (Y.astype(float), None, (), np.float32, Y),
        (np.eye(4)[Y] > 0, None, (), np.float32, np.eye(4)[Y]),
        (np.eye(4, dtype=int)[Y], None, (), np.int32, np.eye(4)[Y]),
    ],
)
def test_what_y_is_follows_from_y_and_classes(y, classes, names, dtype, label):
    classes = tuple(classes) if classes is not None else None
    dataset = data.from_arrays(
        X, y, classes=classes, validation=(X, y), test=(X[:8], y[:8])
    )
    assert dataset.classes == names
    for part in dataset[:3]:
        assert part.targets.dtype == dtype
        np.testing.assert_array_equal(part.targets, label[: part.num_examples])


def test_pytrees_images_and_no_targets():
    inputs = {"image": RNG.integers(0, 256, (N, 4, 4, 1), np.uint8), "age": X[:, 0]}
    target = {"mask": inputs["image"], "count": Y.astype(np.uint8)}
    dataset = data.from_arrays(inputs, target)
    assert dataset.classes == () and dataset.train.num_examples == 140
    part = dataset.test
    assert part.inputs["image"].dtype == part.targets["mask"].dtype == np.uint8
    assert part.targets["count"].dtype == np.int32
    np.testing.assert_array_equal(part.inputs["image"], part.targets["mask"])
    alone = data.from_arrays((X, X), test=((X, X), None))
    assert alone.train.targets is None and alone.test.num_examples == N


def test_groups_stay_together():
    group = np.array([f"person {i // 5}" for i in range(N)])
    dataset = data.from_arrays({"x": X, "i": np.arange(N)}, Y, groups=group)
    sides = [set(group[part.inputs["i"]]) for part in dataset[:3]]
    assert all(sides) and sum(map(len, sides)) == N // 5
    for part, numbers in zip(dataset[:2], dataset.groups, strict=True):
        own = group[part.inputs["i"]]
        assert len(set(zip(own, numbers, strict=True))) == len(set(own))
    assert not set(dataset.groups[0]) & set(dataset.groups[1])
    given = data.from_arrays(X, Y, groups=group, validation=(X, Y))
    assert len(set(given.groups[1])) == N  # of none of these groups
    assert not set(given.groups[0]) & set(given.groups[1])
    alone = given._replace(groups=None, fingerprint="")
    assert data.fingerprint(alone) != data.fingerprint(given)


def test_weights_have_mean_one_over_train():
    weights = RNG.random(N) * 7
    dataset = data.from_arrays(X, Y, weights=weights, test=(X, Y, weights))
    assert abs(dataset.train.weights.mean() - 1) < 1e-6
    ratio = dataset.test.weights / weights
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)  # one factor for all
    half = data.from_arrays(X, Y, test=(X, Y, weights))
    assert half.train.weights is None and half.test.weights is not None


@pytest.mark.parametrize("kind", ["memmap", "h5py"])
def test_what_is_on_disk_stays_there(tmp_path, kind):
    x = RNG.integers(0, 256, (N, 5, 5, 1), np.uint8)
    if kind == "memmap":
        np.save(tmp_path / "x.npy", x)
        source = np.load(tmp_path / "x.npy", mmap_mode="r")
    else:
        source = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=x)
    lazy, plain = data.from_arrays(source, Y), data.from_arrays(x, Y)
    assert isinstance(lazy.train.inputs, Rows)
    assert data.fingerprint(lazy) == data.fingerprint(plain)
    for mine, other in zip(lazy[:3], plain[:3], strict=True):
        np.testing.assert_array_equal(mine.inputs[:], other.inputs)
        index = np.array([[3, 3], [1, 0]])
        np.testing.assert_array_equal(mine.rows(index).inputs, other.inputs[index])


class Frame:
    """As much of a data frame as one of pandas or polars has."""

    def __init__(self, **columns):
        self.columns, self._data = list(columns), columns
        self.dtypes = [column.dtype for column in columns.values()]

    def __getitem__(self, name):
        return self._data[name]


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4", np.longdouble])
@pytest.mark.parametrize("on_disk", [False, True])
def test_numbers_of_other_machines_become_those_of_this_one(tmp_path, dtype, on_disk):
    x = np.arange(3 * N).reshape(N, 3).astype(dtype)
    if on_disk:
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = data.from_arrays(x, x).train
    assert jnp.array(found.inputs[:5]).tolist() == jnp.array(found.targets[:5]).tolist()
    known = set(np.asarray(x, float)[:, 0].tolist())
    assert set(found.inputs[:][:, 0].tolist()) <= known


def test_data_frames_become_vectors():
    dataset = data.from_arrays(Frame(a=X[:, 0], b=Y), Frame(y=Y))
    assert dataset.train.inputs.shape == (136, 2) and len(dataset.classes) == 4
    assert dataset.train.inputs.dtype == np.float32
    with pytest.raises(UserError, match=r"column 'b' has no numbers.*save a CSV"):
        data.from_arrays(Frame(a=Y, b=np.array(["x"] * N)), Y)


def test_the_fingerprint_is_of_the_content():
    base = data.from_arrays(X, Y)
    split = base.train
    by_hand = Dataset(base.train, base.validation, base.test, base.classes, "other")
    known = data.fingerprint(base)
    assert data.fingerprint(by_hand) == known and base.fingerprint == ""
    device = by_hand.each_split(lambda part: jax.tree.map(jnp.asarray, part))
    assert data.fingerprint(device) == known
    order = by_hand.each_split(
        lambda part: part._replace(inputs=np.asfortranarray(part.inputs).astype(">f4"))
    )
    assert data.fingerprint(order) == known
    one = split.inputs.copy()
    one[-1, -1] += 1e-3
    for change in (
        by_hand._replace(train=split._replace(inputs=one)),
        by_hand._replace(train=split._replace(inputs=split.inputs.reshape(-1, 1, 3))),
        by_hand._replace(train=split._replace(inputs={"x": split.inputs})),
        by_hand._replace(train=split._replace(targets=split.targets.astype(np.int16))),
        by_hand._replace(train=split._replace(weights=np.ones(136, np.float32))),
        by_hand._replace(train=base.validation, validation=base.train),
        by_hand._replace(classes=tuple("abcd")),
    ):
        assert data.fingerprint(change) != known
    half = Batch(jnp.ones((4, 2), jnp.bfloat16))
    assert data.fingerprint(Dataset(half, half, half))


NAN = np.where(np.arange(N) == 7, np.nan, 1.0)


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((X, Y[:-1]), {}, "y has 199 examples and x 200"),
        ((X, Y), {"weights": np.ones(3)}, "weights has 3 examples and x 200"),
        ((X, Y), {"weights": -np.ones(N)}, "weights has -1.0 at example 0"),
        ((X, Y), {"weights": NAN}, "weights has nan at example 7"),
        ((X, Y), {"weights": np.zeros(N)}, "weights is 0 for every example"),
        ((X, NAN), {}, "y has NaN in example 7"),
        ((X, {"a": X, "b": NAN}), {}, r"y\['b'\] has NaN in example 7"),
        ((X[:0], Y[:0]), {}, r"x has shape \[0, 3\], which is empty"),
        ((3.0, Y), {}, "x is '3.0', one value"),
        (({}, Y), {}, "x has no array in it"),
        (([[1, 2], [3]], [0, 1]), {}, "x is no array"),
        ((np.array([{}] * N), Y), {}, r"x has Python objects \('\{\}' is one\)"),
        ((X, np.array(["a", None] * 100)), {}, r"y has Python objects \('None' is"),
        ((np.array(["a"] * N), Y), {}, "x is text"),
        ((np.array([2**40] * N), Y), {}, "beyond int32"),
        ((X.astype("M8[s]"), Y), {}, r"x has datetime64\[s\]"),
        ((np.ma.masked_array(X, X > 0.5), Y), {}, "x has masked values"),
        ((X, Y + 1), {}, "4 different whole numbers from 1 to 4"),
        ((X, np.arange(N)), {}, "200 different values for 200 examples"),
        ((X, Y * 0), {}, "y is 0 for every example"),
        ((X, Y), {"classes": "ab"}, "classes is 'ab': give a name"),
        ((X, Y), {"classes": ("a", "b")}, "y has classes from 0 to 3, and there are 2"),
        ((X, Y), {"classes": ("a", "a")}, "'a' twice"),
        ((X, X), {"classes": ("a", "b")}, r"classes are given, but y is float32"),
        ((X,), {"classes": ("a", "b")}, "classes are given, but no y"),
        ((X, np.array(["a", "b"] * 100)), {"classes": ()}, "y is text"),
        ((X, np.array([b"a", b"\xff"] * 100)), {}, "y has bytes that are not UTF-8"),
        ((X, np.eye(4, dtype=np.uint8)[Y]), {}, "uint8 .* below 32"),
        ((X, Y), {"test": X}, "test is a ndarray of another form"),
        ((X, Y), {"test": (X[:, :2], Y)}, r"test x has examples of shape \[2\] and x"),
        ((X, Y), {"test": ({"a": X}, Y)}, r"test x is dict of \['a'\] and x is an arr"),
        (
            (X, Y),
            {"test": (X.astype(np.uint8), Y)},
            "test x is uint8 and that of train",
        ),
        ((X, Y), {"test": (X, Y + 1)}, "test y has classes from 1 to 4"),
        ((X, Y * 1.0), {"test": (X, Y)}, "test y is int32 and that of train float32"),
        ((X, Y), {"test": (X, None)}, "test y is None and y is an array"),
        (
            (X, np.array(["a", "b"] * 100)),
            {"test": (X, np.array(["c"] * N))},
            "test y has the class 'c', which is none of a, b",
        ),
        ((X, Y), {"test": (X, Y), "test_size": 0.2}, "test_size is 0.2, and test is"),
        ((X, Y), {"test_size": 0.9}, "give shares whose sum is below 1"),
        ((X, Y), {"test_size": 1.5}, r"test_size is 1.5: give a number in \(0, 1\)"),
        ((X, Y), {"test_size": "a"}, "test_size is 'a': give a number"),
        ((X, Y), {"seed": "a"}, "seed is 'a': give a whole number of at least 0"),
        ((X, Y), {"classes": 3}, "classes is 3: give a name for each class"),
        (({"a": X, "b": X[:5]}, Y), {}, r"x\['b'\] has 5 examples and x\['a'\] 200"),
        (({"a": X, "b": np.array(["a"] * N)}, Y), {}, r"x\['b'\] is text"),
        (
            ({"a": X, "b": X}, Y),
            {"test": ({"a": X, "b": X[:, :1]}, Y)},
            r"test x\['b'\] has examples of shape \[1\] and x\['b'\] of",
        ),
        ((np.full((N, 2), 1e300), Y), {}, "x has numbers beyond float32"),
        (
            (X, Y),
            {"test": (X, Y), "validation": (X, Y), "groups": Y},
            "nothing is cut: leave groups out",
        ),
        ((pd.DataFrame(X, columns=list("aab")), Y), {}, "x .* two columns 'a'"),
        ((X, Y), {"groups": Y[:3]}, r"groups has shape \[3\]"),
        ((X, Y), {"groups": [[1], [1, 2]] * 100}, "groups is no array"),
        ((X, Y), {"groups": Y * 0}, "in 1 group"),
        ((X, Y), {"groups": NAN}, r"groups has no value for example 7 \(1 in all\)"),
        ((X, Y), {"groups": ["a", np.nan] * 100}, "no value for example 1 .100 in all"),
        ((X, Y), {"groups": pd.Series([*range(N - 1), pd.NA])}, "no value for .* 199"),
        ((X, Y), {"classes": set("abcd")}, "classes is a set: .* in the order of"),
        ((csr_array(X), Y), {}, r"x is a sparse matrix: give its \.toarray"),
        ((X, {"a": csr_array(X)}), {}, r"y\['a'\] is a sparse matrix"),
        ((X[:2], X[:2]), {}, "there are 2 examples, too few"),
        ((X[:4], Y[:4] % 2), {}, "split that is cut off has no example"),
    ],
)
def test_mistakes_are_one_sentence(args, options, said):
    with pytest.raises(UserError, match=said) as raised:
        data.from_arrays(*args, **options)
    assert "\n" not in str(raised.value)


def test_labels_of_another_split_are_whole_numbers_too():
    labels = np.arange(len(X)) % 2
    with pytest.raises(UserError, match="validation y is float32 and that of train"):
        data.from_arrays(X, labels, validation=(X[:4], labels[:4] + 0.7))


def test_columns_of_data_frames_keep_their_order():
    frame = pd.DataFrame(np.eye(8)[:, :3], columns=list("abc"))
    y = np.arange(8) % 2
    with pytest.raises(UserError, match="give the same in the same order"):
        data.from_arrays(frame, y, test=(frame[["c", "b", "a"]], y))
