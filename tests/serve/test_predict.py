"""Files are answered and scored as the arrays that they become would be."""

import dataclasses
import json
import os
import shutil
import threading

import numpy as np
import pytest
import scipy.special
from PIL import Image

from dlworkshop import data, fit, losses, models
from dlworkshop.data import readers
from dlworkshop.data.readers import store
from dlworkshop.errors import UserError
from dlworkshop.report import terminal
from dlworkshop.serve import predict
from dlworkshop.serve.evaluate import evaluate, show
from dlworkshop.serve.load import load
from dlworkshop.serve.predict import Labels, Prediction, Skipped, Value, predict_files
from dlworkshop.train import run_folder
from dlworkshop.types import Batch


@pytest.fixture(scope="module")
def images(image_run):
    return load(image_run)


@pytest.fixture(scope="module")
def table(table_run):
    return load(table_run)


def repr_of(run, examples, classes):
    """Rows (class, probability, spread, entropy) by plain loops over `Run.predict`."""
    rows = []
    for outputs in run.predict(examples).swapaxes(0, 1):  # [P, K] of each example
        members = np.array([scipy.special.softmax(z.astype(float)) for z in outputs])
        mean = members.mean(0)
        k = int(mean.argmax())
        entropy = -sum(p * np.log(p) for p in mean if p > 0)
        rows.append((classes[k], mean[k], members[:, k].std(ddof=1), entropy))
    return rows


def check(found, expected):
    """Float32 logits of other batch sizes differ in their last bits."""
    assert [row.prediction for row in found] == [row[0] for row in expected]
    np.testing.assert_allclose(
        [row[2:5] for row in found], [row[1:4] for row in expected], atol=1e-5
    )


def how_of(run):
    return run.read_artifact("preprocessing.json")["preprocessing"]


def test_files_are_answered_as_predict_answers_their_pixels(images, photos):
    files = sorted(photos.rglob("*.png"), key=str)
    pixels = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    found = list(predict_files(images, [photos]))
    assert [row.name for row in found] == [str(file) for file in files]
    check(found, repr_of(images, pixels, [f"kind {k}" for k in "abcd"]))


def test_parts_answer_as_one_by_one(images, photos, monkeypatch):
    whole = list(predict_files(images, [photos]))
    monkeypatch.setattr(predict, "PREDICT_BATCH", 7)
    for part in (
        list(predict_files(images, [photos])),
        [
            row
            for file in sorted(photos.rglob("*.png"), key=str)
            for row in predict_files(images, [file])
        ],
    ):
        check(part, [row[1:] for row in whole])


