"""Augmentation: nothing at zero strength, exact where it can be, off in evaluation."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dlworkshop import data, fit, load_run, models
from dlworkshop.errors import UserError
from dlworkshop.learn.hparams import keywords
from dlworkshop.models import augment
from dlworkshop.models.augment import Augment, augmented, mirrored
from dlworkshop.train.flops import update_flops

KEYS = [jax.random.key(i) for i in range(8)]
ALL = Augment(flip=True, shift=2, rotate=20.0, brightness=0.3, cut_out=3)


def picture(height=9, width=7, channels=3):
    rng = np.random.default_rng(0)
    return rng.random((height, width, channels), dtype=np.float32)


@pytest.mark.parametrize("key", KEYS)
def test_nothing_happens_at_zero_strength(key):
    image = jnp.asarray(picture())
    for same in (
        augment.shift(key, image, 0),
        augment.rotate(key, image, 0.0),
        augment.cut_out(key, image, 0),
        augment.brighten(key, image, 0.0),
        Augment()(key, image),
    ):
        np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize("key", KEYS)
def test_a_shift_is_that_of_numpy(key):
    image = picture()
    down, right = np.asarray(jax.random.randint(key, (2,), 0, 5))
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    wanted = padded[down : down + 9, right : right + 7]
    np.testing.assert_array_equal(augment.shift(key, image, 2), wanted)


def test_a_flip_happens_for_half_of_the_keys_and_twice_is_nothing():
    image = picture()
    np.testing.assert_array_equal(augment.mirror(augment.mirror(image)), image)
    keys = jax.random.split(jax.random.key(0), 400)
    flipped = jax.vmap(augment.flip, in_axes=(0, None))(keys, image)
    is_flipped = (np.asarray(flipped) == image[:, ::-1]).all((1, 2, 3))
    is_same = (np.asarray(flipped) == image).all((1, 2, 3))
    assert (is_flipped ^ is_same).all()
    assert abs(is_flipped.mean() - 0.5) < 4 * 0.5 / 400**0.5  # four standard errors


@pytest.mark.parametrize("quarter", range(-3, 4))
def test_a_quarter_turn_is_exact(quarter):
    image = picture(8, 8)
    turned = augment.turn(image, 90.0 * quarter)
    # float32: the sine of the angle is off by 1e-7, times 4 pixels from the centre
    np.testing.assert_allclose(turned, np.rot90(image, quarter), atol=3e-6)


@pytest.mark.parametrize("degrees", [7.0, -33.0, 120.0])
def test_a_turn_is_that_of_scipy(degrees):
    image = picture(9, 9)
    wanted = ndimage.rotate(
        image, degrees, reshape=False, order=1, mode="nearest", axes=(0, 1)
    )
    np.testing.assert_allclose(augment.turn(image, degrees), wanted, atol=1e-5)


@pytest.mark.parametrize("key", KEYS)
def test_a_cut_out_has_its_area_and_leaves_the_rest(key):
    image = jnp.asarray(picture())
    out = np.asarray(augment.cut_out(key, image, 4))
    changed = (out != np.asarray(image)).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert changed.sum() == 16
    assert np.ptp(rows) == np.ptp(columns) == 3
    assert (out[changed] == 0.5).all()


@pytest.mark.parametrize("key", KEYS)
def test_brightness_is_one_factor_within_bounds(key):
    image = picture() / 2
    factor = np.asarray(augment.brighten(key, image, 0.3)) / image
    assert np.ptp(factor) < 1e-5 and 0.7 <= factor.mean() <= 1.3
    assert augment.brighten(key, picture() + 1, 0.3).max() <= 1


def test_keys_differ_and_repeat_and_all_stays_in_range():
    image = (255 * picture()).astype(np.uint8)
    first = np.stack([ALL(key, image) for key in KEYS])
    again = np.stack([ALL(key, image) for key in KEYS])
    np.testing.assert_array_equal(first, again)
    assert len({row.tobytes() for row in first}) == len(KEYS)
    assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 1


def test_it_is_off_without_a_key():
    inner = models.cnn((4,), (8,), dropout=0.5)
    model = augmented(inner, ALL)
    image = picture(8, 8)
    params = model.init(KEYS[0], image)
    np.testing.assert_array_equal(
        model.apply(params, image), inner.apply(params, image)
    )
    seen = {np.asarray(model.apply(params, image, key=key)).tobytes() for key in KEYS}
    assert len(seen) == len(KEYS)


def test_hyper_parameters_of_the_inner_model_show_through():
    model = augmented(models.cnn((4,), (8,)), Augment(flip=True))
    assert "dropout" in keywords(model.apply)
    assert model.config["augment"]["flip"] is True and model.config["name"] == "cnn"


def test_what_cannot_be_augmented_is_one_sentence():
    with pytest.raises(ValueError, match="one example must be an image"):
        ALL(KEYS[0], jnp.ones(5))
    with pytest.raises(ValueError, match="too small for a shift of 2"):
        ALL(KEYS[0], jnp.ones((2, 2, 1)))


def test_its_numbers_are_hyper_parameters_and_act_in_training_only():
    def noise(key, image, *, strength):
        return image + strength * jax.random.normal(key, image.shape)

    def apply(params, state, image, *, key=None, scale=1.0):
        return scale * image, state

    keeps = models.StatefulModel(lambda key, image: ((), ()), apply)
    model = augmented(keeps, noise)
    assert {"scale", "strength"} <= set(inspect.signature(model.apply).parameters)
    image, key = jnp.ones((2, 2, 1)), jax.random.key(0)
    plain, _ = model.apply((), (), image, scale=2.0, strength=5.0)
    np.testing.assert_array_equal(plain, 2 * image)
    calm, _ = model.apply((), (), image, key=key, strength=0.0)
    np.testing.assert_array_equal(calm, image)
    loud, _ = model.apply((), (), image, key=key, strength=5.0)
    assert np.abs(loud - image).max() > 1


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_outputs_of_both_views_are_averaged_in_inference_only(norm):
    inner = models.stateful(models.resnet((4,), norm=norm, num_classes=3))
    model = models.stateful(mirrored(models.resnet((4,), norm=norm, num_classes=3)))
    image = picture(8, 8)
    params, state = model.init(KEYS[0], image)
    one, _ = inner.apply(params, state, image)
    other, _ = inner.apply(params, state, image[:, ::-1])
    outputs, kept = model.apply(params, state, image)
    np.testing.assert_array_equal(outputs, (one + other) / 2)
    jax.tree.map(np.testing.assert_array_equal, kept, state)

    def trained(model):
        return jax.vmap(
            jax.vmap(
                lambda image, key: model.apply(params, state, image, key=key),
                axis_name="example",
            ),
            axis_name="batch",
        )(image[None, None], KEYS[1][None, None])

    jax.tree.map(np.testing.assert_array_equal, trained(model), trained(inner))


def test_both_views_cost_nothing_in_an_update():
    image = picture(8, 8)
    alone = models.cnn((4,), (8,))
    assert update_flops(mirrored(alone), image) == update_flops(alone, image) > 0


def test_a_run_that_averages_both_views_does_so_from_its_folder(tmp_path):
    rng = np.random.default_rng(0)
    dataset = data.from_arrays(
        rng.integers(0, 256, (60, 8, 8, 1), np.uint8), np.arange(60) % 2
    )
    model = augmented(
        mirrored(models.cnn((4,), (8,), num_classes=2)), Augment(flip=True)
    )
    run = fit(model, dataset, num_epochs=1, batch_size=16, quiet=True, workdir=tmp_path)
    images = dataset.test.inputs
    outputs = run.predict(images)
    # the two sums have the same terms in another order
    np.testing.assert_allclose(run.predict(images[:, :, ::-1]), outputs, rtol=1e-5)
    np.testing.assert_array_equal(load_run(tmp_path).predict(images), outputs)


def test_a_number_that_the_model_takes_too_is_refused():
    def noise(key, image, *, dropout):
        return image

    with pytest.raises(UserError, match="both take 'dropout': rename one"):
        augmented(models.mlp(), noise)
