"""From codes to pixels, in memory that does not grow with the length of a sequence, and from seconds to codes."""

import math

import keras
import numpy as np
import tensorflow as tf

from spectrovae.converter import SpectrogramConverter
from spectrovae.likelihood import Likelihood

DECODER_CONTEXT = 5
"""How many steps, or codes, the decoder sees on either side at most: three convolutions, and the interpolation."""

STEPS_AT_ONCE = 1024
"""How many steps of its grid the decoder computes at once, of a long sequence of codes."""


class Decoding:
    """The part of `SpectroVAE` that knows how long codes and windows are, and runs the decoder on them."""

    encoder: keras.Model
    decoder: keras.Model
    likelihood: Likelihood
    converter: SpectrogramConverter
    latent_dim: int
    latent_steps: int
    decoder_depth: int
    refine: str

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the code of a window: `(latent_dim,)`, or `(latent_steps, latent_dim)` where there are several."""
        return (self.latent_dim,) if self.latent_steps == 1 else (self.latent_steps, self.latent_dim)

    def decoded(self, codes: tf.Tensor, with_scales: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each pixel, not clipped; where pixels share one deviation, zeros.

        A long sequence of codes is decoded in stretches with what the network sees around them, so that the memory it
        takes is that of the result. No seam is left: the values are those of the whole.

        Args:
            codes: One batch of codes, as for `decode`.
            with_scales: Whether the deviations are needed; else they are zeros, which takes less time.

        Returns:
            Two arrays `(num_windows, bins, frames, 1)`.
        """
        num_steps = codes.shape[1] if self.latent_steps > 1 else 1
        frames_per_step = self.encoder.input_shape[2] // self.latent_steps
        frames_per_refined = frames_per_step if self.refine == "codes" else 2**self.decoder_depth
        margin = -(-DECODER_CONTEXT * frames_per_refined // frames_per_step)
        stretch = max(STEPS_AT_ONCE * 2**self.decoder_depth // frames_per_step, self.latent_steps)
        means, scales = [], []
        for start in range(0, num_steps, stretch):
            first, last = max(0, start - margin), min(num_steps, start + stretch + margin)
            seen = codes if self.latent_steps == 1 else codes[:, first:last]
            parameters = self.decoder(seen, training=False)
            own = slice((start - first) * frames_per_step, (start - first + stretch) * frames_per_step)
            mean = self.likelihood.mean(parameters).numpy()
            is_known = with_scales and self.likelihood.per_pixel
            scale = self.likelihood.scale(parameters).numpy() if is_known else np.zeros_like(mean)
            means.append(mean[:, :, own])
            scales.append(scale[:, :, own])
        return np.concatenate(means, axis=2), np.concatenate(scales, axis=2)

    def num_frames_of(self, duration: float) -> int:
        """Return how many frames last `duration` seconds, the last one begun."""
        return -(-self.num_samples_of(duration) // self.converter.hop_length)

    def num_samples_of(self, duration: float) -> int:
        """Return how many samples last `duration` seconds; a ValueError says so if it is not above 0 and finite."""
        if not 0 < duration < math.inf:
            raise ValueError(f"`duration` must be above 0 (s). Received: duration={duration!r}")
        return max(1, round(duration * self.converter.sample_rate))

    def num_steps_for(self, num_frames: int) -> int:
        """Return how many codes stand for so many frames, where there are several codes along a window."""
        if self.latent_steps == 1:
            raise ValueError(
                "A model with one code for a window generates windows; `generate_audio` makes pieces of any length of "
                f"them. Build the model with latent_steps above 1. Received: latent_steps={self.latent_steps}"
            )
        return -(-num_frames * self.latent_steps // self.encoder.input_shape[2])
