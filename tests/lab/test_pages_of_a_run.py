"""Drawing, exploring and checking, without a browser."""

import dataclasses

import numpy as np
import pytest

from dlworkshop import data
from dlworkshop.errors import UserError
from dlworkshop.lab import digit, drawing, explore, rules, stills
from dlworkshop.report.read import read_run

ANGLE = np.linspace(0, 2 * np.pi, 40)
ZERO = [np.stack([0.4 + 0.12 * np.sin(ANGLE), 0.5 - 0.2 * np.cos(ANGLE)], -1)]
ONE = [np.array([[0.6, 0.2], [0.6, 0.8]])]


@pytest.fixture(scope="module")
def hand():
    return drawing.hand_of(data.load("digits").train.inputs)


def test_a_drawing_is_as_large_as_those_of_train_wherever_it_is_drawn(hand):
    image = drawing.image_of(ZERO, hand)
    assert image.shape == (8, 8, 1) and image.dtype == np.uint8
    smaller = [0.1 + 0.3 * ZERO[0]]
    np.testing.assert_array_equal(drawing.image_of(smaller, hand), image)
    train = data.load("digits").train
    like = train.inputs[train.targets == 0].mean(0)
    assert np.corrcoef(image.ravel(), like.ravel())[0, 1] > 0.7


def test_dark_ink_on_light_paper_is_drawn_so():
    images = 255 - data.load("digits").train.inputs[:50]
    image = drawing.image_of(ONE, drawing.hand_of(images))
    assert image[0, 0, 0] > 200 and image.min() < 60


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "x",
        [["a"]],
        [[[0, float("nan")]]],
        [[[1, 2, 3]]],
        [[]] * 200,
        [[[0, 0]] * 30_000],
        [{}],
    ],
    ids=lambda sent: str(sent)[:20],
)
def test_what_is_no_drawing_is_refused(sent):
    with pytest.raises(UserError, match="draw"):
        drawing.strokes_of(sent)


def test_a_drawn_digit_is_read(digits_run, hand):
    dataset = digit.dataset_of(digits_run)
    image = drawing.image_of(ZERO, hand)
    found = digit.answer(digits_run, dataset, image)
    assert found.members.tolist() == np.flatnonzero(digits_run.chosen).tolist()
    assert found.ensemble.argmax() == 0 and found.chance.argmax(-1).tolist() == [0, 0]
    np.testing.assert_allclose(found.ensemble, found.chance.mean(0))
    own = -(found.chance * np.log(found.chance)).sum(-1).mean()
    np.testing.assert_allclose(found.entropy - found.disagreement, own)
    assert found.disagreement >= 0
    places, classes, far = zip(*found.nearest, strict=True)
    assert list(far) == sorted(far) and classes[0] == 0
    assert dataset.train.targets[list(places)].tolist() == list(classes)
    html = stills.answered(found, image, digits_run, dataset)
    assert "The ensemble predicts <strong>0</strong>" in html


def test_what_cannot_be_drawn_for_is_refused(digits_run):
    summary = digits_run.summary | {"outputs": "values"}
    with pytest.raises(UserError, match="does not classify images"):
        digit.dataset_of(dataclasses.replace(digits_run, summary=summary))
    with pytest.raises(UserError, match="give a run that was trained on images"):
        drawing.hand_of(np.zeros((3, 8)))


def test_a_run_is_explored_by_its_members(digits_run):
    folder = read_run(digits_run.workdir)
    rows = explore.member_rows(folder)
    assert [row["learning_rate"] for row in rows] == [0.001, 0.001, 0.01, 0.01]
    assert rows[3]["test accuracy"] == folder.members[3]["test"]["accuracy"]
    assert explore.members_of(folder, []) == [0, 1, 2, 3]
    for wrong in (4, -1, "0", 0.5):
        with pytest.raises(UserError, match="give some of 0 to 3"):
            explore.members_of(folder, [wrong])
    assert explore.quantities(folder)[:2] == ["loss", "accuracy"]
    assert "test loss" in explore.scores_of(rows)
    assert "Accuracy" in explore.curves(folder, "accuracy", [1])
    with pytest.raises(UserError, match="unknown quantity"):
        explore.curves(folder, "../accuracy", [1])


