"""What the mean of p(x|z) lacks: the residual of music, drawn with the correlations that it really has."""

from collections.abc import Iterable
from typing import Any

import keras
import librosa
import numpy as np
import scipy.fft

from spectrovae.checks import check_positive_int

NOISE_SCALE = 0.6
"""How much of the spread's frame-to-frame noise is put back: 1 is all of it, which sounds rough."""

ENVELOPE_SCALE = 0.9
"""How much of the spread's slower, coherent fluctuation is put back."""

_MIN_DENSITY = 1e-4

_NUM_NOISE_WINDOWS = 16


@keras.saving.register_keras_serializable(package="spectrovae")
class Texture(keras.layers.Layer):
    """A stationary random field that looks like the standardised residual of a model's reconstructions.

    A likelihood of independent pixels says how far each pixel strays, not that neighbours stray together. The means
    alone are too smooth, and white noise on them is harsh. The residual `(x - mean) / scale` of music is described
    well by the sum of two fields, which `fit` tells apart in its two-dimensional power spectrum:

    - noise: the log-magnitude short-time spectrum of white noise, whose correlations are known from the transform,
    - envelopes: what remains, slow and coherent over frequencies. Drawn as skewed noise through the filter of that
      spectrum that has minimum phase in time (Oppenheim and Schafer, "Discrete-time signal processing", on the
      real cepstrum), so that attacks are sharp and decays slow, as in music.

    The layer has no trainable weights; before `fit` its draws are zero.

    Args:
        n_fft: Samples per frame.
        hop_length: Samples between frames.
        num_frames: Frames of a window.
        scale: `"decibel"` or `"linear"`: what the pixels stand for.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If a size is not a positive integer.

    Example:
        >>> texture = Texture(n_fft=64, hop_length=16, num_frames=32)
        >>> texture.fit([np.random.default_rng(0).standard_normal((8, 32, 32))])
        >>> texture.sample(2, np.random.default_rng(1), num_frames=48).shape
        (2, 32, 48, 1)
    """

    def __init__(self, n_fft: int, hop_length: int, num_frames: int, scale: str = "decibel", **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.n_fft = check_positive_int("n_fft", n_fft)
        self.hop_length = check_positive_int("hop_length", hop_length)
        self.num_frames = check_positive_int("num_frames", num_frames)
        self.scale = scale
        options = {"initializer": "zeros", "trainable": False}
        self.noise_share = self.add_weight(shape=(), name="noise_share", **options)
        shape = (self.num_bins // 2 + 1, num_frames // 2 + 1)
        self.envelope_spectrum = self.add_weight(shape=shape, name="envelope_spectrum", **options)
        self.built = True

    @property
    def num_bins(self) -> int:
        """Number of frequency bins, `n_fft // 2`."""
        return self.n_fft // 2

    @property
    def fitted(self) -> bool:
        """Whether the layer has seen residuals that are not all zero."""
        return bool(np.any(self.envelope_spectrum))

    def fit(self, residuals: Iterable[np.ndarray]) -> None:
        """Learn the field from standardised residuals.

        Args:
            residuals: Batches of shape `(num_windows, bins, frames)`, without unit. Residuals that are all zero
                leave a field of zero.

        Raises:
            ValueError: If there are none.
        """
        spectrum = self._power_spectrum(residuals)
        if not spectrum.any():
            self.noise_share.assign(0.0)
            self.envelope_spectrum.assign(spectrum)
            return
        spectrum /= spectrum.mean()
        rng = np.random.default_rng(0)
        noise = self._power_spectrum(self._noise(1, rng, self.num_frames) for _ in range(_NUM_NOISE_WINDOWS))
        noise /= noise.mean()
        # Envelopes are slow: in most of the plane there is only noise.
        share = min(1.0, float(np.median(spectrum / np.maximum(noise, _MIN_DENSITY))))
        self.noise_share.assign(share)
        self.envelope_spectrum.assign(np.maximum(spectrum - share * noise, _MIN_DENSITY))

    def sample(self, num_samples: int, rng: np.random.Generator, num_frames: int | None = None) -> np.ndarray:
        """Draw fields of about unit variance, somewhat less by `NOISE_SCALE` and `ENVELOPE_SCALE`.

        Args:
            num_samples: Number of windows.
            rng: NumPy's generator of random numbers.
            num_frames: Frames of each; by default those of a window.

        Returns:
            A float32 array of shape `(num_samples, bins, num_frames, 1)`.
        """
        num_frames = num_frames or self.num_frames
        fields = np.zeros((num_samples, self.num_bins, num_frames, 1), np.float32)
        if self.fitted:
            share, response = float(self.noise_share.numpy()), self._envelope_response(num_frames)
            for field in fields[..., 0]:
                field += NOISE_SCALE * np.sqrt(share) * self._noise(1, rng, num_frames)[0]
                field += ENVELOPE_SCALE * np.sqrt(1 - share) * self._envelopes(response, rng, num_frames)
        return fields

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        names = ("n_fft", "hop_length", "num_frames", "scale")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def _power_spectrum(self, fields: Iterable[np.ndarray]) -> np.ndarray:
        """Return the mean periodogram, (bins // 2 + 1, frames // 2 + 1), the same for rising and falling patterns."""
        total, num_fields = np.zeros((self.num_bins, self.num_frames // 2 + 1)), 0
        for batch in fields:
            centred = (batch - batch.mean(axis=(1, 2), keepdims=True)).astype(np.float32)
            total += np.square(np.abs(scipy.fft.rfft2(centred, workers=-1))).sum(axis=0)
            num_fields += len(batch)
        if not num_fields:
            raise ValueError("There must be residuals of at least one window. Received: none")
        mirrored = np.roll(total[::-1], 1, axis=0)
        return ((total + mirrored) / (2 * num_fields))[: self.num_bins // 2 + 1]

    def _noise(self, num_samples: int, rng: np.random.Generator, num_frames: int) -> np.ndarray:
        """Return standardised pixels of white noise, (num_samples, bins, num_frames)."""
        length = (num_frames - 1) * self.hop_length + self.n_fft
        waveforms = rng.standard_normal((num_samples, length), np.float32)
        magnitude = np.abs(librosa.stft(waveforms, n_fft=self.n_fft, hop_length=self.hop_length, center=False))
        pixels = magnitude[:, : self.num_bins]
        if self.scale == "decibel":
            pixels = np.log(np.maximum(pixels, 1e-6))
        return (pixels - pixels.mean()) / pixels.std()

    def _envelope_response(self, num_frames: int) -> np.ndarray:
        """Return the filter in the frequency domain, (bins, num_frames // 2 + 1)."""
        known = np.asarray(self.envelope_spectrum)
        grid = np.linspace(0, 1, known.shape[1]), np.linspace(0, 1, num_frames // 2 + 1)
        density = np.stack([np.interp(grid[1], grid[0], row) for row in known])
        density = np.concatenate([density, density[1 : (self.num_bins + 1) // 2][::-1]])
        # The causal half of the real cepstrum, doubled, is that of the filter with minimum phase.
        cepstrum = np.fft.irfft(0.5 * np.log(density), num_frames, axis=1)
        cepstrum[:, 1 : (num_frames + 1) // 2] *= 2
        cepstrum[:, num_frames // 2 + 1 :] = 0
        response = np.exp(np.fft.rfft(cepstrum, axis=1))
        doubled = np.square(np.abs(response))
        doubled[:, 1 : (num_frames + 1) // 2] *= 2  # negative frequencies
        return response / np.sqrt(doubled.sum() / (self.num_bins * num_frames))

    def _envelopes(self, response: np.ndarray, rng: np.random.Generator, num_frames: int) -> np.ndarray:
        """Return a field of unit variance, (bins, num_frames)."""
        drive = rng.standard_exponential((self.num_bins, num_frames), np.float32) - 1
        return scipy.fft.irfft2(scipy.fft.rfft2(drive) * response, (self.num_bins, num_frames))


def check_texture(texture: float) -> None:
    """Raise a ValueError unless this is an amount of texture."""
    if not texture >= 0:
        raise ValueError(f"`texture` must be 0 or more. Received: texture={texture!r}")
