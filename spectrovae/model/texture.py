"""What the mean of p(x|z) lacks: the residual of music, taken from music, or drawn as noise."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from spectrovae.audio.phase import noise_spectrum
from spectrovae.audio.spectrogram import SpectrogramConverter, audible_changes
from spectrovae.checks import check_count, check_num_weights, check_positive_int
from spectrovae.model.dynamics import Dynamics

TEXTURES = ("grains", "noise", "none")

NOISE_SHARE = 0.5
"""Share of the residual's variance that is noise; the rest are slow envelopes, which the noise does without."""

_CANDIDATES_PER_PLACE = 2  # windows looked at for each that the bank keeps
_CHECK_EVERY, _MAX_CHECKED = 16, 24  # windows that are not kept, on which the choice of grains is tried
_NUM_AXES, _FLOOR_DB, _LEVEL_WEIGHT = 48, -70.0, 4.0
_SLOTS_PER_GRAIN = 4
_SLOTS_AT_ONCE, _FRAMES_AT_ONCE = 64, 2048  # to bound memory
_SUCCESSOR_FACTOR, _MAX_LUCK = 0.7, 1.3
_REST = 8  # grains, until the same stretch of a recording may be heard again
_RUN_SECONDS = 1.5  # for which grains may follow one another as they do in a recording
_FADE = 4  # frames
_GATE_PERCENTILE, _GATE_FACTOR = 90.0, 1.5
_MIN_SPREAD = 1e-3  # dB
_GAIN_STEP = 4  # frames, from one that is measured to the next
_STRENGTHS = np.linspace(0.2, 1.0, 9)
_SPREADS = np.arange(0.0, 13.0)  # dB: where gains are measured

# The levels of the best 16-level quantiser of a Gaussian (Max, "Quantizing for minimum distortion", 1960).
_HALF = np.array([0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326], np.float32)
_CODEBOOK = np.concatenate([-_HALF[::-1], _HALF])
_CODE_OF = np.searchsorted((_CODEBOOK[1:] + _CODEBOOK[:-1]) / 2, np.arange(-48, 49) / 16).astype(np.uint8)


class _Decibels(NamedTuple):
    """Mean and standard deviation of each pixel's level, and what music has there, all (bins, frames) in dB."""

    mean: np.ndarray
    spread: np.ndarray
    music: np.ndarray


class _Grain(NamedTuple):
    """A stretch of a window in the bank, and how far it is from what was asked for."""

    window: int
    slot: int
    distance: float