def test_mistakes_are_those_of_the_chosen_members(digits_run):
    folder = read_run(digits_run.workdir)
    test = data.load("digits").test
    said = digits_run.predict(test.inputs)[[0, 2]].argmax(-1)  # [2, N]
    counts = explore.confusion(folder, [0, 2])
    assert counts.sum() == len(test.targets)
    np.fill_diagonal(counts, 0)
    true, taken = np.unravel_index(counts.argmax(), counts.shape)
    every = explore.confusion(folder, range(4))
    names, (one, other) = explore.most_confused(folder)
    assert every[names.index(one), names.index(other)] == max(
        every[i, j] for i in range(10) for j in range(10) if i != j
    )
    pairs = explore.mistaken(folder, [0, 2], str(true), str(taken))
    assert sum(votes for _, votes in pairs) == 2 * counts[true, taken]
    for place, votes in pairs:
        assert test.targets[place] == true
        assert (said[:, place] == taken).sum() == votes
    with pytest.raises(UserError, match="unknown class"):
        explore.mistaken(folder, [0], "0", "<b>")


def test_all_are_counted_where_not_all_are_shown(digits_run):
    folder, test = read_run(digits_run.workdir), data.load("digits").test
    pairs = explore.mistaken(folder, [3], "0", "0")
    assert len(pairs) == explore.confusion(folder, [3])[0, 0] > stills.MOST_SHOWN
    html = stills.mistaken(test.inputs, pairs, 1, ("0", "0"))
    words = f"{len(pairs)} examples of 0 rightly taken for 0; the first 24 are shown"
    assert words in html and html.count("<img") == 24
    few = stills.mistaken(test.inputs, pairs[:2], 1, ("0", "8"))
    assert "<p>2 examples of 0 taken for 8</p>" in few


def test_filters_have_the_shape_of_the_image(digits_run):
    found = explore.filters(digits_run, 3)
    kernel = digits_run.params["Dense_0"]["kernel"][3]
    np.testing.assert_array_equal(found[5].ravel(), kernel[:, 5])
    assert found.shape == (64, 8, 8) and explore.tiles(found).shape == (64, 8, 8, 3)


@pytest.mark.parametrize(
    ("name", "blamed"),
    [
        ("the slope of tanh is too steep", "custom_vjp of tanh"),
        ("ReLU leaks in its derivative", "custom_vjp of relu"),
        ("one entry of softmax is off", "custom_vjp of softmax"),
        ("a factor is forgotten", "custom_jvp of product"),
        ("stop_gradient in the wrong place", "stop_gradient"),
        ("division by zero behind a where", "div"),
        ("wrong under vmap only", "custom_vjp of squared"),
    ],
)
def test_a_broken_rule_is_named(name, blamed):
    report = rules.checked(name, -3, 1.0)
    assert report.verdict == "WRONG" and report.culprits[0].name == blamed, report
    assert f"Culprit</h3><ul><li><strong>{blamed}" in stills.verdict(report)
    assert "rules.py:" in report.culprits[0].where


def test_rules_that_are_whole_are_right():
    for name in ("division by zero behind a where", "wrong under vmap only"):
        assert rules.checked(name, None, 1.0).verdict == "right"


def test_the_rules_are_a_fixed_list():
    for wrong in ("eval", "__import__('os').system", "", None):
        with pytest.raises(UserError, match="unknown rule"):
            rules.checked(wrong, -3, 1.0)
    for power, scale in ((1, 1.0), (float("nan"), 1.0), (-3, 4.0), (-3, "1")):
        with pytest.raises(UserError, match="give a number in"):
            rules.checked("a factor is forgotten", power, scale)
