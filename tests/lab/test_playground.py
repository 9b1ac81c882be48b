"""The playground without a browser: settings, training, what there is to see."""

import time
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from dlworkshop.errors import UserError
from dlworkshop.lab import pictures, training
from dlworkshop.lab.settings import Settings, settings_of, to_query

SMALL = Settings(size=100, noise=0.05, width=8, rates=(0.01, 0.1), seeds=3)


def trained(settings: Settings, epochs: int) -> training.Training:
    now = training.begin(settings)
    for _ in range(epochs):
        now = training.advance(now)
    return now


def test_a_query_says_all_of_the_settings():
    settings = Settings("xor", 60, 0.3, 0, 1, "none", "muon", 7, (1e-5, 0.123456789), 1)
    assert settings_of(to_query(settings)) == settings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"points": "__import__('os')"}, "unknown points"),
        ({"points": ["moons", "xor"]}, "unknown points"),
        ({"activation": "eval"}, "unknown activation 'eval'"),
        ({"depth": "7"}, "depth is '7': give a whole number from 0 to 6"),
        ({"depth": 2.5}, "depth is 2.5"),
        ({"width": "1e3"}, "width is '1e3'"),
        ({"size": None}, "size is None"),
        ({"seeds": "9" * 5000}, "seeds is '999"),
        ({"noise": "nan"}, "the noise is 'nan': give a number from 0 to 0.5"),
        ({"rates": "0.1,,1"}, "a learning rate is ''"),
        ({"rates": "-0.1"}, "a learning rate is '-0.1'"),
        ({"rates": "inf"}, "a learning rate is 'inf'"),
        ({"rates": "1,2,3,4,5,6,7"}, "give 1 to 6 numbers"),
        ({"rates": "0.1, 0.10"}, "a learning rate is given twice"),
        ({"batch": "61", "size": "100"}, "60 of 100 points are for training"),
        ({"depht": "2"}, "did you mean 'depth'?"),
    ],
    ids=str,
)
def test_what_is_no_setting_is_refused_in_one_sentence(given, said):
    with pytest.raises(UserError) as refused:
        settings_of(given)
    assert said in str(refused.value) and len(str(refused.value)) < 250


def test_every_member_learns_and_is_as_it_would_be_alone():
    now = trained(SMALL, 15)
    scores = now.history["validation/accuracy"]
    assert len(scores) == 16 and scores[0].mean() < 0.9
    assert scores[-1][3:].mean() > 0.95  # those with the larger rate
    alone = trained(SMALL._replace(rates=(0.1,), seeds=1), 15)
    losses = now.history["train/loss"], alone.history["train/loss"]
    np.testing.assert_allclose(np.array(losses[0])[:, 3], np.ravel(losses[1]), 1e-4)


def test_other_learning_rates_and_points_need_no_other_program():
    def seen(settings):
        training.view(trained(settings, 1))
        return [
            program._cache_size()
            for program in training.programs(2, 2, settings.width, "tanh", "adam")
        ]

    first = seen(SMALL)
    assert all(first)  # programs
    assert seen(SMALL._replace(rates=(0.3, 2.0), points="rings", noise=0.2)) == first


def test_a_rate_that_is_too_high_stops_its_members_alone():
    settings = SMALL._replace(activation="none", optimizer="sgd", rates=(0.1, 100.0))
    now = trained(settings, 12)
    seen = training.view(now)
    assert seen.running[0].all() and not seen.running[1].any()
    assert np.isfinite(seen.mean[0]).all()
    assert "3 of 3 not finite" in pictures.frame(now, seen)


def test_the_spread_is_that_of_the_seeds():
    seen = training.view(trained(SMALL, 3))
    chance = jax.nn.softmax(seen.logits, -1)  # [R, S, G, G, K]
    np.testing.assert_allclose(seen.mean.sum(-1), 1, 1e-5)
    one = np.std(chance[:, :, 5, 9, 0], 1, ddof=1)  # of two classes, either
    np.testing.assert_allclose(seen.spread[:, 5, 9], one, rtol=1e-3)
    alone = training.view(trained(SMALL._replace(rates=(0.1,), seeds=1), 1))
    assert (alone.spread == 0).all()


def test_a_frame_shows_every_member_where_it_decides():
    now = trained(SMALL, 5)
    seen = training.view(now)
    root = ElementTree.fromstring(f"<div>{pictures.frame(now, seen)}</div>")
    cards = root.findall(".//section")
    assert [card.findtext("h3") for card in cards] == [
        "learning rate 0.01",
        "learning rate 0.1",
    ]
    lines = cards[1].findall(".//path[@class='lab-line']")
    assert len(lines) == SMALL.seeds
    # on the boundary a member is undecided: halfway between two classes
    margin = seen.logits[1, 0, ..., 0] - seen.logits[1, 0, ..., 1]
    first = lines[0].get("d")[1:].split("L")[0]
    x, y = (float(number) - 0.5 for number in first.split())
    around = margin[int(y) : int(y) + 2, int(x) : int(x) + 2]
    assert around.min() <= 0.01 * abs(margin).max() >= -around.max()
    drawn = root.findall(".//figure//path[@class='lab-member']")
    assert len(drawn) == SMALL.members
    assert len(root.findall(".//path[@class='lab-train']")) == 2 * 2  # classes, cards


def test_the_thick_line_is_the_mean_of_the_card_and_what_is_cut_is_said():
    now = trained(SMALL, 1)
    seen = training.view(now)
    loss = seen.history["validation/loss"]  # [T, R, S]
    loss[:] = np.array([[0.01, 1.0, 10.0], [1.0, np.inf, 1e6]])
    picture = pictures.frame(now, seen)
    root = ElementTree.fromstring(f"<div>{picture}</div>")
    heights = [
        float(root.findall(f".//path[@class='lab-{kind}']")[i].get("d").split()[-1])
        for kind, i in (("member", 0), ("member", 1), ("member", 2), ("mean", 0))
    ]  # of losses 0.01, 1, 10, and of their mean
    share = (heights[0] - heights[3]) / (heights[0] - heights[2])
    assert abs(share - np.log10(11.01 / 3 / 0.01) / 3) < 0.01
    assert "validation loss 3.7" in picture and "(without 1 not finite)" in picture
    assert (
        "2 members had losses that are not finite or not in 0.0001 to 1000" in picture
    )


def test_a_frame_is_computed_at_once():
    now, spent = trained(SMALL, 1), []
    for _ in range(5):  # processor time, as others may work on the machine
        begun = time.process_time()
        now = training.advance(now)
        pictures.frame(now, training.view(now))
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.3


def test_three_classes_have_their_boundaries():
    now = trained(Settings(points="spirals", rates=(0.1, 0.2), seeds=3), 1)
    assert "lab-line" in pictures.frame(now, training.view(now))