def test_no_more_than_a_part_is_read_ahead(images, photos, monkeypatch):
    read, to_example = [], readers.to_example
    monkeypatch.setattr(predict, "PREDICT_BATCH", 4)
    monkeypatch.setattr(
        readers, "to_example", lambda *args: read.append(1) or to_example(*args)
    )
    rows = predict_files(images, [photos])
    for answered in range(1, 10):
        next(rows)
        assert len(read) == 4 * -(-answered // 4)


def test_rows_are_answered_with_the_statistics_of_train(table, penguins, tmp_path):
    lines = penguins.read_text().splitlines()
    few = tmp_path / "few.csv"  # with the target or without; in another order
    few.write_text("island,length\n,25.5\nsouth,NA\nnever seen,3\n")
    rows = [
        {"length": "25.5", "island": ""},
        {"length": "", "island": "south"},
        {"length": "3", "island": "never seen"},
    ]
    examples = np.stack([readers.to_example(row, how_of(table)) for row in rows])
    found = list(predict_files(table, [few]))
    check(found, repr_of(table, examples, ["ada", "bob", "cleo"]))
    assert [row.name for row in found] == [f"{few} row {n}" for n in (2, 3, 4)]
    assert len(list(predict_files(table, [penguins]))) == len(lines) - 1


def test_a_row_or_table_that_cannot_be_is_named(table, tmp_path):
    some, other = tmp_path / "some.csv", tmp_path / "other.csv"
    some.write_text("length,island\nlong,north\n1\n\n2,north\n")
    other.write_text("size,island\n1,north\n")
    found = list(predict_files(table, [some, other, tmp_path / "none.csv", tmp_path]))
    said = [row.reason if isinstance(row, Skipped) else row.name for row in found]
    assert said[0] == "'long' in column 'length' is no finite number: fix it"
    assert said[1].startswith("has 1 cell where the table has 2 columns")
    assert said[2] == f"{some} row 5"
    assert said[3].startswith("there is no column 'length'")
    assert said[4].startswith("cannot be read (No such file")
    assert said[5:] == [said[3], *said[:3]]  # the folder again, by names


def test_arrays_are_answered_and_scored(images, photos, tmp_path):
    test = data.load(photos).test
    path = tmp_path / "some.npz"
    names = np.array([f"kind {k}" for k in "abcd"])
    np.savez(path, x=np.asarray(test.inputs)[..., 0], y=names[test.targets])
    rows = list(predict_files(images, [path]))
    check(rows, repr_of(images, test.inputs, names))
    ours, theirs = evaluate(images, path), evaluate(images)
    assert ours.scores == theirs.scores and ours.ensemble == theirs.ensemble
    np.savez(path, x=np.zeros([2, 8, 8, 1]))
    assert "an image is float64" in next(predict_files(images, [path])).reason
    np.savez(path, x=np.zeros([2, 9, 8], np.uint8))
    assert (
        "has shape [9, 8, 1], wanted [8, 8, 1]"
        in next(predict_files(images, [path])).reason
    )


def test_a_member_alone_has_no_spread_and_a_quarantined_one_no_vote(images, photos):
    first, second = images.summary["population"]
    bad = {**second, "status": "quarantined"}
    summary = {**images.summary, "population": [first, bad]}
    alone = dataclasses.replace(images, summary=summary)
    row = next(predict_files(alone, [photos]))
    assert isinstance(row, Prediction) and row.spread is None
    file = sorted(photos.rglob("*.png"), key=str)[0]
    logits = images.predict(readers.to_example(file, how_of(images))[None])[0, 0]
    assert row.probability == pytest.approx(scipy.special.softmax(logits).max(), 1e-5)
    found = evaluate(alone)
    assert found.members == 1 and found.scores["loss"]["sem"] is None
    assert found.ensemble["loss"] == pytest.approx(found.scores["loss"]["mean"])


# --- evaluate ---


@pytest.mark.parametrize("fixture", ["image_run", "table_run"])
@pytest.mark.parametrize("given", [False, True])
def test_the_own_test_split_gives_the_scores_of_the_summary(
    fixture, given, request, photos, penguins
):
    run = load(request.getfixturevalue(fixture))
    path = {"image_run": photos, "table_run": penguins}[fixture]
    found = evaluate(run, path if given else None)
    assert found.examples == run.read_artifact("config.json")["dataset"]["test"]
    for name, score in found.scores.items():
        for key, value in run.summary["test"][name].items():
            assert score[key] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    with np.load(run.workdir / "predictions.npz") as left:
        right = left["ensemble_prediction"] == left["label"]
        loss = -np.log(left["ensemble_likelihood"]).mean()
    assert found.ensemble["accuracy"] == right.mean()
    assert found.ensemble["loss"] == pytest.approx(loss, rel=1e-5)


def test_other_files_are_scored_whole(images, photos, tmp_path):
    other = shutil.copytree(photos, tmp_path / "other")
    victim = next((other / "kind b").iterdir())
    victim.write_bytes(b"no image")
    files = sorted((f for f in other.rglob("*.png") if f != victim), key=str)
    label = np.array(["abcd".index(file.parent.name[-1]) for file in files])
    pixels = np.stack([readers.to_example(file, how_of(images)) for file in files])
    right = images.predict(pixels).argmax(-1) == label
    found = evaluate(images, other)
    assert found.unread == [
        Skipped(str(victim), "cannot be read as an image: not a supported image format")
    ]
    assert found.examples == len(files) and found.of == str(other)
    assert found.scores["accuracy"]["mean"] == pytest.approx(right.mean())
    classes = [right[:, label == k].mean() for k in range(4)]
    assert found.scores["balanced_accuracy"]["mean"] == pytest.approx(np.mean(classes))


def test_data_of_the_run_that_are_not_recognised_are_warned_about(
    images, photos, tmp_path, monkeypatch, caplog
):
    evaluate(images, photos)
    evaluate(images, shutil.copytree(photos, tmp_path / "copy"))
    assert caplog.messages == []
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    found = evaluate(images, photos)
    assert found.examples == len(list(photos.rglob("*.png")))
    assert "may be among those that are scored" in caplog.text


def test_of_other_data_with_splits_the_test_split_is_scored(images, photos, tmp_path):
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "two" / split)
    (tmp_path / "two/test/kind a").rename(tmp_path / "gone")
    found = evaluate(images, tmp_path / "two")
    assert found.examples == 40 - len(list((tmp_path / "gone").iterdir()))


