"""Free numbers to scales and to the posterior, and seeds for draws."""

import threading

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from spectrovae.checks import check_seed


def to_scale(raw_scale: tf.Tensor, min_scale: float) -> tf.Tensor:
    """Map any real numbers to standard deviations above a floor: softplus, added to it.

    Example:
        >>> float(to_scale(tf.constant(100.0), min_scale=0.5))
        100.5
    """
    return min_scale + tf.nn.softplus(raw_scale)


def to_raw_scale(scale: np.ndarray | float, min_scale: float) -> np.ndarray:
    """Return the numbers that `to_scale` maps to these standard deviations.

    Args:
        scale: Standard deviations; those at the floor or under it are raised to just above it.
        min_scale: The floor.

    Example:
        >>> raw_scale = to_raw_scale(np.array([0.5, 2.0]), min_scale=0.1)
        >>> np.round(0.1 + np.logaddexp(0, raw_scale), 3).tolist()
        [0.5, 2.0]
    """
    # In float64, since small scales cancel.
    above_floor = np.maximum(np.asarray(scale, np.float64) - min_scale, 1e-6)
    return above_floor + np.log(-np.expm1(-above_floor))


# Keras' generator reads its state and then counts on: between the two, another thread would get the same seed.
_DRAW = threading.Lock()


def stateless_seed(seed: int | None, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Return the two-integer seed with which TensorFlow Probability draws the same numbers every time.

    Args:
        seed: An integer for a draw that repeats, or None for the next draw of `generator`, of which no two threads get
            the same.
        generator: The `keras.random.SeedGenerator` that is asked when there is no seed.

    Returns:
        An int32 tensor of shape `(2,)`.

    Raises:
        ValueError: If `seed` is a negative number or no integer.

    Example:
        >>> stateless_seed(3, keras.random.SeedGenerator(0)).numpy().tolist()
        [3, 0]
    """
    if seed is None:
        with _DRAW:
            return tf.cast(generator.next(), tf.int32)
    check_seed("seed", seed)
    return tf.constant([seed & 0x7FFFFFFF, seed >> 31 & 0x7FFFFFFF], tf.int32)


def numpy_generator(seed: int | None, generator: keras.random.SeedGenerator) -> np.random.Generator:
    """Return NumPy's generator for a seed, or for the next draw of `generator`, as in `stateless_seed`."""
    return np.random.default_rng(stateless_seed(seed, generator).numpy())


POSTERIORS = ("diagonal", "full")

# Keeps the covariance invertible where the encoder asks for no spread at all.
MIN_SCALE = 1e-5


def num_posterior_parameters(posterior: str, latent_dim: int) -> int:
    """Return how many numbers the encoder emits for one code.

    Args:
        posterior: `"diagonal"` (means and standard deviations) or `"full"` (means and a lower-triangular
            scale).
        latent_dim: Size of the code.

    Raises:
        ValueError: If `posterior` is not known.

    Example:
        >>> num_posterior_parameters("full", 100)
        5150
    """
    _check_posterior(posterior)
    num_scales = latent_dim if posterior == "diagonal" else latent_dim * (latent_dim + 1) // 2
    return latent_dim + num_scales


def posterior_distribution(parameters: tf.Tensor, posterior: str, latent_dim: int) -> tfd.Distribution:
    """Return the Gaussian q(z|x) that the encoder's output stands for.

    Any real numbers are valid parameters: standard deviations (the diagonal of the scale, where it is a
    matrix) go through softplus and are at least 1e-5.

    Args:
        parameters: Shape `(..., num_posterior_parameters(posterior, latent_dim))`: the mean first.
        posterior: `"diagonal"` or `"full"`.
        latent_dim: Size of the code.

    Returns:
        A TensorFlow Probability distribution with batch shape `(...)` and event shape `(latent_dim,)`, whose
        `sample`, `log_prob`, `mean` and `entropy` are exact.

    Raises:
        ValueError: If `posterior` is not known, or the last axis does not fit it.

    Example:
        >>> posterior_distribution(tf.zeros((4, 6)), "diagonal", latent_dim=3).sample().shape
        TensorShape([4, 3])
    """
    expected = num_posterior_parameters(posterior, latent_dim)
    if parameters.shape[-1] != expected:
        raise ValueError(
            f"A {posterior!r} posterior over {latent_dim} dimensions needs {expected} parameters on the last "
            f"axis. Received: parameters of shape {tuple(parameters.shape)}"
        )
    parameters = tf.cast(parameters, tf.float32)
    mean, raw_scale = parameters[..., :latent_dim], parameters[..., latent_dim:]
    if posterior == "diagonal":
        return tfd.MultivariateNormalDiag(mean, to_scale(raw_scale, MIN_SCALE))
    return tfd.MultivariateNormalTriL(mean, tfb.FillScaleTriL(diag_shift=MIN_SCALE).forward(raw_scale))


def raw_posterior_scales(scales: np.ndarray, posterior: str) -> np.ndarray:
    """Return the raw parameters, behind the mean, that give uncorrelated dimensions these scales.

    Args:
        scales: Standard deviations, shape `(latent_dim,)`; those under the floor are raised to it.
        posterior: `"diagonal"` or `"full"`.

    Returns:
        Shape `(num_posterior_parameters(posterior, latent_dim) - latent_dim,)`.

    Raises:
        ValueError: If `posterior` is not known.

    Example:
        >>> raw = raw_posterior_scales(np.array([0.5, 2.0]), "diagonal")
        >>> np.round(np.logaddexp(0, raw), 3).tolist()
        [0.5, 2.0]
    """
    _check_posterior(posterior)
    raw = to_raw_scale(scales, MIN_SCALE)
    if posterior == "diagonal":
        return raw
    return tfb.FillTriangular().inverse(tf.constant(np.diag(raw))).numpy()


def _check_posterior(posterior: str) -> None:
    if posterior not in POSTERIORS:
        raise ValueError(f"`posterior` must be one of {POSTERIORS}. Received: posterior={posterior!r}")
