"""Which setting is chosen, and how much is tried in which time."""

from types import MappingProxyType

import numpy as np
import pytest

from dlworkshop import data, losses
from dlworkshop.errors import UserError
from dlworkshop.search import candidates, choice, effort, expected, optimism, task
from dlworkshop.search.choice import Row
from dlworkshop.train.history import History
from dlworkshop.train.result import Run

LOSS = task.Task("values", None, 1, "loss")
ACCURACY = task.Task("classes", None, 2, "accuracy")
ORDER = ["linear", "mlp"]


def rows(*scores, **hparams):
    return [
        Row(name, {"learning_rate": 0.1 * i, **hparams}, list(score), list(score))
        for i, (name, score) in enumerate(scores)
    ]


def test_a_network_that_is_clearly_better_is_taken():
    tried = rows(("linear", [1.0, 1.1, 1.2]), ("mlp", [0.5, 0.6, 0.7]))
    assert choice.choose(tried, ORDER, LOSS)[0].candidate == "mlp"


def test_the_simple_one_wins_what_may_be_chance():
    # behind by 0.01 on average, and the difference changes sign from fold to fold
    tried = rows(("linear", [1.0, 0.9, 1.23]), ("mlp", [0.9, 1.0, 1.2]))
    assert choice.choose(tried, ORDER, LOSS)[0].candidate == "linear"


def test_what_all_folds_find_hard_is_no_part_of_a_difference():
    # scores scatter widely, and yet one is better by 0.1 everywhere
    tried = rows(("linear", [1.1, 3.1, 9.1]), ("mlp", [1.0, 3.0, 9.0]))
    chosen, told = choice.choose(tried, ORDER, LOSS)
    assert chosen.candidate == "mlp"
    assert told[1]["behind"] == pytest.approx(0.1)
    assert told[1]["behind_sem"] == pytest.approx(0.0, abs=1e-9)


def test_direction_and_the_noise_of_one_split():
    tried = rows(("linear", [0.90, 0.90]), ("mlp", [0.92, 0.92]))
    assert choice.choose(tried, ORDER, ACCURACY)[0].candidate == "mlp"
    assert choice.choose(tried, ORDER, ACCURACY, noise=50)[0].candidate == "linear"
    assert choice.choose(tried, ORDER, ACCURACY, noise=5000)[0].candidate == "mlp"


def test_augmentation_has_to_pay():
    plain = Row("cnn", {"flip": 0.0, "shift": 0.0}, [1.0, 1.2], [1.0, 1.2])
    moved = Row("cnn", {"flip": 0.5, "shift": 2.0}, [0.9, 1.25], [0.9, 1.25])
    assert choice.choose([moved, plain], ["cnn"], LOSS)[0] is plain
    better = moved._replace(score=[0.1, 0.2])
    assert choice.choose([better, plain], ["cnn"], LOSS)[0] is better


def test_what_was_lost_never_wins():
    tried = rows(("linear", [0.1, np.nan]), ("mlp", [0.5, 0.6]))
    assert choice.choose(tried, ORDER, LOSS)[0].candidate == "mlp"
    with pytest.raises(UserError, match="stayed finite"):
        choice.choose(rows(("mlp", [np.nan])), ORDER, LOSS)


def test_an_effort_shrinks_to_its_time_but_not_below_some_hundred_updates():
    settings = tuple({"learning_rate": float(i)} for i in range(1, 9))
    whole = effort.Effort(settings, 2, 8, 1000, 32, held=100)
    cost = effort.Cost(1e-3)
    seconds = whole.seconds(cost)
    assert whole.within(seconds + 1, cost) == whole
    for share in (0.7, 0.3, 0.05):
        less = whole.within(seconds * share, cost)
        assert less.updates >= effort.LEAST_UPDATES
        assert less.seconds(cost) <= seconds * share or len(less.settings) == 1
    slow = effort.Cost(1.0)
    assert whole.within(0.0, slow).updates == effort.LEAST_UPDATES
    kept = whole.within(0.0, slow, least_seeds=2, least_updates=1000)
    assert (kept.seeds, kept.updates) == (2, 1000)


