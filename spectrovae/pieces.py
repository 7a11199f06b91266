"""Pieces of music that are longer than a window: walks through the latent space, heard without seams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from spectrovae.batching import iterate_batches
from spectrovae.checks import check_seed
from spectrovae.converter import SpectrogramConverter
from spectrovae.latent_space import LatentSpace
from spectrovae.walks import crossfade_weights, walk_through, window_starts

_MIN_OVERLAP = 0.25
"""Share of a window that it has in common with the next one, at least."""

_WINDOWS_PER_WAYPOINT = 2
_LOUDNESS_EXPONENT = 0.6  # of amplitude
_BATCH_SIZE = 8


class Pieces(LatentSpace):
    """The methods of `SpectroVAE` that make sound of any length.

    Windows overlap by a quarter or more and fade into one another in loudness, bin by bin (by the power law of Stevens,
    "The measurement of loudness", Journal of the Acoustical Society of America, 1955): between unlike windows a fade in
    power is louder than its surroundings, and a fade in dB is softer. The texture is drawn once for the whole piece,
    and so are the phases: there is no seam. Memory grows with the spectrogram (0.2 MB for each second with the default
    converter, in several copies), that of the phases does not.
    """

    converter: SpectrogramConverter

    def generate_audio(
        self,
        duration: float = 60.0,
        component: int | str | Sequence[int | str] | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        texture: float = 1.0,
        waypoint_interval: float | None = None,
    ) -> np.ndarray:
        """Compose a piece: a walk through the latent space from one draw of the prior to the next.

        At every moment the code is distributed as a draw of the component is, so that the way is as varied as the
        draws are, and not an average of them. Between draws of two components it has a mean and a spread between
        theirs.

        Args:
            duration: Length in seconds.
            component: Index or name of the mixture component to stay in; or several, to go from one to the next in
                that order, each for as long; or None, to draw the component of each way point from the mixture.
            temperature: Factor on the prior's standard deviations: below 1 more typical, above 1 more daring.
            seed: Integer for a piece that repeats.
            texture: How much residual to draw, as in `decode`.
            waypoint_interval: Seconds from draw to draw; by default the length of two windows.

        Returns:
            float32 samples in [-1, 1] at the converter's sample rate, `duration` seconds of them.

        Raises:
            ValueError: If an argument is out of its range.

        Example:
            >>> from spectrovae import SpectroVAE
            >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
            >>> len(model.generate_audio(duration=0.1, seed=1)) / model.converter.sample_rate
            0.1
        """
        if not temperature >= 0:
            raise ValueError(f"`temperature` must be 0 or more. Received: temperature={temperature!r}")
        if waypoint_interval is None:
            waypoint_interval = _WINDOWS_PER_WAYPOINT * self.converter.window_duration
        if not waypoint_interval > 0:
            raise ValueError(f"`waypoint_interval` must be above 0. Received: waypoint_interval={waypoint_interval!r}")
        num_samples = self._num_samples(duration)
        rng = self._random_generator(seed)
        num_waypoints = 1 + max(1, round(duration / waypoint_interval))
        components = self._choose_components(component, num_waypoints, rng)
        deviations = temperature * rng.standard_normal((len(components), self.latent_dim))
        starts = self._window_starts(num_samples)
        codes = self._walk(components, deviations, len(starts))
        return self._render(codes, starts, num_samples, texture, seed, rng)

    def morph(
        self, first: Any, second: Any, duration: float = 30.0, texture: float = 1.0, seed: int | None = None
    ) -> np.ndarray:
        """Turn one recording into another: begin with the reconstruction of the first, end with that of the second.

        In between, codes go the spherical way in units of the spread of the mixture components that the ends belong
        to, which keeps them as far from the components' means as codes of music are.

        Args:
            first: A window of shape `(bins, frames, 1)` or a code of shape `(latent_dim,)`.
            second: The same for the other end.
            duration: Length in seconds, more than that of one window.
            texture: How much residual to draw, as in `decode`.
            seed: Integer for a texture and phases that repeat.

        Returns:
            float32 samples in [-1, 1] at the converter's sample rate, `duration` seconds of them.

        Raises:
            ValueError: If an end is neither a window nor a code, or another argument is out of its range.

        Example:
            >>> from spectrovae import SpectroVAE
            >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
            >>> windows = np.random.default_rng(0).random((2, 32, 32, 1))
            >>> len(model.morph(*windows, duration=0.1, seed=0)) / model.converter.sample_rate
            0.1
        """
        num_samples = self._num_samples(duration)
        starts = self._window_starts(num_samples)
        if len(starts) < 2:
            raise ValueError(
                f"`duration` must be longer than a window, {self.converter.window_duration:.3g} s. "
                f"Received: duration={duration!r}"
            )
        ends = tf.stack([self._as_code(first), self._as_code(second)])
        components = np.argmax(self.prior.responsibilities(ends), axis=1)
        means, scales = (np.asarray(values)[components] for values in (self.prior.means, self.prior.scales))
        codes = self._walk(components, (ends.numpy() - means) / scales, len(starts))
        rng = self._random_generator(seed)
        return self._render(codes, starts, num_samples, texture, seed, rng)

    def _num_samples(self, duration: float) -> int:
        if not 0 < duration < math.inf:
            raise ValueError(f"`duration` must be above 0 (s). Received: duration={duration!r}")
        return max(1, round(duration * self.converter.sample_rate))

    def _window_starts(self, num_samples: int) -> np.ndarray:
        num_frames = -(-num_samples // self.converter.hop_length)
        return window_starts(num_frames, self.converter.num_frames, math.ceil(_MIN_OVERLAP * self.converter.num_frames))

    def _choose_components(
        self, component: int | str | Sequence[int | str] | None, num_waypoints: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Return the component of each way point."""
        num_components = self.prior.num_components
        if component is None:
            weights = np.asarray(self.prior.mixing_weights, np.float64)
            return rng.choice(num_components, num_waypoints, p=weights / weights.sum())
        several: Any = component if np.ndim(component) else [component]
        chosen = np.asarray([self.component_index(one) for one in several])
        if not len(chosen) or not np.isin(chosen, np.arange(num_components)).all():
            raise ValueError(
                f"`component` must be an integer from 0 to {num_components - 1}, several of them, or None for the "
                f"whole mixture. Received: component={component!r}"
            )
        # Each of them at least once, in a short piece as well.
        num_waypoints = max(num_waypoints, len(chosen))
        return chosen[np.arange(num_waypoints) * len(chosen) // num_waypoints]

    def _walk(self, components: np.ndarray, deviations: np.ndarray, num_steps: int) -> np.ndarray:
        """Return codes `(num_steps, latent_dim)` on the way through deviations from components, in their scales."""
        means, scales = (
            walk_through(np.asarray(values)[components], num_steps, spherical=False)
            for values in (self.prior.means, self.prior.scales)
        )
        return (means + scales * walk_through(deviations, num_steps)).astype(np.float32)

    def _render(
        self,
        codes: np.ndarray,
        starts: np.ndarray,
        num_samples: int,
        texture: float,
        seed: int | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Decode codes whose windows start at these frames, and turn them into sound."""
        if not texture >= 0:
            raise ValueError(f"`texture` must be 0 or more. Received: texture={texture!r}")
        check_seed("seed", seed)
        values, scales = self._join(codes, starts)
        if texture and self.likelihood.per_pixel:
            values += texture * scales * self.texture.sample(1, rng, values.shape[1])[0, ..., 0]
        num_frames = -(-num_samples // self.converter.hop_length)
        spectrogram = np.clip(values[:, :num_frames, None], 0.0, 1.0)
        return self.converter.to_audio(spectrogram, seed=seed)[:num_samples]

    def _join(self, codes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the scale of each pixel of the piece, both `(bins, frames)`, cross-faded."""
        num_frames = self.converter.num_frames
        weights = crossfade_weights(starts, num_frames)
        loudness = np.zeros((self.converter.num_bins, int(starts[-1]) + num_frames), np.float32)
        scales = np.zeros_like(loudness)
        windows = zip(starts, weights, strict=True)
        for batch in iterate_batches(codes, _BATCH_SIZE):
            parameters = self.decoder(batch, training=False)
            means = self.likelihood.mean(parameters).numpy()[..., 0]
            spreads = self.likelihood.scale(parameters).numpy()[..., 0] if self.likelihood.per_pixel else 0 * means
            for mean, spread, (start, weight) in zip(means, spreads, windows, strict=False):
                loudness[:, start : start + num_frames] += weight * _to_loudness(mean, self.converter)
                scales[:, start : start + num_frames] += weight * spread
        return _from_loudness(loudness, self.converter), scales


def _to_loudness(values: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    # Without a floor: means below it tell that texture should seldom rise above it.
    if converter.scale == "linear":
        return np.maximum(values, 0) ** np.float32(_LOUDNESS_EXPONENT)
    return 10 ** ((values - 1) * np.float32(_LOUDNESS_EXPONENT * converter.dynamic_range / 20))


def _from_loudness(loudness: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    if converter.scale == "linear":
        return loudness ** np.float32(1 / _LOUDNESS_EXPONENT)
    return 1 + np.log10(loudness) * np.float32(20 / (_LOUDNESS_EXPONENT * converter.dynamic_range))
