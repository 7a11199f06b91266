"""The short-time Fourier transform of waveforms of any length, in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import librosa
import numpy as np

# Longer blocks are cut into pieces of this many samples.
_MAX_BLOCK_LENGTH = 1 << 18


def stream_magnitudes(blocks: Iterable[np.ndarray], n_fft: int, hop_length: int) -> Iterator[np.ndarray]:
    """Computes the magnitudes of a waveform's short-time Fourier transform, block by block.

    Frame `t` is centred on the sample `t * hop_length` (Hann window; silence around the waveform). There are
    `samples // hop_length` frames.

    Args:
        blocks: Consecutive blocks of one waveform, each float32 `(samples,)`, of any lengths.
        n_fft: Length of the transform and its window, in samples.
        hop_length: Distance from frame to frame, in samples; at most `n_fft`.

    Yields:
        float32, shape `(frames, n_fft // 2)`: time first, without the bin at half the sample rate. The
        magnitude of a sine is its amplitude.

    Example:
        >>> blocks = np.sin(0.25 * np.pi * np.arange(1000)).reshape(10, 100)  # an eighth of the sample rate
        >>> magnitudes = np.concatenate(list(stream_magnitudes(blocks, n_fft=64, hop_length=32)))
        >>> magnitudes.shape, float(magnitudes[10, 8].round(3))
        ((31, 32), 1.0)
    """
    pending = np.zeros(n_fft // 2, np.float32)  # the silence before: frame 0 is centred on sample 0
    num_samples = num_frames = 0
    for block in _cut(blocks):
        num_samples += len(block)
        pending = np.concatenate([pending, block])
        num_complete = (len(pending) - n_fft) // hop_length + 1
        # Without overlap, a frame can be complete although the waveform may end too soon to own it.
        num_new = min(num_complete, num_samples // hop_length - num_frames)
        if num_new > 0:
            yield _magnitudes(pending, num_new, n_fft, hop_length)
            pending = pending[num_new * hop_length :]
            num_frames += num_new
    num_new = num_samples // hop_length - num_frames
    if num_new:
        yield _magnitudes(np.pad(pending, (0, n_fft // 2)), num_new, n_fft, hop_length)


def _cut(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        for start in range(0, len(block), _MAX_BLOCK_LENGTH):
            yield block[start : start + _MAX_BLOCK_LENGTH]


def _magnitudes(samples: np.ndarray, num_frames: int, n_fft: int, hop_length: int) -> np.ndarray:
    """Magnitudes of the first `num_frames` frames, shape (frames, bins); frame 0 starts at sample 0."""
    samples = samples[: (num_frames - 1) * hop_length + n_fft]
    stft = librosa.stft(samples, n_fft=n_fft, hop_length=hop_length, window="hann", center=False)
    # A sine of amplitude 1 has half the sum of the window.
    return np.abs(stft[:-1]).T / np.float32(n_fft / 4)