def test_other_rows_have_the_statistics_of_train(table, penguins, tmp_path):
    head, *lines = penguins.read_text().splitlines()
    few = tmp_path / "few.csv"
    few.write_text("\n".join([head, *lines[:9], "NA,3,north"]) + "\n")
    rows = [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]
    examples = np.stack([readers.to_example(row, how_of(table)) for row in rows[:9]])
    label = [["ada", "bob", "cleo"].index(row["kind"]) for row in rows[:9]]
    outputs = table.predict(examples)
    found = evaluate(table, few)
    right = (outputs.argmax(-1) == label).mean()
    assert found.scores["accuracy"]["mean"] == pytest.approx(right, rel=1e-12)
    log_chance = scipy.special.log_softmax(outputs.astype(float), -1)
    loss = -log_chance[:, np.arange(9), label].mean()
    assert found.scores["loss"]["mean"] == pytest.approx(loss, rel=1e-5)
    assert [row.reason for row in found.unread] == ["has no 'kind'"]


def test_classes_are_those_of_the_run(images, table, photos, tmp_path):
    other = shutil.copytree(photos, tmp_path / "other")
    (other / "kind d").rename(other / "kind e")
    with pytest.raises(UserError, match=r"has a class 'kind e', and the run knows"):
        evaluate(images, other)
    few = tmp_path / "few.csv"
    few.write_text("kind,length,island\nada,1,north\ndora,2,south\n")
    with pytest.raises(UserError, match=r"has a class 'dora'.*ada, bob, cleo"):
        evaluate(table, few)
    with pytest.raises(UserError, match="has no column 'sort'"):
        evaluate(table, few, "sort")


def test_what_cannot_be_evaluated_is_one_sentence(images, table, photos, tmp_path):
    for run, path in ((images, tmp_path / "few.csv"), (table, photos)):
        (tmp_path / "few.csv").write_text("kind,length\nada,1\n")
        with pytest.raises(UserError) as raised:
            evaluate(run, path)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="has no folder"):
        evaluate(dataclasses.replace(images, workdir=None))
    with pytest.raises(UserError, match="has no folder"):
        next(predict_files(dataclasses.replace(images, workdir=None), [photos]))


def test_a_run_on_what_no_file_becomes_says_so(images, photos, tmp_path):
    workdir = shutil.copytree(images.workdir, tmp_path / "run")
    about = images.read_artifact("preprocessing.json")
    anybodys = {**images.summary, "sha256": {}}
    run = dataclasses.replace(images, workdir=workdir, summary=anybodys)
    for change in (
        {"preprocessing": None},
        {"preprocessing": about["preprocessing"] | {"height": 9}},
    ):
        run_folder.write_json(workdir / "preprocessing.json", about | change)
        with pytest.raises(UserError, match="give them to Run"):
            next(predict_files(run, [photos]))


# --- by what the outputs mean ---


def rows_of(path):
    head, *lines = path.read_text().splitlines()
    return [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]


def examples_of(run, path):
    return np.stack([readers.to_example(row, how_of(run)) for row in rows_of(path)])


def prices(run, path):
    """Outputs [P, N] in the units of the table, by the statistics in the run's file."""
    (column,) = how_of(run)["target"]["columns"]
    outputs = np.float64(run.predict(examples_of(run, path)))[..., 0]
    return outputs * column["deviation"] + column["mean"]