@keras.saving.register_keras_serializable(package="spectrovae")
class Texture(keras.layers.Layer):
    """The residual of music, `(x - mean) / scale`, put back on decoded means.

    A likelihood of independent pixels says how far each pixel strays, not that neighbours stray together. The means
    alone are too smooth, and white noise on them is harsh. There are two ways to put the residual back:

    - grains: stretches of the residuals of training windows, kept in a bank of bounded size. For each stretch of a
      piece the grain is taken whose decoded means are nearest to the piece's own.
    - noise: each bin is taken as a partial plus noise. The spread of its level says how strong each of the two is
      (Rice, "Mathematical analysis of random noise", 1944), and the noise keeps its own phases
      (`SpectrogramConverter.magnitudes_to_audio`).

    Where no grain is near, grains fall back on noise. The layer has no trainable weights. Before `fit` the bank is
    empty, and grains are noise.

    The bank holds residuals of the recordings in 4 bits per pixel, and is saved with the model.

    Args:
        converter: The `SpectrogramConverter` of the windows.
        bank_size: Number of windows in the bank, 0 or more. Each takes `bins * frames / 2` bytes in a file, twice
            as many in memory: 128 windows of 512 by 512 take 17 MB in a file, 64 take 8 MB.
        grain_length: Frames of a grain, or the length of a window if that is less; a multiple of 4.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If a size is out of its range.

    Example:
        >>> converter = SpectrogramConverter(n_fft=64, hop_length=16, num_frames=32)
        >>> texture = Texture(converter, bank_size=4, grain_length=8)
        >>> music = np.random.default_rng(0).random((12, 32, 32), np.float32)
        >>> means, scales = np.full_like(music, 0.5), np.full_like(music, 0.3)
        >>> texture.fit([(means, scales, music)], seed=0)
        >>> tone, noise = texture.split(means[0], scales[0], np.random.default_rng(1))
        >>> tone.shape, texture.num_windows
        ((32, 32), 4)
    """

    def __init__(
        self, converter: SpectrogramConverter, bank_size: int = 128, grain_length: int = 64, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.converter, self.bank_size = converter, check_count("bank_size", bank_size)
        self.grain_length = check_positive_int("grain_length", grain_length)
        bins, frames = converter.num_bins, converter.num_frames
        check_num_weights("texture", bank_size * (bins // 2) * frames)
        self.slot_length = max(1, min(grain_length, frames) // _SLOTS_PER_GRAIN)
        if grain_length % _SLOTS_PER_GRAIN:
            raise ValueError(
                f"`grain_length` must be a multiple of {_SLOTS_PER_GRAIN}. Received: grain_length={grain_length!r}"
            )
        bank_size = bank_size if frames >= _SLOTS_PER_GRAIN else 0  # windows as short as that have no grains
        num_axes, num_slots = min(_NUM_AXES, bins), frames // self.slot_length
        options: dict[str, Any] = {"initializer": "zeros", "trainable": False}
        # Bytes as numbers of 16 bits, since TensorFlow does not share bytes between workers.
        self.bank = self.add_weight(shape=(bank_size, bins // 2, frames), dtype="float16", name="bank", **options)
        self.keys = self.add_weight(shape=(bank_size, num_slots, num_axes + 1), name="keys", **options)
        self.axes = self.add_weight(shape=(bins, num_axes), name="axes", **options)
        self.num_filled = self.add_weight(shape=(), dtype="int32", name="num_filled", **options)
        self.gate = self.add_weight(shape=(), name="gate", **options)
        self.strength = self.add_weight(shape=(), initializer="ones", trainable=False, name="strength")
        self.ceiling = self.add_weight(shape=(bins,), name="ceiling", **options)
        self.music_gains = self.add_weight(shape=_SPREADS.shape, name="music_gains", **options)
        self.grain_gains = self.add_weight(shape=_SPREADS.shape, name="grain_gains", **options)
        self.built = True

    @property
    def num_windows(self) -> int:
        """Number of windows in the bank: 0 before `fit`, `bank_size` at most."""
        return int(self.num_filled.numpy())

    def fit(self, batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], seed: int | None = None) -> None:
        """Fill the bank, and measure how loud music is where the likelihood is unsure.

        Of the windows, the bank keeps those that differ most from one another. Memory holds two banks at most.

        Args:
            batches: Means and scales of decoded windows, and the windows themselves: arrays `(num_windows, bins,
                frames)`, one such triple per batch.
            seed: Integer that makes the result repeat.

        Raises:
            ValueError: If there are no windows.
        """
        rng = np.random.default_rng(seed)
        codes, spectra, checked, ceiling = self._collect(batches, rng)
        self.ceiling.assign(ceiling)
        self.music_gains.assign(_gains(checked, [each.music for each in checked]))
        self.grain_gains.assign(self.music_gains)
        self.strength.assign(1.0)
        if not codes:
            self.num_filled.assign(0)
            return
        self.axes.assign(_principal_axes(np.concatenate(spectra), self.axes.shape[1]))
        keys = self._keys_of(np.stack(spectra))
        chosen = _farthest_points(keys.mean(axis=1), self.bank.shape[0])
        for weight, values in ((self.bank, np.stack(codes)), (self.keys, keys)):
            filled = np.zeros(weight.shape, values.dtype)
            filled[: len(chosen)] = values[chosen]
            weight.assign(filled)
        self.num_filled.assign(len(chosen))
        grains = [grain for each in checked for grain in self._choose(each.mean, rng)]
        self.gate.assign(_GATE_FACTOR * np.percentile([grain.distance for grain in grains], _GATE_PERCENTILE))
        added = [each.spread * self._residual(each.mean, rng)[0] for each in checked]
        strength = _fitting_strength(checked, added)
        self.strength.assign(strength)
        rendered = [each.mean + strength * residual for each, residual in zip(checked, added, strict=True)]
        self.grain_gains.assign(_gains(checked, rendered))

    def split(
        self, means: np.ndarray, scales: np.ndarray, rng: np.random.Generator, texture: str = "grains"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how strong tone and noise are in each pixel of a decoded sequence.

        Args:
            means: Decoded means of shape `(bins, frames)`, not clipped, with any number of frames.
            scales: Decoded standard deviations, of the same shape.
            rng: NumPy's generator of random numbers.
            texture: `"grains"`, `"noise"`, or `"none"` for the means alone.

        Returns:
            Two float32 arrays of shape `(bins, frames)`: the magnitudes of the tone, and the root mean square
            magnitudes of the noise. The magnitude of a sine is its amplitude.

        Raises:
            ValueError: If there is no such texture.
        """
        texture = check_texture(texture)
        mean, spread = self._decibels(means, scales)
        if texture == "none":
            return self._magnitudes(mean), np.zeros_like(mean)
        if texture == "grains" and self.num_windows:
            residual, share = self._residual(mean, rng)
        else:
            residual, share = np.zeros_like(mean), np.zeros(mean.shape[1], np.float32)
        tone, noise = np.empty_like(residual), np.empty_like(residual)
        for start in range(0, mean.shape[1], _FRAMES_AT_ONCE):
            own = np.s_[..., start : start + _FRAMES_AT_ONCE]
            tone[own], noise[own] = self._blend(mean[own], spread[own], residual[own], share[own])
        return tone, noise

    def windows(
        self,
        means: np.ndarray,
        scales: np.ndarray,
        rng: np.random.Generator,
        texture: str = "grains",
        dynamics: Dynamics | None = None,
    ) -> np.ndarray:
        """Return the pixels of a decoded sequence with texture, `(bins, frames)` in [0, 1].

        Arguments are those of `split`, and the `Dynamics` of what was drawn from the prior.
        """
        tone, noise = self.split(means, scales, rng, texture)
        if dynamics:
            tone, noise = dynamics.match(tone, noise)
        if noise.any():
            size = self.converter.n_fft, self.converter.hop_length
            tone = np.abs(tone + noise * noise_spectrum(tone.shape[1], *size, rng))
        return self.converter.to_values(tone)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        names = ("bank_size", "grain_length")
        converter = keras.saving.serialize_keras_object(self.converter)
        return super().get_config() | {name: getattr(self, name) for name in names} | {"converter": converter}

    @classmethod
    def from_config(cls, config: dict) -> "Texture":
        """Build a layer from what `get_config` returned."""
        return cls(**config | {"converter": keras.saving.deserialize_keras_object(config["converter"])})

    def _blend(
        self, mean: np.ndarray, spread: np.ndarray, residual: np.ndarray, share: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the magnitudes of tone and noise of some frames, of which grains are a share."""
        music, grains = (np.interp(spread, _SPREADS, gains) for gains in (self.music_gains, self.grain_gains))
        added = float(self.strength.numpy()) * spread
        level = (mean + added * residual + music - share * grains).astype(np.float32)
        if self.num_windows:
            level = np.minimum(level, np.asarray(self.ceiling)[:, None])
        magnitudes = self._magnitudes(level)
        if share.min() == 1:
            return magnitudes, np.zeros_like(magnitudes)
        ratio = _tone_to_noise(np.sqrt((1 - share) * np.float32(NOISE_SHARE)) * added)
        return magnitudes * np.sqrt(ratio / (1 + ratio)), magnitudes / np.sqrt(1 + ratio)

    def save_own_variables(self, store: Any) -> None:
        """Save the weights; of the bank what is filled."""
        for index, weight in enumerate(self.weights):
            values = np.asarray(weight)
            if weight is self.bank or weight is self.keys:
                values = values[: self.num_windows]
            store[str(index)] = values.astype(np.uint8) if weight is self.bank else values

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` saved."""
        for index, weight in enumerate(self.weights):
            values = np.zeros(weight.shape, weight.dtype)
            saved = np.asarray(store[str(index)])
            values[tuple(map(slice, saved.shape))] = saved
            weight.assign(values)

    def _decibels(self, means: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the level of each pixel in dB."""
        dynamic_range = np.float32(self.converter.dynamic_range)
        if self.converter.scale == "decibel":
            return (means - 1) * dynamic_range, scales * dynamic_range
        size = np.maximum(means, 10 ** (-dynamic_range / 20))
        return 20 * np.log10(size), np.minimum(scales / size, 1) * np.float32(20 / np.log(10))

    def _magnitudes(self, levels: np.ndarray) -> np.ndarray:
        """Return magnitudes of levels in dB; zero at the floor, or a haze would remain there."""
        return np.where(levels > -self.converter.dynamic_range, 10 ** (levels / 20), np.float32(0))

    def _collect(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], rng: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[_Decibels], np.ndarray]:
        """Return residuals in 4 bits and spectra of a fair sample of windows, other windows to try them on, and maxima.

        The maxima are the highest levels of each bin in all windows.
        """
        codes: list[np.ndarray] = []
        spectra: list[np.ndarray] = []
        checked: list[_Decibels] = []
        ceiling = np.full(self.converter.num_bins, -np.inf)
        windows = itertools.chain.from_iterable(zip(*batch, strict=True) for batch in batches)
        num_seen, size = 0, _CANDIDATES_PER_PLACE * self.bank.shape[0]
        for index, (mean, scale, window) in enumerate(windows):
            level, spread = self._decibels(mean, scale)
            music = self.converter.to_decibels(window)
            ceiling = np.maximum(ceiling, music.max(axis=1))
            if index % _CHECK_EVERY == 0 and len(checked) < _MAX_CHECKED:
                checked.append(_Decibels(level, spread, music))
                continue
            num_seen += 1
            place = len(codes) if len(codes) < size else int(rng.integers(num_seen))
            if place < size:
                codes[place : place + 1] = [_pack((music - level) / np.maximum(spread, _MIN_SPREAD))]
                spectra[place : place + 1] = [self._slot_spectra(level)]
        if not checked:
            raise ValueError("There must be at least one window. Received: none")
        return codes, spectra, checked, ceiling

    def _slot_spectra(self, levels: np.ndarray) -> np.ndarray:
        """Return the mean spectrum of each slot in dB, float32 (slots, bins); frames that fill no slot are left out."""
        num_slots = levels.shape[1] // self.slot_length
        slots = levels[:, : num_slots * self.slot_length].reshape(len(levels), num_slots, self.slot_length)
        return np.maximum(slots.mean(axis=2), _FLOOR_DB).T

    def _keys_of(self, spectra: np.ndarray) -> np.ndarray:
        """Return what is compared of spectra: their shape on principal axes, and their level."""
        level = spectra.mean(axis=-1, keepdims=True)
        return np.concatenate([(spectra - level) @ np.asarray(self.axes), _LEVEL_WEIGHT**0.5 * level], axis=-1)

    def _distances(self, queries: np.ndarray) -> Iterator[np.ndarray]:
        """Yield for each stretch of a piece how far every stretch of the bank is, (windows, first slots)."""
        keys = np.asarray(self.keys)[: self.num_windows]
        flat = keys.reshape(-1, keys.shape[2])
        known = np.square(flat).sum(axis=1)
        num_starts = keys.shape[1] - _SLOTS_PER_GRAIN + 1
        for start in range(0, len(queries), _SLOTS_AT_ONCE):
            some = queries[start : start + _SLOTS_AT_ONCE]
            squares = known - 2 * some @ flat.T + np.square(some).sum(axis=1, keepdims=True)
            for of_grain in squares.reshape(-1, _SLOTS_PER_GRAIN, len(keys), keys.shape[1]):
                slots = [of_grain[slot, :, slot : slot + num_starts] for slot in range(_SLOTS_PER_GRAIN)]
                yield np.maximum(np.mean(slots, axis=0), 0)

    def _choose(self, levels: np.ndarray, rng: np.random.Generator) -> list[_Grain]:
        """Return the grain for each stretch of a piece."""
        length = _SLOTS_PER_GRAIN * self.slot_length
        missing = -levels.shape[1] % length
        queries = self._keys_of(self._slot_spectra(np.pad(levels, ((0, 0), (0, missing)), "edge")))
        num_starts = self.keys.shape[1] - _SLOTS_PER_GRAIN + 1
        max_run = max(1, int(_RUN_SECONDS * self.converter.sample_rate / self.converter.hop_length) // length)
        grains: list[_Grain] = []
        run = 0
        for distances in self._distances(queries):
            odds = distances * rng.uniform(1, _MAX_LUCK, distances.shape)
            for used in grains[-_REST:]:
                odds[used.window, max(0, used.slot - _SLOTS_PER_GRAIN + 1) : used.slot + _SLOTS_PER_GRAIN] *= 4
            next_slot = grains[-1].slot + _SLOTS_PER_GRAIN if grains else num_starts
            if next_slot < num_starts:
                last = grains[-1].window
                odds[last, next_slot] = _SUCCESSOR_FACTOR * distances[last, next_slot] if run < max_run else np.inf
            window, slot = divmod(int(np.argmin(odds)), num_starts)
            is_successor = bool(grains) and (window, slot) == (grains[-1].window, next_slot)
            run = run + 1 if is_successor else 1
            grains.append(_Grain(window, slot, float(distances[window, slot])))
        return grains

    def _residual(self, levels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return residuals (bins, frames) from the bank, and the share of each frame's variance that they are."""
        length, half = _SLOTS_PER_GRAIN * self.slot_length, _FADE // 2
        num_frames = levels.shape[1]
        residual, share = np.zeros(levels.shape, np.float32), np.zeros(num_frames, np.float32)
        bank, gate = np.asarray(self.bank), float(self.gate.numpy())
        offsets = np.arange(-half, length + half)
        fade = np.clip(np.minimum(offsets + half + 0.5, length + half - 0.5 - offsets) / _FADE, 0, 1).astype(np.float32)
        grains = self._choose(levels, rng)
        for index, grain in enumerate(grains):
            frames = index * length + offsets
            is_inside = (frames >= 0) & (frames < num_frames)
            if gate and grain.distance > gate:
                continue
            is_end = (frames < half) | ((index == len(grains) - 1) & (offsets >= half))  # no other grain fades there
            weights = np.where(is_end, 1, fade)[is_inside].astype(np.float32)
            source = np.clip(grain.slot * self.slot_length + offsets[is_inside], 0, bank.shape[2] - 1)
            residual[:, frames[is_inside]] += np.sqrt(weights) * _unpack(bank[grain.window][:, source].astype(np.uint8))
            share[frames[is_inside]] += weights
        return residual, np.minimum(share, 1)


@functools.cache
def _rician_spreads() -> tuple[np.ndarray, np.ndarray]:
    """Return the spread of a level in dB, rising, and the power of the tone over that of the noise that it tells.

    The power of a tone in noise is a Gamma variable whose shape is 1 plus a Poisson variable of that ratio.
    """
    from scipy.special import digamma, gammaln, polygamma, xlogy  # here, since few programs need it

    ratios = np.concatenate([[0], np.geomspace(1e-2, 1e3, 200)])
    counts = np.arange(1500)
    shares = np.exp(xlogy(counts, ratios[:, None]) - ratios[:, None] - gammaln(1 + counts))
    means = digamma(1 + counts)
    variances = shares @ (np.square(means) + polygamma(1, 1 + counts)) - np.square(shares @ means)
    spreads = 10 / np.log(10) * np.sqrt(variances)
    return spreads[::-1], ratios[::-1]


def _tone_to_noise(spreads: np.ndarray) -> np.ndarray:
    """Return the power of the tone over that of the noise where the level has that standard deviation in dB."""
    known, ratios = _rician_spreads()
    found = np.interp(spreads, known, ratios)
    # Far above the noise the spread falls with the root of the ratio.
    far = ratios[0] * np.square(known[0] / np.maximum(spreads, _MIN_SPREAD))
    return np.where(spreads < known[0], far, found).astype(np.float32)


def _gains(checked: list[_Decibels], heard: list[np.ndarray]) -> np.ndarray:
    """Return for each spread how much more power there is than that of the mean, in dB; every window counts alike."""
    sums = np.full((2, len(_SPREADS)), 1e-3 * len(checked))
    for each, levels in zip(checked, heard, strict=True):
        mean, spread, music, levels = (values[:, ::_GAIN_STEP] for values in (*each, levels))
        places = np.clip(np.rint(spread), 0, len(_SPREADS) - 1).astype(int).ravel()
        total = np.sum(10 ** (music / 10))
        for row, values in zip(sums, (levels, mean), strict=True):
            row += np.bincount(places, 10 ** (values.ravel() / 10) / total, len(_SPREADS))
    return 10 * np.log10(sums[0] / sums[1])


def _flux(levels: list[np.ndarray]) -> float:
    """Return the mean change from frame to frame, in dB, where both frames are audible."""
    changes = list(map(audible_changes, levels))
    return float(np.concatenate(changes).mean()) if any(map(len, changes)) else 0.0


def _fitting_strength(checked: list[_Decibels], added: list[np.ndarray]) -> float:
    """Return the share of the residual, up to 1, with which levels change from frame to frame as the music's do.

    The grains of a small or plain collection often are those of other sounds, which are too restless for it.
    """
    wanted = _flux([each.music for each in checked])
    reached = [_flux([each.mean + s * add for each, add in zip(checked, added, strict=True)]) for s in _STRENGTHS]
    # Rising from some strength on; below the flux of the means alone there is nothing to reach.
    return float(np.interp(wanted, np.maximum.accumulate(reached), _STRENGTHS))


def _pack(residual: np.ndarray) -> np.ndarray:
    """Return residuals (bins, frames) as uint8 (bins // 2, frames), two pixels in each."""
    codes = _CODE_OF[np.clip(np.rint(residual * 16), -48, 48).astype(np.int8) + 48]
    return codes[::2] << 4 | codes[1::2]


def _unpack(codes: np.ndarray) -> np.ndarray:
    """Return what `_pack` packed, float32 (bins, frames)."""
    return _CODEBOOK[np.stack([codes >> 4, codes & 15], axis=1).reshape(-1, codes.shape[1])]


def _principal_axes(spectra: np.ndarray, num_axes: int) -> np.ndarray:
    """Return unit vectors (bins, num_axes) along which the shape of spectra varies most."""
    shapes = spectra - spectra.mean(axis=1, keepdims=True)
    shapes = shapes - shapes.mean(axis=0)
    vectors = np.linalg.eigh(shapes.T @ shapes)[1]
    return np.ascontiguousarray(vectors[:, -num_axes:])


def _farthest_points(points: np.ndarray, num_points: int) -> list[int]:
    """Return points each of which is the farthest from those before it."""
    chosen = [int(np.argmax(np.square(points - points.mean(axis=0)).sum(axis=1)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < min(num_points, len(points)):
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(axis=1))
        chosen.append(int(np.argmax(nearest)))
    return chosen


def check_texture(texture: str | float) -> str:
    """Return the name of a texture, for which 0 stands for `"none"`; a ValueError says so if there is none.

    Example:
        >>> check_texture("grains"), check_texture(0)
        ('grains', 'none')
    """
    name = "none" if texture == 0 else texture
    if name not in TEXTURES:
        raise ValueError(f"`texture` must be one of {TEXTURES}. Received: texture={texture!r}")
    return str(name)
