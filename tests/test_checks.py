"""Tests of `spectrovae.checks`."""

import numpy as np
import pytest

from spectrovae.checks import check_positive_int, check_sample_rate, check_seed, check_waveform


@pytest.mark.parametrize("value", [1, 1024, np.int64(7), np.uint8(3)])
def test_positive_integers_pass(value):
    checked = check_positive_int("n", value)
    assert type(checked) is int
    assert checked == value


@pytest.mark.parametrize("value", [0, -1, 1.0, True, np.True_, "1", None, np.nan])
def test_other_numbers_are_refused(value):
    for check in (check_positive_int, check_sample_rate):
        with pytest.raises(ValueError, match="`n` must .*Received: n="):
            check("n", value)


def test_sample_rates():
    assert check_sample_rate("rate", np.int32(44100)) == 44100
    for value in (1, 99, 10_000_001):
        with pytest.raises(ValueError, match=f"in Hz, from 100 to 10000000. Received: rate={value}"):
            check_sample_rate("rate", value)


def test_seeds():
    assert check_seed("seed", None) is None
    assert check_seed("seed", 0) == 0
    assert type(check_seed("seed", np.int64(3))) is int
    for value in (-1, 1.5, "1", True, np.random.default_rng(0)):
        with pytest.raises(ValueError, match="Received: seed="):
            check_seed("seed", value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32"])
def test_waveforms_have_full_scale_1(dtype):
    values = np.array([-1, -0.5, 0, 0.5])
    if np.dtype(dtype).kind != "f":
        full_scale = 2.0 ** (8 * np.dtype(dtype).itemsize - 1)
        values = values * full_scale + (full_scale if dtype.startswith("u") else 0)
    waveform = check_waveform("x", values.astype(dtype))
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, [-1, -0.5, 0, 0.5])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(0), "empty"),
        (np.zeros(()), "shape"),
        (np.zeros((2, 9)), r"must have the shape \(samples,\). Received: x.shape=\(2, 9\)"),
        ([0.0, np.nan], "finite"),
        ([0.0, -np.inf], "finite"),
        ([0.0, 1e300], "finite"),
        (np.zeros(9, np.int64), "x.dtype=int64"),
        (np.zeros(9, bool), "bool"),
        (np.zeros(9, complex), "complex"),
        (["a", "b"], "dtype"),
    ],
)
def test_odd_waveforms_are_refused(value, message):
    with pytest.raises(ValueError, match=f"`x` .*{message}"):
        check_waveform("x", value)


def test_batches_of_waveforms():
    assert check_waveform("x", np.zeros((2, 9)), batch=True).shape == (2, 9)
    assert check_waveform("x", np.zeros(9), batch=True).shape == (9,)
    with pytest.raises(ValueError, match=r"\(samples,\) or \(batch, samples\)"):
        check_waveform("x", np.zeros((1, 2, 9)), batch=True)
