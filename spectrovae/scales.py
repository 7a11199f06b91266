"""Free numbers to standard deviations, and back."""

import numpy as np
import tensorflow as tf


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
