"""Windows averaged over time, and back."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def average_frames(windows: np.ndarray, pool_size: int) -> np.ndarray:
    """Average windows over time.

    Args:
        windows: Shape `(batch, bins, frames, 1)`.
        pool_size: Number of frames to average, a divisor of `frames`.

    Returns:
        Shape `(batch, bins, frames / pool_size)`.
    """
    # A tenth of the time that NumPy takes for means over so short an axis.
    return np.asarray(tf.nn.avg_pool2d(windows, (1, pool_size), (1, pool_size), "VALID"))[..., 0]


def interpolate_frames(steps: np.ndarray, pool_size: int) -> np.ndarray:
    """Undo `average_frames` as far as it goes: linear interpolation between the middles of the steps.

    Args:
        steps: Shape `(batch, bins, num_steps)`.
        pool_size: Number of frames of a step.

    Returns:
        Windows of shape `(batch, bins, num_steps * pool_size, 1)`.
    """
    num_steps = steps.shape[-1]
    middles = (np.arange(num_steps) + 0.5) * pool_size - 0.5
    frames = np.arange(num_steps * pool_size)
    weights = np.stack([np.interp(frames, middles, row) for row in np.eye(num_steps)])
    return (steps @ weights.astype(steps.dtype))[..., None]


def cut_windows(windows: np.ndarray, num_parts: int) -> np.ndarray:
    """Cut windows along time into parts of equal length.

    Args:
        windows: Shape `(batch, bins, frames, 1)`.
        num_parts: How many parts of each, a divisor of `frames`.

    Returns:
        Shape `(batch * num_parts, bins, frames / num_parts, 1)`.
    """
    batch, bins, frames, _ = windows.shape
    parts = windows.reshape(batch, bins, num_parts, frames // num_parts).swapaxes(1, 2)
    return parts.reshape(batch * num_parts, bins, frames // num_parts, 1)


def restore_windows(
    windows: np.ndarray, project: Callable[[np.ndarray], np.ndarray], num_steps: int, pool_size: int
) -> np.ndarray:
    """Return what a projection of averaged windows leaves of them, or of each of their parts.

    Args:
        windows: Shape `(batch, bins, frames, 1)`.
        project: Takes averaged windows, or parts of them, of shape `(num_parts, bins, num_steps)`, and returns as many.
        num_steps: Length of a part, a divisor of `frames / pool_size`.
        pool_size: Number of frames to average.
    """
    steps = average_frames(windows, pool_size)
    batch, bins, num_all = steps.shape
    parts = cut_windows(steps[..., None], num_all // num_steps)
    joined = project(parts[..., 0]).reshape(batch, -1, bins, num_steps).swapaxes(1, 2).reshape(batch, bins, num_all)
    return interpolate_frames(joined, pool_size)
