"""From windows to features: what a window sounds like, in some hundred numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import librosa
import numpy as np

from spectrovae.batching import iterate_batches
from spectrovae.converter import SpectrogramConverter

_NUM_MEL_BANDS = 64
_NUM_MEL_GROUPS = 8


def checked_windows(windows: Any) -> Iterator[np.ndarray]:
    """Yield float32 batches `(num, bins, frames)` of windows, all finite.

    Args:
        windows: `(num_windows, bins, frames, 1)` or without the last axis; or an iterable of such batches,
            for instance a `tf.data.Dataset`.

    Raises:
        ValueError: If there are no windows, their shape is another, or they are not finite.

    Example:
        >>> [batch.shape for batch in checked_windows(np.zeros((20, 8, 4, 1)))]
        [(16, 8, 4), (4, 8, 4)]
    """
    for tensor in iterate_batches(windows, batch_size=16):
        batch = tensor.numpy()
        if batch.ndim == 4 and batch.shape[-1] == 1:
            batch = batch[..., 0]
        if batch.ndim != 3 or batch.shape[2] < 4:
            raise ValueError(
                "Windows must have the shape (num_windows, bins, frames, 1) with at least 4 frames; give a "
                f"single window a leading axis, `window[None]`. Received: shape={batch.shape}"
            )
        if not np.all(np.isfinite(batch)):
            raise ValueError("Windows must be finite. Received: windows that hold NaN or infinity.")
        yield batch


def window_features(windows: Any, converter: SpectrogramConverter) -> np.ndarray:
    """Summarise each window by statistics of its log-mel spectrogram.

    With 64 mel bands (fewer where the converter's bins are too wide for the lowest bands) the features are,
    in this order and all in dB:

    - the mean over time of each band,
    - the standard deviation over time of each band,
    - the standard deviation of each band's step from frame to frame,
    - the modulation spectrum: how much 8 groups of bands fluctuate in each octave of modulation frequency
      (shuffled frames have the same means and deviations, but another modulation spectrum),
    - the cube root of the mean cubed step in these 8 groups: positive for sharp attacks and slow decays,
      negative for the same music played backwards.

    Args:
        windows: Values in [0, 1], `(num_windows, bins, frames, 1)` or without the last axis; or an iterable
            of such batches, for instance a `tf.data.Dataset`.
        converter: The `SpectrogramConverter` that made the windows.

    Returns:
        float64, `(num_windows, num_features)`. The number of features depends on `bins` and `frames` only.

    Raises:
        ValueError: If there are no windows, they have other bins than the converter's, or are not finite.

    Example:
        >>> converter = SpectrogramConverter(n_fft=1024, num_frames=32)
        >>> window_features(np.zeros((2, 512, 32, 1)), converter).shape
        (2, 232)
    """
    filters = _mel_filters(converter)
    features = []
    for batch in checked_windows(windows):
        if batch.shape[1] != converter.num_bins:
            raise ValueError(
                f"Windows must have the converter's {converter.num_bins} bins. Received: shape={batch.shape}"
            )
        power = 10 ** (converter.to_decibels(batch) / 10)
        mel_power = np.einsum("mb,nbt->nmt", filters, power, optimize=True)
        features.append(_level_statistics(10 * np.log10(mel_power.astype(np.float64))))
    return np.concatenate(features)


def _mel_filters(converter: SpectrogramConverter) -> np.ndarray:
    """Return a weighted mean over the bins for each band that has any, shape (bands, bins)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        filters = librosa.filters.mel(sr=converter.sample_rate, n_fft=converter.n_fft, n_mels=_NUM_MEL_BANDS)
    filters = filters[:, : converter.num_bins]
    filters = filters[filters.any(axis=1)]
    return filters / filters.sum(axis=1, keepdims=True)


def _level_statistics(levels: np.ndarray) -> np.ndarray:
    """Levels (num, bands, frames) in dB -> the features that `window_features` lists."""
    num_windows, num_bands, num_frames = levels.shape
    mean = levels.mean(axis=-1, keepdims=True)
    steps = np.diff(levels)
    taper = np.hanning(num_frames)
    spectrum = np.abs(np.fft.rfft((levels - mean) * taper)[..., 1:]) ** 2 / (taper**2).sum()
    octaves = 2 ** np.arange(int(math.log2(spectrum.shape[-1]))) - 1  # where each one starts
    modulation = np.add.reduceat(spectrum, octaves, axis=-1) / num_frames
    groups = np.linspace(0, num_bands, _NUM_MEL_GROUPS, endpoint=False).astype(int)
    sizes = np.diff(groups, append=num_bands)
    modulation = np.add.reduceat(modulation, groups, axis=1) / sizes[:, None]
    # A fluctuation of 0.1 dB is the floor: below it nothing is heard.
    modulation_level = 10 * np.log10(modulation + 0.01)
    asymmetry = np.cbrt(np.add.reduceat((steps**3).mean(axis=-1), groups, axis=1) / sizes)
    parts = [mean, levels.std(axis=-1), steps.std(axis=-1), modulation_level, asymmetry]
    return np.concatenate([part.reshape(num_windows, -1) for part in parts], axis=1)
