"""From the numbers that the decoder emits to the probability of a window."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.model.distributions import to_raw_scale, to_scale


class Likelihood(keras.layers.Layer):
    """What all likelihoods share: independent pixels, computed in float32.

    A likelihood maps the decoder's output, of shape `(batch, frames, num_channels, bins)`, to the log probability of
    windows and to their mean, which have shape `(batch, bins, frames, 1)`.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    num_channels = 1
    """How many numbers the decoder emits for each pixel."""

    per_pixel = False
    """Whether `scale` gives a standard deviation for each pixel."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.built = True

    def call(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the mean window."""
        return self.mean(parameters)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the mean of p(x|z), shape `(batch, bins, frames, 1)`."""
        raise NotImplementedError

    def log_prob(self, parameters: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Return log p(x|z) summed over the pixels, shape `(batch,)`, in nats per window."""
        return tf.reduce_sum(self.pixel_log_prob(parameters, windows), axis=(1, 2, 3))

    def pixel_log_prob(self, parameters: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Return log p(x|z) of each pixel, shape `(batch, bins, frames, 1)`, in nats."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="spectrovae")
class GaussianLikelihood(Likelihood):
    """Gaussian pixels: one learned scale for all of them, or one for each that the decoder gives.

    With one scale this is the sigma-VAE of Rybkin, Daniilidis and Levine, "Simple and effective VAE training with
    calibrated decoders" (ICML 2021): the noise level is learned, so no weight of the KL term has to be tuned. With
    a scale for each pixel (`per_pixel=True`) the decoder also says where the music is noise. The density is exact,
    but the gradient of the mean is multiplied by the scale over the shared one, the beta-NLL of Seitzer et al., "On
    the pitfalls of heteroscedastic uncertainty estimation" (ICLR 2022) with beta = 0.5: else the mean would be learned
    only where it is good already. On held-out music 0 gave a greater error, and 1 a lower density.

    Args:
        per_pixel: Whether the decoder emits a raw scale for each pixel as a second channel.
        min_scale: Floor of the standard deviation, in pixel units: 0.01 is 0.8 dB in a range of 80 dB.
        initial_scale: Standard deviation at the start, in pixel units.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If a scale is not positive, or `initial_scale` not above `min_scale`.

    Example:
        >>> likelihood = GaussianLikelihood()
        >>> windows = tf.zeros((2, 4, 4, 1))
        >>> likelihood.log_prob(parameters=windows, windows=windows).shape
        TensorShape([2])
    """

    def __init__(
        self, per_pixel: bool = False, min_scale: float = 0.01, initial_scale: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < min_scale < initial_scale:
            raise ValueError(
                "The scales must satisfy 0 < min_scale < initial_scale. "
                f"Received: min_scale={min_scale!r}, initial_scale={initial_scale!r}"
            )
        self.per_pixel = per_pixel
        self.min_scale = min_scale
        self.initial_scale = initial_scale
        self.num_channels = 2 if per_pixel else 1
        # With a scale for each pixel the decoder's are relative to this one, which stays.
        self.raw_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.to_raw_scale(initial_scale)),
            trainable=not per_pixel,
            name="raw_scale",
        )

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the mean of p(x|z), shape `(batch, bins, frames, 1)`."""
        return _to_windows(tf.cast(parameters[:, :, 0], tf.float32))

    def scale(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the standard deviation of p(x|z), in pixel units, broadcastable to the mean."""
        raw = tf.convert_to_tensor(self.raw_scale)
        if self.per_pixel:
            raw += _to_windows(tf.cast(parameters[:, :, 1], tf.float32))
        return to_scale(raw, self.min_scale)

    def log_prob(self, parameters: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Return log p(x|z) summed over the pixels, shape `(batch,)`, in nats per window."""
        if not self.per_pixel:
            return super().log_prob(parameters, windows)
        # Many more pixels than weights: their gradient by hand, and no transposed copies of the parameters.
        frames = tf.transpose(tf.cast(windows[..., 0], tf.float32), (0, 2, 1))
        moments = tf.unstack(tf.cast(parameters, tf.float32), axis=2)
        return _gaussian_log_prob(*moments, frames, tf.convert_to_tensor(self.raw_scale), self.min_scale)

    def pixel_log_prob(self, parameters: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Return log p(x|z) of each pixel, shape `(batch, bins, frames, 1)`, in nats."""
        scale = self.scale(parameters)
        standardized = (tf.cast(windows, tf.float32) - self.mean(parameters)) / scale
        return -0.5 * tf.square(standardized) - tf.math.log(scale) - 0.5 * np.log(2 * np.pi)

    def to_raw_scale(self, scale: np.ndarray | float) -> np.ndarray:
        """Return the free numbers that stand for standard deviations above `min_scale`."""
        return to_raw_scale(scale, self.min_scale)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {
            "per_pixel": self.per_pixel,
            "min_scale": self.min_scale,
            "initial_scale": self.initial_scale,
        }


@keras.saving.register_keras_serializable(package="spectrovae")
class BernoulliLikelihood(Likelihood):
    """Bernoulli pixels given by their logits, the classic model's likelihood.

    Grey values are treated as probabilities, so this is no density: its best value is minus the entropy of the grey
    values (`log_prob` of windows under themselves), not 0. Its variance p(1-p) is far softer than the residual that
    can be reached, which is one reason for the classic model's blur.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Example:
        >>> BernoulliLikelihood().mean(tf.zeros((1, 1, 1, 1))).numpy().item()
        0.5
    """

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the mean of p(x|z), shape `(batch, bins, frames, 1)`."""
        return tf.sigmoid(_to_windows(tf.cast(parameters[:, :, 0], tf.float32)))

    def pixel_log_prob(self, parameters: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Return log p(x|z) of each pixel, shape `(batch, bins, frames, 1)`, in nats."""
        grey_values, logits = tf.cast(windows, tf.float32), _to_windows(tf.cast(parameters[:, :, 0], tf.float32))
        return -tf.nn.sigmoid_cross_entropy_with_logits(grey_values, logits)


def _to_windows(grid: tf.Tensor) -> tf.Tensor:
    """Return `(batch, bins, frames, 1)` for a number for each pixel, `(batch, frames, bins)`."""
    return tf.transpose(grid, (0, 2, 1))[..., None]


@tf.custom_gradient
def _gaussian_log_prob(
    mean: tf.Tensor, raw: tf.Tensor, values: tf.Tensor, raw_scale: tf.Tensor, min_scale: float
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor | None, ...]]]:
    """Return the log density summed over pixels, and its gradient, where that of the mean is damped.

    TensorFlow's own gradient walks three times as often over the pixels.
    """
    raw += raw_scale
    scale = to_scale(raw, min_scale)
    standardized = (values - mean) / scale
    log_prob = -0.5 * tf.square(standardized) - tf.math.log(scale) - 0.5 * np.log(2 * np.pi)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        upstream = upstream[:, None, None]
        of_mean = upstream * standardized / to_scale(raw_scale, min_scale)  # not over `scale`: beta-NLL
        of_raw = upstream * (tf.square(standardized) - 1.0) / scale * tf.sigmoid(raw)
        return of_mean, of_raw, None, None, None

    return tf.reduce_sum(log_prob, axis=(1, 2)), gradient


LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "gaussian": GaussianLikelihood,
    "heteroscedastic_gaussian": functools.partial(GaussianLikelihood, per_pixel=True),
    "bernoulli": BernoulliLikelihood,
}


def get_likelihood(likelihood: str | Likelihood) -> Likelihood:
    """Return a new likelihood of that name, or the given layer itself.

    Args:
        likelihood: `"gaussian"` (one learned scale), `"heteroscedastic_gaussian"` (a scale for each pixel),
            `"bernoulli"`, or a `Likelihood`.

    Raises:
        ValueError: If there is no likelihood of that name.

    Example:
        >>> get_likelihood("bernoulli").num_channels
        1
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in LIKELIHOODS:
        raise ValueError(
            f"`likelihood` must be one of {sorted(LIKELIHOODS)} or a likelihood layer. "
            f"Received: likelihood={likelihood!r}"
        )
    return LIKELIHOODS[likelihood]()