def test_values_are_told_in_the_units_of_the_table(price_run, houses):
    run = load(price_run)
    found = list(predict_files(run, [houses]))
    said = prices(run, houses)
    assert {type(row) for row in found} == {Value}
    np.testing.assert_allclose([r.prediction for r in found], said.mean(0), rtol=1e-6)
    spread = said.std(0, ddof=1)
    np.testing.assert_allclose([row.spread for row in found], spread, rtol=1e-3)
    true = np.array([float(row["price"]) for row in rows_of(houses)])
    assert abs(said.mean() / true.mean() - 1) < 0.2  # prices, not deviations


def test_labels_are_told_with_the_probability_of_each(labels_run, houses, capsys):
    run = load(labels_run)
    found = list(predict_files(run, [houses]))
    chance = scipy.special.expit(np.float64(run.predict(examples_of(run, houses))))
    for row, (large, dear) in zip(found, chance.mean(0), strict=True):
        assert isinstance(row, Labels)
        assert row.probability == pytest.approx({"large": large, "dear": dear}, 1e-5)
        true = [n for n, p in (("large", large), ("dear", dear)) if p > 0.5]
        assert row.prediction == " + ".join(true)
    terminal.WRITERS["csv"](found[:1])
    head, line = capsys.readouterr().out.splitlines()
    assert head == "name,prediction,probability large,probability dear,unlike"
    assert line.count(",") == 4
    terminal.WRITERS["table"](found)
    assert "probability" in capsys.readouterr().out
    terminal.WRITERS["json"](found[:1])
    said = json.loads(capsys.readouterr().out)["probability"]
    assert list(said) == ["large", "dear"]


def test_probabilities_are_not_taken_for_logits(images, photos):
    summary = {**images.summary, "outputs": "probabilities"}
    run = dataclasses.replace(images, summary=summary)
    one = sorted(photos.rglob("*.png"), key=str)[0]
    outputs = run.predict(readers.to_example(one, how_of(run))[None])[:, 0]  # [P, K]
    row = next(predict_files(run, [one]))
    assert row.probability == pytest.approx(outputs.mean(0).max(), rel=1e-6)


def test_outputs_that_nobody_knows_get_a_sentence(images, photos):
    unknown = {**images.summary, "outputs": None}
    run = dataclasses.replace(images, summary=unknown)
    for answer in (
        lambda: next(predict_files(run, [photos])),
        lambda: evaluate(run),
        lambda: run.evaluate(data.load(photos).test),
    ):
        with pytest.raises(UserError, match=r"not known what the outputs .* mean"):
            answer()


@pytest.mark.parametrize("fixture", ["price_run", "labels_run"])
@pytest.mark.parametrize("given", [False, True])
def test_numbers_are_scored_as_in_the_summary(fixture, given, request, houses):
    run = load(request.getfixturevalue(fixture))
    found = evaluate(run, houses if given else None)
    assert found.examples == run.read_artifact("config.json")["dataset"]["test"]
    names = {"price_run": ["mae", "rmse", "r2"], "labels_run": ["accuracy", "f1_macro"]}
    for name in names[fixture]:
        for key, value in run.summary["test"][name].items():
            assert found.scores[name][key] == pytest.approx(value, rel=1e-4), name


def test_values_of_other_rows_are_scored_by_plain_arithmetic(
    price_run, houses, tmp_path, capsys
):
    run, few = load(price_run), tmp_path / "few.csv"
    head, *lines = houses.read_text().splitlines()
    few.write_text("\n".join([head, *lines[:12], "50,north,,0,0"]) + "\n")
    found = evaluate(run, few)
    few.write_text("\n".join([head, *lines[:12]]) + "\n")
    said = prices(run, few)  # [P, N]
    true = np.array([float(row["price"]) for row in rows_of(few)])
    error = said - true
    assert found.examples == 12 and [r.reason for r in found.unread] == [
        "has no 'price'"
    ]
    mae, rmse = np.abs(error).mean(-1), np.sqrt((error**2).mean(-1))
    r2 = 1 - (error**2).mean(-1) / true.var()
    for name, value in (("mae", mae), ("rmse", rmse), ("r2", r2)):
        assert found.scores[name]["mean"] == pytest.approx(value.mean(), rel=1e-4)
    together = np.abs(said.mean(0) - true).mean()
    assert found.ensemble["mae"] == pytest.approx(together, rel=1e-4)
    assert found.units["mae"] == "units of price"
    assert show(found) == 1
    assert "MAE (units of price)" in capsys.readouterr().out


