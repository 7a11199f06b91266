"""Windows that overlap, faded into one another."""

from collections.abc import Iterable

import numpy as np

from spectrovae.converter import SpectrogramConverter
from spectrovae.walks import crossfade_weights

_LOUDNESS_EXPONENT = 0.6  # of amplitude


def join_windows(
    windows: Iterable[tuple[np.ndarray, np.ndarray]], starts: np.ndarray, converter: SpectrogramConverter
) -> tuple[np.ndarray, np.ndarray]:
    """Fade windows into one another in loudness, bin by bin.

    Loudness is by the power law of Stevens, "The measurement of loudness" (Journal of the Acoustical Society of
    America, 1955): between unlike windows a fade in power is louder than its surroundings, and a fade in dB is softer.

    Args:
        windows: Mean and standard deviation of each pixel of each window, `(bins, frames)`, one window at a time.
        starts: The first frame of each, rising, as `window_starts` returns them.
        converter: The `SpectrogramConverter` of the windows.

    Returns:
        The means, not clipped, and the deviations of the whole, both `(bins, all frames)`.

    Example:
        >>> converter = SpectrogramConverter(n_fft=8, hop_length=2, num_frames=4)
        >>> window = np.full((4, 4), 0.5, np.float32), np.zeros((4, 4), np.float32)
        >>> means, _ = join_windows([window, window], np.array([0, 3]), converter)
        >>> means.shape, bool(np.allclose(means, 0.5))
        ((4, 7), True)
    """
    num_frames = converter.num_frames
    loudness = np.zeros((converter.num_bins, int(starts[-1]) + num_frames), np.float32)
    scales = np.zeros_like(loudness)
    for (mean, scale), start, weight in zip(windows, starts, crossfade_weights(starts, num_frames), strict=True):
        loudness[:, start : start + num_frames] += weight * _to_loudness(mean, converter)
        scales[:, start : start + num_frames] += weight * scale
    return _from_loudness(loudness, converter), scales


def _to_loudness(values: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    # Without a floor: means below it tell that texture should seldom rise above it.
    if converter.scale == "linear":
        return np.maximum(values, 0) ** np.float32(_LOUDNESS_EXPONENT)
    return 10 ** ((values - 1) * np.float32(_LOUDNESS_EXPONENT * converter.dynamic_range / 20))


def _from_loudness(loudness: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    if converter.scale == "linear":
        return loudness ** np.float32(1 / _LOUDNESS_EXPONENT)
    return 1 + np.log10(loudness) * np.float32(20 / (_LOUDNESS_EXPONENT * converter.dynamic_range))
