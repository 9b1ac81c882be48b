"""Tables and arrays of one's own, whole and damaged."""

import gzip
import json
import re

import numpy as np
import pytest
from PIL import Image

from dlworkshop import data
from dlworkshop.data import readers
from dlworkshop.data.readers.inference_sources import labelled, sources
from dlworkshop.errors import UserError

ROWS = 60


def write(path, columns, delimiter=",", head=""):
    rows = zip(*columns.values(), strict=True)
    lines = [delimiter.join(columns), *(delimiter.join(map(str, r)) for r in rows)]
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def columns():
    """Three kinds that length and island tell apart; some lengths are missing."""
    rng = np.random.default_rng(0)
    kind = np.arange(ROWS) % 3
    length = [f"{10 * k + rng.normal():.3f}" for k in kind]
    for i in (4, 9, 30):
        length[i] = "NA"
    return {
        "kind": [("ada", "bob", "cleo")[k] for k in kind],
        "length": length,
        "island": [("north", "south", "")[i // 3 % 3] for i in range(ROWS)],
    }


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


@pytest.mark.parametrize(
    ("delimiter", "head"), [(",", ""), (";", "\ufeff"), ("\t", ""), ("|", "")]
)
def test_a_table_is_standardised_and_one_hot_with_train_alone(
    tmp_path, columns, delimiter, head
):
    path = write(tmp_path / "t.csv", columns, delimiter, head)
    loaded = load(path, target="kind")
    assert loaded.classes == ("ada", "bob", "cleo")
    train = loaded.train.inputs[:]
    assert train.dtype == np.float32 and train.shape == (42, 5)
    length, absent, north, south, nowhere = train.T
    present = absent == 0
    # mean 0 over what is present, and what is missing is the mean itself
    assert abs(length[present].mean()) < 1e-6 and abs(length[present].std() - 1) < 1e-6
    assert (length[~present] == 0).all()
    assert set(np.unique(train[:, 1:])) <= {0, 1}
    assert ((north + south + nowhere) == 1).all()
    assert sum(part.inputs[:][:, 1].sum() for part in loaded[:3]) == 3


def test_another_test_row_changes_no_statistic(tmp_path, columns):
    first = load(write(tmp_path / "t.csv", columns), target="kind")
    preprocessing = first.preprocessing["columns"][0]
    test_row = None
    for i in range(ROWS):  # a row of the test split, found by its content
        row = {name: values[i] for name, values in columns.items()}
        example = readers.to_example(row, first.preprocessing)
        if row["length"] != "NA" and (first.test.inputs[:] == example).all(1).any():
            test_row = i
    columns["length"][test_row] = "1000000"
    second = load(write(tmp_path / "t.csv", columns), target="kind")
    assert second.fingerprint != first.fingerprint
    assert second.preprocessing["columns"][0] == preprocessing
    assert second.test.inputs[:].max() > 1000


def test_a_row_becomes_the_example_it_was(tmp_path, columns):
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    preprocessing = json.loads(json.dumps(loaded.preprocessing))
    rows = {row.tobytes() for part in loaded[:3] for row in part.inputs[:]}
    for i in range(ROWS):
        row = {name: columns[name][i] for name in ("length", "island")}
        assert readers.to_example(row, preprocessing).tobytes() in rows
    with pytest.raises(UserError, match="no column 'length'"):
        readers.to_example({"island": "north"}, preprocessing)
    with pytest.raises(UserError, match="'tall' in column 'length' is no finite"):
        readers.to_example({"island": "north", "length": "tall"}, preprocessing)


def test_leaks_identifiers_and_constants_are_left_out_and_said(tmp_path, columns):
    code = {"ada": 7, "bob": 8, "cleo": 9}
    columns |= {
        "code": [code[kind] for kind in columns["kind"]],
        "name": [f"n{i}" for i in range(ROWS)],
        "number": list(range(100, 100 + ROWS)),
        "planet": ["earth"] * ROWS,
        "weight": [f"{i / 7:.4f}" for i in range(ROWS)],  # all differ, and are real
        "refractive_index": [f"{i / 9:.4f}" for i in range(ROWS)],
        "CustomerId": [100 + i * i for i in range(ROWS)],
        "paid": [100 + i * i for i in range(ROWS)],
    }
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    used = [column["name"] for column in loaded.preprocessing["columns"]]
    assert used == ["length", "island", "weight", "refractive_index", "paid"]
    said = " ".join(loaded.card["warnings"])
    assert "'code' was left out: a leak" in said
    assert "'planet' was left out: always the same" in said
    assert "'name', 'number', 'CustomerId' were left out: like an identifier" in said


def test_a_column_that_is_the_same_where_it_is_filled_tells_where(tmp_path, columns):
    there = [i % 2 for i in range(ROWS)]
    columns |= {
        "garage": [("NA", "yes")[i] for i in there],
        "level": [("", "0.1")[i] for i in there],  # the mean of many is rounded
        "once": ["yes", *[""] * (ROWS - 1)],
        "nearly": ["", *["yes"] * (ROWS - 1)],
    }
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    used = [column["name"] for column in loaded.preprocessing["columns"]]
    assert used == ["length", "island", "garage", "level"]
    assert loaded.card["columns"][2]["about"] == "1 category: yes"
    said = " ".join(loaded.card["warnings"])
    assert "'once', 'nearly' were left out: always the same" in said
    row = {"length": "NA", "island": "", "garage": "yes", "level": "0.2"}
    x = readers.to_example(row, loaded.preprocessing)
    np.testing.assert_allclose(x[5:], [1, 0, 0.1, 0], atol=1e-6)
    x = readers.to_example(row | {"garage": "", "level": ""}, loaded.preprocessing)
    np.testing.assert_array_equal(x[5:], [0, 1, 0, 1])


def test_numbers_that_may_be_codes_are_said(tmp_path, columns):
    columns["zip"] = [f"{(501, 2134, 90210)[i % 7 % 3]:05d}" for i in range(ROWS)]
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    assert "begin with 0, such as 00501" in " ".join(loaded.card["warnings"])


def test_a_group_column_stays_on_one_side_and_is_no_feature(tmp_path, columns):
    columns["person"] = [f"p{i // 4}" for i in range(ROWS)]
    path = write(tmp_path / "t.csv", columns)
    loaded = load(path, target="kind", group_by="person")
    assert loaded.card["groups"]["groups"] == 15
    assert loaded.card["groups"]["in_several_splits"] == 0
    assert "person" not in [c["name"] for c in loaded.preprocessing["columns"]]


def test_rows_without_a_target_are_left_out_and_said(tmp_path, columns):
    columns["kind"][5] = ""
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    assert sum(len(part.targets) for part in loaded[:3]) == ROWS - 1
    assert "1 rows have no 'kind'" in loaded.card["warnings"][0]


def ragged(columns, path):
    write(path, columns)
    path.write_text(path.read_text() + "ada,1\n")


def spoilt(change):
    def spoil(columns, path):
        change(columns)
        write(path, columns)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (spoilt(lambda c: None), {}, "needs a target: name one of its columns"),
        (spoilt(lambda c: None), {"target": "kinds"}, "did you mean 'kind'"),
        (spoilt(lambda c: None), {"target": "kind", "group_by": "x"}, "unknown column"),
        (
            spoilt(lambda c: None),
            {"target": "kind", "group_by": "kind"},
            "target and group_by at once",
        ),
        (
            spoilt(lambda c: c.update(who=["", "NA", "c"] * (ROWS // 3))),
            {"target": "kind", "group_by": "who"},
            "no 'who' in row 2 (40 in all): give each such row a group of its own",
        ),
        (spoilt(lambda c: None), {"target": "kind", "image_size": 8}, "does not need"),
        (
            spoilt(lambda c: c.update(one=["x"] * ROWS)),
            {"target": "one"},
            "has 1 class, wanted at least 2",
        ),
        (
            spoilt(lambda c: c["kind"].__setitem__(0, "dan")),
            {"target": "kind"},
            "the class 'dan' has 1 example to learn from, wanted at least 3",
        ),
        (
            spoilt(lambda c: [c.pop("length"), c.pop("island"), c.update(i=range(60))]),
            {"target": "kind"},
            "no column from which to predict",
        ),
        (
            ragged,
            {"target": "kind"},
            "row 62 has 2 cells where the table has 3 columns",
        ),
        (lambda c, p: p.write_text("a,a\n1,2\n"), {"target": "a"}, "two columns 'a'"),
        (lambda c, p: p.write_text("a,\n1,2\n"), {"target": "a"}, "without a name"),
        (lambda c, p: p.write_text(""), {"target": "a"}, "0 columns and 0 rows"),
        (lambda c, p: p.write_text("a,b\n"), {"target": "a"}, "2 columns and 0 rows"),
        (lambda c, p: p.write_bytes(b"a,b\n\xff,1\n"), {"target": "a"}, "not UTF-8"),
        (
            lambda c, p: p.write_text("a,b\n1,2\n3," + 200_000 * "x" + "\n"),
            {"target": "a"},
            "has a cell of more than 131,072 characters",
        ),
        (
            lambda c, p: p.write_text('a,b\n"x,1\n'),
            {"target": "a"},
            "row 2 has 1 cell where",
        ),
    ],
)
def test_mistakes_with_a_table_are_one_sentence(
    tmp_path, columns, spoil, options, said
):
    path = tmp_path / "t.csv"
    spoil(columns, path)
    assert said in sentence(path, **options)


# --- targets ----


@pytest.fixture
def houses():
    """Sixty rows in which a price follows the size, and two flags say what is there."""
    rng = np.random.default_rng(0)
    size = rng.normal(100, 20, ROWS)
    return {
        "size": [f"{value:.3f}" for value in size],
        "year": [1900 + (7 * i) % 90 for i in range(ROWS)],
        "price": [f"{3000 * v + rng.normal(0, 2000):.2f}" for v in size],
        "rooms": [str(2 + i % 5) for i in range(ROWS)],
        "garden": [str(i % 2) for i in range(ROWS)],
        "garage": [("true", "FALSE", "false")[i % 3] for i in range(ROWS)],
    }


def numbers_of(dataset):
    return np.concatenate([part.targets for part in dataset[:3]])


def test_real_numbers_are_standardised_with_train_alone(tmp_path, houses):
    loaded = load(write(tmp_path / "h.csv", houses), target="price")
    train, fitted = loaded.train.targets, loaded.preprocessing["target"]
    assert loaded.classes == () and train.dtype == np.float32 and train.ndim == 1
    assert abs(train.mean()) < 1e-6 and abs(train.std() - 1) < 1e-6
    assert abs(loaded.test.targets.mean()) > 1e-3
    fitted = json.loads(json.dumps(fitted))
    prices = data.in_own_units(numbers_of(loaded), fitted)
    wanted = sorted(map(float, houses["price"]))
    np.testing.assert_allclose(np.sort(prices), wanted, rtol=1e-5)
    assert loaded.card["task"] == "regression"
    assert "in proportion" not in loaded.card["splits"]


@pytest.mark.parametrize(
    ("target", "task", "is_regression"),
    [
        ("rooms", None, False),  # few whole numbers
        ("rooms", "regression", True),
        ("year", None, True),  # many of them
        ("price", None, True),
    ],
)
def test_the_cells_of_a_target_decide_and_task_overrides(
    tmp_path, houses, target, task, is_regression
):
    path = write(tmp_path / "h.csv", houses)
    loaded = load(path, target=target, task=task)
    assert (loaded.classes == ()) == is_regression
    said = loaded.preprocessing
    assert readers.fingerprint(path, said, target, None) == loaded.fingerprint
    again = data.load(path, tmp_path / "b", **readers.asked(path, said, target, None))
    assert again.fingerprint == loaded.fingerprint


def test_columns_of_0_and_1_are_labels_that_an_example_may_have_at_once(
    tmp_path, houses
):
    path = write(tmp_path / "h.csv", houses)
    loaded = load(path, target=("garden", "garage"))
    assert loaded.classes == () and loaded.train.targets.dtype == np.float32
    names = [column["name"] for column in loaded.preprocessing["target"]["columns"]]
    assert names == ["garden", "garage"]
    np.testing.assert_array_equal(numbers_of(loaded).sum(0), [30, 20])
    several = load(path, target=["price", "year"])
    assert several.train.targets.shape == (42, 2)
    assert abs(several.train.targets.mean(0)).max() < 1e-5
    fitted = several.preprocessing["target"]
    assert data.in_own_units(np.zeros((3, 2)), fitted)[0, 0] > 1e5
    with pytest.raises(UserError, match=r"shape \[3, 1\], wanted \[..., 2\]"):
        data.in_own_units(np.zeros((3, 1)), fitted)  # of one column, such as the price


def test_classes_that_differ_in_case_or_a_full_stop_are_said(tmp_path, columns):
    columns["kind"] = [("Yes", "yes", "no", "no.")[i % 4] for i in range(ROWS)]
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    said = " ".join(loaded.card["warnings"])
    assert "'Yes', 'yes' in 'kind' are different classes: spell them alike" in said
    assert "'no', 'no.' in 'kind' are different classes" in said


def test_categories_that_differ_in_case_are_said(tmp_path, columns):
    columns["sex"] = [("Male", "female", "male", "female ")[i % 4] for i in range(ROWS)]
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    said = "'Male', 'male' in 'sex' are different categories: spell them alike"
    assert [w for w in loaded.card["warnings"] if w.startswith(said)]
    assert "'female'" not in " ".join(loaded.card["warnings"])


def test_the_row_of_totals_is_said(tmp_path, houses):
    loaded = load(write(tmp_path / "a.csv", houses), target="price")
    assert not loaded.card["warnings"]
    for name, cells in houses.items():
        cells.append(f"{sum(map(float, cells)):.0f}" if name == "price" else "")
    loaded = load(write(tmp_path / "b.csv", houses), target="price")
    assert "largest 'price' is the sum of all others" in loaded.card["warnings"][0]


def test_numbers_with_a_unit_are_said(tmp_path, houses):
    houses["weight"] = [f"{i / 7:.1f} {('kg', 'lb')[i % 2]}" for i in range(ROWS)]
    path = write(tmp_path / "h.csv", houses)
    loaded = load(path, target="price")
    assert "such as '0.0 kg'; give them alone" in " ".join(loaded.card["warnings"])
    with pytest.raises(
        UserError, match=r"'weight' .* has numbers with a unit, such as"
    ):
        load(path, target="weight")


def test_whole_numbers_that_may_be_classes_are_said(tmp_path):
    rows = [f"{i % 40},{i / 7:.3f}" for i in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["n,x", *rows]))
    loaded = load(tmp_path / "t.csv", target="n")
    assert "'n' has 40 different whole numbers" in loaded.card["warnings"][0]
    loaded = load(tmp_path / "t.csv", target="n", task="classification")
    assert len(loaded.classes) == 40 and not loaded.card["warnings"]
    asked = {"target": "n", "task": "regression"}
    assert not data.load(tmp_path / "t.csv", tmp_path, **asked).card["warnings"]


def test_classes_may_be_many_if_they_recur(tmp_path):
    names = [f"kind {i % 120}" for i in range(720)]
    x = [f"{i % 120 + i / 720:.3f}" for i in range(720)]
    loaded = load(write(tmp_path / "a.csv", {"x": x, "y": names}), target="y")
    assert len(loaded.classes) == 120
    names = [f"was seen at {i * 3 // 5}" for i in range(720)]
    with pytest.raises(UserError, match="432 different values in 720 rows, like an"):
        load(write(tmp_path / "b.csv", {"x": x, "y": names}), target="y")


def test_rows_of_another_table_have_targets_as_they_are_learnt(tmp_path, houses):
    path = write(tmp_path / "h.csv", houses)
    loaded = load(path, target="price")
    found = list(labelled(path, loaded.preprocessing, (), "price"))
    np.testing.assert_allclose(
        np.sort([source.label for source in found]), np.sort(numbers_of(loaded))
    )


def test_the_target_in_another_unit_is_a_leak(tmp_path, houses):
    houses["thousands"] = [float(v) / 1000 for v in houses["price"]]
    loaded = load(write(tmp_path / "h.csv", houses), target="price")
    used = [column["name"] for column in loaded.preprocessing["columns"]]
    assert used == ["size", "year", "rooms", "garden", "garage"]
    assert "'thousands' was left out: a leak" in " ".join(loaded.card["warnings"])


@pytest.mark.parametrize("target", ["price", "kind"])
def test_a_leak_with_empty_cells_is_a_leak(tmp_path, houses, target):
    houses["kind"] = [("a", "b", "c")[i % 3] for i in range(len(houses["price"]))]
    houses["copy"] = [str(value) + "0" for value in houses[target]]
    houses["copy"][3] = houses["copy"][7] = ""
    loaded = load(write(tmp_path / "h.csv", houses), target=target)
    assert "copy" not in [c["name"] for c in loaded.preprocessing["columns"]]
    assert "'copy' was left out: a leak" in " ".join(loaded.card["warnings"])


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"target": "price", "task": "rank"}, "task is 'rank': choose one of"),
        ({}, {"target": "price", "task": "classification"}, "give --task regression"),
        ({}, {"target": "rooms", "task": "regression", "resize": "pad"}, "not need"),
        (
            {"price": ["x"] + ["1.5", "2.5"] * 29 + ["3"]},
            {"target": "price"},
            "'x' in the target .* empty it",
        ),
        (
            {"price": ["x"] + ["1.5", "2.5"] * 29 + ["3"]},
            {"target": "price", "task": "regression"},
            "'x' in the target 'price'",
        ),
        ({"price": ["1.5"] * ROWS}, {"target": "price"}, "is the same in all"),
        ({"price": ["0.1"] * ROWS}, {"target": "price"}, "is the same in all"),
        (
            {"garden": ["1"] * ROWS},
            {"target": ("garage", "garden")},
            "the target 'garden' of .* is the same in all of its 60 rows",
        ),
        (
            {"price": ["1.5", "2.5"] + [""] * (ROWS - 2)},
            {"target": "price"},
            "has 2 rows with a target price: wanted at least 3",
        ),
        ({}, {"target": ("rooms", "garage")}, "not all 0 or 1"),
        ({}, {"target": ("rooms",)}, "give one name, or several"),
        ({}, {"target": 5}, "target is 5: give text"),
        ({}, {"target": ("rooms", b"size")}, "target is a bytes: give text"),
        ({}, {"target": ("rooms", "size", "none")}, "did you mean|unknown column"),
    ],
)
def test_mistakes_with_a_target_are_one_sentence(
    tmp_path, houses, change, options, said
):
    path = write(tmp_path / "h.csv", houses | change)
    assert re.search(said, sentence(path, **options))


