"""Waveforms to spectrogram windows, and back."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import librosa
import numpy as np
from numpy.typing import ArrayLike

from spectrovae.audio.limiter import limit_peaks
from spectrovae.audio.phase import griffin_lim, shaped_noise
from spectrovae.checks import check_sample_rate, check_seed, check_size, check_waveform

# The offset is looked for in the first 30 s, by the means of blocks of a tenth of a second.
_OFFSET_SECONDS = 30
_OFFSET_MAX_SAMPLES = 1 << 20
_OFFSET_BLOCKS_PER_SECOND = 10

# Longer blocks are cut into pieces of this many samples.
_MAX_BLOCK_LENGTH = 1 << 18
_MAX_DYNAMIC_RANGE = 400  # dB: float32 can hold what lies below
_AUDIBLE_DB = -60.0


def stream_magnitudes(blocks: Iterable[np.ndarray], n_fft: int, hop_length: int) -> Iterator[np.ndarray]:
    """Compute the magnitudes of a waveform's short-time Fourier transform, block by block.

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


def remove_offset(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Subtract the constant offset of a waveform, if it has one, block by block.

    The offset is the median of the means of the first 300 tenths of a second. It is one only if it is far larger than
    what chance makes of these means: a waveform without offset stays as it is.

    Args:
        blocks: Consecutive blocks of one waveform, each float32 `(samples,)`, of any lengths.
        sample_rate: Samples per second (Hz).

    Yields:
        float32 blocks, of the same number of samples in all.

    Example:
        >>> sound = 0.1 * np.sin(np.arange(8000, dtype=np.float32))
        >>> (block,) = remove_offset([sound + 0.4], sample_rate=8000)
        >>> round(float(np.abs(block - sound).max()), 3)
        0.0
    """
    blocks = iter(blocks)
    head: list[np.ndarray] = []
    num_samples = 0
    while num_samples < min(_OFFSET_SECONDS * sample_rate, _OFFSET_MAX_SAMPLES):
        if (block := next(blocks, None)) is None:
            break
        head.append(block)
        num_samples += len(block)
    offset = _offset_of(np.concatenate(head), sample_rate) if num_samples else np.float32(0)
    for block in itertools.chain(head, blocks):
        yield block - offset if offset else block


def _offset_of(samples: np.ndarray, sample_rate: int) -> np.float32:
    num_means = max(1, len(samples) * _OFFSET_BLOCKS_PER_SECOND // sample_rate)
    length = len(samples) // num_means
    means = samples[: num_means * length].reshape(num_means, length).mean(axis=1)
    median = np.median(means)
    # The standard error of a median, itself from a median.
    error = 1.25 * 1.48 * np.median(np.abs(means - median)) / math.sqrt(num_means)
    is_constant = num_means > 2 or samples.min() == samples.max()
    return np.float32(median) if is_constant and abs(median) > 4 * error else np.float32(0)


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


@keras.saving.register_keras_serializable(package="spectrovae")
class SpectrogramConverter:
    """Turn waveforms into spectrogram windows with values in [0, 1], and such windows into sound.

    A spectrogram has the shape `(bins, frames, 1)`. Frame `t` is the magnitude of a short-time Fourier
    transform (Hann window of `n_fft` samples) centred on the sample `t * hop_length`; bin `k` lies at `k *
    sample_rate / n_fft` Hz. 0 dB is a full-scale sine, always: the scale never depends on the clip, so
    loudness survives the round trip.

    What a spectrogram does not keep, and what that costs:

    * The phase, which `to_audio` estimates. On orchestral music with the default settings, the magnitudes of
      the sound then miss the given ones by -20.7 dB after 32 iterations and by -25.1 dB after 100 (spectral
      convergence); blurred ones, as a model gives them, by -15 to -16 dB. Overlap helps more than iterations
      do: beyond a `hop_length` of `n_fft // 4` it sounds worse, and beyond `n_fft // 2`, as in `classic()`,
      every attack is blurred.
    * The bin at half the sample rate, where music has next to nothing. It comes back as zero.
    * A constant offset. It is removed first (`remove_offset`), or it would come back as rumble, since magnitudes do not
      tell its sign.
    * Levels more than `dynamic_range` below 0 dB. They come back as exact silence.
    * Levels above 0 dB, where only several partials in one bin, and samples beyond full scale, get. They come back as
      0 dB.

    Args:
        sample_rate: Samples per second (Hz) of the waveforms.
        n_fft: Length of the Fourier transform and its window, in samples; a multiple of 4.
        hop_length: Distance from frame to frame, in samples; at most `n_fft`.
        num_frames: Frames of one window, the piece of sound that a model sees at once.
        scale: `"decibel"`: a value is `(level + dynamic_range) / dynamic_range` with the level in dB.
            `"linear"`: a value is the magnitude divided by that of a full-scale sine.
        dynamic_range: Distance in dB from the floor to 0 dB; the linear scale has it in `to_decibels` only.
        num_iterations: Iterations of Griffin-Lim; about 4 ms each for a window of 6 s.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
        >>> converter.window_shape, converter.window_length
        ((64, 64, 1), 2048)
        >>> sine = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(2048) / 8000)
        >>> spectrogram = converter.to_spectrogram(sine)
        >>> spectrogram.shape, float(spectrogram[16, 30, 0].round(3))  # -20 dB in the bin at 1000 Hz
        ((64, 64, 1), 0.75)
        >>> converter.to_audio(spectrogram, seed=0).shape
        (2048,)
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 1024,
        hop_length: int = 256,
        num_frames: int = 512,
        scale: str = "decibel",
        dynamic_range: float = 80.0,
        num_iterations: int = 64,
    ) -> None:
        self.sample_rate = check_sample_rate("sample_rate", sample_rate)
        self.n_fft = check_size("n_fft", n_fft)
        self.hop_length = check_size("hop_length", hop_length)
        self.num_frames = check_size("num_frames", num_frames)
        self.scale = scale
        self.dynamic_range = float(dynamic_range)
        self.num_iterations = check_size("num_iterations", num_iterations)
        if self.n_fft % 4:
            raise ValueError(f"`n_fft` must be a multiple of 4. Received: n_fft={n_fft}")
        if self.hop_length > self.n_fft:
            raise ValueError(f"`hop_length` must be at most n_fft={n_fft}. Received: hop_length={hop_length}")
        if scale not in ("decibel", "linear"):
            raise ValueError(f'`scale` must be "decibel" or "linear". Received: scale={scale!r}')
        if not 0 < self.dynamic_range <= _MAX_DYNAMIC_RANGE:
            raise ValueError(
                f"`dynamic_range` must be above 0 and at most {_MAX_DYNAMIC_RANGE} (dB). "
                f"Received: dynamic_range={dynamic_range!r}"
            )

    @classmethod
    def classic(cls) -> SpectrogramConverter:
        """The converter of the classic model: 44.1 kHz, linear magnitudes, frames that do not overlap."""
        return cls(sample_rate=44100, n_fft=1024, hop_length=1024, num_frames=512, scale="linear")

    @classmethod
    def full_band(cls) -> SpectrogramConverter:
        """The converter for all that is heard: 44.1 kHz, with windows and frames as long as the standard ones.

        Windows have 1,024 bins instead of 512, so a gradient step, memory and files are about twice as large.

        Example:
            >>> converter = SpectrogramConverter.full_band()
            >>> converter.window_shape, converter.window_duration == SpectrogramConverter().window_duration
            ((1024, 512, 1), True)
        """
        return cls(sample_rate=44100, n_fft=2048, hop_length=512)

    @classmethod
    def for_clips(cls, seconds: float, sample_rate: int = 22050) -> SpectrogramConverter:
        """Make a converter whose windows are as long as short clips, such as drum hits.

        A window has 32 frames or more, a power of two as the default networks take them, and lasts at most `seconds`
        where that can be; sounds that are still shorter can be repeated (`loop_short_files`). Frames are nearer to one
        another for short windows.

        Args:
            seconds: Length of the clips: the shortest that is not to be left out.
            sample_rate: Samples per second (Hz).

        Raises:
            ValueError: If `seconds` is not above 0 and finite.

        Example:
            >>> converter = SpectrogramConverter.for_clips(0.5)
            >>> converter.num_frames, converter.hop_length, round(converter.window_duration, 2)
            (64, 128, 0.37)
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"`seconds` must be above 0 (s). Received: seconds={seconds!r}")
        hop_length = 256 if seconds * sample_rate >= 128 * 256 else 128
        num_frames = 1 << max(5, int(math.log2(max(1.0, seconds * sample_rate / hop_length))))
        return cls(sample_rate=sample_rate, hop_length=hop_length, num_frames=min(512, num_frames))

    @property
    def num_bins(self) -> int:
        """Number of frequency bins, `n_fft // 2`."""
        return self.n_fft // 2

    @property
    def window_shape(self) -> tuple[int, int, int]:
        """Shape of one window, `(num_bins, num_frames, 1)`."""
        return (self.num_bins, self.num_frames, 1)

    @property
    def window_length(self) -> int:
        """Length of one window in samples."""
        return self.num_frames * self.hop_length

    @property
    def window_duration(self) -> float:
        """Length of one window in seconds."""
        return self.window_length / self.sample_rate

    @property
    def frequencies(self) -> np.ndarray:
        """Centre frequency of each bin in Hz, shape `(num_bins,)`."""
        return librosa.fft_frequencies(sr=self.sample_rate, n_fft=self.n_fft)[:-1]

    def num_samples_of(self, duration: float) -> int:
        """Return how many samples last `duration` seconds, at least one.

        Raises:
            ValueError: If `duration` is not above 0 and finite.
        """
        if not 0 < duration < math.inf:
            raise ValueError(f"`duration` must be above 0 (s). Received: duration={duration!r}")
        return max(1, round(duration * self.sample_rate))

    def num_frames_of(self, duration: float) -> int:
        """Return how many frames last `duration` seconds, the last one begun.

        Raises:
            ValueError: If `duration` is not above 0 and finite.
        """
        return -(-self.num_samples_of(duration) // self.hop_length)

    @property
    def _floor(self) -> np.float32:
        """Magnitude of a sine at the lower end of the dynamic range."""
        return np.float32(10 ** (-self.dynamic_range / 20))

    def to_spectrogram(self, waveform: ArrayLike, sample_rate: int | None = None) -> np.ndarray:
        """Compute the spectrogram of one waveform or of each waveform in a batch.

        Args:
            waveform: Shape `(samples,)` or `(batch, samples)`; floats with full scale at 1, or integer PCM,
                which is divided by its full scale. At least `n_fft` samples.
            sample_rate: Its samples per second, if not the converter's: it is then resampled.

        Returns:
            float32 in [0, 1], shape `(bins, samples // hop_length, 1)`, after the batch axis if there is one.

        Raises:
            ValueError: If the waveform is too short, stereo, not finite or not audio.
        """
        audio = check_waveform("waveform", waveform, batch=True)
        if audio.ndim == 2 and audio.shape[1] < min(audio.shape[0], self.n_fft):
            raise ValueError(
                "`waveform` looks like (samples, channels): mix it to mono first, with waveform.mean(axis=1). "
                f"Received: waveform.shape={audio.shape}"
            )
        if sample_rate is not None and check_sample_rate("sample_rate", sample_rate) != self.sample_rate:
            audio = librosa.resample(audio, orig_sr=sample_rate, target_sr=self.sample_rate, res_type="soxr_hq")
        if audio.shape[-1] < self.n_fft:
            raise ValueError(
                f"`waveform` must have at least n_fft={self.n_fft} samples at {self.sample_rate} Hz. "
                f"Received: {audio.shape[-1]} samples"
            )
        shape = (self.num_bins, audio.shape[-1] // self.hop_length, 1)
        spectrograms = np.empty((*audio.shape[:-1], *shape), np.float32)
        for clip, spectrogram in zip(np.atleast_2d(audio), spectrograms.reshape(-1, *shape), strict=True):
            spectrogram[..., 0] = np.concatenate(list(self.stream([clip]))).T
        return spectrograms

    def stream(self, blocks: Iterable[ArrayLike]) -> Iterator[np.ndarray]:
        """Compute the spectrogram of a long waveform block by block, in little memory.

        Args:
            blocks: Consecutive blocks of one waveform at the converter's sample rate, each `(samples,)`, of
                any lengths.

        Yields:
            float32 in [0, 1], shape `(frames, bins)`: time first, without the channel axis. Joined, they are
            `to_spectrogram` of the joined blocks, transposed.

        Raises:
            ValueError: If a block is not a finite waveform.
        """
        waveforms = (check_waveform("block", block) for block in blocks if np.size(block))
        without_offset = remove_offset(waveforms, self.sample_rate)
        for magnitudes in stream_magnitudes(without_offset, self.n_fft, self.hop_length):
            yield self.to_values(magnitudes)

    def to_audio(self, spectrograms: ArrayLike, seed: int | None = None) -> np.ndarray:
        """Turn spectrograms into sound by fast Griffin-Lim.

        Each clip is treated by itself, with the same seed: what it becomes does not depend on the others.
        Peaks over 1 are turned down (`limit_peaks`), with a warning if they are far over it; nothing is clipped.

        Args:
            spectrograms: Values in [0, 1], shape `(bins, frames, 1)` or `(batch, bins, frames, 1)`.
            seed: Seed of the random phases that the iteration starts from; `None`: new ones each time.

        Returns:
            float32 in [-1, 1], shape `(samples,)` or `(batch, samples)` with `samples = frames * hop_length`.

        Raises:
            ValueError: If the shape is wrong, a value is not a number in [0, 1], or the seed is negative.
        """
        values = np.asarray(spectrograms, np.float32)
        if values.ndim not in (3, 4) or values.shape[-3::2] != (self.num_bins, 1) or values.shape[-2] < 1:
            raise ValueError(
                f"`spectrograms` must have the shape ({self.num_bins}, frames, 1), a batch axis may precede. "
                f"Received: spectrograms.shape={values.shape}"
            )
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(
                "`spectrograms` must have values in [0, 1]; clip them if they lie just outside. "
                f"Received: minimum={values.min():.6g}, maximum={values.max():.6g}"
            )
        seed = check_seed("seed", seed)
        audio = self.magnitudes_to_audio(self.to_magnitudes(values[..., 0]), seed=seed)
        return limit_peaks(audio, self.sample_rate)

    def magnitudes_to_audio(
        self, tone: np.ndarray, noise: np.ndarray | None = None, seed: int | None = None
    ) -> np.ndarray:
        """Turn magnitudes into sound: tones by fast Griffin-Lim, noise by shaping white noise.

        The noise keeps the phases of the white noise: no estimate comes as near to magnitudes of noise.

        Args:
            tone: Magnitudes of shape `(..., bins, frames)`.
            noise: Root mean square magnitudes of shape `(bins, frames)`, for a single clip; `None`: no noise.
            seed: Seed of the phases and of the white noise; `None`: new ones each time.

        Returns:
            float32, shape `(..., frames * hop_length)`; peaks may exceed 1.
        """
        audio = griffin_lim(tone, self.n_fft, self.hop_length, self.num_iterations, seed)
        if noise is not None and noise.any():
            audio += shaped_noise(noise, self.n_fft, self.hop_length, np.random.default_rng(seed))
        return audio

    def to_decibels(self, spectrogram: ArrayLike) -> np.ndarray:
        """Return the level of each value in dB, float32 in `[-dynamic_range, 0]`, for either scale."""
        values = np.clip(np.asarray(spectrogram, np.float32), 0, 1)
        if self.scale == "decibel":
            return (values - 1) * np.float32(self.dynamic_range)
        return 20 * np.log10(np.maximum(values, self._floor))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, so that Keras can save the converter with a model."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SpectrogramConverter:
        """Build a converter from `get_config()`."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpectrogramConverter) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(tuple(self.get_config().items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"

    def to_values(self, magnitudes: np.ndarray) -> np.ndarray:
        """Return the values in [0, 1] of magnitudes; those at the floor and below become exact zeros."""
        if self.scale == "linear":
            return np.minimum(magnitudes, 1)
        values = 1 + 20 * np.log10(np.maximum(magnitudes, self._floor)) / np.float32(self.dynamic_range)
        values[magnitudes <= self._floor] = 0  # whatever the logarithm's rounding
        return np.clip(values, 0, 1)

    def to_magnitudes(self, values: np.ndarray) -> np.ndarray:
        """Return the magnitudes of values; exact zeros at the floor, or a haze would remain there."""
        if self.scale == "linear":
            return values
        return np.where(values > 0, 10 ** (self.to_decibels(values) / 20), np.float32(0))


