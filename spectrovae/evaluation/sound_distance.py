"""Distances between sets of windows, by what is heard of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import librosa
import numpy as np
from numpy.typing import ArrayLike

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import WindowSample, iterate_batches

_NUM_MEL_BANDS = 64

_NUM_MEL_GROUPS = 8

_WINDOWS_PER_AXIS = 4


def rmse_db(
    first: ArrayLike, second: ArrayLike, converter: SpectrogramConverter, axis: int | tuple[int, ...] = (-3, -2, -1)
) -> np.ndarray:
    """Return the root-mean-square difference of the levels of each two windows in dB, by default `(num_windows,)`.

    Args:
        first: Values in [0, 1], `(num_windows, bins, frames, 1)`.
        second: The same.
        converter: The `SpectrogramConverter` that made the windows.
        axis: The axes to average over.

    Example:
        >>> rmse_db(np.full((2, 8, 4, 1), 0.5), np.full((2, 8, 4, 1), 0.75), SpectrogramConverter())
        array([20., 20.])
    """
    difference = np.subtract(converter.to_decibels(first), converter.to_decibels(second), dtype=np.float64)
    return np.sqrt(np.square(difference).mean(axis=axis))


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
    features = []
    for batch in checked_windows(windows):
        if batch.shape[1] != converter.num_bins:
            raise ValueError(
                f"Windows must have the converter's {converter.num_bins} bins. Received: shape={batch.shape}"
            )
        features.append(_level_statistics(mel_levels(batch, converter, _NUM_MEL_BANDS)))
    return np.concatenate(features)


def mel_levels(windows: np.ndarray, converter: SpectrogramConverter, num_bands: int) -> np.ndarray:
    """Return the levels of mel bands in dB, float64 `(num_windows, bands, frames)`.

    Args:
        windows: Values in [0, 1], `(num_windows, bins, frames)`.
        converter: The `SpectrogramConverter` that made the windows.
        num_bands: Number of bands; those that no bin falls into are left out.
    """
    power = 10 ** (converter.to_decibels(windows) / 10)
    mel_power = np.einsum("mb,nbt->nmt", _mel_filters(converter, num_bands), power, optimize=True)
    return 10 * np.log10(mel_power.astype(np.float64))


def _mel_filters(converter: SpectrogramConverter, num_bands: int) -> np.ndarray:
    """Return a weighted mean over the bins for each band that has any, shape (bands, bins)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        filters = librosa.filters.mel(sr=converter.sample_rate, n_fft=converter.n_fft, n_mels=num_bands)
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


def check_samples(min_clips: int, **samples: Any) -> list[np.ndarray]:
    """Return the samples as float64 `(clips, features)`: enough clips in each, and the same features."""
    arrays = [np.asarray(sample, np.float64) for sample in samples.values()]
    shapes = ", ".join(f"{name}.shape={array.shape}" for name, array in zip(samples, arrays, strict=True))
    if any(array.ndim != 2 or len(array) < min_clips for array in arrays):
        raise ValueError(
            f"Samples must have the shape (clips, features), at least {min_clips} clips. Received: {shapes}"
        )
    if len({array.shape[1] for array in arrays}) > 1:
        raise ValueError(f"Samples must have the same number of features. Received: {shapes}")
    return arrays


