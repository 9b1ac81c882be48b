"""A run is studied: its answers come with sets, intervals and warnings."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dlworkshop import answers, cli, data, report
from dlworkshop.errors import UserError
from dlworkshop.serve.load import load
from dlworkshop.serve.predict import predict_files


def studied(workdir, folder, path, **options):
    """A copy of a run, studied; nothing is added to the one that others use."""
    run = load(shutil.copytree(workdir, folder / "run"))
    found = answers.study(run, data.load(path, **options))
    assert found == json.loads((run.workdir / answers.FILE).read_text())
    return run


@pytest.fixture(scope="module")
def table(table_run, penguins, tmp_path_factory):
    return studied(table_run, tmp_path_factory.mktemp("a"), penguins, target="kind")


@pytest.fixture(scope="module")
def prices(price_run, houses, tmp_path_factory):
    return studied(price_run, tmp_path_factory.mktemp("b"), houses, target="price")


@pytest.fixture(scope="module")
def images(image_run, photos, tmp_path_factory):
    return studied(image_run, tmp_path_factory.mktemp("c"), photos)


def test_classes_come_as_sets_which_hold_the_likeliest(table, penguins):
    found = table.read_artifact(answers.FILE)
    rows = list(predict_files(table, [penguins]))
    sets = [row.set.split(" + ") for row in rows]
    assert all(row.prediction in own for row, own in zip(rows, sets, strict=True))
    kinds = [line.split(",")[0] for line in penguins.read_text().splitlines()[1:]]
    hits = np.mean([kind in own for kind, own in zip(kinds, sets, strict=True)])
    assert hits >= 0.8  # of 60 rows, of which 0.9 are wanted
    assert found["level"] == 0.9 and found["held_out"]["examples"] == 9
    assert found["sets"]["test"]["examples"] == 9


def test_rows_unlike_train_are_told_by_their_columns(table, tmp_path, caplog):
    few = tmp_path / "few.csv"
    few.write_text("length,island\n10.5,north\n1e4,north\n9,mars\n,south\n")
    rows = list(predict_files(table, [few]))
    assert [row.unlike for row in rows] == ["", "length", "island", "length"]
    assert "'island' has 'mars'" in caplog.text
    assert "'length' has no value, unlike every row of train" in caplog.text
    assert cli.main(["predict", str(table.workdir), str(few)]) == 0


def test_it_is_said_how_many_are_unlike_and_how_many_that_is_of_others(
    table, tmp_path, capsys
):
    few = tmp_path / "few.csv"
    few.write_text("length,island\n10.5,north\n1e4,north\n")
    cli.main(["predict", str(table.workdir), str(few), "--format", "csv"])
    out, err = capsys.readouterr()
    assert "1 of 2 examples are unlike the training data, where 10 % are" in err
    assert f"{few} row 3 (length)" in err
    assert [row["unlike"] for row in csv.DictReader(out.splitlines())] == ["", "length"]


def test_values_come_with_an_interval(prices, houses):
    (own,) = prices.read_artifact(answers.FILE)["intervals"]
    rows = list(predict_files(prices, [houses]))
    true = [float(row["price"]) for row in csv.DictReader(houses.open())]
    for row in rows:
        assert row.high - row.prediction == pytest.approx(own["half"])
        assert row.prediction - row.low == pytest.approx(own["half"])
    inside = [r.low <= y <= r.high for r, y in zip(rows, true, strict=True)]
    assert 0.8 <= np.mean(inside) <= 1


def test_the_columns_that_say_most_come_first(prices):
    found = prices.read_artifact(answers.FILE)["importance"]
    first, *others = found["columns"]
    assert found["score"] == "rmse" and first["column"] == "size"
    assert first["mean"] > 1e4 and first["mean"] > 3 * others[-1]["mean"]
    assert {each["column"] for each in others} == {"town", "large", "dear"}


def test_mistakes_are_found_in_the_file_and_have_neighbours(prices, houses):
    rows = list(csv.DictReader(houses.open()))
    found = prices.read_artifact(answers.FILE)["mistakes"]["rows"]
    for each in found[:3]:
        own = rows[int(each["name"].removeprefix("row ")) - 2]
        assert each["true"] == f"{float(own['price']):,.0f}"
        for near in each["nearest"]:
            other = rows[int(near["name"].removeprefix("row ")) - 2]
            assert near["true"] == f"{float(other['price']):,.0f}"
            assert other["town"] == own["town"]  # another one is two deviations off


def test_the_page_has_the_unit_of_a_target_and_no_exponents(
    price_run, houses, tmp_path
):
    run = load(shutil.copytree(price_run, tmp_path / "run"))
    run.target["columns"][0]["unit"] = "$"
    found = answers.study(run, data.load(houses, target="price"))
    page = report.write(run.workdir).read_text()
    assert f"the prediction ± {found['intervals'][0]['half']:,.0f} $." in page
    for row in found["mistakes"]["rows"]:
        assert re.fullmatch(r"\d{3},\d{3} \$", row["true"])
    importance = page[page.index("Breiman 2001") :]
    assert not re.search(r"\de\+", importance[: importance.index("</table>")])


@pytest.mark.slow
def test_images_have_names_and_saliency(images, photos):
    found = images.read_artifact(answers.FILE)
    shown = found["saliency"]
    assert shown and all((photos / each["name"]).is_file() for each in shown)
    for each in found["mistakes"]["rows"]:
        assert each["true"] == each["name"].split("/")[0]
        assert all((photos / near["name"]).is_file() for near in each["nearest"])
    page = report.write(images.workdir).read_text()
    for title in (
        "Reliability of the predictions",
        "Saliency",
        "Nearest to the mistakes",
    ):
        assert title in page


def test_a_run_without_a_temperature_says_why(images, tmp_path, capsys):
    found = images.read_artifact(answers.FILE)
    path = images.workdir / answers.FILE
    images.summary["sha256"].pop(answers.FILE)  # the file is another one below
    try:
        hot = {"error": 0.3, "noise": 0.1, "temperature": 3.0}
        path.write_text(json.dumps(found | {"temperature": hot}))
        one = tmp_path / "one.png"
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(one)
        (plain,), (cooled,) = (
            predict_files(images, [one], calibrated=each) for each in (False, True)
        )
        assert cooled.entropy > plain.entropy
        assert cooled.prediction == plain.prediction and cooled.set == plain.set
        path.write_text(json.dumps(found | {"temperature": {"error": 0, "noise": 0.1}}))
        with pytest.raises(UserError, match="is within chance"):
            next(predict_files(images, [one], calibrated=True))
    finally:
        path.write_text(json.dumps(found))
