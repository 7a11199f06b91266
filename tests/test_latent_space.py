import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture
def model(make_model, windows):
    model = make_model()
    model.adapt(windows, verbose=0)
    return model


def test_arrays_and_datasets_give_the_same_codes(model, windows):
    codes = model.encode(windows, batch_size=7)
    assert codes.shape == (len(windows), 4)
    assert codes.dtype == np.float32
    dataset = tf.data.Dataset.from_tensor_slices((windows, np.zeros(len(windows)))).batch(10)
    np.testing.assert_allclose(model.encode(dataset), codes, atol=1e-5)


def test_sampled_codes_repeat_and_spread_around_the_mean(model, windows):
    first = model.encode(windows, sample=True, seed=1)
    np.testing.assert_array_equal(model.encode(windows, sample=True, seed=1), first)
    assert not np.array_equal(model.encode(windows, sample=True), model.encode(windows, sample=True))
    deviations = (first - model.encode(windows)) / model.posterior_of(windows).stddev()
    assert 0.7 < np.std(deviations) < 1.3
    # Every batch has draws of its own.
    halves = model.encode(np.concatenate([windows[:8], windows[:8]]), sample=True, seed=1, batch_size=8)
    assert not np.array_equal(halves[:8], halves[8:])


def test_reconstruction_is_what_predict_gives(model, windows):
    reconstruction = model.reconstruct(windows, batch_size=9)
    np.testing.assert_allclose(model.predict(windows, verbose=0), reconstruction, atol=1e-5)
    assert reconstruction.shape == windows.shape
    assert np.sqrt(np.square(reconstruction - windows).mean()) < 0.5 * windows.std()


def test_generated_windows_lie_in_range_and_repeat(model):
    windows = model.generate(5, seed=1, batch_size=2)
    assert windows.shape == (5, 32, 32, 1)
    assert windows.dtype == np.float32
    assert windows.min() >= 0
    assert windows.max() <= 1
    np.testing.assert_allclose(model.generate(5, seed=1), windows, atol=1e-6)
    assert not np.allclose(model.generate(5, seed=2), windows)


def test_one_component_at_temperature_zero_is_its_centre(model):
    centre = model.decode(model.prior.means.numpy()[1:2])
    np.testing.assert_allclose(model.generate(1, component=1, temperature=0.0, texture=0.0), centre, atol=1e-5)


def test_interpolation_goes_from_one_end_to_the_other(model, windows):
    path = model.interpolate(windows[0], windows[1], num_steps=5, texture=0.0)
    np.testing.assert_allclose(path[[0, -1]], model.reconstruct(windows[:2]), atol=1e-5)
    codes = model.encode(windows[:2])
    np.testing.assert_allclose(path[2], model.decode(codes.mean(axis=0, keepdims=True))[0], atol=1e-5)
    np.testing.assert_allclose(model.interpolate(codes[0], codes[1], num_steps=5, texture=0.0), path, atol=1e-5)


def test_errors_say_what_came(model, windows):
    with pytest.raises(ValueError, match=r"\(num_windows, 32, 32, 1\).*\(32, 32, 1\).*single window"):
        model.encode(windows[0])
    with pytest.raises(ValueError, match=r"\(num_windows, 32, 32, 1\).*\(2, 16, 32, 1\)"):
        model.reconstruct(windows[:2, :16])
    with pytest.raises(ValueError, match=r"\(num_windows, 4\).*\(3, 5\)"):
        model.decode(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="no window"):
        model.encode(windows[:0])
    with pytest.raises(ValueError, match="batch_size=0"):
        model.encode(windows, batch_size=0)
    with pytest.raises(ValueError, match="num_steps=1"):
        model.interpolate(windows[0], windows[1], num_steps=1)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        model.interpolate(np.zeros(3), windows[1])
    with pytest.raises(ValueError, match="component=9"):
        model.generate(1, component=9)
