"""Music of any length from a trained model: new pieces, continuations, variations, one recording turned into another.

With one code for a window, windows overlap by a quarter or more and fade into one another (`join_windows`). With
several codes, a sequence of them is decoded as one long window. Texture and phases are made once for the whole piece,
so there is no seam. Memory grows with the spectrogram (0.2 MB for each second with the default converter, in several
copies); that of networks and phases does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

from spectrovae.audio.limiter import limit_peaks
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import iterate_batches
from spectrovae.checks import check_factor, check_finite, check_seed
from spectrovae.model.distributions import numpy_generator
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.model.texture import check_texture
from spectrovae.model.walks import crossfade_weights, fade_loops, spherical_way, walk_between, window_starts

_BATCH_SIZE = 8
_LOUDNESS_EXPONENT = 0.6  # of amplitude
_MIN_OVERLAP = 0.25  # share of a window that it has in common with the next one, at least
_WINDOWS_PER_WAYPOINT = 2


def generate_audio(
    model: SpectroVAE,
    duration: float = 60.0,
    component: int | str | Sequence[int | str] | None = None,
    temperature: float = 1.0,
    seed: int | None = None,
    texture: str = "grains",
    waypoint_interval: float | None = None,
) -> np.ndarray:
    """Compose a piece that goes on as the recordings do.

    Where there are several codes along a window, each follows from those before it as the prior says, and the mean of
    some seconds follows where music like it went (`SequencePrior.compose`). With one code for a window, a piece is a
    walk from one draw of the prior to the next. At every moment its code is distributed as a draw of the component is,
    so that the way is as varied as the draws are. Between two components it has a mean and a spread between theirs.

    Args:
        model: A trained model.
        duration: Length in seconds.
        component: Index or name of the mixture component to stay in; or several, to go from one to the next in
            that order, each for as long; or None, to go where the music goes, with one code for a window to draw the
            component of each way point from the mixture.
        temperature: Factor on the prior's standard deviations: below 1 more typical, above 1 more daring.
        seed: Integer for a piece that repeats.
        texture: What is put on the means, as in `SpectroVAE.decode`.
        waypoint_interval: Seconds from draw to draw with one code for a window; by default the length of two windows.

    Returns:
        float32 samples in [-1, 1] at the converter's sample rate, `duration` seconds of them.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from spectrovae import SpectroVAE
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> len(generate_audio(model, duration=0.1, seed=1)) / model.converter.sample_rate
        0.1
    """
    check_factor("temperature", temperature)
    check_texture(texture)
    check_seed("seed", seed)
    if waypoint_interval is None:
        waypoint_interval = _WINDOWS_PER_WAYPOINT * model.converter.window_duration
    frame_duration = model.converter.hop_length / model.converter.sample_rate
    if not waypoint_interval >= frame_duration:
        raise ValueError(
            f"`waypoint_interval` must be at least a frame, {frame_duration:.3g} (s). "
            f"Received: waypoint_interval={waypoint_interval!r}"
        )
    num_samples = model.converter.num_samples_of(duration)
    rng = numpy_generator(seed, model.seed_generator)
    num_waypoints = 1 + max(1, round(duration / waypoint_interval))
    check_finite(model.prior.means)
    components = _choose_components(model, component, num_waypoints, rng)
    if model.latent_steps > 1:
        num_steps = model.num_codes_for(model.converter.num_frames_of(duration))
        if component is None:
            components[1:] = -1
        codes = model.prior.compose(components[None], num_steps, temperature, rng.integers(2**31, size=2))
        moments = _decode_one(model, codes)
    else:
        deviations = temperature * rng.standard_normal((len(components), model.latent_dim))
        starts = _window_starts(model.converter, num_samples)
        means, scales = _distributions(model, components)
        codes = model.prior.limits(walk_between(means, scales, deviations, len(starts)))
        moments = _decode_joined(model, codes, starts)
    return _to_sound(model, *moments, num_samples, texture, seed, rng, drawn=True)


def continue_audio(
    model: SpectroVAE,
    x: Any,
    duration: float = 30.0,
    component: int | str | None = None,
    temperature: float = 1.0,
    seed: int | None = None,
    texture: str = "grains",
    overlap: float = 0.0,
) -> np.ndarray:
    """Continue a recording where it ends.

    Args:
        model: A trained model with several codes along a window.
        x: The end of the recording: windows `(num_windows, bins, frames, 1)` that follow one another, at least one.
            What they hold is known to what follows, as far back as a window lasts.
        duration: Length of what follows in seconds.
        component: Index or name of the mixture component that moves what follows; by default that of the last
            window.
        temperature: Factor on the prior's standard deviations.
        seed: Integer for a continuation that repeats.
        texture: What is put on the means, as in `SpectroVAE.decode`.
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
        >>> len(continue_audio(model, windows, duration=0.1, seed=0)) / model.converter.sample_rate
        0.1
    """
    converter = model.converter
    if not 0 <= overlap <= converter.window_duration:
        raise ValueError(
            f"`overlap` must lie in [0, {converter.window_duration:.3g}] (s). Received: overlap={overlap!r}"
        )
    num_overlap = round(overlap * converter.sample_rate)
    num_samples = num_overlap + converter.num_samples_of(duration)
    first_frame = converter.num_frames - -(-num_overlap // converter.hop_length)
    num_steps = model.num_codes_for(converter.num_frames_of(duration))
    past = model.encode(x)[-1:]
    if component is None:
        component = int(np.argmax(model.prior.responsibilities(past)[0]))
    [chosen] = _choose_components(model, component, 1, np.random.default_rng())
    rng = numpy_generator(seed, model.seed_generator)
    components, pair = np.full((1, num_steps), chosen), rng.integers(2**31, size=2)
    anchors = past.mean(axis=1, keepdims=True).repeat(num_steps, axis=1)  # what it is like, it stays like
    following = model.prior.continue_from(components, temperature, pair, past, anchors)
    values, scales = (each[:, first_frame:] for each in _decode_one(model, np.concatenate([past, following], axis=1)))
    begun = -num_overlap % converter.hop_length  # samples of the first frame that lie before the overlap
    return _to_sound(model, values, scales, begun + num_samples, texture, seed, rng)[begun:]


def vary(
    model: SpectroVAE,
    x: Any,
    amount: float = 0.5,
    temperature: float = 1.0,
    seed: int | None = None,
    texture: str = "grains",
) -> np.ndarray:
    """Play a variation of a recording: its course with other details.

    The prior draws a new sequence of codes from the mixture components of the recording's windows, beginning with what
    the recording begins with. The mean of some seconds is pulled along the recording's own. What both differ in from
    that mean is mixed on the spherical way, so that a variation is as lively as the recording.

    Args:
        model: A trained model with several codes along a window.
        x: The recording: windows `(num_windows, bins, frames, 1)` that follow one another, or a dataset of batches.
        amount: How far to go from the recording, 0 for its reconstruction, to what is drawn, 1.
        temperature: Factor on the prior's standard deviations.
        seed: Integer for a variation that repeats.
        texture: What is put on the means, as in `SpectroVAE.decode`.

    Returns:
        float32 samples in [-1, 1] at the converter's sample rate, as long as the windows are together.

    Raises:
        ValueError: If the model has one code for a window, or an argument is out of its range.

    Example:
        >>> from spectrovae import SpectroVAE
        >>> model = SpectroVAE((32, 32, 1), 2, 2, decoder_depth=2, width=8, latent_steps=4, seed=0)
        >>> windows = np.random.default_rng(0).random((2, 32, 32, 1))
        >>> len(vary(model, windows, amount=0.3, seed=0)) == 2 * model.converter.window_length
        True
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"`amount` must lie in [0, 1]. Received: amount={amount!r}")
    model.num_codes_for(model.converter.num_frames)  # or says that one code stands for a window
    windows = model.encode(x)
    rng = numpy_generator(seed, model.seed_generator)
    codes = windows.reshape(1, -1, model.latent_dim)
    components = np.argmax(model.prior.responsibilities(windows), axis=-1).repeat(model.latent_steps)[None]
    course = uniform_filter1d(codes, model.latent_steps, axis=1, mode="nearest")
    pair = rng.integers(2**31, size=2)
    drawn = model.prior.continue_from(components, temperature, pair, windows[:1], course)
    angle = 0.5 * np.pi * amount
    mixed = course + np.cos(angle) * (codes - course) + np.sin(angle) * (drawn - course)
    moments = _decode_one(model, model.prior.limits(mixed) if amount else codes)
    return _to_sound(model, *moments, len(windows) * model.converter.window_length, texture, seed, rng)


