"""Data -> settings, an ensemble, baselines and a report, in one call."""

import errno
import json
import shutil

import numpy as np
import pytest
from flax import linen as nn

from dlworkshop import autofit, data, load_run, models, report
from dlworkshop.errors import UserError
from dlworkshop.search import (
    budget,
    effort,
    expected,
    prepared,
    survival,
    task_of,
    trial,
)
from dlworkshop.search.budget import Budget
from dlworkshop.search.candidates import candidates
from dlworkshop.search.effort import Cost
from dlworkshop.search.state import SearchState
from dlworkshop.serve import export
from tests.conftest import reports

QUICK = {"num_updates": 60, "batch_size": 16, "quiet": True}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, size=(160, 3)).astype(np.float32)
    return data.from_arrays(x, np.where(x[:, 0] > 5, "right", "left"), name="sides")


def search(dataset, folder, **options):
    model = prepared(models.mlp((8,), num_classes=2), dataset, task_of(dataset))
    hparams = {"learning_rate": [0.001, 0.03], "weight_decay": 0.01, "dropout": 0.0}
    more = {"seeds": 2, "folds": 3, "hparams": hparams, **QUICK, **options}
    return autofit(dataset, model=model, workdir=folder, minutes=1.0, **more)


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    search(table, folder)
    return folder


@pytest.mark.slow
def test_the_better_setting_is_found_and_trained_with_every_fold_and_seed(folder):
    summary = json.loads((folder / "summary.json").read_text())
    found = summary["search"]
    assert found["chosen"]["hparams"]["learning_rate"] == 0.03
    assert [row["n"] for row in found["rows"]] == [6, 6]
    assert sum(row["chosen"] for row in found["rows"]) == 1
    assert summary["members"] == 6 and summary["folds"] == 3
    assert {row["seed"] for row in summary["population"]} == {0, 1}
    assert summary["ensemble"]["accuracy"] > 0.85
    assert summary["baselines"]["commonest class"]["accuracy"] < 0.7
    assert summary["baselines"]["logistic regression"]["accuracy"] > 0.85
    interval = summary["expected"]["accuracy"]
    assert interval["low"] < interval["mean"] < interval["high"]
    assert summary["expected"]["examples"] == 136
    assert summary["budget"]["used_seconds"] > 0
    assert "test accuracy" in summary["finding"]


def test_answers_are_measured_on_what_members_held_out(folder):
    found = json.loads((folder / "answers.json").read_text())
    assert found["held_out"] == {"examples": 136, "folds": 3}
    told = json.loads((folder / "summary.json").read_text())["answers"]
    assert told["sets"] == found["sets"] and told["sets"]["test"]["examples"] == 24
    assert "Reliability of the predictions" in (folder / "report.html").read_text()


def test_the_report_tells_the_search_and_the_baselines(folder):
    page = (folder / "report.html").read_text()
    for text in ("Baselines", "Logistic regression", "Behind the best"):
        assert text in page
    assert "Time used: " in page and "Expected on new data: " in page


