"""Sound from magnitudes alone, by estimating the phase."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import scipy.fft

_MOMENTUM = 0.99

# Clips of more frames are computed in blocks, to bound memory: 2,048 frames of 512 bins take 40 MB.
_MAX_BLOCK_FRAMES = 2048

_OVERLAP_LENGTH = 16  # of blocks, in transforms


def griffin_lim(
    magnitudes: np.ndarray, n_fft: int, hop_length: int, num_iterations: int = 64, seed: int | None = None
) -> np.ndarray:
    """Find waveforms with about these magnitudes by the fast Griffin-Lim algorithm (momentum 0.99).

    Frames that overlap by less than a half determine no phase: between them, more are interpolated first.
    Clips are computed in parallel, one per processor, and each as if it were alone. Long ones are computed in
    blocks, each of which goes on from the last samples of the one before.

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
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        waveforms = list(executor.map(invert, magnitudes.reshape(-1, num_bins, num_frames)))
    return np.asarray(waveforms, np.float32).reshape(*batch, num_frames * hop_length)


def noise_spectrum(num_frames: int, n_fft: int, hop_length: int, rng: np.random.Generator) -> np.ndarray:
    """Return the short-time Fourier transform of white noise, of unit power, complex64 `(n_fft // 2, num_frames)`.

    Example:
        >>> spectrum = noise_spectrum(400, n_fft=64, hop_length=16, rng=np.random.default_rng(0))
        >>> spectrum.shape, bool(0.9 < np.mean(np.abs(spectrum) ** 2) < 1.1)
        ((32, 400), True)
    """
    transform = _white_noise(num_frames * hop_length, n_fft, hop_length, rng)
    return transform.forward()[:num_frames, :-1].T / _window_norm(n_fft)