def test_few_examples_are_cut_into_folds_unless_splits_mean_something():
    x = np.arange(200.0, dtype=np.float32)[:, None]
    dataset = data.from_arrays(x, x[:, 0])
    assert effort.cuts_folds(dataset)
    few, many = (
        data.from_arrays(x, x[:, 0], groups=np.arange(200) // n) for n in (20, 4)
    )
    given = dataset._replace(card={"splits": "train, validation and test as given"})
    cut = dataset._replace(card={"splits": "train and test as given; validation cut"})
    found = [effort.cuts_folds(each) for each in (few, many, given, cut)]
    assert found == [False, True, False, True]
    x = np.arange(2000.0, dtype=np.float32)[:, None]
    assert not effort.cuts_folds(data.from_arrays(x, x[:, 0]))


def test_examples_too_few_for_folds_are_not_cut_into_them():
    x = np.arange(40.0, dtype=np.float32)[:, None]
    tiny = data.from_arrays(x[:10], x[:10])
    copies, enough = (data.from_arrays(each, x) for each in (x // 4, x))
    train = enough.train._replace(weights=np.ones(len(enough.train.targets)))
    weighted = enough._replace(train=train)
    found = [effort.cuts_folds(each) for each in (tiny, copies, enough, weighted)]
    assert found == [False, False, True, False]


def test_what_stopping_flatters_is_told_of_scores_that_are_not_always_defined():
    nan = float("nan")
    loss = [[1.0, 1.0], [0.4, 0.8], [0.6, 0.5]]
    r2 = [[nan, nan], [0.9, nan], [0.7, nan]]  # the first line has no score at all
    lines = [
        {"step": i, "epoch": i, "train": {}, "validation": {"loss": a, "r2": b}}
        for i, (a, b) in enumerate(zip(loss, r2, strict=True))
    ]
    found = optimism.of_stopping(History(lines), [0, 1], "r2")
    np.testing.assert_allclose(found, [0.7 - 0.9, 0])


def test_flags_are_obeyed_and_the_rest_is_swept():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    dataset = data.from_arrays(x, (x[:, 0] > 0).astype(int))
    found = candidates.candidates(dataset, task.task_of(dataset))
    assert [each.name for each in found] == [
        "linear",
        "linear on bins",
        "mlp",
        "mlp on bins",
    ]
    assert len(found[2].settings) == 18 and "dropout" not in found[0].settings[0]
    asked = {"learning_rate": [0.5, 0.25], "dropout": 0.1}
    mlp = candidates.candidates(dataset, task.task_of(dataset), asked=asked)[2]
    assert {s["learning_rate"] for s in mlp.settings} == {0.5, 0.25}
    assert {s["dropout"] for s in mlp.settings} == {0.1} and len(mlp.settings) == 6
    with pytest.raises(UserError, match="no image"):
        candidates.candidates(dataset, task.task_of(dataset), asked={"flip": True})


@pytest.mark.parametrize(("side", "name"), [(2, "mlp"), (8, "cnn"), (32, "resnet")])
def test_networks_of_images_go_by_their_size(side, name):
    images = np.random.default_rng(0).integers(0, 256, (20, side, side, 3), np.uint8)
    dataset = data.from_arrays(images, np.arange(20) % 2)
    (found,) = candidates.candidates(dataset, task.task_of(dataset))
    assert found.name == name
    candidates.check(found, dataset)
    if name != "mlp":
        chosen = {**found.settings[0], "flip": 0.5, "shift": 1.0}
        model, numbers = found.resolved(chosen)
        assert model.config["augment"]["flip"] and model.config["augment"]["shift"] == 1
        assert set(numbers) == {"learning_rate", "weight_decay"}
        plain, _ = found.resolved({**chosen, "flip": 0.0, "shift": 0.0})
        assert plain.augment is None
        both = ["mirrored" in each.config for each in (model, found.model, plain)]
        assert both == [True, False, False]


def test_flips_are_never_assumed():
    images = np.zeros((20, 32, 32, 1), np.uint8)
    dataset = data.from_arrays(images, np.arange(20) % 2)
    (found,) = candidates.candidates(dataset, task.task_of(dataset))
    assert found.settings[0]["flip"] == 0 == found.settings[0]["shift"]
    asked = {"flip": False, "shift": 0.25}
    (found,) = candidates.candidates(dataset, task.task_of(dataset), asked=asked)
    assert {(s["flip"], s["shift"]) for s in found.settings} == {(0.0, 8.0)}


def test_tasks_are_told_from_the_targets():
    x, rng = np.zeros((400, 2), np.float32), np.random.default_rng(0)
    kinds = {
        "loss": rng.permutation(np.arange(400) % 2),
        "balanced_accuracy": rng.permutation((np.arange(400) % 20 == 0).astype(int)),
    }
    for judged, y in kinds.items():
        found = task.task_of(data.from_arrays(x, y))
        assert (found.kind, found.judged_by) == ("classes", judged)
    assert "commonest class has 19 times" in found.why
    assert "--class-weights" in found.why
    weighted = losses.weighted(losses.cross_entropy, np.array([1.0, 19.0]))
    weighted = task.task_of(data.from_arrays(x, kinds["balanced_accuracy"]), weighted)
    assert "--class-weights" not in weighted.why
    labels = rng.integers(0, 2, (400, 3)).astype(bool)
    assert task.task_of(data.from_arrays(x, labels)).kind == "labels"
    numbers = rng.normal(size=400).astype(np.float32)
    found = task.task_of(data.from_arrays(x, numbers))
    assert (found.kind, found.outputs, found.headline) == ("values", 1, "rmse")


def test_undertrained_is_what_still_falls():
    def of(curve):
        lines = [
            {"step": i + 1, "epoch": i + 1.0, "train": {}, "validation": {"loss": [v]}}
            for i, v in enumerate(curve)
        ]
        return expected.still_falling(Run(None, None, {}, history=History(lines)))

    assert of(np.linspace(2, 1, 20)) == pytest.approx(4 / 19, rel=0.3)
    assert of(2 * 0.5 ** np.arange(20.0)) is None
    assert of([1.0, 2.0]) is None


def test_an_interval_holds_the_share_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        low, high = expected.wilson(rng.binomial(60, 0.9) / 60, 60)
        inside.append(low <= 0.9 <= high)
    # 95 %, with three standard errors of 400 draws, and what 60 examples are coarse by
    assert 0.91 < np.mean(inside) <= 1


def test_a_network_whose_curves_waver_is_not_flattered():
    rng = np.random.default_rng(0)
    # of two settings with the same mean curve, one wavers from look to look
    curves = np.full((20, 16), 0.5)
    curves[:, 8:] += rng.normal(0, 0.1, (20, 8))
    lines = [
        {"step": i, "epoch": i, "train": {}, "validation": {"loss": row}}
        for i, row in enumerate(curves)
    ]
    population = [
        {
            "member": i,
            "status": "finished",
            "hparams": {"learning_rate": float(i // 8)},
            "validation": {"loss": curves[:, i].min()},
        }
        for i in range(16)
    ]
    run = Run(None, None, {"population": population}, history=History(lines))
    calm, wavering = (np.mean(row.score) for row in choice.rows_of("mlp", run, LOSS))
    assert calm == pytest.approx(0.5)
    assert np.mean([row["validation"]["loss"] for row in population[8:]]) < 0.35
    assert wavering == pytest.approx(0.5, abs=0.1)  # 0.04 a look, the best of 20


def test_the_interval_of_grouped_examples_is_that_of_their_groups():
    group = np.repeat(np.arange(40), 5)
    right = (np.random.default_rng(0).random(40) < 0.8)[group]  # whole groups
    x, y = np.arange(200.0, dtype=np.float32)[:, None], np.arange(200) % 2
    said = np.where(right, y, 1 - y)

    class Knows:
        """What each member says of example x, surely."""

        chosen, history = np.ones(4, bool), History([])
        summary = MappingProxyType(
            {"folds": 4, "members": 4, "population": [{"seed": 0}] * 4}
        )

        def predict(self, inputs):
            return np.stack([9.0 * np.eye(2)[said[inputs[:, 0].astype(int)]]] * 4)

    widths = []
    for groups in (None, group):
        dataset = data.from_arrays(x, y, groups=groups)
        one = task.task_of(dataset)
        found = expected.of_folds(Knows(), dataset, one, 1.0)["accuracy"]
        assert found["low"] < found["mean"] < found["high"]
        widths.append(found["high"] - found["low"])
    assert widths[1] > 1.5 * widths[0]  # 34 groups, not 170 examples


def test_looks_at_validation_take_a_tenth_of_the_training_at_most():
    few = effort.Effort(({},), 1, None, 300, 256, held=7_500)
    assert few.num_epochs * 7_500 * effort.FORWARD <= 300 * 256 / effort.LOOK
    assert few.num_epochs * few.steps_per_epoch == 300
    assert effort.Effort(({},), 1, None, 300, 256, held=100).num_epochs == effort.ROUNDS
    assert effort.Effort(({},), 1, None, 300, 256, held=10**6).num_epochs == 1