def test_a_run_without_a_folder_knows_the_units_of_its_target(houses):
    dataset = data.load(houses, target="price")
    settings = {"hparams": {"learning_rate": 0.03}, "batch_size": 8}
    model = models.mlp((8,), num_classes=1)
    run = fit(model, dataset, loss=losses.squared_error, **settings)
    found = run.evaluate(dataset.test)
    assert found.units["mae"] == "units of price"
    mean = run.summary["test"]["mae"]["mean"]
    assert found.scores["mae"]["mean"] == pytest.approx(mean, rel=1e-4)


def test_labels_are_scored_by_plain_arithmetic(labels_run, houses):
    run = load(labels_run)
    test = data.load(houses, target=["large", "dear"]).test
    found = run.evaluate(test)
    outputs = np.float64(run.predict(test.inputs))  # [P, N, K]
    chance, target = scipy.special.expit(outputs), np.asarray(test.targets)
    right = (chance > 0.5) == (target > 0.5)
    assert found.scores["accuracy"]["mean"] == pytest.approx(right.mean())
    loss = -np.where(target > 0.5, np.log(chance), np.log1p(-chance))
    assert found.scores["loss"]["mean"] == pytest.approx(loss.mean(), rel=1e-5)
    said = chance.mean(0)
    assert found.ensemble["accuracy"] == ((said > 0.5) == (target > 0.5)).mean()
    together = -np.where(target > 0.5, np.log(said), np.log1p(-said)).mean()
    assert found.ensemble["loss"] == pytest.approx(together, rel=1e-5)


def test_given_examples_are_scored_with_their_weights(images, photos):
    test = data.load(photos).test
    weights = np.arange(test.num_examples, dtype=np.float32)
    batch = Batch(np.asarray(test.inputs), test.targets, weights)
    found = dataclasses.replace(images, workdir=None).evaluate(batch)
    right = images.predict(batch.inputs).argmax(-1) == test.targets
    wanted = np.average(right, -1, weights).mean()
    assert found.scores["accuracy"]["mean"] == pytest.approx(wanted)
    with pytest.raises(UserError, match="integer labels: convert them"):
        images.evaluate(batch._replace(targets=np.zeros(len(weights), np.float32)))

        evaluate(images, batch._replace(targets=np.zeros(len(weights), np.float32)))


def test_a_word_that_training_never_had_is_said_once(table, tmp_path, caplog):
    path = tmp_path / "rows.csv"
    path.write_text("length,island\n1,north\n2,Atlantis\n3,Atlantis\n4,NA\n")
    assert len(list(predict_files(table, [path]))) == 4
    (said,) = caplog.messages
    assert said.startswith(
        f"{path} row 3: column 'island' has 'Atlantis', unlike every"
    )


def test_rows_may_come_through_a_pipe(table, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    rows = "length,island\n1,north\n2,south\n"
    writer = threading.Thread(target=pipe.write_text, args=(rows,))
    writer.start()
    assert len(list(predict_files(table, [pipe]))) == 2
    writer.join()


@pytest.mark.parametrize("name", ["p.png", "p.npz"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_pipes_and_devices_of_images_are_not_waited_for(make, name, images, tmp_path):
    make(tmp_path / name)
    (lost,) = predict_files(images, [tmp_path / name])
    assert isinstance(lost, Skipped) and "not a regular file" in lost.reason


def test_a_folder_of_images_with_a_readme_is_answered(images, photos, tmp_path):
    home = shutil.copytree(photos, tmp_path / "p")
    (home / "README.md").write_text("photos")
    (home / "gone.png").symlink_to("/nowhere")
    found = list(predict_files(images, [home]))
    (lost,) = [row for row in found if isinstance(row, Skipped)]
    assert lost.name == str(home / "gone.png") and "No such file" in lost.reason
