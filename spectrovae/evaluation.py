"""How far generated sound is from real sound, how varied it is, and whether it is copied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import euclidean_distances

from spectrovae.converter import SpectrogramConverter
from spectrovae.distances import (
    FRECHET_CLIPS_PER_FEATURE,
    CopyCheck,
    copy_check,
    frechet_distance,
    maximum_mean_discrepancy,
    median_bandwidths,
    ratio_or_nan,
)
from spectrovae.features import checked_windows, window_features
from spectrovae.sampling import WindowSample

_WINDOWS_PER_AXIS = 4


class SoundDistance:
    """Distance between sets of sounds, on log-mel statistics whitened on a training set.

    `window_features` are standardised and projected on the principal axes of their covariance on the training
    set (shrunk as Ledoit and Wolf 2004 do, so that few windows do not blow up small axes), each axis scaled
    to unit variance. Axes beyond `explained_variance` are cut, and those beyond a quarter of the number of
    training windows: on more, the training set would look unlike any other, as the axes are made for it.

    This is *not* the published Fréchet audio distance (FAD): no pretrained network is in it, and its numbers
    compare only with numbers of the same training set. Always read them beside their zero line, the distance
    of the training set to held-out recordings.

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

    def frechet_distance(self, first: Any, second: Any) -> float:
        """Return the squared Fréchet distance between two sets of `2 * num_dimensions` windows or more."""
        return frechet_distance(self.embed(first), self.embed(second))


def pairwise_distance(windows: Any, converter: SpectrogramConverter | None = None, max_windows: int = 256) -> float:
    """Return the mean over all pairs of windows of their root-mean-square difference.

    Args:
        windows: At least 2, `(num_windows, bins, frames, 1)`, or batches of them.
        converter: With it the distance is in dB, without it in the windows' own units, [0, 1].
        max_windows: Of more windows a random sample is taken, the same each time: it bounds memory and time.

    Raises:
        ValueError: If there are fewer than 2 windows.

    Example:
        >>> pairwise_distance(np.stack([np.zeros((4, 4, 1)), np.full((4, 4, 1), 0.5)]))
        0.5
    """
    sample = WindowSample(max_windows, seed=0)
    for _ in sample.collect(checked_windows(windows)):
        pass
    if sample.num_seen < 2:
        raise ValueError(f"A pairwise distance needs at least 2 windows. Received: {sample.num_seen}")
    values = np.stack(sample.windows)
    values = values if converter is None else converter.to_decibels(values)
    flat = values.reshape(len(values), -1)
    distances = euclidean_distances(flat - flat.mean(axis=0))
    return float(distances[np.triu_indices(len(flat), k=1)].mean() / math.sqrt(flat.shape[1]))


def diversity_ratio(generated: Any, real: Any) -> float:
    """Return the `pairwise_distance` of generated windows over that of real ones: 1 is as varied as music.

    Smooth windows lie nearer to each other than real ones even if their contents vary: a healthy model is
    somewhat below 1, a collapsed one near 0.

    Example:
        >>> windows = np.random.default_rng(0).random((6, 8, 8, 1))
        >>> round(diversity_ratio(0.5 * windows, windows), 6)
        0.5
    """
    return ratio_or_nan(pairwise_distance(generated), pairwise_distance(real))


