"""What is measured on some examples holds of others that are drawn as they were."""

import numpy as np
import pytest

from dlworkshop.answers import conformal, temperature, unlike


def test_thresholds_are_exceeded_as_rarely_as_they_say():
    rng = np.random.default_rng(0)
    for level, size in ((0.9, 30), (0.9, 200), (0.5, 11)):
        held = []
        for _ in range(400):
            scores = rng.lognormal(size=size + 1)
            held.append(scores[-1] <= conformal.threshold(scores[:-1], level))
        # at least the level, and at most 1 / (N + 1) more; four standard errors
        slack = 4 * np.sqrt(level * (1 - level) / 400)
        assert level - slack <= np.mean(held) <= level + 1 / (size + 1) + slack


def test_sets_hold_the_true_class_and_are_no_larger_than_they_must():
    rng = np.random.default_rng(0)
    chance = rng.dirichlet(0.5 * np.ones(4), 6000)
    label = np.array([rng.choice(4, p=row) for row in chance])
    known, new = slice(3000), slice(3000, None)
    most = conformal.threshold(1 - chance[known][np.arange(3000), label[known]])
    inside = conformal.sets(chance[new], float(most))
    hits = conformal.counted(inside[np.arange(3000), label[new]])
    assert hits["low"] <= 0.9 <= hits["high"]
    assert inside.sum(-1).mean() < 2.5
    alone = conformal.sets(chance, 0.0)  # the likeliest one is there in any case
    np.testing.assert_array_equal(alone, chance == chance.max(-1, keepdims=True))


def test_a_temperature_undoes_what_made_the_logits_too_large():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    label = np.array([rng.choice(3, p=p) for p in temperature.together(logits[None])])
    right = temperature.together(logits[None])
    assert temperature.error(right, label) < temperature.noise(right.max(-1))
    hot = temperature.together(3 * logits[None])
    assert temperature.error(hot, label) > 3 * temperature.noise(hot.max(-1))
    assert temperature.fit(3 * logits[None], label) == pytest.approx(3, rel=0.15)


def test_far_numbers_are_named_and_others_rarely():
    rng = np.random.default_rng(0)
    train, held, new = (rng.normal(size=(size, 5)) for size in (2000, 1000, 4000))
    new[:, 4] = rng.random(4000) < 0.005  # a rare category is not unlike
    train[:, 4] = rng.random(2000) < 0.005
    held[:, 4] = rng.random(1000) < 0.005
    limits = {"names": list("abcde"), **unlike.scale(train)}
    (limits["far"],), rate = unlike.thresholds([unlike.distances(held, limits).max(1)])
    said = unlike.unlike(new, np.zeros((1, 4000, 2)), limits)
    assert rate == 0.01 and 0.002 < np.mean([words != "" for words in said]) < 0.02
    new[:2, [1, 2]] = [[9, 0], [9, -9]]
    assert unlike.unlike(new[:2], np.zeros((1, 2, 2)), limits) == ["b", "b, c"]


def test_images_of_another_look_are_unlike():
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 120, (400, 8, 8, 3), np.uint8)
    limits = {"names": list(unlike.STATISTICS), **unlike.scale(dark[:200])}
    scores = unlike.distances(dark[200:], limits).max(1)
    (limits["far"],), _ = unlike.thresholds([scores])
    other = np.stack([255 - dark[0], dark[1] // 2, dark[2, :1].repeat(8, 0)])
    said = unlike.unlike(other, np.zeros((1, 3, 2)), limits)
    assert "brightness" in said[0] and "contrast" in said[1] and "sharpness" in said[2]
    # floats in [0, 1] are the same pixels
    same = unlike.distances(other / np.float32(255), limits)
    np.testing.assert_allclose(same, unlike.distances(other, limits), rtol=1e-4)
