"""Pieces of any length from a trained model: new ones, continuations, and one recording turned into another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import iterate_batches
from spectrovae.checks import check_seed
from spectrovae.model.spectrovae import LatentSpace
from spectrovae.model.walks import crossfade_weights, fade_loops, spherical_way, walk_between, window_starts

_LOUDNESS_EXPONENT = 0.6  # of amplitude


def join_windows(
    windows: Iterable[tuple[np.ndarray, np.ndarray]], starts: np.ndarray, converter: SpectrogramConverter
) -> tuple[np.ndarray, np.ndarray]:
    """Fade windows into one another in loudness, bin by bin.

    Loudness is by the power law of Stevens, "The measurement of loudness" (Journal of the Acoustical Society of
    America, 1955): between unlike windows a fade in power is louder than its surroundings, and a fade in dB is softer.

    Args:
        windows: Mean and standard deviation of each pixel of each window, `(bins, frames)`, one window at a time.
        starts: The first frame of each, rising, as `window_starts` returns them.
        converter: The `SpectrogramConverter` of the windows.

    Returns:
        The means, not clipped, and the deviations of the whole, both `(bins, all frames)`.

    Example:
        >>> converter = SpectrogramConverter(n_fft=8, hop_length=2, num_frames=4)
        >>> window = np.full((4, 4), 0.5, np.float32), np.zeros((4, 4), np.float32)
        >>> means, _ = join_windows([window, window], np.array([0, 3]), converter)
        >>> means.shape, bool(np.allclose(means, 0.5))
        ((4, 7), True)
    """
    num_frames = converter.num_frames
    loudness = np.zeros((converter.num_bins, int(starts[-1]) + num_frames), np.float32)
    scales = np.zeros_like(loudness)
    for (mean, scale), start, weight in zip(windows, starts, crossfade_weights(starts, num_frames), strict=True):
        loudness[:, start : start + num_frames] += weight * _to_loudness(mean, converter)
        scales[:, start : start + num_frames] += weight * scale
    return _from_loudness(loudness, converter), scales


def _to_loudness(values: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    # Without a floor: means below it tell that texture should seldom rise above it.
    if converter.scale == "linear":
        return np.maximum(values, 0) ** np.float32(_LOUDNESS_EXPONENT)
    return 10 ** ((values - 1) * np.float32(_LOUDNESS_EXPONENT * converter.dynamic_range / 20))


def _from_loudness(loudness: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    if converter.scale == "linear":
        return loudness ** np.float32(1 / _LOUDNESS_EXPONENT)
    return 1 + np.log10(loudness) * np.float32(20 / (_LOUDNESS_EXPONENT * converter.dynamic_range))


_BATCH_SIZE = 8


class Rendering(LatentSpace):
    """The part of `SpectroVAE` that turns the codes of a piece into its pixels, and these into sound."""

    def _decoded_one(self, codes: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and scale of each pixel of one sequence of codes `(1, num_steps, latent_dim)`."""
        means, scales = self.decoded(codes)
        return means[0, ..., 0], scales[0, ..., 0]

    def _join(self, codes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the scale of each pixel of the piece, both `(bins, frames)`, cross-faded."""
        decoded = (self.decoded(batch) for batch in iterate_batches(codes, _BATCH_SIZE))
        windows = ((mean[..., 0], scale[..., 0]) for batch in decoded for mean, scale in zip(*batch, strict=True))
        return join_windows(windows, starts, self.converter)

    def _sound_of(
        self,
        values: np.ndarray,
        scales: np.ndarray,
        num_samples: int,
        texture: float,
        seed: int | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Turn the mean and the scale of each pixel, both `(bins, frames)`, into sound."""
        if not texture >= 0:
            raise ValueError(f"`texture` must be 0 or more. Received: texture={texture!r}")
        check_seed("seed", seed)
        if texture and self.likelihood.per_pixel:
            values = values + texture * scales * self.texture.sample(1, rng, values.shape[1])[0, ..., 0]
        num_frames = -(-num_samples // self.converter.hop_length)
        spectrogram = np.clip(values[:, :num_frames, None], 0.0, 1.0)
        return self.converter.to_audio(spectrogram, seed=seed)[:num_samples]


_MIN_OVERLAP = 0.25
"""Share of a window that it has in common with the next one, at least."""

_WINDOWS_PER_WAYPOINT = 2


class Pieces(Rendering):
    """The methods of `SpectroVAE` that make sound of any length.

    Where a window has one code, windows overlap by a quarter or more and fade into one another (`join_windows`). Where
    it has several, a sequence of codes is decoded as one long window. The texture is drawn once for the whole piece,
    and so are the phases: there is no seam. Memory grows with the spectrogram (0.2 MB for each second with the default
    converter, in several copies), that of networks and phases does not.
    """

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
        theirs. Where there are several codes along a window, each follows from those before it as the prior says, and
        it is the mean of some seconds that walks from way point to way point (`SequencePrior.compose`).

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
        num_samples = self.num_samples_of(duration)
        rng = self._random_generator(seed)
        num_waypoints = 1 + max(1, round(duration / waypoint_interval))
        components = self._choose_components(component, num_waypoints, rng)
        if self.latent_steps > 1:
            num_steps = self.num_steps_for(self.num_frames_of(duration))
            codes = self.prior.compose(components[None], num_steps, temperature, rng.integers(2**31, size=2))
            return self._sound_of(*self._decoded_one(codes), num_samples, texture, seed, rng)
        deviations = temperature * rng.standard_normal((len(components), self.latent_dim))
        starts = self._window_starts(num_samples)
        means, scales = self._distributions(components)
        codes = walk_between(means, scales, deviations, len(starts))
        return self._sound_of(*self._join(codes, starts), num_samples, texture, seed, rng)

    def continue_audio(
        self,
        x: Any,
        duration: float = 30.0,
        component: int | str | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        texture: float = 1.0,
        overlap: float = 0.0,
    ) -> np.ndarray:
        """Go on where a recording ends.

        Args:
            x: The end of the recording: windows `(num_windows, bins, frames, 1)` that follow one another, at least one.
                What they hold is known to what follows, as far back as a window lasts.
            duration: Length of what follows in seconds.
            component: Index or name of the mixture component that moves what follows; by default that of the last
                window.
            temperature: Factor on the prior's standard deviations.
            seed: Integer for a continuation that repeats.
            texture: How much residual to draw, as in `decode`.
            overlap: Seconds of the recording's end, as the model hears it, with which the result begins: to fade from
                the recording into it. At most the length of a window.

        Returns:
            float32 samples in [-1, 1] at the converter's sample rate, `overlap + duration` seconds of them.

        Raises:
            ValueError: If the model has one code for a window, or an argument is out of its range.

        Example:
            >>> from spectrovae import SpectroVAE
            >>> model = SpectroVAE((32, 32, 1), 2, 2, decoder_depth=2, width=8, latent_steps=4, seed=0)
            >>> windows = np.random.default_rng(0).random((2, 32, 32, 1))
            >>> len(model.continue_audio(windows, duration=0.1, seed=0)) / model.converter.sample_rate
            0.1
        """
        if not 0 <= overlap <= self.converter.window_duration:
            raise ValueError(
                f"`overlap` must lie in [0, {self.converter.window_duration:.3g}] (s). Received: overlap={overlap!r}"
            )
        num_overlap = round(overlap * self.converter.sample_rate)
        num_samples = num_overlap + self.num_samples_of(duration)
        first_frame = self.converter.num_frames - -(-num_overlap // self.converter.hop_length)
        num_steps = self.num_steps_for(self.num_frames_of(duration))
        past = self.encode(x)[-1:]
        if component is None:
            component = int(np.argmax(self.prior.responsibilities(past)[0]))
        [chosen] = self._choose_components(component, 1, np.random.default_rng())
        rng = self._random_generator(seed)
        components, pair = np.full((1, num_steps), chosen), rng.integers(2**31, size=2)
        anchors = past.mean(axis=1, keepdims=True).repeat(num_steps, axis=1)  # what it is like, it stays like
        following = self.prior.continue_from(components, temperature, pair, past, anchors)
        values, scales = (
            each[:, first_frame:] for each in self._decoded_one(np.concatenate([past, following], axis=1))
        )
        begun = -num_overlap % self.converter.hop_length  # samples of the first frame that lie before the overlap
        return self._sound_of(values, scales, begun + num_samples, texture, seed, rng)[begun:]

    def morph(
        self, first: Any, second: Any, duration: float = 30.0, texture: float = 1.0, seed: int | None = None
    ) -> np.ndarray:
        """Turn one recording into another: begin with the reconstruction of the first, end with that of the second.

        In between, codes go the spherical way in units of the spread of the mixture components that the ends belong
        to, which keeps them as far from the components' means as codes of music are. Where there are several codes
        along a window, both recordings are repeated, and their codes fade step by step.

        Args:
            first: A window of shape `(bins, frames, 1)` or a code of shape `code_shape`.
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
        num_samples = self.num_samples_of(duration)
        starts = self._window_starts(num_samples)
        if len(starts) < 2:
            raise ValueError(
                f"`duration` must be longer than a window, {self.converter.window_duration:.3g} s. "
                f"Received: duration={duration!r}"
            )
        ends = np.stack([self._as_code(first), self._as_code(second)])
        components = np.argmax(self.prior.responsibilities(ends), axis=1)
        rng = self._random_generator(seed)
        if self.latent_steps > 1:
            codes = self._fade_loops(ends, components, self.num_steps_for(self.num_frames_of(duration)))
            return self._sound_of(*self._decoded_one(codes[None]), num_samples, texture, seed, rng)
        means, scales = self._distributions(components)
        codes = walk_between(means, scales, (ends - means) / scales, len(starts))
        return self._sound_of(*self._join(codes, starts), num_samples, texture, seed, rng)

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

    def _distributions(self, components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations of components, with `latent_dim` as the last axis."""
        return np.asarray(self.prior.means)[components], np.asarray(self.prior.scales)[components]

    def _fade_loops(self, ends: np.ndarray, components: np.ndarray, num_steps: int) -> np.ndarray:
        """Return codes `(num_steps, latent_dim)` that repeat the first window and turn into repeats of the second."""
        means, scales = self._distributions(components)
        first, second = (ends - means[:, None]) / scales[:, None]
        first, second, share = fade_loops(first, second, num_steps)
        mean, scale = ((1 - share) * start + share * end for start, end in (means, scales))
        return (mean + scale * spherical_way(first, second, share)).astype(np.float32)
