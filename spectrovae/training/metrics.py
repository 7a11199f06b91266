"""Metrics of the log that Keras does not bring, and what makes a mixture component live."""

import math
from typing import Any

import keras
import tensorflow as tf

LIVE_SHARE = 0.1
"""A mixture component is live if it makes at least this part of an equal share, 1/K, of the codes; else it is dead."""


def live_components(shares: tf.Tensor, live_share: float = LIVE_SHARE) -> tf.Tensor:
    """Return which components of a mixture are live.

    Args:
        shares: Mean responsibility of each component for the codes, shape `(num_components,)`.
        live_share: The part of an equal share that is enough.

    Example:
        >>> import numpy as np
        >>> live_components(np.array([0.5, 0.47, 0.03])).numpy().tolist()
        [True, True, False]
    """
    shares = tf.convert_to_tensor(shares)
    return shares >= live_share / shares.shape[0]


def perplexity(shares: tf.Tensor) -> tf.Tensor:
    """Return the exponential of the entropy of shares: K if they are equal, 1 if one component has it all.

    Example:
        >>> import numpy as np
        >>> round(float(perplexity(np.full(8, 1 / 8))), 6)
        8.0
    """
    return tf.exp(-tf.reduce_sum(tf.math.xlogy(shares, shares)))


@keras.saving.register_keras_serializable(package="spectrovae")
class RootMean(keras.metrics.Mean):
    """The root of the mean of what it is given.

    Args:
        **kwargs: Arguments of `keras.metrics.Mean`, such as `name`.

    Example:
        >>> metric = RootMean()
        >>> metric.update_state([1.0, 7.0])
        >>> float(metric.result())
        2.0
    """

    def result(self) -> tf.Tensor:
        """Return the root of the mean so far."""
        return tf.sqrt(super().result())


class ComponentShares(keras.metrics.Metric):
    """What metrics of a mixture's use share: the mean responsibility of each component.

    Args:
        num_components: Number of components, K.
        **kwargs: Arguments of `keras.metrics.Metric`, such as `name`.

    Raises:
        ValueError: If `num_components` is not positive.
    """

    def __init__(self, num_components: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_components < 1:
            raise ValueError(f"`num_components` must be 1 or more. Received: num_components={num_components!r}")
        self.num_components = num_components
        self.totals = self.add_variable((num_components,), "zeros", name="totals")

    def update_state(self, responsibilities: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Take in responsibilities of shape `(batch, num_components)`, each row of which sums to 1."""
        weights = tf.ones(tf.shape(responsibilities)[:1]) if sample_weight is None else sample_weight
        weights = tf.reshape(tf.cast(weights, self.totals.dtype), (-1, 1))
        self.totals.assign_add(tf.reduce_sum(weights * tf.cast(responsibilities, self.totals.dtype), axis=0))

    @property
    def shares(self) -> tf.Tensor:
        """Mean responsibilities so far, shape `(num_components,)`; zeros where there are none."""
        totals = tf.convert_to_tensor(self.totals)
        return tf.math.divide_no_nan(totals, tf.reduce_sum(totals))

    def get_config(self) -> dict:
        """Return the arguments of the metric."""
        return super().get_config() | {"num_components": self.num_components}


@keras.saving.register_keras_serializable(package="spectrovae")
class NumLiveComponents(ComponentShares):
    """How many components of a mixture are live: those that make a tenth of an equal share of the codes, or more.

    Args:
        num_components: Number of components, K.
        **kwargs: Arguments of `keras.metrics.Metric`, such as `name`.

    Raises:
        ValueError: If `num_components` is not positive.

    Example:
        >>> metric = NumLiveComponents(num_components=3)
        >>> metric.update_state([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
        >>> float(metric.result())
        2.0
    """

    def result(self) -> tf.Tensor:
        """Return the number of live components."""
        return tf.reduce_sum(tf.cast(live_components(self.shares), self.totals.dtype))


@keras.saving.register_keras_serializable(package="spectrovae")
class ComponentPerplexity(ComponentShares):
    """The perplexity of the components' shares: how many components of equal share would be as varied.

    Args:
        num_components: Number of components, K.
        **kwargs: Arguments of `keras.metrics.Metric`, such as `name`.

    Raises:
        ValueError: If `num_components` is not positive.

    Example:
        >>> metric = ComponentPerplexity(num_components=3)
        >>> metric.update_state([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> round(float(metric.result()), 6)
        2.0
    """

    def result(self) -> tf.Tensor:
        """Return the perplexity, from 1 to the number of components."""
        return perplexity(self.shares)


def bound_trackers(num_components: int) -> dict[str, keras.metrics.Metric]:
    """Return the metrics of an evidence lower bound with a mixture prior, by the names under which the log shows them.

    Example:
        >>> sorted(bound_trackers(num_components=3))[:3]
        ['component_perplexity', 'kl_loss', 'loss']
    """
    means = ("loss", "reconstruction_loss", "kl_loss", "prior_cross_entropy")
    trackers: dict[str, keras.metrics.Metric] = {name: keras.metrics.Mean(name=name) for name in means}
    return trackers | {
        "rmse_db": RootMean(name="rmse_db"),
        "num_live_components": NumLiveComponents(num_components, name="num_live_components"),
        "component_perplexity": ComponentPerplexity(num_components, name="component_perplexity"),
    }


_SOURCES = {
    "rmse_db": "squared_error_db",
    "num_live_components": "responsibilities",
    "component_perplexity": "responsibilities",
}


def update_trackers(
    trackers: dict[str, keras.metrics.Metric], terms: dict[str, tf.Tensor], sample_weight: tf.Tensor | None
) -> None:
    """Take in the terms of a batch: what a metric is named after, `squared_error_db` and `responsibilities`."""
    for name, tracker in trackers.items():
        tracker.update_state(terms[_SOURCES.get(name, name)], sample_weight)


def squared_error_db(windows: tf.Tensor, reconstruction: tf.Tensor, scale: str, dynamic_range: float) -> tf.Tensor:
    """Return the mean squared error of each window in squared dB, shape `(batch,)`.

    Args:
        windows: Shape `(batch, bins, frames, 1)`, values in [0, 1].
        reconstruction: The same shape.
        scale: `"decibel"` or `"linear"`: what the values stand for.
        dynamic_range: How many dB the range of values spans.

    Example:
        >>> float(squared_error_db(tf.ones((1, 4, 4, 1)), tf.zeros((1, 4, 4, 1)), "decibel", 80.0)[0])
        6400.0
    """

    def decibels(values: tf.Tensor) -> tf.Tensor:
        if scale == "decibel":
            return values * dynamic_range
        return 20 / math.log(10) * tf.math.log(tf.maximum(values, 10 ** (-dynamic_range / 20)))

    return tf.reduce_mean(tf.square(decibels(windows) - decibels(reconstruction)), axis=(1, 2, 3))
