"""What keeps drawn codes from being louder than any music that was trained on."""

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.checks import check_positive_int

NUM_BANDS = 32
"""How many bands of frequencies have a limit of their own."""

_PERCENTILE = 99  # of the codes' levels: the few above it are what a Gaussian's tail is mistaken for
_NUM_STEPS = 8
_RIDGE = 1e-3  # of the variance of a code of unit variance


@keras.saving.register_keras_serializable(package="spectrovae")
class LoudnessLimits(keras.layers.Layer):
    """Moves codes that are too loud in a band of frequencies to the nearest that are not.

    Music has a loudest level: most of its moments are little below it and some far. A Gaussian that fits both has
    one draw in a hundred 10 dB above it. The level of a band is nearly a linear function of the code, so the codes that
    are not too loud lie in an intersection of half-spaces. A code outside is projected onto the half-space that it
    violates most, eight times (Motzkin and Schoenberg, "The relaxation method for linear inequalities", 1954).

    Args:
        latent_dim: Size of a code.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(..., latent_dim)`.

    Output shape:
        The same. Before `fit` codes stay as they are.

    Raises:
        ValueError: If `latent_dim` is no positive integer.

    Example:
        >>> limits = LoudnessLimits(latent_dim=2)
        >>> limits.fit(codes=np.array([[0.0, 0.0], [1.0, 5.0]]), slopes=np.array([[2.0], [0.0]]) * np.ones(32))
        >>> limits(tf.constant([[3.0, 9.0]])).numpy().round(1)
        array([[1., 9.]], dtype=float32)
    """

    def __init__(self, latent_dim: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False} | kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.slopes = self.add_weight(shape=(latent_dim, NUM_BANDS), initializer="zeros", name="slopes")
        highest = keras.initializers.Constant(np.inf)
        self.highest = self.add_weight(shape=(NUM_BANDS,), initializer=highest, name="highest")
        self.built = True

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the codes, moved where they are too loud."""
        return limit_levels(codes, *self.bounds)

    @property
    def bounds(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Unit vectors along which bands get louder, `(latent_dim, 32)`, and how far codes may be in each."""
        slopes = tf.convert_to_tensor(self.slopes)
        norms = tf.maximum(tf.norm(slopes, axis=0), 1e-9)
        return slopes / norms, self.highest / norms

    def fit(self, codes: np.ndarray, slopes: np.ndarray) -> None:
        """Limit the level of each band to what it hardly ever exceeds in the codes given.

        Args:
            codes: Shape `(..., latent_dim)`.
            slopes: By how much each number of a code raises each band, `(latent_dim, 32)`, in any unit of level.
        """
        self.slopes.assign(slopes)
        levels = np.asarray(codes).reshape(-1, self.latent_dim) @ slopes
        self.highest.assign(np.percentile(levels, _PERCENTILE, axis=0))

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"latent_dim": self.latent_dim}


def limit_levels(codes: tf.Tensor, directions: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    """Return codes, moved where they are further along one of the directions, the columns, than they may be.

    Example:
        >>> limit_levels(tf.constant([[3.0, 9.0]]), directions=tf.constant([[1.0], [0.0]]), highest=tf.constant([1.0]))
        <tf.Tensor: shape=(1, 2), dtype=float32, numpy=array([[1., 9.]], dtype=float32)>
    """
    for _ in range(_NUM_STEPS):
        excess = tf.nn.relu(codes @ directions - highest)
        worst = tf.one_hot(tf.argmax(excess, axis=-1), tf.shape(highest)[0])
        codes -= (worst * excess) @ tf.transpose(directions)
    return codes


def level_slopes(codes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Return by how much each number of a code raises the level of each band, by regression.

    Args:
        codes: Shape `(num_windows, num_steps, latent_dim)`, with one step where a code stands for a window.
        windows: What they decode to, `(num_windows, bins, frames)`.

    Returns:
        Shape `(latent_dim, 32)`, for bands of equal ratios of their frequencies.

    Example:
        >>> codes = np.random.default_rng(0).normal(size=(9, 2, 1))
        >>> windows = np.repeat(3 * codes[..., 0], 4, axis=1)[:, None].repeat(32, axis=1)
        >>> level_slopes(codes, windows).round(1).ravel().tolist() == [3.0] * 32
        True
    """
    num_windows, num_steps, latent_dim = codes.shape
    of_step = windows.reshape(num_windows, windows.shape[1], num_steps, -1).mean(axis=3)
    edges = np.geomspace(1, windows.shape[1], NUM_BANDS + 1).astype(int) - 1
    bands = [of_step[:, low : max(high, low + 1)].mean(axis=1) for low, high in pairwise(edges)]
    levels = np.stack(bands, axis=-1).reshape(-1, NUM_BANDS)
    codes = codes.reshape(-1, latent_dim)
    codes, levels = codes - codes.mean(axis=0), levels - levels.mean(axis=0)
    return np.linalg.solve(codes.T @ codes + _RIDGE * len(codes) * np.eye(latent_dim), codes.T @ levels)