def test_row_numbers_that_a_library_wrote_are_no_feature(tmp_path, columns):
    path = write(tmp_path / "t.csv", {"": range(ROWS)} | columns)
    loaded = load(path, target="kind")
    assert [c["name"] for c in loaded.preprocessing["columns"]] == ["length", "island"]
    assert "'unnamed: 0' was left out" in loaded.card["warnings"][0]


def test_none_is_a_class_where_it_is_written(tmp_path, columns):
    columns["kind"] = [("none", "NA", "-")[i % 3] for i in range(ROWS)]
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    assert loaded.classes == ("-", "NA", "none") and not loaded.card["warnings"]
    columns["kind"] = [("0", "NA", "1")[i % 3] for i in range(ROWS)]
    loaded = load(write(tmp_path / "u.csv", columns), target="kind")
    assert loaded.classes == ("0", "1", "NA")
    assert (
        "'NA' beside numbers in 'kind' counts as a class" in loaded.card["warnings"][0]
    )


def test_a_class_that_is_a_number_has_any_spelling(tmp_path, columns):
    columns["kind"] = [("1.0", "1", "0", "01", "0.0")[i % 5] for i in range(ROWS)]
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    assert loaded.classes == ("0", "1")
    said = loaded.card["warnings"][:2]
    assert said == [
        "'0', '0.0' in 'kind' are one number, so the class '0'.",
        "'01', '1', '1.0' in 'kind' are one number, so the class '1'.",
    ]
    columns["kind"] = ["1.00", "0"] * (ROWS // 2)
    other = write(tmp_path / "u.csv", columns)
    found = labelled(other, loaded.preprocessing, loaded.classes, "kind")
    assert [source.label for source in found] == [1, 0] * (ROWS // 2)
    for word in "2", "x":
        columns["kind"][0] = word
        write(other, columns)
        with pytest.raises(UserError, match=f"has a class '{word}', and the run"):
            list(labelled(other, loaded.preprocessing, loaded.classes, "kind"))
    columns["kind"] = ["1", "01", "one"] * (ROWS // 3)  # words, such as codes
    assert len(load(write(other, columns), target="kind").classes) == 3


def test_train_and_test_may_spell_their_classes_differently(tmp_path, columns):
    home = tmp_path / "both"
    home.mkdir()
    for name, spelled in (("train.csv", ("0", "1")), ("test.csv", ("0.0", "1.0"))):
        columns["kind"] = [spelled[i % 2] for i in range(ROWS)]
        write(home / name, columns)
    loaded = load(home, target="kind")
    assert loaded.classes == ("0", "1") and set(loaded.test.targets) == {0, 1}


def test_a_class_of_test_that_train_spells_otherwise_is_said(tmp_path, columns):
    (tmp_path / "both").mkdir()
    write(tmp_path / "both/train.csv", columns)
    write(
        tmp_path / "both/test.csv",
        columns | {"kind": [f"{kind}." for kind in columns["kind"]]},
    )
    said = "the class 'ada.' is not in train, but in another split: spell it as in"
    assert said in sentence(tmp_path / "both", target="kind")


def test_where_most_rows_are_equal_they_are_seen_separately(tmp_path):
    flag = np.arange(200) % 2
    kind = [("yes", "no")[k] for k in np.where(np.arange(200) % 5, flag, 1 - flag)]
    path = write(tmp_path / "t.csv", {"kind": kind, "flag": flag})
    loaded = load(path, target="kind")
    assert [part.num_examples for part in loaded[:3]] == [140, 30, 30]
    assert loaded.card["copies"]["across_splits"] == 0
    assert "There are 2 different rows among 200" in " ".join(loaded.card["warnings"])


def test_booleans_errors_and_names_are_what_they_say(tmp_path, columns):
    columns["flag"] = [("TRUE", "true", "False")[i // 7 % 3] for i in range(ROWS)]
    columns["length"][0] = "#DIV/0!"
    columns["code"] = [("1_2", "12")[i // 5 % 2] for i in range(ROWS)]
    loaded = load(write(tmp_path / "t.csv", columns), target="kind")
    found = {column["name"]: column for column in loaded.preprocessing["columns"]}
    assert found["flag"]["values"] == ["False", "True"]
    assert found["length"]["mean"] and found["code"]["values"] == ["12", "1_2"]


# --- arrays ----


def arrays(size=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (size, 6, 5), np.uint8), np.arange(size) % 4


def test_npz_arrays_keep_their_splits_and_pixels(tmp_path):
    (x, y), (x_test, y_test) = arrays(), arrays(12, 1)
    path = tmp_path / "a.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    loaded = load(path)
    assert loaded.classes == ("0", "1", "2", "3")
    assert [len(part.targets) for part in loaded[:3]] == [32, 8, 12]
    np.testing.assert_array_equal(loaded.test.inputs[:], x_test[..., None])
    np.testing.assert_array_equal(loaded.test.targets, y_test)
    Image.fromarray(x[0]).save(tmp_path / "0.png")
    example = readers.to_example(tmp_path / "0.png", loaded.preprocessing)
    np.testing.assert_array_equal(example, x[0][..., None])


def test_names_of_other_collections_are_understood(tmp_path):
    (x, y), (v, w), (t, u) = arrays(), arrays(8, 1), arrays(12, 2)
    path = tmp_path / "a.npz"
    np.savez(
        path,
        train_images=x,
        train_labels=y[:, None],
        val_images=v,
        val_labels=w[:, None],
        test_images=t,
        test_labels=u[:, None],
    )
    assert [len(part.targets) for part in load(path)[:3]] == [40, 8, 12]


def test_vectors_are_standardised_with_train_alone(tmp_path):
    x = np.random.default_rng(0).normal(5, 3, (50, 2))
    x[3, 1] = np.nan
    np.savez(tmp_path / "v.npz", x=x, kind=np.array(["a", "b"])[np.arange(50) % 2])
    loaded = load(tmp_path / "v.npz", target="kind")
    train = loaded.train.inputs[:]
    assert train.dtype == np.float32 and loaded.classes == ("a", "b")
    assert abs(train.mean(0)).max() < 0.05 and abs(train.std(0) - 1).max() < 0.05
    assert abs(loaded.test.inputs[:].mean(0)).max() > 1e-3
    rows = np.concatenate([part.inputs[:] for part in loaded[:3]])
    example = readers.to_example(x[3], loaded.preprocessing)
    assert example[1] == 0 and (rows == example).all(1).any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "has no array: wanted x and y"),
        ({"x": arrays()[0]}, "inputs but no labels"),
        ({"x": arrays()[0], "y": np.arange(3)}, "40 inputs and 3 labels"),
        ({"x": np.array(3), "y": np.array(1)}, "has a scalar in train"),
        ({"x": arrays()[0], "y": np.zeros(40, int)}, "has 1 classes"),
        ({"x": arrays()[0], "y": np.arange(40)}, "give classes as labels"),
        ({"x": arrays()[0] * 1.0, "y": arrays()[1]}, "uint8, or floats in [0, 1]"),
        ({"x": np.ones((4, 2, 2, 2, 2)), "y": np.arange(4) % 2}, "inputs of shape"),
        ({"x": np.ones((4, 0)), "y": np.arange(4) % 2}, "inputs of shape [4, 0]"),
        ({"x": np.ones((4, 0, 2)), "y": np.arange(4) % 2}, "inputs of shape [4, 0, 2]"),
        ({"x": arrays()[0], "y": np.arange(40) / 2}, "whole numbers or text"),
        ({"x": arrays()[0], "y": np.arange(40) / 2}, "data.from_arrays(x, y)"),
        ({"x": arrays()[0], "y": np.arange(40) % 2 * 1.0}, "save y.astype(int)"),
        ({"x": arrays()[0], "y": np.eye(2)[np.arange(40) % 2]}, "save y.argmax(1)"),
        ({"x": arrays()[0], "y": np.ones((40, 3), int)}, "several for each input"),
        ({"x": np.array([None, 1]), "y": np.arange(2)}, "without pickles"),
        ({"x_test": arrays()[0], "y_test": arrays()[1]}, "wanted x and y, or x_train"),
        (
            {"data": arrays()[0], "images": arrays()[0], "target": arrays()[1]},
            "the arrays 'data' and 'images', of which one is expected",
        ),
        (
            {"x": arrays()[0], "y": arrays()[1], "x_test": arrays()[0][:, :3]}
            | {"y_test": arrays()[1]},
            "make them equal",
        ),
    ],
)
def test_mistakes_with_arrays_are_one_sentence(tmp_path, content, said):
    np.savez(tmp_path / "a.npz", **content)
    assert said in sentence(tmp_path / "a.npz")


def test_rows_without_labels_are_numbers_too(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 2))
    np.savez(tmp_path / "v.npz", x=x, y=np.array([b"a", b"b"])[np.arange(50) % 2])
    loaded = load(tmp_path / "v.npz")
    assert loaded.classes == ("a", "b")
    for wrong in np.array([["1", "2"]]), np.array(3.0):
        np.savez(tmp_path / "new.npz", x=wrong)
        (source,) = sources([tmp_path / "new.npz"], loaded.preprocessing)
        assert "wanted numbers [N, ...]" in str(source.content)
    with pytest.raises(UserError, match="has an infinite number"):
        readers.to_example(np.array([1, np.inf]), loaded.preprocessing)


@pytest.mark.parametrize("unit", ["e300", "e-300"])
def test_huge_and_tiny_numbers_are_standardised_as_well(tmp_path, columns, unit):
    plain = load(write(tmp_path / "t.csv", columns), target="kind")
    columns["length"] = [v if v == "NA" else f"{v}{unit}" for v in columns["length"]]
    loaded = load(write(tmp_path / "u.csv", columns), target="kind")
    np.testing.assert_allclose(loaded.train.inputs[:], plain.train.inputs[:], atol=1e-6)


def test_a_torn_npz_is_one_sentence(tmp_path):
    np.savez(tmp_path / "a.npz", x=arrays()[0], y=arrays()[1])
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: len(content) // 2])
    assert "cannot be read as .npz" in sentence(tmp_path / "a.npz")


def test_an_array_under_the_name_of_npz_is_one_sentence(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, arrays()[0])
    assert "cannot be read as .npz" in sentence(tmp_path / "a.npz")


def test_idx_files_of_any_size(tmp_path, write_idx):
    (x, y), (x_test, y_test) = arrays(), arrays(12, 1)
    home = tmp_path / "idx"
    home.mkdir()
    write_idx(home / "train-images-idx3-ubyte.gz", x)
    write_idx(home / "train-labels-idx1-ubyte", y.astype(np.uint8))
    write_idx(home / "t10k-images-idx3-ubyte", x_test)
    assert "has no labels beside it" in sentence(home)
    write_idx(home / "t10k-labels-idx1-ubyte.gz", y_test.astype(np.uint8))
    loaded = load(home)
    assert [len(part.targets) for part in loaded[:3]] == [32, 8, 12]
    np.testing.assert_array_equal(loaded.test.inputs[:], x_test[..., None])
    (home / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01"))
    with pytest.raises(UserError, match="another file, or damaged"):
        load(home)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_grey_pictures_kept_in_three_channels_have_one(tmp_path, dtype):
    grey = np.random.default_rng(0).integers(0, 2, (40, 6, 5, 1)).astype(dtype)
    np.savez(tmp_path / "grey.npz", x=np.repeat(grey, 3, -1), y=np.arange(40) % 2)
    loaded = load(tmp_path / "grey.npz")
    assert loaded.train.inputs.shape[1:] == (6, 5, 1)
    assert "three equal channels" in loaded.card["prepared"]
    rows = list(labelled(tmp_path / "grey.npz", loaded.preprocessing, ("0", "1"), None))
    example = readers.to_example(rows[0].content, loaded.preprocessing)
    np.testing.assert_array_equal(example, grey[0])
    coloured = np.repeat(grey, 3, -1)
    coloured[7, 0, 0, 1] += 1
    np.savez(tmp_path / "colour.npz", x=coloured / 2, y=np.arange(40) % 2)
    assert load(tmp_path / "colour.npz").train.inputs.shape[1:] == (6, 5, 3)


def test_files_become_what_arrays_of_float_images_are(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "a.npz", x=x / 255, y=y)
    loaded = load(tmp_path / "a.npz")
    names = loaded.train.inputs.names(slice(3))
    rows = [int(name.removeprefix("row ")) for name in names]
    np.testing.assert_allclose(loaded.train.inputs[:3][..., 0], x[rows] / 255, 1e-6)
    Image.fromarray(x[rows[0]]).save(tmp_path / "0.png")
    of_file = readers.to_example(tmp_path / "0.png", loaded.preprocessing)
    np.testing.assert_allclose(of_file, loaded.train.inputs[0], 1e-6)
    assert of_file.dtype == np.float32
    of_bytes = readers.to_example(x[0][..., None], loaded.preprocessing)
    np.testing.assert_allclose(of_bytes[..., 0], x[0] / 255, 1e-6)
    with pytest.raises(UserError, match=r"from .* wanted floats in"):
        readers.to_example(2.0 * x[0][..., None], loaded.preprocessing)


def test_rows_of_given_splits_have_names_of_their_own(tmp_path, columns):
    (tmp_path / "two").mkdir()
    write(tmp_path / "two/train.csv", columns)
    write(tmp_path / "two/test.csv", {k: v[:9] for k, v in columns.items()})
    loaded = load(tmp_path / "two", target="kind")
    assert loaded.test.inputs.names([0, 8]) == ["test.csv row 2", "test.csv row 10"]
    x, y = arrays()
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:8] + 1, y_test=y[:8])
    names = load(tmp_path / "a.npz").test.inputs.names(slice(None))
    assert names == [f"test row {i}" for i in range(8)]
