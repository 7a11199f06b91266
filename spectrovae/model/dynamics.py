"""What gives drawn music the loudness of recorded music, from moment to moment."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from spectrovae.audio.spectrogram import SpectrogramConverter

_SLOW_PERCENTILES = (5.0, 25.0, 50.0, 75.0, 95.0)
_FAST_PERCENTILES = (5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0)  # further out a few windows tell little
_SMOOTHED_FRAMES = 8
_MIN_POWER = 1e-6  # of a frame: all that is softer counts as silence
_BACKGROUND_DB, _FOREGROUND_DB = -80.0, -30.0  # levels of bins that keep theirs, and that get all of the difference


@keras.saving.register_keras_serializable(package="spectrovae")
class Dynamics(keras.layers.Layer):
    """Brings the loudness of what is drawn to that of music.

    A Gaussian knows how much levels vary, not that music has a loudest moment or that many notes seldom sound at once:
    what is drawn from it is too loud in some moments and too soft in others. So the level of each frame is taken apart,
    into its mean over the length of a window and the rest. The distribution of either is matched to that of music, as
    histograms of pictures are (Gonzalez and Woods, "Digital Image Processing"). What is loud in the frame is raised or
    lowered by the difference, what is soft by less of it, and the background not at all. It has no part in the density.
    Before `fit` nothing changes.

    Args:
        converter: The `SpectrogramConverter` of the windows.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Example:
        >>> converter = SpectrogramConverter(n_fft=8, hop_length=2, num_frames=16)
        >>> dynamics = Dynamics(converter)
        >>> music, drawn = np.full((1, 4, 16), 0.5, np.float32), np.full((1, 4, 16), 1.0, np.float32)
        >>> dynamics.fit(music, drawn)
        >>> tone, noise = dynamics.match(drawn[0], np.zeros((4, 16), np.float32))
        >>> bool(np.allclose(tone, 0.5))
        True
    """

    def __init__(self, converter: SpectrogramConverter, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False} | kwargs)
        self.converter = converter
        options: dict[str, Any] = {"initializer": "zeros", "trainable": False}
        # Rows: the levels that drawn frames have, and by how much those of music are higher; in dB.
        self.slow = self.add_weight(shape=(2, len(_SLOW_PERCENTILES)), name="slow", **options)
        self.fast = self.add_weight(shape=(2, len(_FAST_PERCENTILES)), name="fast", **options)
        self.built = True

    def fit(self, music: Iterable[np.ndarray], drawn: Iterable[np.ndarray]) -> None:
        """Measure how loud music and draws are.

        Args:
            music: Magnitudes of windows of music, each `(bins, frames)`.
            drawn: Magnitudes of what draws of the prior decode to, with texture, each `(bins, frames)`.
        """
        wanted, given = ([self._levels(np.square(each)) for each in windows] for windows in (music, drawn))
        percentiles = (_SLOW_PERCENTILES, _FAST_PERCENTILES)
        for curve, row, percents in zip((self.slow, self.fast), (0, 1), percentiles, strict=True):
            has, wants = (np.percentile([levels[row] for levels in each], percents) for each in (given, wanted))
            curve.assign(np.stack([has, wants - has]))

    def match(self, tone: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the magnitudes of a drawn sequence, as loud as music.

        Args:
            tone: Magnitudes of the tone, `(bins, frames)`, with any number of frames, as `Texture.split` returns them.
            noise: Those of the noise, of the same shape.
        """
        power = np.square(tone) + np.square(noise)
        parts = zip(self._levels(power), (self.slow, self.fast), strict=True)
        gains = sum(np.interp(levels, *np.asarray(curve)) for levels, curve in parts)  # dB, of each frame
        levels = 10 * np.log10(np.maximum(power, 1e-12))
        shares = np.clip((levels - _BACKGROUND_DB) / (_FOREGROUND_DB - _BACKGROUND_DB), 0, 1)
        factors = (10 ** (gains * shares / 20)).astype(np.float32)
        return tone * factors, noise * factors

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"converter": keras.saving.serialize_keras_object(self.converter)}

    @classmethod
    def from_config(cls, config: dict) -> "Dynamics":
        """Build a layer from what `get_config` returned."""
        return cls(**config | {"converter": keras.saving.deserialize_keras_object(config["converter"])})

    def _levels(self, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the slow and the fast part of the level of each frame, in dB."""
        from scipy.ndimage import uniform_filter1d  # here, since it takes long to import

        smooth = uniform_filter1d(power.sum(axis=0), _SMOOTHED_FRAMES, mode="nearest")
        levels = 10 * np.log10(np.maximum(smooth, _MIN_POWER))
        slow = uniform_filter1d(levels, self.converter.num_frames, mode="nearest")
        return slow, levels - slow