def test_the_report_says_when_there_was_no_time_for_a_search(folder, tmp_path):
    run = shutil.copytree(folder, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary["search"] |= {"rows": [], "tried": {}}
    summary.pop("sha256")  # it is another one below
    for left_out, said in ([], "All settings were given"), (["No time"], "No settings"):
        summary["search"]["left_out"] = left_out
        (run / "summary.json").write_text(json.dumps(summary))
        page = report.write(run).read_text()
        assert said in page and ("All settings were given" in page) == (not left_out)


def test_a_finished_run_is_returned_and_another_one_refused(table, folder):
    before = (folder / "summary.json").read_text()
    run = search(table, folder)
    assert run.summary == json.loads(before)
    with pytest.raises(UserError, match="num_updates was 60 and is now 61"):
        search(table, folder, num_updates=61)


@pytest.mark.slow
def test_its_report_is_drawn_once_and_again_if_it_is_missing(
    table, folder, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(report, "write", drawn.append)
    shutil.copytree(folder, tmp_path / "run")
    search(table, tmp_path / "run")
    assert drawn == []
    (tmp_path / "run" / "report.html").unlink()
    run = search(table, tmp_path / "run")
    assert drawn == [tmp_path / "run"] and "search" in run.summary
    search(table, tmp_path / "anew", num_updates=20)
    assert drawn == [tmp_path / "run", tmp_path / "anew"]


def test_a_full_disk_is_told_where_only_the_report_is_missing(
    table, folder, tmp_path, monkeypatch
):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = shutil.copytree(folder, tmp_path / "run")
    (run / "report.html").unlink()
    monkeypatch.setattr(report, "write", full)
    with pytest.raises(UserError, match="failed because the disk is full"):
        search(table, run)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["lost", "changed"])
def test_answers_that_are_lost_or_damaged_are_made_again(
    damage, table, folder, tmp_path
):
    run = shutil.copytree(folder, tmp_path / "run")
    known = (run / "answers.json").read_text()
    (run / "answers.json").unlink()
    if damage == "changed":
        (run / "answers.json").write_text(known.replace("0.9", "0.8"))
    with reports():
        found = search(table, run)
    assert (run / "answers.json").read_text() == known
    assert found.summary["search"] and found.read_artifact("answers.json")


def test_the_constants_are_inside_the_file_that_goes_out(table, folder, tmp_path):
    run = load_run(folder)
    assert "standardized" in run.model.config
    path = export.export(run, tmp_path / "model.stablehlo", "stablehlo")
    from jax import export as jax_export  # noqa: PLC0415

    made = jax_export.deserialize(bytearray(path.read_bytes()))
    chance = np.asarray(made.call(table.test.inputs))
    right = chance.argmax(-1) == table.test.targets
    assert right.mean() == pytest.approx(run.summary["ensemble"]["accuracy"])


def test_a_search_that_was_stopped_goes_on(table, folder, tmp_path, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(expected, "finding", stopped)
        search(table, tmp_path)
    known = (tmp_path / "search.json").read_text()
    with reports():
        run = search(table, tmp_path)
    assert (tmp_path / "search.json").read_text() == known
    whole = json.loads((folder / "summary.json").read_text())
    for name in ("ensemble", "baselines", "expected", "finding"):
        assert run.summary[name] == whole[name]


def test_a_flipped_score_of_a_search_is_noticed(table, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    path = tmp_path / "run" / "search.json"
    found = json.loads(path.read_text())
    found["seconds"] += 1
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"search\.json is not as it was written"):
        search(table, tmp_path / "run")


def test_numbers_keep_their_units_and_nothing_is_searched_where_all_is_given():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    y = (1e5 + 2e4 * x[:, 0]).astype(np.float32)
    dataset = data.from_arrays(x, y, name="prices")
    hparams = {"learning_rate": 0.05, "weight_decay": 0.0}
    network = prepared(models.logistic(1), dataset, task_of(dataset))
    more = {**QUICK, "num_updates": 400}
    run = autofit(dataset, model=network, hparams=hparams, seeds=1, folds=0, **more)
    assert run.summary["search"]["rows"] == []
    assert run.summary["members"] == 1 and run.summary["steps"] == 400
    assert run.summary["ensemble"]["r2"] > 0.9
    assert run.summary["ensemble"]["rmse"] < 5e3
    assert run.summary["baselines"]["mean of train"]["r2"] < 0.1
    assert "A linear model is nearly exact" in run.summary["notes"][0]
    assert "(30 examples)" in run.summary["finding"]


def test_members_that_stopped_early_are_not_undertrained():
    rng = np.random.default_rng(0)
    x, sides = rng.normal(size=(60, 100)), rng.permutation(["left", "right"] * 30)
    noise = data.from_arrays(x.astype(np.float32), sides, name="noise")
    hparams = {"learning_rate": 0.1, "weight_decay": 0.0}
    asked = {"model": models.logistic(2), "hparams": hparams, "seeds": 1, "folds": 0}
    run = autofit(noise, minutes=0.001, batch_size=16, quiet=True, **asked)
    assert run.summary["population"][0]["status"] == "stopped early"
    assert "are usual" not in " ".join(run.summary["notes"])


def test_labels_are_told_beside_the_commonest_ones():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2)).astype(np.float32)
    dataset = data.from_arrays(x, x > 0, name="signs")
    hparams = {"learning_rate": 0.1, "weight_decay": 0.0}
    network = models.logistic(2)
    run = autofit(dataset, model=network, hparams=hparams, seeds=1, folds=0, **QUICK)
    assert run.summary["ensemble"]["accuracy"] > 0.85
    assert set(run.summary["baselines"]) == {"commonest labels", "logistic regression"}


