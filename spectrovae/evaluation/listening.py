"""Figures of what is heard, to be read beside the music's own: flux, crest factor, level, rhythm and harmony."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import librosa
import numpy as np
import scipy.signal

from spectrovae.audio.spectrogram import SpectrogramConverter, audible_changes
from spectrovae.evaluation.sound_distance import maximum_mean_discrepancy, median_bandwidths

_FRAMES_PER_SECOND = 43  # for onsets and chroma, about: the hop is a power of two

_CHROMA_LAGS = (1, 4, 16)  # frames

_MIN_PROMINENCE = 0.1  # of an onset, as a share of the strongest


@dataclass(frozen=True)
class ListeningFigures:
    """How lively, peaky and loud a set of clips is, as `listening_figures` measures it.

    Attributes:
        flux_db: Median over the clips of the mean change from frame to frame, in dB (`spectral_flux`).
        crest_factor_db: Median of the peak over the root mean square, in dB.
        level_db: Median of the root mean square, in dB of full scale.
        share_over_full_scale: Share of the clips with a peak over 1, which is turned down before it is played.
    """

    flux_db: float
    crest_factor_db: float
    level_db: float
    share_over_full_scale: float


def listening_figures(clips: Any, converter: SpectrogramConverter) -> ListeningFigures:
    """Measure clips as they are, before anything scales them down.

    Args:
        clips: Waveforms `(num_clips, samples)`; peaks may exceed 1. Silent ones have no crest factor and no level.
        converter: The `SpectrogramConverter` on whose frames the flux is measured.

    Returns:
        The figures; those that no clip has are NaN.

    Raises:
        ValueError: If the clips are not a batch of waveforms.

    Example:
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
        >>> sine = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
        >>> figures = listening_figures(0.5 * sine[None], converter)
        >>> round(figures.crest_factor_db, 1), round(figures.level_db, 1), figures.share_over_full_scale
        (3.0, -9.0, 0.0)
    """
    audio = np.asarray(clips, np.float32)
    if audio.ndim != 2 or not audio.size:
        raise ValueError(f"`clips` must have the shape (num_clips, samples). Received: clips.shape={audio.shape}")
    peaks, levels = np.abs(audio).max(axis=1), np.sqrt(np.square(audio).mean(axis=1))
    is_heard = levels > 0
    fluxes = [spectral_flux(window, converter) for window in converter.to_spectrogram(audio)[..., 0]]
    return ListeningFigures(
        flux_db=_median(np.array(fluxes)[~np.isnan(fluxes)]),
        crest_factor_db=_median(20 * np.log10(peaks[is_heard] / levels[is_heard])),
        level_db=_median(20 * np.log10(levels[is_heard])),
        share_over_full_scale=float(np.mean(peaks > 1)),
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def spectral_flux(window: np.ndarray, converter: SpectrogramConverter) -> float:
    """Return the mean change from frame to frame of the pixels that are above -60 dB in both frames.

    Args:
        window: Values in [0, 1], `(bins, frames)`.
        converter: The `SpectrogramConverter` that made it.

    Returns:
        The flux in dB; NaN where nothing is audible.

    Example:
        >>> converter = SpectrogramConverter(n_fft=8, hop_length=2, num_frames=3)
        >>> window = np.array([[1.0, 0.9, 1.0]] * 4)
        >>> round(spectral_flux(window, converter), 3)
        8.0
    """
    changes = audible_changes(converter.to_decibels(window))
    return float(changes.mean()) if changes.size else float("nan")


def rhythm_and_harmony(clips: Any, sample_rate: int) -> np.ndarray:
    """Describe clips by statistics of their onsets and of their chroma, with nothing of timbre or key.

    Of the strength of onsets: mean, standard deviation, 90th percentile, number of onsets per second, and how periodic
    it is. Of the chroma: mean and standard deviation of its entropy, how much it changes over 1, 4 and 16 frames, and
    the sizes of the Fourier coefficients of its mean, which do not change when music is transposed.

    Args:
        clips: Waveforms `(num_clips, samples)`, each of half a second or more.
        sample_rate: Their samples per second.

    Returns:
        float64 features `(num_clips, 16)`.

    Raises:
        ValueError: If the clips are not a batch of waveforms of that length.

    Example:
        >>> rhythm_and_harmony(np.random.default_rng(0).standard_normal((2, 22050)), 22050).shape
        (2, 16)
    """
    audio = np.asarray(clips, np.float32)
    if audio.ndim != 2 or audio.shape[1] < min_samples(sample_rate):
        raise ValueError(
            f"`clips` must have the shape (num_clips, samples) with at least {min_samples(sample_rate)} samples. "
            f"Received: clips.shape={audio.shape}"
        )
    return np.stack([_describe(clip, sample_rate) for clip in audio])


def min_samples(sample_rate: int) -> int:
    """Return how many samples a clip must have for `rhythm_and_harmony`."""
    return (max(_CHROMA_LAGS) + 1) * _hop_length(sample_rate)


def _hop_length(sample_rate: int) -> int:
    return 2 ** round(np.log2(sample_rate / _FRAMES_PER_SECOND))


def _describe(clip: np.ndarray, sample_rate: int) -> np.ndarray:
    hop_length = _hop_length(sample_rate)
    power = np.square(np.abs(librosa.stft(clip, n_fft=4 * hop_length, hop_length=hop_length)))
    mel = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=sample_rate), amin=1e-7)
    strength = librosa.onset.onset_strength(S=mel, sr=sample_rate, hop_length=hop_length)
    # librosa.onset.onset_detect calls a compiled function that was seen to crash (numba 0.68) in a large process.
    prominence = _MIN_PROMINENCE * float(strength.max()) + 1e-9
    onsets, _ = scipy.signal.find_peaks(strength, prominence=prominence)
    centred = strength - strength.mean()
    correlation = librosa.autocorrelate(centred) / max(float(centred @ centred), 1e-9)
    rhythm = [strength.mean(), strength.std(), np.percentile(strength, 90), len(onsets) * sample_rate / len(clip)]
    rhythm.append(correlation[8 : len(correlation) // 2 + 9].max(initial=0.0))
    chroma = librosa.feature.chroma_stft(S=power, sr=sample_rate, tuning=0.0, norm=None) + 1e-9
    shares = chroma / chroma.sum(axis=0)
    entropy = -(shares * np.log(shares)).sum(axis=0)
    changes = [np.abs(shares[:, lag:] - shares[:, :-lag]).sum(axis=0).mean() for lag in _CHROMA_LAGS]
    harmony = np.abs(np.fft.rfft(shares.mean(axis=1)))[1:]
    return np.array([*rhythm, entropy.mean(), entropy.std(), *changes, *harmony], np.float64)


def rhythm_and_harmony_distance(first: Any, second: Any, reference: Any) -> float:
    """Return the squared maximum mean discrepancy of two sets of features of `rhythm_and_harmony`.

    It uses nothing of what `SoundDistance` measures, so that no single figure can be tuned to. Read it beside its zero
    line, the distance of training music to held-out music.

    Args:
        first: Features `(num_clips, num_features)` of at least 2 clips.
        second: The same of the other set.
        reference: The same of training music: it decides the unit of each feature, and the widths of the kernel.

    Raises:
        ValueError: If a set has fewer than 2 clips, or most clips of the reference are identical.

    Example:
        >>> features = np.random.default_rng(0).normal(size=(90, 3))
        >>> rhythm_and_harmony_distance(features[:30], features[30:60] + 1, features[60:]) > 0.1
        True
    """
    known = np.asarray(reference, np.float64)
    mean, deviation = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
    first, second, known = ((np.asarray(features) - mean) / deviation for features in (first, second, known))
    return maximum_mean_discrepancy(first, second, median_bandwidths(known))
