"""How far one sample of points is from another: two-sample distances, and a check for copies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics import pairwise_distances_argmin_min

# Means and covariances of both samples are needed: this many clips for each feature, at least.
FRECHET_CLIPS_PER_FEATURE = 2


def _check_samples(min_clips: int, **samples: Any) -> list[np.ndarray]:
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
    first, second = _check_samples(2, first=first, second=second)
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
    (reference,) = _check_samples(2, reference=reference)
    chosen = np.linspace(0, len(reference) - 1, min(len(reference), max_clips)).astype(int)
    median = float(np.median(pdist(reference[chosen])))
    if not median > 0:
        raise ValueError("Clips of `reference` must differ. Received: mostly identical clips.")
    return [median / 2, median, 2 * median]


def frechet_distance(first: Any, second: Any) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to two samples.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982), as Heusel et al. (2017) use it for
    images. It is biased upwards where clips are few: each sample must have at least 2 clips for each feature.

    Args:
        first: `(clips, features)`.
        second: `(clips, features)`.

    Returns:
        The distance in squared units of the features, not negative.

    Raises:
        ValueError: If there are too few clips, or the features differ in number.

    Example:
        >>> sample = np.random.default_rng(0).normal(size=(100, 2))
        >>> round(frechet_distance(sample, sample + [3.0, 4.0]), 6)
        25.0
    """
    first, second = _check_samples(2, first=first, second=second)
    min_clips = FRECHET_CLIPS_PER_FEATURE * first.shape[1]
    if min(len(first), len(second)) < min_clips:
        raise ValueError(
            f"The Fréchet distance in {first.shape[1]} dimensions needs at least {min_clips} clips in both "
            "samples; the maximum mean discrepancy needs only 2. "
            f"Received: {len(first)} and {len(second)} clips."
        )
    covariances = [np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (first, second)]
    # The eigenvalues of C1 C2 are real and not negative, but for rounding.
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real
    shared = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    shift = np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2)
    return float(max(0.0, shift + np.trace(covariances[0] + covariances[1]) - 2 * shared))


@dataclass(frozen=True)
class CopyCheck:
    """How near clips are to the training set, against clips that cannot be copies.

    Attributes:
        generated_median: Median distance of a generated clip to its nearest training clip.
        held_out_median: The same for held-out clips.
        percentile: The percentile of the held-out distances that counts as suspiciously near.
        share_nearer: Share of generated clips nearer than that; about `percentile / 100` if none is copied.
    """

    generated_median: float
    held_out_median: float
    percentile: float
    share_nearer: float

    @property
    def ratio(self) -> float:
        """Generated over held-out median: well below 1 means copies, well above 1 unlike any music."""
        return ratio_or_nan(self.generated_median, self.held_out_median)


def copy_check(generated: Any, training: Any, held_out: Any, percentile: float = 5.0) -> CopyCheck:
    """Compare how near generated and held-out clips are to their nearest training clip.

    Args:
        generated: `(clips, features)`, for instance whitened by `SoundDistance.embed`.
        training: `(clips, features)`.
        held_out: `(clips, features)`, clips of recordings that are not in the training set.
        percentile: Of the held-out distances, in [0, 100]; nearer than that is suspicious.

    Raises:
        ValueError: If a set is empty, the features differ in number, or the percentile is out of range.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(150, 2))
        >>> training, held_out = points[:100], points[100:]
        >>> copy_check(training[:10] + 1e-4, training, held_out).share_nearer
        1.0
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"`percentile` must be in [0, 100]. Received: percentile={percentile}")
    generated, training, held_out = _check_samples(1, generated=generated, training=training, held_out=held_out)
    _, to_generated = pairwise_distances_argmin_min(generated, training)
    _, to_held_out = pairwise_distances_argmin_min(held_out, training)
    return CopyCheck(
        generated_median=float(np.median(to_generated)),
        held_out_median=float(np.median(to_held_out)),
        percentile=percentile,
        share_nearer=float(np.mean(to_generated < np.percentile(to_held_out, percentile))),
    )


def ratio_or_nan(value: float, reference: float) -> float:
    """Return `value / reference`; NaN where the reference is not positive, as nothing compares with it.

    Example:
        >>> ratio_or_nan(1.0, 2.0), ratio_or_nan(1.0, 0.0)
        (0.5, nan)
    """
    return value / reference if reference > 0 else math.nan
