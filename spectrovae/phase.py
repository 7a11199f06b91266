"""Sound from magnitudes alone, by estimating the phase."""

from __future__ import annotations

import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import librosa
import numpy as np

# librosa 1.0 renamed the argument.
_SEED_ARGUMENT = "rng" if "rng" in inspect.signature(librosa.griffinlim).parameters else "random_state"


def griffin_lim(
    magnitudes: np.ndarray, n_fft: int, hop_length: int, num_iterations: int = 64, seed: int | None = None
) -> np.ndarray:
    """Finds waveforms with about these magnitudes by the fast Griffin-Lim algorithm (momentum 0.99).

    Frames that overlap by less than a half determine no phase: between them, more are interpolated first.
    Clips are computed in parallel, one per processor, and each as if it were alone.

    Args:
        magnitudes: float32, shape `(..., n_fft // 2, frames)`, non-negative: of a short-time Fourier transform
            with a Hann window, without the bin at half the sample rate, which becomes zero. The magnitude of
            a sine is its amplitude.
        n_fft: Length of the transform and its window, in samples.
        hop_length: Distance from frame to frame, in samples; at most `n_fft`.
        num_iterations: How often the phase is improved.
        seed: Seed of the random phase that each clip starts from; `None`: a new one each time.

    Returns:
        float32, shape `(..., frames * hop_length)`.

    Example:
        >>> magnitudes = np.zeros((32, 50), np.float32)
        >>> magnitudes[8] = 0.5  # an eighth of the sample rate
        >>> waveform = griffin_lim(magnitudes, n_fft=64, hop_length=16, seed=0)
        >>> waveform.shape, bool(0.2 < waveform.std() < 0.5)
        ((800,), True)

    References:
        N. Perraudin, P. Balazs, P. L. Søndergaard: "A fast Griffin-Lim algorithm", WASPAA 2013.
    """
    invert = partial(_griffin_lim, n_fft=n_fft, hop_length=hop_length, num_iterations=num_iterations, seed=seed)
    *batch, num_bins, num_frames = magnitudes.shape
    # librosa compiles parts of itself at their first use, which several threads must not do at once.
    invert(np.zeros((num_bins, 1), np.float32), num_iterations=1)
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        waveforms = list(executor.map(invert, magnitudes.reshape(-1, num_bins, num_frames)))
    return np.asarray(waveforms, np.float32).reshape(*batch, num_frames * hop_length)


def _griffin_lim(
    magnitudes: np.ndarray, n_fft: int, hop_length: int, num_iterations: int, seed: int | None
) -> np.ndarray:
    num_samples = magnitudes.shape[1] * hop_length
    length = max(num_samples, n_fft)  # librosa warns about waveforms shorter than one transform
    dense_hop_length = hop_length if 2 * hop_length <= n_fft else n_fft // 4
    positions = np.arange(1 + length // dense_hop_length) * (dense_hop_length / hop_length)
    # A sine of amplitude 1 has half the sum of the window.
    magnitudes = _frames_at(positions, magnitudes) * np.float32(n_fft / 4)
    seed_argument: dict[str, Any] = {_SEED_ARGUMENT: np.random.default_rng(seed)}
    waveform = librosa.griffinlim(
        np.pad(magnitudes, ((0, 1), (0, 0))),  # the bin at half the sample rate
        n_iter=num_iterations,
        hop_length=dense_hop_length,
        n_fft=n_fft,
        window="hann",
        length=length,
        momentum=0.99,
        init="random",
        **seed_argument,
    )
    return waveform[:num_samples]


def _frames_at(positions: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """Interpolates frames linearly; a position counts them from 0, and after the last one it stays."""
    last = magnitudes.shape[1] - 1
    positions = np.minimum(positions, last)
    left = positions.astype(int)
    weight = (positions - left).astype(np.float32)
    return magnitudes[:, left] * (1 - weight) + magnitudes[:, np.minimum(left + 1, last)] * weight
