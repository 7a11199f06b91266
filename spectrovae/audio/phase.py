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

    It starts from partials that go on from frame to frame, which is worth as much as half of the iterations.
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
        seed: Seed of the random phases that the partials of each clip start from; `None`: a new one each time.

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
        G. T. Beauregard, M. Harish, L. Wyse: "Single pass spectrogram inversion", DSP 2015, for the start.
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
    transform.samples[: len(known)] = known
    num_known = max(0, 1 + (len(known) - transform.n_fft) // transform.hop_length)
    known_phases = np.angle(transform.forward()[:num_known])
    phases = _phases_of_partials(magnitudes, transform.hop_length, known_phases, rng)
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


def _phases_of_partials(
    magnitudes: np.ndarray, hop_length: int, known: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return phases `(frames, bins)` with which partials go on from the first frames, if known, or from random ones.

    A peak of a spectrum is a partial. A parabola through its three levels tells its frequency, and the bins around it
    have its phase, with alternating signs.
    """
    num_bins = magnitudes.shape[1]
    bins = np.arange(num_bins)
    levels = np.log(magnitudes + np.float32(1e-9))
    left, middle, right = levels[:, :-2], levels[:, 1:-1], levels[:, 2:]
    is_peak = (middle > left) & (middle >= right)
    offsets = 0.5 * (left - right) / np.minimum(left - 2 * middle + right, -1e-9)
    advances = np.pi * hop_length / (num_bins - 1) * (bins[1:-1] + np.clip(offsets, -0.5, 0.5))
    phases = np.empty(magnitudes.shape, np.float32)
    phases[: len(known)] = known
    current = known[-1] if len(known) else rng.uniform(0, 2 * np.pi, bins.shape)
    for frame in range(len(known), len(phases)):
        partials = np.flatnonzero(is_peak[frame]) + 1
        if len(partials):
            nearest = np.searchsorted((partials[1:] + partials[:-1] + 1) // 2, bins, side="right")
            own = current[partials] + advances[frame, partials - 1]
            current = (own[nearest] + np.pi * (bins - partials[nearest])) % (2 * np.pi)
        phases[frame] = current
    return phases


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