def maximum_mean_discrepancy(first: Any, second: Any, bandwidths: Iterable[float]) -> float:
    """Estimate the squared maximum mean discrepancy of two samples without bias.

    The kernel is the mean of Gaussian kernels exp(-distance^2 / (2 bandwidth^2)). For samples of one
    distribution the estimate is 0 on average, so it may be slightly negative (Gretton et al. 2012, "A kernel
    two-sample test", equation 3).

    Args:
        first: `(clips, features)`, at least 2 clips.
        second: `(clips, features)`, at least 2 clips.
        bandwidths: Positive, in the units of the features; `median_bandwidths` finds them.

    Returns:
        The estimate, at most 2.

    Raises:
        ValueError: If a sample is too small, the features differ in number, or a bandwidth is not positive.

    Example:
        >>> first, second = np.random.default_rng(0).normal(size=(2, 200, 3))
        >>> maximum_mean_discrepancy(first, second, [1.0]) < 0.01
        True
        >>> maximum_mean_discrepancy(first, second + 1, [1.0]) > 0.1
        True
    """
    from scipy.spatial.distance import cdist

    first, second = check_samples(2, first=first, second=second)
    widths = np.asarray(list(bandwidths), np.float64)
    if not len(widths) or not np.all(widths > 0):
        raise ValueError(f"`bandwidths` must be positive. Received: bandwidths={widths.tolist()}")

    def kernel_sum(left: np.ndarray, right: np.ndarray) -> float:
        total = 0.0
        for start in range(0, len(left), 1024):  # a bounded share of the kernel matrix at a time
            squares = cdist(left[start : start + 1024], right, "sqeuclidean")
            total += sum(np.exp(-squares / (2 * width**2)).sum() for width in widths)
        return total / len(widths)

    def mean_within(sample: np.ndarray) -> float:
        num_clips = len(sample)  # each has a kernel of 1 with itself, which does not count
        return (kernel_sum(sample, sample) - num_clips) / (num_clips * (num_clips - 1))

    mean_between = kernel_sum(first, second) / (len(first) * len(second))
    return float(mean_within(first) + mean_within(second) - 2 * mean_between)


def median_bandwidths(reference: Any, max_clips: int = 2000) -> list[float]:
    """Return half, once and twice the median distance between clips (heuristic of Gretton et al. 2012).

    Args:
        reference: `(clips, features)`, at least 2 clips.
        max_clips: Of more clips, this many evenly spaced ones are taken.

    Raises:
        ValueError: If there are fewer than 2 clips, or most of them are identical.

    Example:
        >>> median_bandwidths([[0.0], [2.0]])
        [1.0, 2.0, 4.0]
    """
    from scipy.spatial.distance import pdist

    (reference,) = check_samples(2, reference=reference)
    chosen = np.linspace(0, len(reference) - 1, min(len(reference), max_clips)).astype(int)
    median = float(np.median(pdist(reference[chosen])))
    if not median > 0:
        raise ValueError("Clips of `reference` must differ. Received: mostly identical clips.")
    return [median / 2, median, 2 * median]


def ratio_or_nan(value: float, reference: float) -> float:
    """Return `value / reference`; NaN where the reference is not positive, as nothing compares with it.

    Example:
        >>> ratio_or_nan(1.0, 2.0), ratio_or_nan(1.0, 0.0)
        (0.5, nan)
    """
    return value / reference if reference > 0 else math.nan