def shaped_noise(magnitudes: np.ndarray, n_fft: int, hop_length: int, rng: np.random.Generator) -> np.ndarray:
    """Shape white noise so that it has these magnitudes in the mean square. It keeps its own phases.

    Args:
        magnitudes: Shape `(n_fft // 2, frames)`, of the kind that `griffin_lim` takes.
        n_fft: Length of the transform and its window, in samples.
        hop_length: Distance from frame to frame, in samples; at most `n_fft`.
        rng: NumPy's generator of random numbers.

    Returns:
        float32, shape `(frames * hop_length,)`.

    Example:
        >>> shaped_noise(np.full((32, 50), 0.1), n_fft=64, hop_length=16, rng=np.random.default_rng(0)).shape
        (800,)
    """
    num_samples = magnitudes.shape[1] * hop_length
    dense_hop_length = _dense_hop_length(n_fft, hop_length)
    transform = _white_noise(num_samples, n_fft, dense_hop_length, rng)
    positions = np.arange(transform.num_frames) * (dense_hop_length / hop_length)
    factors = _frames_at(positions, magnitudes) / _window_norm(n_fft)
    transform.backward(transform.forward() * factors)
    return transform.samples[n_fft // 2 :][:num_samples].copy()


def _white_noise(num_samples: int, n_fft: int, hop_length: int, rng: np.random.Generator) -> _Transform:
    transform = _Transform(num_samples, n_fft, hop_length)
    transform.samples[...] = rng.standard_normal(len(transform.samples), np.float32)
    return transform


def _window_norm(n_fft: int) -> np.float32:
    return np.float32(np.sqrt(3 / 8 * n_fft))  # the squares of a Hann window add up to 3/8 of its length


def _dense_hop_length(n_fft: int, hop_length: int) -> int:
    """Return a hop at which frames overlap by a half or more, so that they determine a phase."""
    return hop_length if 2 * hop_length <= n_fft else n_fft // 4


class _Transform:
    """The short-time Fourier transform of waveforms of one length, and back.

    Frame `t` is centred on the sample `t * hop_length`. What is used in each iteration is allocated once.

    Attributes:
        num_frames: Frames of the transform.
        samples: float32: the waveform that `forward` takes and `backward` gives, after `n_fft // 2` samples before it.
    """

    def __init__(self, length: int, n_fft: int, hop_length: int) -> None:
        self.n_fft, self.hop_length = n_fft, hop_length
        self.num_frames = 1 + length // hop_length
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)  # Hann
        self._num_parts = -(-n_fft // hop_length)
        padded = np.zeros((self.num_frames + self._num_parts - 1) * hop_length, np.float32)
        self.samples = padded
        self._views = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length][: self.num_frames]
        self._frames = np.broadcast_to(self._window, (self.num_frames, n_fft)).copy()
        self._add_frames()
        inside = slice(n_fft // 2, n_fft // 2 + length)
        self._normalization = np.zeros_like(padded)  # and silence outside
        self._normalization[inside] = 1 / np.maximum(padded[inside], 1e-8)
        padded[...] = 0

    def forward(self) -> np.ndarray:
        """Return the transform of `samples`, complex64 `(num_frames, n_fft // 2 + 1)`."""
        np.multiply(self._views, self._window, out=self._frames)
        return scipy.fft.rfft(self._frames, axis=1)

    def backward(self, spectrum: np.ndarray) -> None:
        """Make `samples` the waveform whose transform is nearest to the spectrum, which is overwritten."""
        self._frames = scipy.fft.irfft(spectrum, self.n_fft, axis=1, overwrite_x=True)
        self._add_frames()
        self.samples *= self._normalization

    def _add_frames(self) -> None:
        self._frames *= self._window
        rows = self.samples.reshape(-1, self.hop_length)
        rows[...] = 0
        for index in range(self._num_parts):
            part = self._frames[:, index * self.hop_length : (index + 1) * self.hop_length]
            rows[index : index + self.num_frames, : part.shape[1]] += part


def _griffin_lim(
    magnitudes: np.ndarray, n_fft: int, hop_length: int, num_iterations: int, seed: int | None
) -> np.ndarray:
    num_samples = magnitudes.shape[1] * hop_length
    dense_hop_length = _dense_hop_length(n_fft, hop_length)
    num_frames = 1 + num_samples // dense_hop_length
    positions = np.arange(num_frames) * (dense_hop_length / hop_length)
    overlap = _OVERLAP_LENGTH * -(-n_fft // dense_hop_length)
    waveform = np.zeros(num_samples, np.float32)
    rng = np.random.default_rng(seed)
    start = 0
    while True:
        stop = num_frames if num_frames - start <= _MAX_BLOCK_FRAMES else start + _MAX_BLOCK_FRAMES - overlap // 2
        first = start * dense_hop_length
        last = num_samples if stop == num_frames else (stop - 1) * dense_hop_length
        transform = _Transform(last - first, n_fft, dense_hop_length)
        # The end of a block is not kept: the next one knows what follows.
        known = waveform[first - n_fft // 2 : first + overlap // 2 * dense_hop_length] if start else waveform[:0]
        block = _frames_at(positions[start:stop], magnitudes)
        samples = _estimate(block, transform, known, num_iterations, rng)
        waveform[first:last] = samples[n_fft // 2 : n_fft // 2 + last - first]
        if stop == num_frames:
            return waveform
        start = stop - overlap


def _estimate(
    magnitudes: np.ndarray, transform: _Transform, known: np.ndarray, num_iterations: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the samples of a transform with these magnitudes `(frames, bins)` that begins with known samples."""
    known = known.copy()
    phases = rng.random(magnitudes.shape, np.float32) * np.float32(2 * np.pi)
    spectrum = np.empty(magnitudes.shape, np.complex64)
    spectrum.real, spectrum.imag = magnitudes * np.cos(phases), magnitudes * np.sin(phases)
    previous = np.zeros_like(spectrum)
    factor = np.empty_like(magnitudes)
    for _ in range(num_iterations):
        transform.backward(spectrum)
        transform.samples[: len(known)] = known
        rebuilt = transform.forward()
        previous *= np.float32(-_MOMENTUM / (1 + _MOMENTUM))
        previous += rebuilt
        spectrum, previous = previous, rebuilt
        np.abs(spectrum, out=factor)
        np.divide(magnitudes, factor + np.finfo(np.float32).tiny, out=factor)
        spectrum.real *= factor
        spectrum.imag *= factor
    transform.backward(spectrum)
    fade = np.minimum(1, np.arange(len(known), 0, -1, dtype=np.float32) / transform.n_fft)
    transform.samples[: len(known)] += fade * (known - transform.samples[: len(known)])
    return transform.samples


def _frames_at(positions: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """Interpolate frames linearly; a position counts them from 0, and after the last one it stays.

    The result has time first, a bin at half the sample rate, and the magnitude of a sine is half the sum of the window.
    """
    num_bins, num_frames = magnitudes.shape
    positions = np.minimum(positions, num_frames - 1)
    left = positions.astype(int)
    weight = (positions - left).astype(np.float32)
    frames = np.zeros((len(positions), num_bins + 1), np.float32)
    right = np.minimum(left + 1, num_frames - 1)
    frames[:, :-1] = (magnitudes[:, left] * (1 - weight) + magnitudes[:, right] * weight).T
    frames *= np.float32(num_bins / 2)
    return frames
