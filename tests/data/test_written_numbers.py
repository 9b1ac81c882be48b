"""Numbers as people write them: thousands set apart, a currency, percent."""

import numpy as np
import pytest

from dlworkshop import data
from dlworkshop.data.readers import inference_sources, written
from dlworkshop.errors import UserError

ROWS = 60


def values():
    return np.random.default_rng(0).integers(200, 90_000, ROWS) + 0.5


def in_brackets(number):
    return f"({number})" if number[0] in "1357" else number


WRITTEN = {
    "commas between thousands": (lambda v: f"{v:,.2f}", ",", "','"),
    "dollars": (lambda v: f"${v:,.2f}", ",", "in $"),
    "euros behind": (lambda v: f"{v:.2f} €", ",", "in €"),
    "spaces": (lambda v: f"{v:,.2f}".replace(",", " "), ",", "' '"),
    "percent": (lambda v: f"{v:.2f} %", ",", "in %"),
    "german": (
        lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,")),
        ";",
        "comma",
    ),
    "german euros": (
        lambda v: f"{v:,.2f} €".translate(str.maketrans(",.", ".,")),
        ";",
        "in €",
    ),
    "french": (
        lambda v: f"{v:,.2f}".translate(str.maketrans(",.", "\u202f,")),
        ";",
        "",
    ),
    "accountants": (lambda v: in_brackets(f"{v:,.2f}"), ",", "in brackets"),
    "german accountants": (
        lambda v: in_brackets(f"{v:,.2f} €".translate(str.maketrans(",.", ".,"))),
        ";",
        "in brackets",
    ),
    "swiss": (lambda v: f"CHF {v:,.2f}".replace(",", "\u2019"), ";", "in CHF"),
}


def table(path, cells, delimiter=",", side=None):
    side = ["low" if value < 40_000 else "high" for value in values()]
    rows = [f'"{c}"{delimiter}{s}' for c, s in zip(cells, side, strict=True)]
    path.write_text("\n".join([f"price{delimiter}side", *rows]) + "\n")
    return path