def morph(
    model: SpectroVAE,
    first: Any,
    second: Any,
    duration: float = 30.0,
    texture: str = "grains",
    seed: int | None = None,
) -> np.ndarray:
    """Turn one recording into another: begin with the reconstruction of the first, end with that of the second.

    In between, codes go the spherical way in units of the spread of the mixture components that the ends belong
    to, which keeps them as far from the components' means as codes of music are. Where there are several codes
    along a window, both recordings are repeated, and their codes fade step by step.

    Args:
        model: A trained model.
        first: A window of shape `(bins, frames, 1)` or a code of shape `code_shape`.
        second: The same for the other end.
        duration: Length in seconds, more than that of one window.
        texture: What is put on the means, as in `SpectroVAE.decode`.
        seed: Integer for a texture and phases that repeat.

    Returns:
        float32 samples in [-1, 1] at the converter's sample rate, `duration` seconds of them.

    Raises:
        ValueError: If an end is neither a window nor a code, or another argument is out of its range.

    Example:
        >>> from spectrovae import SpectroVAE
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> windows = np.random.default_rng(0).random((2, 32, 32, 1))
        >>> len(morph(model, *windows, duration=0.1, seed=0)) / model.converter.sample_rate
        0.1
    """
    num_samples = model.converter.num_samples_of(duration)
    starts = _window_starts(model.converter, num_samples)
    if len(starts) < 2:
        raise ValueError(
            f"`duration` must be longer than a window, {model.converter.window_duration:.3g} s. "
            f"Received: duration={duration!r}"
        )
    ends = np.stack([_as_code(model, first), _as_code(model, second)])
    components = np.argmax(model.prior.responsibilities(ends), axis=1)
    rng = numpy_generator(seed, model.seed_generator)
    means, scales = _distributions(model, components)
    if model.latent_steps > 1:
        num_steps = model.num_codes_for(model.converter.num_frames_of(duration))
        moments = _decode_one(model, _fade_codes(ends, means, scales, num_steps)[None])
    else:
        moments = _decode_joined(model, walk_between(means, scales, (ends - means) / scales, len(starts)), starts)
    return _to_sound(model, *moments, num_samples, texture, seed, rng)


