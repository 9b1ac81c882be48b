"""Tables as programs and people write them."""

import datetime
import os
import threading

import numpy as np
import pytest

from dlworkshop import data
from dlworkshop.data import readers
from dlworkshop.data.readers import columns, csv_file, dialect, table_target
from dlworkshop.errors import UserError

ROWS = 120


@pytest.fixture
def cells():
    """A target that x tells; with two decimals, as 2.56 or -0.21."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    return {
        "x": [f"{value:.2f}" for value in x],
        "z": [f"{value:.2f}" for value in rng.normal(size=ROWS)],
        "y": [("no", "yes")[int(value > 0)] for value in x],
    }


def text(cells, delimiter=",", header=True, ends=""):
    rows = [list(map(str, row)) for row in zip(*cells.values(), strict=True)]
    lines = [list(cells)] * header + rows
    return "\n".join(delimiter.join(line) + ends for line in lines) + "\n"


def load(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return data.load(path, path.parent / "cache", **{"target": "y"} | options)


def same(loaded, plain):
    """Whether the examples are those of the plain file."""
    for one, other in zip(loaded[:3], plain[:3], strict=True):
        np.testing.assert_allclose(one.inputs[:], other.inputs[:], atol=1e-6)
        np.testing.assert_array_equal(one.targets, other.targets)


def german(cells):
    return {
        name: [c.replace(".", ",") for c in column] for name, column in cells.items()
    }


WRITTEN = {
    "semicolons": (lambda c: text(c, ";"), ""),
    "bars": (lambda c: text(c, "|"), ""),
    "tabs": (lambda c: text(c, "\t"), ""),
    "decimal commas": (lambda c: text(german(c), ";"), "decimal comma"),
    "decimal commas, quoted": (
        lambda c: text({n: [f'"{v}"' for v in k] for n, k in german(c).items()}),
        "decimal comma",
    ),
    "row numbers": (lambda c: text({"": range(ROWS)} | c), "'unnamed: 0' was left out"),
    "R's row names": (
        lambda c: text({"": range(ROWS)} | c).replace(",x", "x", 1),
        "The header has a cell less than the rows",
    ),
    "a delimiter at the end": (
        lambda c: text(c, ends=",").replace("y,", "y", 1),
        "'unnamed: 3' was left out: always the same",
    ),
    "delimiters at the end": (
        lambda c: text(c, ends=","),
        "'unnamed: 3' was left out: always the same",
    ),
    "a delimiter at the end of the header": (
        lambda c: text(c).replace("y\n", "y,\n", 1),
        "",
    ),
    "Unicode minus": (lambda c: text(c).replace("-", "\u2212"), ""),
    "UTF-16": (lambda c: text(c, "\t").encode("utf-16"), ""),
    "a mark of UTF-8": (lambda c: text(c).encode("utf-8-sig"), ""),
    "lines of old machines": (lambda c: text(c).replace("\n", "\r"), ""),
    "empty lines": (lambda c: text(c).replace("\n", "\n\n"), None),
    "spaces": (lambda c: text(c, " , "), ""),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_is_the_same_however_it_is_written(tmp_path, cells, name):
    write, said = WRITTEN[name]
    plain = load(tmp_path / "t.csv", text(cells))
    loaded = load(tmp_path / "u.csv", write(cells))
    if said is not None:  # or the rows have other numbers, and so other splits
        same(loaded, plain)
        assert said in " ".join(loaded.card["warnings"])
    assert len(loaded.preprocessing["columns"]) == 2


@pytest.mark.parametrize(
    ("above", "skip"), [("sep=;\n", 2), ("# exported 2024\n\n", 3), ("a; b\nc\n", 3)]
)
def test_lines_above_the_table_are_no_part_of_it(tmp_path, cells, above, skip):
    loaded = load(tmp_path / "t.csv", above + text(german(cells), ";"))
    used = {column["name"]: column for column in loaded.preprocessing["columns"]}
    assert list(used) == ["x", "z"] and all("mean" in each for each in used.values())
    said = " ".join(loaded.card["warnings"])
    assert ("Lines above the table were skipped" in said) == (
        not above.startswith("sep")
    )
    head = (tmp_path / "t.csv").read_bytes()
    assert dialect.understand(tmp_path, head, {}).skip == skip


@pytest.mark.parametrize(
    "above",
    [
        "# one, two, three\n",
        "# one\n\n# two, three, four\n#5,6,7\n",
        "#\n" * 200,
        "A title\nby me, 2024, v1\n\n",
        "A title,,\nby me,2024,v1\n,,\n",
    ],
)
def test_comments_and_titles_may_have_as_many_cells_as_the_table(
    tmp_path, cells, above
):
    loaded = load(tmp_path / "t.csv", above + text(cells))
    assert [c["name"] for c in loaded.preprocessing["columns"]] == ["x", "z"]
    assert sum(part.num_examples for part in loaded[:3]) == ROWS
    assert "Lines above the table were skipped" in loaded.card["warnings"][0]


@pytest.mark.parametrize(
    ("name", "values"),
    [("#", [3, 1, 4]), ("# of rooms", [1, 2, 3]), ("# x", [0.5, 1.5]), ("#x", "abc")],
)
def test_a_header_may_begin_with_the_mark_of_a_comment(tmp_path, cells, name, values):
    first = {name: [values[i % len(values)] for i in range(ROWS)]}
    loaded = load(tmp_path / "t.csv", text(first | cells))
    assert [c["name"] for c in loaded.preprocessing["columns"]] == [name, "x", "z"]


def test_two_tables_in_a_file_are_not_taken_for_a_table_with_a_title(tmp_path, cells):
    few = {name: column[:5] for name, column in cells.items()}
    other = text(cells).replace("x,z,y", "u,v,w")
    with pytest.raises(UserError, match="the class 'w' has 1 example"):
        load(tmp_path / "t.csv", text(few) + "\n" + other)


@pytest.mark.parametrize("delimiter", [" ", ":", "^"])
def test_cells_that_nothing_known_separates_are_refused_by_that(
    tmp_path, cells, delimiter
):
    with pytest.raises(UserError, match=r"no comma, semicolon, tab or \| separates"):
        load(tmp_path / "t.csv", text(cells, delimiter))


def test_a_table_with_another_suffix_is_read_if_it_has_a_target(tmp_path, cells):
    plain = load(tmp_path / "t.csv", text(cells))
    for name in ("t.data", "t"):
        same(load(tmp_path / name, text(cells)), plain)
    for name, do in (("t.csv.gz", "unpack it first"), ("t.xlsx", "save it as CSV")):
        with pytest.raises(UserError, match=f"which is not read: {do}"):
            load(tmp_path / name, text(cells))


def test_a_first_row_of_words_that_recur_is_no_header(tmp_path):
    rng = np.random.default_rng(0)
    words = ("low", "high"), ("low", "high"), ("good", "bad", "fair")
    rows = [",".join(rng.choice(own) for own in words) for _ in range(80)]
    loaded = load(tmp_path / "t.csv", "\n".join(rows), target="column 3")
    assert sum(part.num_examples for part in loaded[:3]) == 80
    loaded = load(tmp_path / "u.csv", "\n".join(["a,b,good", *rows]), target="good")
    assert sum(part.num_examples for part in loaded[:3]) == 80
    with pytest.raises(UserError, match=r"two columns 'a'.* \(or add a header"):
        load(tmp_path / "v.csv", "\n".join(["a,a,good", *rows]), target="good")


def test_of_two_delimiters_that_fit_alike_the_suffix_decides(tmp_path, cells):
    lines = [f"{x},{z}\t{y}" for x, z, y in zip(*cells.values(), strict=True)]
    found = [
        dialect.understand(tmp_path / name, "\n".join(lines).encode(), {}).delimiter
        for name in ("t.tsv", "t.csv")
    ]
    assert found == ["\t", ","]


def test_rows_are_counted_where_a_header_has_a_line_break(tmp_path, cells):
    lines = text({'"x\n(cm)"': cells["x"], "y": cells["y"]}) + "1\n"
    path = tmp_path / "t.csv"
    path.write_text(lines)
    names = [name for name, _ in csv_file.rows(path, (), {})]
    assert names == [f"{path} row {i}" for i in range(2, ROWS + 3)]
    with pytest.raises(UserError, match=f"row {ROWS + 2} has 1 cell where"):
        load(path, lines)


def test_a_table_without_a_header_is_found_and_said(tmp_path, cells):
    loaded = load(tmp_path / "t.csv", text(cells, header=False), target="column 3")
    assert sum(part.num_examples for part in loaded[:3]) == ROWS
    assert "The file has no header" in loaded.card["warnings"][0]
    with pytest.raises(UserError, match=r"unknown column .*known: column 1, column 2"):
        load(tmp_path / "t.csv", text(cells, header=False))


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        ("y,2010,2011,2012", True),  # they count on
        ("y,0,1,2", True),
        ("yes,5.1,3.5,1.4", False),
        ("yes,6,148,72", False),
        ("y,x,,z", True),
    ],
)
def test_a_first_row_with_numbers_is_a_header_where_they_count(first, is_header):
    rows = [first.split(","), *(["no", "4.5", "3", "7"], ["yes", "2", "1", "8"])]
    assert dialect._has_header(rows) == is_header


def test_a_cell_that_is_no_number_is_named_and_the_column_stays(tmp_path, cells):
    for i, odd in enumerate(("#DIV/0!", "<NA>", ".", "n/a", "broken")):
        cells["x"][20 * i] = odd
    loaded = load(tmp_path / "t.csv", text(cells))
    assert [c["name"] for c in loaded.preprocessing["columns"]] == ["x", "z"]
    assert loaded.card["columns"][0]["missing"] == 5
    assert "'#DIV/0!' (1), 'broken' (1)" in " ".join(loaded.card["warnings"])


@pytest.mark.parametrize(
    "word",
    [
        "#N/A N/A",
        "-nan",
        "1.#IND",
        "--",
        "...",
        "n.a.",
        "NIL",
        "(null)",
        "\\N",
        "—",
        "#SPILL!",
        "#WERT!",
        "#ÜBERLAUF!",
        "#NV",
        "#I/T",
        "####",
        "Err:502",
    ],
)
def test_any_spelling_of_a_missing_value_is_missing(tmp_path, cells, word):
    cells["x"][::4] = [word] * len(cells["x"][::4])
    cells["z"] = [(word, "#BLACK", "red")[i % 3] for i in range(ROWS)]
    loaded = load(tmp_path / "t.csv", text(cells))
    x, z = loaded.preprocessing["columns"]
    assert x["missing"] and "odd" not in x
    assert z["values"] == ["#BLACK", "red"]


@pytest.mark.parametrize(
    ("column", "size", "is_number"),
    [
        (["error", "1.5", "2.5", "4.5"], ROWS, True),  # a quarter is one word
        (["error", *map(str, range(32))], 66, True),  # too many to be codes
        (["a", "b", "c", "d", *map(str, range(36))], ROWS, False),  # four words
        (["other", "1", "2", "3"], ROWS, False),  # codes
        (["other", "else", "1.5"], ROWS, False),  # most are words
        (["error", *"314159265387"], 13, True),  # a single cell
    ],
)
def test_odd_words_leave_a_column_of_numbers_what_it_is(
    tmp_path, cells, column, size, is_number
):
    cells["z"] = [column[i % len(column)] for i in range(ROWS)]
    cells = {name: values[:size] for name, values in cells.items()}
    path = tmp_path / "t.csv"
    loaded = load(path, text(cells), task="classification")
    (_, found) = loaded.preprocessing["columns"]
    assert ("mean" in found) == is_number
    said = " ".join(loaded.card["warnings"])
    assert ("'z' is a column of numbers, and other cells" in said) == is_number
    if is_number:  # what was missing in training is missing ever after
        rows = [{"x": "1", "z": z} for z in (column[0], "")]
        word, empty = (readers.to_example(r, loaded.preprocessing) for r in rows)
        np.testing.assert_array_equal(word, empty)
        assert not readers.unknown_cells(rows[0], loaded.preprocessing)
        with pytest.raises(UserError, match="'tall' in column 'z' is no finite"):
            readers.to_example({"x": "1", "z": "tall"}, loaded.preprocessing)


def test_prices_with_odd_words_are_prices(tmp_path, cells):
    cells["z"] = [("call", "$1.5", "$2.5", "$4")[i % 4] for i in range(ROWS)]
    loaded = load(tmp_path / "t.csv", text(cells))
    assert loaded.preprocessing["columns"][1]["unit"] == "$"


def test_words_that_look_like_numbers_are_words(tmp_path, cells):
    cells["z"] = [("1_2", "12", "1e999", "0x10")[i % 4] for i in range(ROWS)]
    loaded = load(tmp_path / "t.csv", text(cells))
    wanted = ["0x10", "12", "1_2", "1e999"]
    assert loaded.preprocessing["columns"][1]["values"] == wanted


def test_dates_texts_and_many_columns_are_said_in_few_words(tmp_path, cells):
    day = [f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(ROWS)]
    cells |= {"day": day, "when": [f"{d} 10:{i % 60:02d}" for i, d in enumerate(day)]}
    cells["note"] = [f"was seen {i % 100} times" for i in range(ROWS)]
    cells |= {f"empty {i}": [""] * ROWS for i in range(30)}
    loaded = load(tmp_path / "t.csv", text(cells))
    assert [c["name"] for c in loaded.preprocessing["columns"]] == ["x", "z"]
    said = " ".join(loaded.card["warnings"])
    assert "'day', 'when' were left out: dates" in said
    assert "'note' was left out: text" in said
    assert "and 10 more were left out: always the same" in said
    assert len(loaded.card["warnings"]) == 3


@pytest.mark.parametrize(
    ("form", "are_dates"),
    [
        ("%d %b %Y", True),
        ("%d. März %Y", True),
        ("%B %d %Y", True),
        ("%A, %B %d, %Y 10:11", True),
        ("%a %d/%m/%y", True),
        ("%d-%b-%y", True),
        ("%Y-%m", True),
        ("%b %Y", True),
        ("%H:%M", True),
        ("%H:%M:%S", True),
        ("%Y%m%d", True),
        ("1%m%d%Y", False),
        ("Mark %d", False),
        ("%Y.%m", False),
        ("%d/1%m", False),
        ("Room %Y-%m", False),
        ("4:%w", False),
    ],
)
@pytest.mark.parametrize("different", [5, ROWS])
def test_dates_and_times_are_said_and_left_out(
    tmp_path, cells, form, are_dates, different
):
    start = datetime.datetime(2020, 1, 1)
    seconds = np.random.default_rng(0).integers(0, 6e7, different).tolist()
    times = [start + datetime.timedelta(seconds=each) for each in seconds]
    day = [times[i % different].strftime(form) for i in range(ROWS)]
    loaded = load(tmp_path / "t.csv", text(cells | {"day": day}, ";"))
    said = " ".join(loaded.card["warnings"])
    assert ("'day' was left out: dates" in said) == are_dates


@pytest.mark.slow
def test_thousands_of_columns_are_read_and_the_card_stays_short(tmp_path, cells):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(2000, ROWS)).round(3)
    more = {f"gene {i}": column.tolist() for i, column in enumerate(wide)}
    loaded = load(tmp_path / "t.csv", text(cells | more))
    assert loaded.train.inputs.shape[1:] == (2002,)
    assert len(loaded.card["columns"]) == 200 and loaded.card["num_columns"] == 2002


def test_a_large_table_takes_memory_in_proportion_and_is_not_walked_by_cells(
    tmp_path, monkeypatch
):
    size = 20_000
    x = np.random.default_rng(0).normal(size=size).round(4)
    rows = zip(x.tolist(), np.where(x > 0, "yes", "no").tolist(), strict=True)
    lines = ["x,y", *(f"{value},{word}" for value, word in rows)]
    calls = []
    for module in (columns, table_target):
        monkeypatch.setattr(module, "plain", lambda v: calls.append(v) or v)
    load(tmp_path / "t.csv", "\n".join(lines))
    assert 0 < len(calls) < 100  # Python sees different words, not cells


def test_train_and_test_are_two_files(tmp_path, cells):
    home = tmp_path / "both"
    home.mkdir()
    (home / "Train.csv").write_text(text(cells))
    some = {name: column[:30] for name, column in cells.items()}
    test = {"more": ["1"] * 30} | {name: some[name] for name in ("y", "z", "x")}
    (home / "Test.csv").write_text(text(test, ";"))
    (home / "sample_submission.csv").write_text("id\n1\n")
    loaded = data.load(home, tmp_path / "cache", target="y")
    plain = load(tmp_path / "t.csv", text(cells))
    assert loaded.test.num_examples == 30
    assert loaded.train.num_examples + loaded.validation.num_examples == ROWS
    assert loaded.classes == plain.classes
    said = " ".join(loaded.card["warnings"])
    assert "Test.csv has 'more', which train lacks" in said
    assert "not read: sample_submission.csv" in said
    said = " ".join(data_warnings(loaded))
    assert "Exact copies of" in said
    assert "are in several splits" in said
    (home / "Test.csv").write_text("x,z\n1,2\n")
    with pytest.raises(
        UserError, match=r"Test.csv has no column 'y', which .*Train.* alone"
    ):
        data.load(home, tmp_path / "cache", target="y")
    some["y"] = ["maybe"] * 30
    (home / "Test.csv").write_text(text(some))
    said = "the class 'maybe' is not in train, but in another split"
    with pytest.raises(UserError, match=said):
        data.load(home, tmp_path / "cache", target="y")


def test_a_folder_of_tables_is_read_where_it_is_clear_and_its_files_are_named(
    tmp_path, cells
):
    home = tmp_path / "both"
    (home / "images").mkdir(parents=True)
    (home / "__MACOSX").mkdir()
    few = {name: column[:40] for name, column in cells.items()}
    for name in ("train.csv", "train_2.csv", "test.csv"):
        (home / name).write_text(text(cells if name == "train.csv" else few))
    (home / "._train.csv").write_bytes(b"\0\5\x16")
    loaded = data.load(home, tmp_path / "cache", target="y")
    assert loaded.test.num_examples == 40
    said = loaded.card["warnings"]
    assert "'train.csv', 'train_2.csv' together are train." in said
    assert "Other files were not read: images." in said
    (home / "images").rmdir()
    assert data.readers.reader_of(home).KINDS == ("table",)
    same = data.readers.fingerprint(home, loaded.preprocessing, "y", None)
    assert same == loaded.fingerprint


@pytest.mark.parametrize(
    "names", [["a.csv", "b.csv"], ["test.csv"], ["adult.csv", "adult-test.csv"]]
)
def test_a_folder_of_tables_without_one_for_train_says_so(tmp_path, cells, names):
    home = tmp_path / "both"
    home.mkdir()
    for name in (*names, "train.csv.gz"):
        (home / name).write_text(text(cells))
    with pytest.raises(UserError) as raised:
        data.load(home, tmp_path / "cache", target="y")
    listed = ", ".join(sorted([*names, "train.csv.gz"]))
    assert f"has no train.csv (it has {listed}): give the path of one table" in str(
        raised.value
    )


def test_a_folder_of_files_with_other_suffixes_names_them(tmp_path, cells):
    for name in "adult.data", "adult.test":
        (tmp_path / name).write_text(text(cells))
    with pytest.raises(UserError, match=r"\(it has adult.data, adult.test\): give the"):
        data.load(tmp_path, tmp_path / "cache", target="y")


def data_warnings(loaded):
    from dlworkshop.data import card  # noqa: PLC0415

    return card.warnings(loaded.card)


def test_a_pipe_is_read_once(tmp_path, cells):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(text(cells),))
    writer.start()
    assert [row["y"] for _, row in csv_file.rows(pipe, (), {})] == cells["y"]
    writer.join()


def test_warnings_are_logged_and_the_source_is_the_file_that_was_given(
    tmp_path, cells, caplog
):
    cells["z"] = ["1"] * ROWS
    first = load(tmp_path / "t.csv", text(cells))
    caplog.clear()
    second = load(tmp_path / "copy.csv", text(cells))
    assert first.fingerprint == second.fingerprint
    assert "'z' was left out: always the same." in caplog.messages
    assert second.card["source"] == str(tmp_path / "copy.csv")


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("name", [True, False])
def test_columns_separated_by_blanks_are_refused(tmp_path, header, name):
    """Like auto-mpg.data: blanks, then a tab and a quoted name."""
    rows = [
        f"{18 + i % 7}.0   {4 + i % 3}   3{i % 10}.0      {'?' if i == 3 else '130.0'}"
        + f'\t"ford {i % 5}"' * name
        for i in range(40)
    ]
    head = ["mpg cyl displ power" + "\tname" * name] * header
    file = tmp_path / "auto-mpg.data"
    file.write_text("\n".join(head + rows))
    with pytest.raises(UserError, match=r"separates columns by blanks \(.* commas"):
        data.load(file, tmp_path / "made", target="column 1")


def test_numbers_with_blanks_in_a_cell_are_no_columns(tmp_path):
    """Pixels below a single name, and thousands."""
    for cells in ("70 80 82 90", "1 234 567"):
        rows = [f"{cells},{'ab'[i % 2]},{i / 7:.2f}" for i in range(60)]
        file = tmp_path / "t.csv"
        file.write_text("pixels,y,z\n" + "\n".join(rows))
        assert data.load(file, tmp_path / "made", target="y").classes == ("a", "b")