def load(path, **options):
    return data.load(path, path.parent / "cache", **{"target": "side"} | options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return load(table(folder / "t.csv", [f"{v:.2f}" for v in values()]))


@pytest.mark.parametrize("kind", WRITTEN)
def test_they_are_numbers_and_the_card_says_how(tmp_path, plain, kind):
    write, delimiter, said = WRITTEN[kind]
    found = load(table(tmp_path / "t.csv", map(write, values()), delimiter))
    if "accountants" not in kind:
        inputs = found.train.inputs[:], plain.train.inputs[:]
        np.testing.assert_allclose(*inputs, atol=1e-6)
    assert any(said in note for note in found.card["warnings"])
    cell = write(1234.5) if delimiter == "," else "1234.5"  # as its own file reads it
    (example,) = data.readers.to_example({"price": cell}, found.preprocessing)
    (column,) = found.preprocessing["columns"]
    value = example * column["deviation"] + column["mean"]
    assert value == pytest.approx(-1234.5 if "(" in cell else 1234.5, abs=0.01)


@pytest.mark.parametrize(
    ("cells", "delimiter", "said"),
    [
        (["$3.5", "€4.5"], ",", "have different units"),
        (["12 %", "0.12"], ",", "have different units"),
        (["1,234", "2,500"], ";", "may be 1234 or 1.234: write 1234, or 1.234 with a"),
        (["$1,234", "$2,500"], ";", "'1,234' in .* may be 1234 or 1.234"),
    ],
)
def test_what_may_be_two_numbers_is_refused(tmp_path, cells, delimiter, said):
    with pytest.raises(UserError, match=said):
        load(table(tmp_path / "t.csv", cells * (ROWS // 2), delimiter))


def test_thousands_with_points_beside_decimal_commas_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{i},5;1.{7 * i % 45 + 100};{'ab'[i % 2]}" for i in range(60)]
    path.write_text("\n".join(["x;n;side", *rows]))
    said = r"may be 1100 or 1\.100: write 1100, or 1,100 with a decimal comma"
    with pytest.raises(UserError, match=said):
        load(path)
    for other in "", ",":  # what the sentence offers is read
        path.write_text("\n".join(["x;n;side", *rows]).replace(";1.", f";1{other}"))
        column = load(path).preprocessing["columns"][1]
        assert column["mean"] == pytest.approx(1122 if not other else 1.122, rel=0.02)


def test_beside_decimal_commas_of_its_column_a_point_sets_thousands_apart(tmp_path):
    cells = ["1.234,50", "1.234", "1.234 €"] * (ROWS // 3)
    column = load(table(tmp_path / "t.csv", cells, ";")).preprocessing["columns"][0]
    assert column["mean"] == pytest.approx(1234.25, abs=0.25)


@pytest.mark.parametrize(
    ("mark", "cell", "value"),
    [
        (",", "1,234", 1.234),
        (",", "1.234", 1234),
        (",", "1,5", 1.5),
        (".", "1.234", 1.234),
        (".", "1,234", 1234),
        (",", "1.5", 1.5),  # here the file itself is clear
        (".", "1,5", 1.5),
    ],
)
def test_where_a_file_is_unclear_its_numbers_are_written_as_in_training(
    tmp_path, mark, cell, value
):
    prices = [f"{v:,.2f}" for v in values()]
    if mark == ",":
        prices = [v.translate(str.maketrans(",.", ".,")) for v in prices]
    loaded = load(table(tmp_path / "t.csv", prices, ";"))
    row = tmp_path / "row.csv"
    row.write_text(f"price;side\n{cell};low\n")
    (source,) = inference_sources.sources([row], loaded.preprocessing)
    (same,) = inference_sources.labelled(
        row, loaded.preprocessing, loaded.classes, "side"
    )
    (column,) = loaded.preprocessing["columns"]
    for each in source, same:
        (example,) = data.readers.to_example(each.content, loaded.preprocessing)
        found = example * column["deviation"] + column["mean"]
        assert found == pytest.approx(value, abs=0.01)


def test_a_test_file_that_is_unclear_is_written_like_train(tmp_path):
    home = tmp_path / "both"
    home.mkdir()
    small = [f"{v / 1e4:.3f}".replace(".", ",") for v in values()]
    table(home / "train.csv", ["12,5", *small[1:]], ";")
    table(home / "test.csv", ["1,234"] * ROWS, ";")
    loaded = load(home)
    column = loaded.preprocessing["columns"][0]
    tested = loaded.test.inputs[:] * column["deviation"] + column["mean"]
    np.testing.assert_allclose(tested, 1.234, atol=1e-4)


def test_a_price_to_be_predicted_keeps_its_unit(tmp_path):
    rng = np.random.default_rng(0)
    prices = [f"${v:,.2f}" for v in values()]
    rows = [
        f'{x:.2f},"{p}"' for x, p in zip(rng.normal(size=ROWS), prices, strict=True)
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["x,price", *rows]))
    found = load(path, target="price")
    assert found.card["task"] == "regression"
    column = found.preprocessing["target"]["columns"][0]
    assert column["mean"] == pytest.approx(values().mean(), rel=0.2)
    assert column["unit"] == "$" and column["thousands"] == ","


def test_classes_keep_their_names(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{i / 7:.3f},{(5, 10, 20)[i % 3]} %" for i in range(60)]
    path.write_text("\n".join(["x,tax", *rows]))
    assert load(path, target="tax").classes == ("10 %", "20 %", "5 %")


@pytest.mark.parametrize(
    "text", ["1,23", "012,345", "1,2345", "$", "3 kg", "--1", "€$1"]
)
def test_what_is_no_number_stays_a_word(text):
    assert written.parse(text) is None


def test_another_unit_than_that_of_train_is_a_mistake():
    column = {"name": "price", "mean": 0.0, "deviation": 1.0, "missing": False}
    fitted = {"kind": "table", "columns": [{**column, "unit": "$"}]}
    assert data.readers.to_example({"price": "$3.5"}, fitted).tolist() == [3.5]
    with pytest.raises(UserError, match="'€3' in column 'price' is in €"):
        data.readers.to_example({"price": "€3"}, fitted)
