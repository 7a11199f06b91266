"""Features against known levels; the order of time counts, batches do not."""

import numpy as np
import pytest

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.sound_distance import window_features

CONVERTER = SpectrogramConverter(sample_rate=22050, n_fft=512, hop_length=128, num_frames=64)


def make_beats(num_windows):
    """Noise over random beats that start suddenly and die away."""
    rng = np.random.default_rng(0)
    periods = rng.integers(8, 32, size=(num_windows, 1, 1, 1))
    beats = np.exp(-(np.arange(64)[:, None] % periods) / rng.uniform(3, 12, size=periods.shape))
    return np.clip(0.4 + 0.3 * beats + rng.normal(0, 0.05, (num_windows, 256, 64, 1)), 0, 1)


def test_features_are_statistics_of_the_levels():
    # The same level everywhere: every band has that level, and nothing moves.
    features = window_features(np.full((1, 256, 64, 1), 0.75), CONVERTER)[0]
    num_bands = (len(features) - 8 * 5 - 8) // 3  # 32 modulation frequencies are 5 octaves
    assert num_bands in range(60, 65)
    np.testing.assert_allclose(features[:num_bands], -20.0, atol=1e-4)
    np.testing.assert_allclose(features[num_bands : 3 * num_bands], 0.0, atol=1e-4)
    np.testing.assert_allclose(features[3 * num_bands : -8], -20.0, atol=1e-3)  # the floor of 0.1 dB
    # 6 dB up and down from frame to frame: the fastest modulation there is.
    window = np.full((1, 256, 64, 1), 0.75)
    window[:, :, ::2] -= 6 / 80
    features = window_features(window, CONVERTER)[0]
    np.testing.assert_allclose(features[:num_bands], -23.0, atol=1e-3)
    np.testing.assert_allclose(features[num_bands : 2 * num_bands], 3.0, atol=1e-3)
    np.testing.assert_allclose(features[2 * num_bands : 3 * num_bands], 6.0, rtol=1e-3)
    modulation = features[3 * num_bands : -8].reshape(8, 5)
    assert np.all(modulation[:, 4] > modulation[:, :4].max(axis=1) + 10)
    assert np.all(np.abs(features[-8:]) < 2)  # up and down alike: next to no asymmetry


def test_features_tell_the_order_of_time():
    windows = make_beats(10)
    order = np.random.default_rng(0).permutation(64)
    plain, shuffled, backwards = (
        window_features(version, CONVERTER) for version in (windows, windows[:, :, order], windows[:, :, ::-1])
    )
    num_bands = (plain.shape[1] - 48) // 3
    np.testing.assert_allclose(shuffled[:, : 2 * num_bands], plain[:, : 2 * num_bands])
    modulation = slice(3 * num_bands, -8)
    assert np.abs(shuffled[:, modulation] - plain[:, modulation]).mean() > 2  # dB
    # Backwards, only the asymmetry of the steps changes: it turns its sign.
    np.testing.assert_allclose(backwards[:, :-8], plain[:, :-8], atol=1e-6)
    np.testing.assert_allclose(backwards[:, -8:], -plain[:, -8:], atol=1e-6)
    assert np.all(plain[:, -8:].mean(axis=0) > 0.1)  # sharp attacks, slow decays


def test_features_do_not_depend_on_batches_or_order():
    windows = make_beats(60)
    features = window_features(windows, CONVERTER)
    assert features.dtype == np.float64 and np.all(np.isfinite(features))
    order = np.random.default_rng(0).permutation(len(windows))
    np.testing.assert_allclose(window_features(windows[order], CONVERTER), features[order], rtol=1e-6)
    batches = [windows[:7], (windows[7:50], None), windows[50:, ..., 0]]
    np.testing.assert_allclose(window_features(batches, CONVERTER), features, rtol=1e-6)


def test_features_of_any_converter_and_silence():
    for n_fft in (128, 1024):
        converter = SpectrogramConverter(n_fft=n_fft, hop_length=32, scale="linear")
        features = window_features(np.zeros((2, n_fft // 2, 4, 1)), converter)
        assert np.all(np.isfinite(features))
        assert features[:, 0] == pytest.approx(-80.0, abs=1e-3)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (np.zeros((2, 128, 64, 1)), "bins"),
        (np.zeros((256, 64)), "shape"),
        (np.zeros((1, 256, 64, 2)), "shape"),
        (np.zeros((1, 256, 2, 1)), "4 frames"),
        (np.zeros((0, 256, 64, 1)), "no window"),
        (np.full((1, 256, 64, 1), np.nan), "finite"),
    ],
)
def test_features_bad_input(windows, message):
    with pytest.raises(ValueError, match=message):
        window_features(windows, CONVERTER)
