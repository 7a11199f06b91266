"""Whether generated sound was copied from the training music."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectrovae.audio.dataset import record_of
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.sound_distance import check_samples, checked_windows, mel_levels, ratio_or_nan

_NUM_MEL_BANDS = 32

_FRAMES_PER_SECOND = 21.5  # that stretches are compared at, about

_FLOOR_DB = -70.0

_BLOCK_SIZE = 4096  # frames or stretches at once, to bound memory


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


def compare_nearness(to_generated: np.ndarray, to_held_out: np.ndarray, percentile: float = 5.0) -> CopyCheck:
    """Compare how far generated and held-out clips are from what is nearest to them in the training set.

    Args:
        to_generated: Distances of generated clips.
        to_held_out: Distances of held-out clips.
        percentile: Of the held-out distances, in [0, 100]; nearer than that is suspicious.

    Raises:
        ValueError: If the percentile is out of range.

    Example:
        >>> compare_nearness(np.array([0.0, 0.1, 2.0]), np.array([1.0, 1.5, 2.0])).generated_median
        0.1
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"`percentile` must be in [0, 100]. Received: percentile={percentile}")
    return CopyCheck(
        generated_median=float(np.median(to_generated)),
        held_out_median=float(np.median(to_held_out)),
        percentile=percentile,
        share_nearer=float(np.mean(to_generated < np.percentile(to_held_out, percentile))),
    )


def copy_check(generated: Any, training: Any, held_out: Any, percentile: float = 5.0) -> CopyCheck:
    """Compare how near the features of generated and held-out clips are to those of their nearest training clip.

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
    from sklearn.metrics import pairwise_distances_argmin_min

    generated, training, held_out = check_samples(1, generated=generated, training=training, held_out=held_out)
    _, to_generated = pairwise_distances_argmin_min(generated, training)
    _, to_held_out = pairwise_distances_argmin_min(held_out, training)
    return compare_nearness(to_generated, to_held_out, percentile)


class KnownStretches:
    """The training music in stretches, to find what is nearest to a sound wherever it begins.

    Stretches are compared as mel spectrograms in dB, at about 21 frames per second, with their mean level taken off:
    what is copied and played louder is still a copy.

    Args:
        training: What `audio_dataset` returned: then whole recordings are known. Or windows `(num_windows, bins,
            frames, 1)`, or batches of them: then stretches across their edges are not.
        converter: The `SpectrogramConverter` that made the windows.

    Raises:
        ValueError: If there are no windows, or they do not fit the converter.

    Example:
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
        >>> music = np.random.default_rng(0).random((2, 64, 64, 1), np.float32)
        >>> (distances,) = KnownStretches(music, converter).distances(music[:, :, 24:], [0.1])
        >>> bool(distances.max() < 0.1)
        True
    """

    def __init__(self, training: Any, converter: SpectrogramConverter) -> None:
        self.converter = converter
        frame_rate = converter.sample_rate / converter.hop_length
        self._step = min(converter.num_frames, max(1, round(frame_rate / _FRAMES_PER_SECOND)))
        self._levels = [self._levels_of(spectrogram) for spectrogram in _spectrograms(training)]

    def distances(self, windows: Any, durations: Sequence[float]) -> list[np.ndarray]:
        """Return how far stretches of windows, end to end, are from the nearest stretch of the training music.

        Args:
            windows: Values in [0, 1], `(num_windows, bins, frames, 1)`, or batches of them.
            durations: Lengths of the stretches in seconds; those that are longer than the windows mean whole windows.

        Returns:
            For each duration the root-mean-square differences in dB, `(num_stretches,)`.
        """
        queried = [self._levels_of(window) for batch in checked_windows(windows) for window in batch]
        seconds = self._step * self.converter.hop_length / self.converter.sample_rate
        return [self._nearest(queried, max(1, round(duration / seconds))) for duration in durations]

    def _nearest(self, queried: list[np.ndarray], num_steps: int) -> np.ndarray:
        longest = min(max(levels.shape[1] for levels in each) for each in (queried, self._levels))
        num_steps = min(num_steps, (longest - 1) // self._step + 1)
        places = [np.arange(0, self._num_starts(levels, num_steps), self._step * num_steps) for levels in queried]
        pairs = zip(queried, places, strict=True)
        queries = np.concatenate([self._stretches(levels, starts, num_steps) for levels, starts in pairs])
        best = np.full(len(queries), np.inf, np.float32)
        for levels in self._levels:
            # Every half step, since a copy need not begin where a step does.
            starts = np.arange(0, self._num_starts(levels, num_steps), max(1, self._step // 2))
            for first in range(0, len(starts), _BLOCK_SIZE):
                stretches = self._stretches(levels, starts[first : first + _BLOCK_SIZE], num_steps)
                squares = np.square(stretches).sum(axis=1) - 2 * queries @ stretches.T
                best = np.minimum(best, squares.min(axis=1))
        best += np.square(queries).sum(axis=1)
        return np.sqrt(np.maximum(best, 0) / queries.shape[1])

    def _levels_of(self, spectrogram: np.ndarray) -> np.ndarray:
        """Return the level of each band in dB, averaged over a step from any frame on: float32 (bands, starts)."""
        blocks = []
        for start in range(0, spectrogram.shape[1], _BLOCK_SIZE):
            (levels,) = mel_levels(spectrogram[None, :, start : start + _BLOCK_SIZE], self.converter, _NUM_MEL_BANDS)
            blocks.append(np.maximum(levels, _FLOOR_DB))
        joined = np.concatenate(blocks, axis=1)
        return np.lib.stride_tricks.sliding_window_view(joined, self._step, axis=1).mean(axis=-1, dtype=np.float32)

    def _num_starts(self, levels: np.ndarray, num_steps: int) -> int:
        return levels.shape[1] - self._step * (num_steps - 1)

    def _stretches(self, levels: np.ndarray, starts: np.ndarray, num_steps: int) -> np.ndarray:
        """Return flat stretches (num_starts, bands * steps) without their mean."""
        frames = starts[:, None] + self._step * np.arange(num_steps)
        stretches = levels[:, frames].swapaxes(0, 1).reshape(len(starts), len(levels) * num_steps)
        return stretches - stretches.mean(axis=1, keepdims=True)


def _spectrograms(training: Any) -> Iterable[np.ndarray]:
    """Yield whole recordings where these are known, else windows; each (bins, frames)."""
    record = record_of(training)
    if record is None:
        for batch in checked_windows(training):
            yield from batch
        return
    indices = {recording: index for index, recording in enumerate(record.recordings.report.used)}
    for recording in record.report.used:
        yield record.recordings.frames(indices[recording], 0, recording.num_frames).T
