import keras
import numpy as np
import pytest
import tensorflow as tf

from spectrovae.model.level_curves import NUM_KNOTS, LevelCurves, fit_level_curves

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def layer() -> LevelCurves:
    layer = LevelCurves(num_channels=2)
    layer.build((None, None, 3))
    layer.curves.assign(GENERATOR.normal(size=layer.curves.shape))
    return layer


def test_curves_are_those_that_numpy_interpolates(layer):
    levels = GENERATOR.uniform(-0.2, 1.2, (2, 50, 3)).astype(np.float32)
    values = layer(levels).numpy().reshape(2, 50, 2, 3)
    position = np.sign(levels) * np.log1p(np.abs(levels) / 0.02)
    knots = np.linspace(-np.log1p(0.05 / 0.02), np.log1p(1 / 0.02), NUM_KNOTS)
    for channel, curves in enumerate(layer.curves.numpy()):
        for index, curve in enumerate(curves):
            expected = np.interp(position[..., index], knots, curve) + (channel == 0) * levels[..., index]
            np.testing.assert_allclose(values[:, :, channel, index], expected, atol=1e-4)


def test_gradient_is_that_of_finite_differences(layer):
    # Away from knots, where functions have a bend.
    levels = tf.constant(GENERATOR.uniform(0.3, 0.4, (1, 4, 3)), tf.float32)
    weights = tf.constant(GENERATOR.normal(size=(1, 4, 6)), tf.float32)
    curves = tf.convert_to_tensor(layer.curves)

    def total(levels, curves):
        layer.curves.assign(curves)
        return tf.reduce_sum(weights * layer(levels))

    with tf.GradientTape() as tape:
        tape.watch(levels)
        result = tf.reduce_sum(weights * layer(levels))
    of_levels, of_curves = tape.gradient(result, [levels, layer.curves.value])
    for gradient, at in ((of_levels, "levels"), (of_curves, "curves")):
        given = {"levels": levels.numpy(), "curves": curves.numpy()}
        direction = GENERATOR.normal(size=given[at].shape).astype(np.float32)
        steps = [float(total(**given | {at: given[at] + sign * 1e-3 * direction})) for sign in (1, -1)]
        assert float(np.sum(gradient * direction)) == pytest.approx((steps[0] - steps[1]) / 2e-3, rel=0.02, abs=0.02)


def test_numbers_that_are_none_stay_so(layer):
    levels = np.full((1, 1, 3), np.nan, np.float32)
    assert np.isnan(layer(levels)).all()
    assert np.isfinite(layer(np.float32([[[-1e30, 0.0, 1e30]]]))[..., 3:]).all()


def test_layer_survives_saving(layer, tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), layer])
    model.save(tmp_path / "model.keras")
    levels = GENERATOR.uniform(0, 1, (2, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(levels), model(levels))
    assert layer.compute_output_shape((None, None, 3)) == (None, None, 6)


def test_fitted_curves_are_what_made_the_music():
    levels = GENERATOR.uniform(0, 1, (20000, 2))
    deviations = np.stack([0.02 + 0.1 * levels[:, 0], np.full(20000, 0.05)], axis=1)
    windows = levels + [0.1, -0.2] + deviations * GENERATOR.standard_normal(levels.shape)
    means, found = fit_level_curves(levels, windows)
    layer = LevelCurves(2)
    layer.build((None, None, 2))
    layer.curves.assign([means, found])
    some = np.float32([[[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]])
    values = layer(some).numpy().reshape(3, 2, 2)
    np.testing.assert_allclose(values[:, 0], some[0] + [0.1, -0.2], atol=0.02)
    np.testing.assert_allclose(values[:, 1], [[0.03, 0.05], [0.07, 0.05], [0.11, 0.05]], atol=0.015)


def test_levels_without_music_follow_other_frequencies():
    levels = np.stack([np.linspace(0, 1, 5000), np.zeros(5000)], axis=1)
    means, deviations = fit_level_curves(levels, levels + 0.25)
    np.testing.assert_allclose(means, 0.25, atol=0.02)
    assert deviations.max() < 0.05
    assert np.isfinite(fit_level_curves(levels[:1], levels[:1])).all()


def test_bad_numbers_of_channels_are_told():
    with pytest.raises(ValueError, match="num_channels=0"):
        LevelCurves(0)
