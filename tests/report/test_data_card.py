"""The card of the data, each class, calibration, ensemble: true to what was left."""

import json

import numpy as np
import pytest

from dlworkshop.data import card
from dlworkshop.report import read
from dlworkshop.report.calibration import compared
from dlworkshop.report.classes import scores
from dlworkshop.report.data_card import sentence
from tests.conftest import make_dataset
from tests.report.conftest import KINDS, make_run
from tests.report.test_report import Page, render

CARD = {
    "warnings": ["<b>Beware</b> of this."],
    "skipped": [["red/x.png", "truncated"]],
    "num_skipped": 3,
    "copies": {
        "examples": 5,
        "across_splits": 2,
        "across": [["a.png (train)", "b.png (test)"]],
        "of_several_classes": 1,
        "torn": [["c.png (train)", "d.png (train)"]],
    },
    "groups": {"by": "(p.)_", "groups": 7, "in_several_splits": 1, "largest": 9},
    "sizes": [["12 x 10", 60]],
    "num_sizes": 4,
    "modes": [["RGB", 60]],
    "prepared": "12 x 10 pixels",
    "splits": "all as given",
    "columns": [{"name": "length", "about": "number, 3 ± 1 in train", "missing": 2}],
}


@pytest.fixture(params=KINDS)
def whole(request, tmp_path):
    """A run folder with a card and with probabilities, and the latter."""
    folder = make_run(tmp_path / "run", **KINDS[request.param])
    about = card.describe(make_dataset()._replace(card=CARD))
    about["augmented"], about["augment"] = [about["examples"][0]], {"flip": True}
    (folder / "data_card.json").write_text(json.dumps(about))
    with np.load(folder / "predictions.npz") as saved:
        found = dict(saved)
    rng = np.random.default_rng(0)
    shape = (*found["prediction"].shape, 10)
    chance = rng.dirichlet(np.ones(10) / 2, shape[:2])
    found["prediction"] = chance.argmax(-1)
    label = np.broadcast_to(found["label"], shape[:2])[..., None]
    found["confidence"] = chance.max(-1)
    found["likelihood"] = np.take_along_axis(chance, label, -1)[..., 0]
    members = read.read_run(folder).members
    told = [member in read.read_run(folder).told.members for member in members]
    mine = [t and read.is_finite(m) for t, m in zip(told, members, strict=True)]
    together = chance[mine].mean(0)
    found["ensemble_prediction"] = together.argmax(-1)
    found["ensemble_confidence"] = together.max(-1)
    found["ensemble_likelihood"] = together[np.arange(shape[1]), found["label"]]
    np.savez(folder / "predictions.npz", **found)
    return folder, found, mine


@pytest.mark.slow
def test_the_card_comes_first_and_says_everything(whole):
    text, page = render(whole[0])
    assert page.unbalanced == []
    assert text.index("quadrants: 96 train") < text.index('id="key-numbers"')
    for said in (
        "&lt;b&gt;Beware&lt;/b&gt; of this.",
        "Exact copies of 2 examples are in several splits",
        "Exact copies of 1 example are in several classes",
        "Parts of 1 group by &#x27;(p.)_&#x27; are in several",
        "red/x.png (truncated) and 2 more",
        "a.png (train), b.png (test)",
        "red/x.png",
        "and 2 more",
        "12 x 10 (60) and 3 other sizes",
        "number, 3 ± 1 in train",
    ):
        assert said in text
    # the examples of four classes in one table, and one augmented
    assert text.count('class="strip"') == 5
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert all("title" in s for s in text.split("<svg")[1:])


def test_counts_are_those_of_the_data():
    dataset = make_dataset()
    counts = card.describe(dataset)["counts"]
    for name, size in (("train", 96), ("validation", 33), ("test", 33)):
        label = getattr(dataset, name).targets
        assert counts[name] == [int((label == k).sum()) for k in range(4)]
        assert sum(counts[name]) == size


def test_an_example_of_several_arrays_has_the_shape_of_each():
    def two(split):
        inputs = {"image": split.inputs, "size": split.inputs[:, 0, :2, 0]}
        return split._replace(inputs=inputs)

    said = sentence(card.describe(make_dataset().each_split(two)))
    shape = " x ".join(map(str, make_dataset().train.inputs.shape[1:]))
    assert f"test examples of image {shape} and size 2 numbers in 4 classes." in said


def test_uneven_classes_are_a_warning(tmp_path):
    folder = make_run(tmp_path / "run", [0.1], [0])
    about = card.describe(make_dataset())
    (folder / "data_card.json").write_text(json.dumps(about))
    assert "uneven" not in render(folder)[0]
    about["counts"]["train"] = [50, 10, 30, 30]
    (folder / "data_card.json").write_text(json.dumps(about))
    assert "The classes are uneven" in render(folder)[0]


def test_scores_of_each_class_are_those_of_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415

    rng = np.random.default_rng(0)
    label, said = rng.integers(0, 4, 200), rng.integers(0, 4, (3, 200))
    for one in range(3):
        precision, recall, f1, _ = precision_recall_fscore_support(label, said[one])
        for k in range(4):
            found = [values[one] for values in scores(said, label, k)]
            np.testing.assert_allclose(found, [recall[k], precision[k], f1[k]])


def test_the_calibration_error_and_the_ensemble_are_exact(whole):
    folder, found, finite = whole
    _, page = render(folder)
    exact = [float(a["value"]) for a in page.find("data")]
    right = found["prediction"] == found["label"]
    together = found["ensemble_prediction"] == found["label"]
    single = sum(finite) == 1
    assert ("Ensemble against" in str(page.elements)) is not single
    if not single:
        loss = -np.log(found["likelihood"][finite]).mean()
        wanted = [right[finite].mean(), together.mean(), loss]
        wanted.append(-np.log(found["ensemble_likelihood"]).mean())
        for value in wanted:
            assert min(abs(np.array(exact) - value)) < 1e-6
    gap = found["confidence"][finite].mean()
    assert f"Confidence is {100 * gap:.1f} %" in page.text


@pytest.mark.parametrize(
    ("confidence", "accuracy", "side"),
    [(0.9951, 0.9924, "higher than"), (0.9851, 0.9862, "lower than")],
)
def test_confidence_is_compared_with_accuracy(confidence, accuracy, side):
    said = compared(confidence, accuracy)
    for value in (confidence, accuracy):
        assert f"{100 * value:.1f} %" in said
    assert side in said


@pytest.mark.parametrize("off", [-2e-4, 0, 2e-4])
def test_no_number_is_called_higher_or_lower_than_itself(off):
    said = compared(0.992 + off, 0.992)
    assert said.count("99.2 %") == 1 and "the same as" in said
    assert "higher" not in said and "lower" not in said


def test_without_a_card_or_probabilities_those_parts_are_left_out(single):
    page = Page(render(single)[0])
    for part in ("Data", "Calibration", "Ensemble", "Augmentation"):
        assert part not in [a.get("href", "#")[1:].capitalize() for a in page.find("a")]