class SoundDistance:
    """Distance between sets of sounds, on log-mel statistics whitened on a training set.

    `window_features` are standardised and projected on the principal axes of their covariance on the training
    set (shrunk as Ledoit and Wolf 2004 do, so that few windows do not blow up small axes), each axis scaled
    to unit variance. Axes beyond `explained_variance` are cut, and those beyond a quarter of the number of
    training windows: on more, the training set would look unlike any other, as the axes are made for it.

    No pretrained network is in it, and its numbers compare only with numbers of the same training set. Always read
    them beside their zero line, the distance of the training set to held-out recordings.

    Args:
        training: The training windows, `(num_windows, bins, frames, 1)` in [0, 1], or batches of them.
        converter: The `SpectrogramConverter` that made the windows.
        explained_variance: Share of the variance of the training features that is kept, in (0, 1].

    Attributes:
        num_dimensions: Number of whitened features.
        bandwidths: Kernel widths for the maximum mean discrepancy, from the training set.
        training: The whitened features of the training set, `(num_windows, num_dimensions)`.

    Raises:
        ValueError: If there are fewer than 2 training windows, or most of them are identical.

    Example:
        >>> converter = SpectrogramConverter(n_fft=128, hop_length=32, num_frames=32)
        >>> windows = np.random.default_rng(0).random((30, 64, 32, 1))
        >>> distance = SoundDistance(windows[:20], converter)
        >>> distance.maximum_mean_discrepancy(windows[20:], 0.5 * windows[20:]) > 0.5
        True
    """

    def __init__(self, training: Any, converter: SpectrogramConverter, explained_variance: float = 0.9) -> None:
        from sklearn.covariance import ledoit_wolf

        if not 0 < explained_variance <= 1:
            raise ValueError(
                f"`explained_variance` must be in (0, 1]. Received: explained_variance={explained_variance}"
            )
        self.converter = converter
        features = window_features(training, converter)
        self._mean, deviation = features.mean(axis=0), features.std(axis=0)
        if not deviation.max() > 1e-6:
            raise ValueError(
                f"There must be at least 2 training windows that differ. Received: {len(features)} windows, "
                "all identical."
            )
        # Features that never change in training (in dB) are left as they are.
        self._deviation = np.where(deviation > 1e-6, deviation, 1.0)
        covariance, _ = ledoit_wolf((features - self._mean) / self._deviation, assume_centered=True)
        variances, axes = (array[..., ::-1] for array in np.linalg.eigh(covariance))  # largest first
        num_needed = np.searchsorted(np.cumsum(variances) / variances.sum(), explained_variance) + 1
        self.num_dimensions = max(1, min(int(num_needed), len(features) // _WINDOWS_PER_AXIS))
        self._axes = (axes / np.sqrt(variances))[:, : self.num_dimensions]
        self.training = self._whiten(features)
        self.bandwidths = median_bandwidths(self.training)

    def _whiten(self, features: np.ndarray) -> np.ndarray:
        if features.shape[1] != len(self._mean):
            raise ValueError(
                "Windows must have as many frames as those of the training set. Received: windows that give "
                f"{features.shape[1]} features, not {len(self._mean)}"
            )
        return (features - self._mean) / self._deviation @ self._axes

    def embed(self, windows: Any) -> np.ndarray:
        """Return the whitened features of windows, float64 `(num_windows, num_dimensions)`."""
        return self._whiten(window_features(windows, self.converter))

    def maximum_mean_discrepancy(self, first: Any, second: Any) -> float:
        """Return the squared maximum mean discrepancy between two sets of windows (at least 2 in each)."""
        return maximum_mean_discrepancy(self.embed(first), self.embed(second), self.bandwidths)


def pairwise_distance(windows: Any, converter: SpectrogramConverter, max_windows: int = 256) -> float:
    """Return the mean over all pairs of windows of their root-mean-square difference in dB.

    Args:
        windows: At least 2, `(num_windows, bins, frames, 1)`, or batches of them.
        converter: The `SpectrogramConverter` that made the windows.
        max_windows: Of more windows a random sample is taken, the same each time, to bound memory and time.

    Raises:
        ValueError: If there are fewer than 2 windows.

    Example:
        >>> windows = np.stack([np.zeros((4, 4, 1)), np.full((4, 4, 1), 0.5)])
        >>> pairwise_distance(windows, SpectrogramConverter(n_fft=8, hop_length=2))
        40.0
    """
    from sklearn.metrics import euclidean_distances

    sample = WindowSample(max_windows, seed=0)
    for _ in sample.collect(checked_windows(windows)):
        pass
    if sample.num_seen < 2:
        raise ValueError(f"A pairwise distance needs at least 2 windows. Received: {sample.num_seen}")
    levels = converter.to_decibels(np.stack(sample.windows)).reshape(len(sample.windows), -1)
    distances = euclidean_distances(levels - levels.mean(axis=0))
    return float(distances[np.triu_indices(len(levels), k=1)].mean() / math.sqrt(levels.shape[1]))
