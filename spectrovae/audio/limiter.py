"""Keeps sound within full scale."""

import warnings

import numpy as np

_REACH = 0.02  # seconds by which the gain begins to fall before a peak, and rises again after it: a period of 50 Hz
_LOUD_DB = 6.0  # peaks that are higher can be heard to be turned down


def limit_peaks(waveforms: np.ndarray, sample_rate: int) -> np.ndarray:
    """Turn sound down where it goes beyond full scale, and leave all else as it is.

    A limiter with look-ahead: the gain of a moment is the least that the samples around it need, smoothed so that no
    edge is heard. The rest of the sound stays as loud as it was. Giannoulis, Massberg and Reiss, "Digital dynamic range
    compressor design" (Journal of the Audio Engineering Society, 2012).

    Args:
        waveforms: Shape `(..., samples)`, any peaks.
        sample_rate: Samples per second (Hz).

    Returns:
        float32 in [-1, 1] of the same shape; the argument itself where there is no peak over 1. There is a warning for
        peaks of more than 6 dB over full scale.

    Example:
        >>> limit_peaks(np.array([0.5, 1.25, 0.5, 0.5, 0.5], np.float32), sample_rate=50).round(2)
        array([0.4 , 1.  , 0.43, 0.47, 0.5 ], dtype=float32)
    """
    peak = np.abs(waveforms).max(initial=0)
    if peak <= 1:
        return waveforms
    from scipy.ndimage import minimum_filter1d, uniform_filter1d  # here, since it takes long to import

    if (excess := 20 * np.log10(peak)) > _LOUD_DB:
        warnings.warn(f"There were peaks of {excess:.1f} dB over full scale. They were turned down.", stacklevel=3)
    size = 1 + 2 * round(_REACH * sample_rate)
    gains = 1 / np.maximum(np.abs(waveforms), 1)
    # The mean of minima that all reach to this sample is no more than what it needs.
    gains = uniform_filter1d(minimum_filter1d(gains, size, mode="nearest"), size, output=np.float64, mode="nearest")
    gains *= waveforms
    return np.clip(gains, -1, 1, out=gains).astype(np.float32)