@dataclass(frozen=True)
class GenerationReport:
    """Scores of generated windows, as `evaluate_generation` returns them; `print` shows them as a table.

    Distances are between features whitened on the training set (see `SoundDistance`), squared; a `zero_line`
    is the same number for the training set against held-out recordings. The Fréchet distances are None where
    windows are too few.
    """

    num_generated: int
    num_held_out: int
    num_training: int
    num_dimensions: int
    maximum_mean_discrepancy: float
    maximum_mean_discrepancy_zero_line: float
    frechet_distance: float | None
    frechet_distance_zero_line: float | None
    copies: CopyCheck
    generated_pairwise_db: float
    held_out_pairwise_db: float

    @property
    def maximum_mean_discrepancy_ratio(self) -> float:
        """Maximum mean discrepancy over its zero line; NaN where that is not positive."""
        return ratio_or_nan(self.maximum_mean_discrepancy, self.maximum_mean_discrepancy_zero_line)

    @property
    def diversity_ratio(self) -> float:
        """Mean pairwise distance (dB) of generated windows over that of held-out windows."""
        return ratio_or_nan(self.generated_pairwise_db, self.held_out_pairwise_db)

    def __str__(self) -> str:
        discrepancies = self.maximum_mean_discrepancy, self.maximum_mean_discrepancy_zero_line
        copies, frechet = self.copies, (self.frechet_distance, self.frechet_distance_zero_line)
        rows: dict[str, tuple[float | None, float | None]] = {
            "maximum mean discrepancy": discrepancies,
            "Fréchet distance": frechet,
            "distance to nearest training clip": (copies.generated_median, copies.held_out_median),
            "share suspiciously near": (copies.share_nearer, copies.percentile / 100),
            "mean pairwise distance (dB)": (self.generated_pairwise_db, self.held_out_pairwise_db),
        }
        lines = [
            f"{self.num_generated} generated, {self.num_held_out} held-out and {self.num_training} training "
            f"windows; {self.num_dimensions} whitened features",
            f"{'':34}{'generated':>11}{'real':>11}{'ratio':>9}",
        ]
        for name, (generated, real) in rows.items():
            if generated is None or real is None:
                min_windows = FRECHET_CLIPS_PER_FEATURE * self.num_dimensions
                lines.append(f"{name:34}    needs {min_windows} windows of each kind")
            else:
                lines.append(f"{name:34}{generated:>11.4g}{real:>11.4g}{ratio_or_nan(generated, real):>9.2f}")
        return "\n".join(lines)


def evaluate_generation(
    generated: Any, held_out: Any, training: Any, converter: SpectrogramConverter
) -> GenerationReport:
    """Compare generated windows with held-out recordings, beside what the training set itself reaches.

    Args:
        generated: `(num_windows, bins, frames, 1)` in [0, 1], at least 2; or batches of windows, such as a
            `tf.data.Dataset`. The same holds for the other two. Each is read twice at most.
        held_out: Windows of recordings that the model was not trained on.
        training: Windows that it was trained on, or the `SoundDistance` made of them.
        converter: The `SpectrogramConverter` that made the windows.

    Raises:
        ValueError: If a set has fewer than 2 windows, or they do not fit the converter.

    Example:
        >>> converter = SpectrogramConverter(n_fft=128, hop_length=32, num_frames=32)
        >>> windows = np.random.default_rng(0).random((60, 64, 32, 1))
        >>> report = evaluate_generation(0.9 * windows[:20], windows[20:40], windows[40:], converter)
        >>> report.maximum_mean_discrepancy > report.maximum_mean_discrepancy_zero_line
        True
    """
    distance = training if isinstance(training, SoundDistance) else SoundDistance(training, converter)
    known, bandwidths = distance.training, distance.bandwidths
    fake, real = distance.embed(generated), distance.embed(held_out)
    enough = min(len(known), len(fake), len(real)) >= FRECHET_CLIPS_PER_FEATURE * distance.num_dimensions
    return GenerationReport(
        num_generated=len(fake),
        num_held_out=len(real),
        num_training=len(known),
        num_dimensions=distance.num_dimensions,
        maximum_mean_discrepancy=maximum_mean_discrepancy(fake, real, bandwidths),
        maximum_mean_discrepancy_zero_line=maximum_mean_discrepancy(known, real, bandwidths),
        frechet_distance=frechet_distance(fake, real) if enough else None,
        frechet_distance_zero_line=frechet_distance(known, real) if enough else None,
        copies=copy_check(fake, known, real),
        generated_pairwise_db=pairwise_distance(generated, converter),
        held_out_pairwise_db=pairwise_distance(held_out, converter),
    )
