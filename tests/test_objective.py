import numpy as np
import pytest
import tensorflow as tf


def spoilt(windows: np.ndarray, value: float) -> np.ndarray:
    windows = windows.copy()
    windows[-1, 3, 3] = value
    return windows


BAD_DATA = {
    "decibels": (lambda windows: 80 * windows - 80, r"from 0 to 1.*values from -80"),
    "bytes": (lambda windows: (255 * windows).astype(np.uint8), "from 0 to 1"),
    "NaN": (lambda windows: spoilt(windows, np.nan), "values from nan"),
    "infinity": (lambda windows: spoilt(windows, np.inf), "to inf"),
    "one window": (lambda windows: windows[0], r"\(num_windows, 32, 32, 1\).*first axis of 1"),
    "another shape": (lambda windows: windows[:, :16], r"\(num_windows, 32, 32, 1\).*\(48, 16, 32, 1\)"),
    "words": (lambda windows: np.full(windows.shape, "a"), "must be numbers.*string"),
    "complex": (lambda windows: windows.astype(np.complex64), "must be numbers.*complex64"),
    "nothing": (lambda windows: windows[:0], "no window"),
}


@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize("kind", BAD_DATA)
@pytest.mark.parametrize("warm_start", [False, True])
def test_bad_data_is_told_before_the_first_step(make_model, windows, kind, as_dataset, warm_start):
    make, message = BAD_DATA[kind]
    data = make(windows)
    if as_dataset and data.ndim == 4:
        data = tf.data.Dataset.from_tensor_slices(data).batch(64)
    model = make_model(warm_start=warm_start)
    model.compile()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(data, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_late_batch_that_is_not_finite_is_told_by_adapt(make_model, windows):
    batches = tf.data.Dataset.from_tensor_slices(spoilt(windows, np.nan)).batch(8)
    model = make_model()
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.adapt(batches, verbose=0)
    assert not model.adapted


def test_a_batch_may_be_larger_than_the_data(make_model, windows):
    model = make_model()
    model.compile()
    history = model.fit(windows[:3], batch_size=64, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    batches = tf.data.Dataset.from_tensor_slices(windows[:3]).batch(64, drop_remainder=True)
    with pytest.raises(ValueError, match="no window"):
        model.fit(batches, verbose=0)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
def test_windows_of_any_number_type_train(make_model, windows, dtype):
    model = make_model()
    model.compile()
    history = model.fit((windows[:8] > 0.5).astype(dtype), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