def interpolate(
    model: SpectroVAE, start: Any, end: Any, num_steps: int = 8, texture: str = "grains", seed: int | None = None
) -> np.ndarray:
    """Return windows on the straight way from one code to another.

    Args:
        model: A trained model.
        start: A window of shape `(bins, frames, 1)` or a code of shape `code_shape`.
        end: The same for the other end.
        num_steps: Number of windows, both ends included, 2 or more.
        texture: What is put on the means, as in `SpectroVAE.decode`.
        seed: Integer for a texture that repeats.

    Returns:
        A float32 array of shape `(num_steps, bins, frames, 1)` with values in [0, 1].

    Raises:
        ValueError: If an end is neither a window nor a code, or there are fewer than 2 steps.

    Example:
        >>> from spectrovae import SpectroVAE
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> interpolate(model, np.zeros(2), np.ones(2), num_steps=3).shape
        (3, 32, 32, 1)
    """
    if num_steps < 2:
        raise ValueError(f"`num_steps` must be 2 or more. Received: num_steps={num_steps!r}")
    codes = np.linspace(_as_code(model, start), _as_code(model, end), num_steps)
    return model.decode(codes, texture=texture, seed=seed)


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


def _window_starts(converter: SpectrogramConverter, num_samples: int) -> np.ndarray:
    num_frames = -(-num_samples // converter.hop_length)
    return window_starts(num_frames, converter.num_frames, math.ceil(_MIN_OVERLAP * converter.num_frames))


def _choose_components(
    model: SpectroVAE,
    component: int | str | Sequence[int | str] | None,
    num_waypoints: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the component of each way point."""
    if component is None:
        weights = np.asarray(model.prior.mixing_weights, np.float64)
        return rng.choice(model.num_components, num_waypoints, p=weights / weights.sum())
    several: Any = component if np.ndim(component) else [component]
    chosen = np.asarray([model.component_index(one) for one in several])
    if not len(chosen) or not np.isin(chosen, np.arange(model.num_components)).all():
        raise ValueError(
            f"`component` must be an integer from 0 to {model.num_components - 1}, several of them, or None for the "
            f"whole mixture. Received: component={component!r}"
        )
    # Each of them at least once, in a short piece as well.
    num_waypoints = max(num_waypoints, len(chosen))
    return chosen[np.arange(num_waypoints) * len(chosen) // num_waypoints]


def _distributions(model: SpectroVAE, components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations of components, with `latent_dim` as the last axis."""
    return np.asarray(model.prior.means)[components], np.asarray(model.prior.scales)[components]


def _fade_codes(ends: np.ndarray, means: np.ndarray, scales: np.ndarray, num_steps: int) -> np.ndarray:
    """Return codes `(num_steps, latent_dim)` that repeat the first window and turn into repeats of the second."""
    first, second = (ends - means[:, None]) / scales[:, None]
    first, second, share = fade_loops(first, second, num_steps)
    mean, scale = ((1 - share) * start + share * end for start, end in (means, scales))
    return (mean + scale * spherical_way(first, second, share)).astype(np.float32)


def _as_code(model: SpectroVAE, end: Any) -> np.ndarray:
    """Return a code, or the code of a window."""
    array = np.asarray(end, np.float32)
    if array.shape == model.code_shape:
        return array
    if array.shape == model.input_shape:
        return model.encode(array[None])[0]
    raise ValueError(
        f"An end must be a window of shape {model.input_shape} or a code of shape {model.code_shape}. "
        f"Received: shape {array.shape}"
    )


def _decode_one(model: SpectroVAE, codes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of each pixel, `(bins, frames)`, of one sequence of codes `(1, num_steps, latent_dim)`."""
    means, scales = model.decode_moments(codes)
    return means[0, ..., 0], scales[0, ..., 0]


def _decode_joined(model: SpectroVAE, codes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of each pixel, `(bins, frames)`, of windows that fade into one another."""
    decoded = (model.decode_moments(batch) for batch in iterate_batches(codes, _BATCH_SIZE))
    windows = ((mean[..., 0], scale[..., 0]) for batch in decoded for mean, scale in zip(*batch, strict=True))
    return join_windows(windows, starts, model.converter)


def _to_sound(
    model: SpectroVAE,
    means: np.ndarray,
    scales: np.ndarray,
    num_samples: int,
    texture: str,
    seed: int | None,
    rng: np.random.Generator,
    drawn: bool = False,
) -> np.ndarray:
    """Turn mean and scale of each pixel, both `(bins, frames)`, into sound, as loud as music where it was drawn."""
    check_seed("seed", seed)
    kind = check_texture(texture) if model.likelihood.per_pixel else "none"
    num_frames = -(-num_samples // model.converter.hop_length)
    tone, noise = model.texture.split(means[:, :num_frames], scales[:, :num_frames], rng, kind)
    if drawn and kind != "none":
        tone, noise = model.dynamics.match(tone, noise)
    audio = model.converter.magnitudes_to_audio(tone, noise, seed)[:num_samples]
    return limit_peaks(audio, model.converter.sample_rate)