def sides(size, seed):
    """Images that are bright on one side: flipped, they are of the other class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 100, (size, 8, 8, 1), np.uint8)
    side = np.arange(size) % 2
    for image, right in zip(images, side, strict=True):
        image[:, 4 * right : 4 * right + 4] += 120
    return images, np.where(side, "right", "left")


@pytest.mark.slow
def test_without_time_to_try_flips_a_network_is_asked_whether_classes_survive(
    monkeypatch,
):
    # of 8 minutes 40 % are too short for six settings, and 15 % do for two rates
    monkeypatch.setattr(budget, "cost_of", lambda *args: Cost(0.1))
    dataset = data.from_arrays(*sides(120, 0), name="sides")
    network = prepared(models.cnn((4,), (8,), num_classes=2), dataset, task_of(dataset))
    run = autofit(dataset, minutes=8.0, model=network, folds=0, seeds=1, quiet=True)
    (said,) = run.summary["search"]["left_out"]
    assert "recognises 100.0 % of validation images as they are" in said
    assert "0.0 % after a flip" in said and ": a shift taken" in said
    assert run.model.config["augment"]["shift"] == 1
    assert not run.model.config["augment"]["flip"]
    assert len(run.summary["search"]["rows"]) == 2  # learning rates
    assert run.summary["ensemble"]["accuracy"] > 0.9


def test_flips_that_are_asked_for_are_kept_where_there_is_no_time(monkeypatch):
    # of 8 minutes 15 % do for two rates, as above
    monkeypatch.setattr(budget, "cost_of", lambda *args: Cost(0.1))
    dataset = data.from_arrays(*sides(120, 0), name="sides")
    network = prepared(models.cnn((4,), (8,), num_classes=2), dataset, task_of(dataset))
    asked = {"flip": 1}
    given = {"folds": 0, "seeds": 1, "num_updates": 20, "quiet": True}
    run = autofit(dataset, minutes=0.5, model=network, hparams=asked, **given)
    assert run.model.config["augment"]["flip"] and "mirrored" in run.model.config
    assert "Trained with flips: the outputs are means" in " ".join(run.summary["notes"])
    (said,) = run.summary["search"]["left_out"]
    assert "There was no time to try augmentation" in said
    images = dataset.test.inputs
    outputs = run.predict(images)
    np.testing.assert_allclose(run.predict(images[:, :, ::-1]), outputs, rtol=1e-4)


class Statistics(nn.Module):
    """It keeps a state, and needs a hyper-parameter."""

    @nn.compact
    def __call__(self, image, train, *, gain):
        x = nn.Conv(4, (3, 3))(image)
        x = nn.BatchNorm(not train, axis_name=models.BATCH_AXES)(x)
        return nn.Dense(2)(gain * x.mean((0, 1)))


@pytest.mark.parametrize("batch_size", [8, 17])  # with folds, more than in train
def test_what_an_update_takes_is_told_of_any_network(batch_size):
    dataset = data.from_arrays(*sides(20, 0), name="sides")
    task, network = task_of(dataset), models.from_linen(Statistics())
    (candidate,) = candidates(dataset, task, network, {"gain": 1.0})
    cost = effort.cost_of(candidate, task, dataset, batch_size)
    assert 0 < cost.update < 1 and cost.compiling >= effort.COMPILING


@pytest.mark.slow
def test_networks_are_as_large_as_there_is_time_for(monkeypatch):
    images, side = sides(30, 0)
    dataset = data.from_arrays(images.repeat(8, 1).repeat(8, 2), side)  # 64 x 64
    task = task_of(dataset)
    (largest,) = candidates(dataset, task)
    sizes = [largest, *largest.smaller]
    seen = []

    def measured(candidate, *args):
        seen.append(candidate)
        return Cost(2.0, 8.0)

    monkeypatch.setattr(effort, "cost_of", measured)
    costs = effort.costs_of(sizes, task, dataset, 16, lambda cost: False)
    assert seen == [sizes[-1]] and costs[-1] == Cost(2.0, 8.0)
    times = [cost.update for cost in costs]
    assert times == sorted(times, reverse=True)  # each is cheaper than the one before
    assert 2 < times[2] / times[3] < 4  # a quarter of the pixels, wider sooner
    costs = effort.costs_of(sizes, task, dataset, 16, lambda cost: True)
    assert seen[1] is largest and costs[0].update == 2.0


def three_minutes(dataset, candidate):
    """A search that begins, in memory."""
    state = SearchState(None, quiet=True)
    state.begin({})
    task = task_of(dataset)
    time = Budget(dataset, task, state, seconds=180.0, obeyed=False)
    return trial.Search(dataset, task, [candidate], None, state, time)


@pytest.mark.parametrize(
    ("update", "place", "folds", "said"),
    [
        (0.01, 0, 8, []),
        (0.05, 1, 8, ["a cnn of 24 channels"]),
        (0.2, 0, None, ["no time for 8 folds"]),
        (1.0, 1, None, ["no time for 8 folds", "a cnn of 24 channels"]),
    ],
)
def test_networks_and_folds_are_such_as_there_is_time_for(
    monkeypatch, update, place, folds, said
):
    """600 images in three minutes: at least 500 updates, and 100 of a search."""
    dataset = data.from_arrays(*sides(600, 0), name="sides")
    (largest,) = candidates(dataset, task_of(dataset))
    costs = [Cost(update), Cost(update / 4)]
    monkeypatch.setattr(trial, "costs_of", lambda *args: costs)
    search = three_minutes(dataset, largest)
    search.size_up(None, None, None)
    assert search.tried == [[largest, *largest.smaller][place]]
    assert search.budget.usual.folds == folds
    for text, words in zip(search.state.found["left_out"], said, strict=True):
        assert words in text
    again = three_minutes(dataset, largest)
    again.state.found = {**search.state.found, "left_out": []}  # as of a folder
    monkeypatch.setattr(trial, "costs_of", lambda *args: [])  # nothing is measured
    again.size_up(None, None, None)
    assert again.tried == search.tried
    assert again.budget.usual == search.budget.usual
    assert again.state.found["left_out"] == []


@pytest.mark.parametrize(
    ("update", "place", "said"), [(0.5, 1, "24 channels"), (0.01, 0, None)]
)
def test_a_search_faster_than_counted_leaves_time_for_a_larger_network(
    monkeypatch, update, place, said
):
    """In three minutes, where an update was counted to take a second."""
    dataset = data.from_arrays(*sides(600, 0), name="sides")
    (largest,) = candidates(dataset, task_of(dataset))
    monkeypatch.setattr(trial, "costs_of", lambda *_: [Cost(1.0), Cost(0.25)])
    search = three_minutes(dataset, largest)
    search.size_up(0, None, None)
    assert search.tried == [largest.smaller[0]]
    setting = largest.settings[0]
    row = trial.choice.Row(largest.name, dict(setting), [0.5], [1.0])
    found = search.state.found
    found["searched"][largest.name] = {"cost": [update, 6.0]}
    plan = search.plan(row)
    assert search.candidate(row) is [largest, *largest.smaller][place]
    assert plan["updates"] >= 300 and plan["seconds"] < 180
    assert [said in text for text in found["left_out"]] == [True] * bool(said)


def test_what_survives_is_taken():
    dataset = data.from_arrays(*sides(120, 0), name="sides")
    tried = [(0.0, 0.0), (0.0, 1.0), (0.5, 1.0)]

    class Knows:
        """By the brighter side, or by something that a flip leaves as it is."""

        chosen = np.array([True])

        def __init__(self, symmetric):
            self.symmetric = symmetric
            known = dataset.validation[:2]
            self.known = {i.tobytes(): t for i, t in zip(*known, strict=True)}

        def predict(self, images):
            right = images[:, :, 4:].mean((1, 2, 3)) > images[:, :, :4].mean((1, 2, 3))
            if self.symmetric:  # it knows images and their mirror images
                known = [
                    self.known.get(i.tobytes(), self.known.get(i[:, ::-1].tobytes()))
                    for i in images
                ]
                right = np.array(
                    [r if k is None else k for r, k in zip(right, known, strict=True)]
                )
            return np.stack([1 - right, right], -1)[None].astype(float)

    task = task_of(dataset)
    assert survival.moves(Knows(False), dataset, task, tried)[0]["flip"] == 0
    both = {"flip": 0.5, "shift": 1.0}
    assert survival.moves(Knows(True), dataset, task, tried)[0] == both
    # a flip that the user asked for is kept, and no reason against a shift
    asked = [(0.5, 0.0), (0.5, 1.0)]
    found, said = survival.moves(Knows(False), dataset, task, asked)
    assert found == both and "flip" not in said


@pytest.mark.slow
def test_dropout_is_obeyed_by_the_networks_that_have_it():
    x = np.random.default_rng(0).integers(0, 2, (120, 2)).astype(np.float32)
    dataset = data.from_arrays(x, (x[:, 0] + x[:, 1] == 1).astype(int))
    hparams = {"learning_rate": 0.01, "weight_decay": 0.0, "dropout": 0.25}
    more = {**QUICK, "seeds": 1, "folds": 0, "minutes": 5.0}
    run = autofit(dataset, hparams=hparams, **more)
    rows = run.summary["search"]["rows"]
    rates = {row["candidate"]: row["hparams"].get("dropout") for row in rows}
    assert rates == {"linear": None, "mlp": 0.25}
    with pytest.raises(UserError, match="no network that would be trained"):
        autofit(dataset, model=models.logistic(2), hparams=hparams, **more)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"minutes": 0}, "minutes is 0"),
        ({"hparams": {"flip": True}}, "no image"),
        ({"hparams": {"momentum": 0.5}}, "momentum"),
        ({"hparams": {"learning_rate": ()}}, "'learning_rate' has no value"),
        ({"batch_size": 1000}, "batch_size is 1000, but the train split .* has 112"),
        ({"folds": 1}, "folds is 1: give 0 for none, or at least 2"),
        ({"augment": models.Augment(flip=True)}, "a flip or a shift, which autofit ch"),
        ({"hparams": {"learning_rate": (0.1, -1)}}, "learning_rate is -1.0: give a"),
        ({"hparams": {"dropout": 1.5}}, r"dropout is 1.5: give a number in \[0, 1\)"),
        ({"hparams": {"dropout": "no"}}, "dropout is 'no': give a number"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(table, tmp_path, asked, said):
    with pytest.raises(UserError, match=said):
        autofit(table, workdir=tmp_path / "run", quiet=True, **asked)
    assert not (tmp_path / "run").exists()
