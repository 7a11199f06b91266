"""How the mean and the spread of pixels depend on the level that the linear path says."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from spectrovae.checks import check_positive_int

NUM_KNOTS = 10
_LOWEST, _HIGHEST = -0.05, 1.0  # windows have values in [0, 1], what is linear goes a little below
_BEND = 0.02  # levels are told apart finely near the floor, where the spread changes most
_PRIOR_COUNT = 128  # pixels' worth of trust in the curve that all frequencies share


@keras.saving.register_keras_serializable(package="spectrovae")
class LevelCurves(layers.Layer):
    """Map the level of each frequency by piecewise linear functions of its own.

    A linear model of music is wrong in ways that the level tells: near the floor, which no recording is below, its
    means are too low and its residuals small. The first of the outputs is a mean, to which the level itself is added;
    others are whatever the likelihood needs. Functions are zero at first; `fit_level_curves` fits them in closed form.

    Args:
        num_channels: Number of functions of each frequency.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(batch, steps, bins)`.

    Output shape:
        `(batch, steps, num_channels * bins)`, one channel after the other.

    Raises:
        ValueError: If `num_channels` is not a positive integer.

    Example:
        >>> LevelCurves(2)(tf.constant([[[0.25, 0.5]]])).numpy().tolist()
        [[[0.25, 0.5, 0.0, 0.0]]]
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_channels = check_positive_int("num_channels", num_channels)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights, the values at the knots."""
        self.curves = self.add_weight((self.num_channels, input_shape[-1], NUM_KNOTS), "zeros", name="curves")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the values of the functions."""
        knots = _positions(tf.clip_by_value(inputs, _LOWEST, _HIGHEST), tf)
        lower = tf.clip_by_value(tf.cast(knots, tf.int32), 0, NUM_KNOTS - 2)  # also of what is not a number
        index = lower + NUM_KNOTS * tf.range(inputs.shape[-1])
        share = knots - tf.cast(lower, knots.dtype)
        functions = tf.unstack(tf.convert_to_tensor(self.curves))
        values = [_interpolate(function, share, index) for function in functions]
        return tf.concat([inputs + values[0], *values[1:]], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Put the channels one after the other."""
        bins = input_shape[-1]
        return (*input_shape[:-1], None if bins is None else self.num_channels * bins)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"num_channels": self.num_channels}


def _positions(levels: Any, library: Any) -> Any:
    """Return where levels lie among the knots, from 0 to `NUM_KNOTS - 1`, by NumPy or TensorFlow."""
    log1p = library.math.log1p if library is tf else np.log1p
    bent = library.sign(levels) * log1p(library.abs(levels) / _BEND)
    lowest, highest = -np.log1p(-_LOWEST / _BEND), np.log1p(_HIGHEST / _BEND)
    return (bent - lowest) * ((NUM_KNOTS - 1) / (highest - lowest))


@tf.custom_gradient
def _interpolate(
    function: tf.Tensor, share: tf.Tensor, index: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor | None, ...]]]:
    """Return values between those at knots, of all frequencies one after the other, and the following ones."""
    flat = tf.reshape(function, (-1,))
    below, above = tf.gather(flat, index), tf.gather(flat, index + 1)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        parts = [(upstream * (1.0 - share), index), (upstream * share, index + 1)]
        sums = [tf.math.unsorted_segment_sum(part, where, tf.size(flat)) for part, where in parts]
        return tf.reshape(sums[0] + sums[1], tf.shape(function)), upstream * (above - below), None

    return below + share * (above - below), gradient


def fit_level_curves(levels: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the curves of the mean and of the standard deviation that music has where a model says certain levels.

    At each knot they are averages over the pixels around it, drawn a little towards those of all frequencies.

    Args:
        levels: What the linear path says, shape `(num_spectra, bins)`.
        windows: The music there, of the same shape.

    Returns:
        What is to be added to the levels, and the standard deviations around the sum, each of shape
        `(bins, NUM_KNOTS)`, in pixel units.

    Example:
        >>> levels = np.linspace(0.0, 1.0, 1000)[:, None]
        >>> means, deviations = fit_level_curves(levels, levels + 0.25)
        >>> bool(np.allclose(means, 0.25)), bool(np.allclose(deviations, 0.0))
        (True, True)
    """
    knots = _positions(np.clip(levels, _LOWEST, _HIGHEST), np)
    lower = np.minimum(knots.astype(np.int32), NUM_KNOTS - 2)
    share = knots - lower
    bins = np.arange(levels.shape[1])
    index = lower + NUM_KNOTS * bins

    def at_knots(values: np.ndarray) -> np.ndarray:
        size = NUM_KNOTS * len(bins)
        below = np.bincount(index.ravel(), ((1.0 - share) * values).ravel(), size)
        above = np.bincount(index.ravel() + 1, (share * values).ravel(), size)
        return (below + above).reshape(len(bins), NUM_KNOTS)

    counts = at_knots(np.ones_like(levels))

    def average(values: np.ndarray) -> np.ndarray:
        sums = at_knots(values)
        shared = (sums.sum(axis=0) + values.mean()) / (counts.sum(axis=0) + 1.0)
        return (sums + _PRIOR_COUNT * shared) / (counts + _PRIOR_COUNT)

    means = average(windows - levels)
    corrected = levels + (1.0 - share) * means[bins, lower] + share * means[bins, lower + 1]
    return means, np.sqrt(average(np.square(windows - corrected)))