def fitting_converter(converter: SpectrogramConverter | None, window_shape: tuple[int, ...]) -> SpectrogramConverter:
    """Return a converter that makes windows of a shape: the given one, or one of standard settings.

    Args:
        converter: A converter, or None.
        window_shape: `(bins, frames, 1)`.

    Raises:
        ValueError: If the converter makes windows of another shape.

    Example:
        >>> fitting_converter(None, (512, 256, 1)).window_shape
        (512, 256, 1)
    """
    if converter is None:
        bins, frames, _ = window_shape
        return SpectrogramConverter(n_fft=2 * bins, hop_length=max(1, bins // 2), num_frames=frames)
    if converter.window_shape != window_shape:
        raise ValueError(
            f"The converter makes windows of shape {converter.window_shape}, the model takes {window_shape}. Give "
            f"the model input_shape=converter.window_shape. Received: converter={converter!r}"
        )
    return converter


def audible_changes(levels: np.ndarray) -> np.ndarray:
    """Return by how much pixels change from frame to frame, of those that are above -60 dB in both frames.

    Args:
        levels: In dB, `(bins, frames)`.

    Returns:
        The sizes of the changes in dB, in one row.

    Example:
        >>> audible_changes(np.array([[-10.0, -16.0, -70.0], [-20.0, -19.0, -15.0]]))
        array([6., 1., 4.])
    """
    is_audible = (levels[:, 1:] > _AUDIBLE_DB) & (levels[:, :-1] > _AUDIBLE_DB)
    return np.abs(np.diff(levels))[is_audible]
