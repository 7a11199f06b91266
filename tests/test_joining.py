import numpy as np
import pytest

from spectrovae import SpectrogramConverter
from spectrovae.pieces import join_windows


@pytest.fixture(params=["decibel", "linear"])
def converter(request) -> SpectrogramConverter:
    return SpectrogramConverter(sample_rate=8000, n_fft=16, hop_length=4, num_frames=8, scale=request.param)


def flat(level: float, scale: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return np.full((8, 8), level, np.float32), np.full((8, 8), scale, np.float32)


def test_between_unlike_windows_loudness_goes_straight(converter):
    means, scales = join_windows([flat(0.9, 0.2), flat(0.5, 0.4)], np.array([0, 4]), converter)
    assert means.shape == scales.shape == (8, 12)
    np.testing.assert_allclose(means[:, :4], 0.9, atol=1e-6)
    np.testing.assert_allclose(means[:, 8:], 0.5, atol=1e-6)
    amplitudes = 10 ** (converter.to_decibels(means[..., None])[0, :, 0] / 20)
    loudness = amplitudes**0.6
    shares = (loudness[4:8] - loudness[-1]) / (loudness[0] - loudness[-1])
    expected = np.cos(0.5 * np.pi * (np.arange(4) + 0.5) / 4) ** 2
    np.testing.assert_allclose(shares, expected, atol=1e-4)
    np.testing.assert_allclose(scales[0, 4:8], 0.2 * expected + 0.4 * (1 - expected), atol=1e-6)


def test_windows_may_come_one_by_one_and_must_be_as_many_as_places(converter):
    windows = [flat(level) for level in (0.2, 0.6, 0.4)]
    starts = np.array([0, 6, 12])
    means, _ = join_windows(iter(windows), starts, converter)
    np.testing.assert_allclose(means, join_windows(windows, starts, converter)[0])
    for number in (2, 4):
        with pytest.raises(ValueError):
            join_windows((windows * 2)[:number], starts, converter)
