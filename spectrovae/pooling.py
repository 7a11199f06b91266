"""Windows averaged over time, and back."""

import numpy as np


def average_frames(windows: np.ndarray, pool_size: int) -> np.ndarray:
    """Average windows over time.

    Args:
        windows: Shape `(batch, bins, frames, 1)`.
        pool_size: Number of frames to average, a divisor of `frames`.

    Returns:
        Shape `(batch, bins, frames / pool_size)`.
    """
    batch, bins, frames, _ = windows.shape
    # A matrix product takes a tenth of the time of `mean` over so short an axis.
    means = windows.reshape(-1, pool_size) @ np.full(pool_size, 1 / pool_size, windows.dtype)
    return means.reshape(batch, bins, frames // pool_size)


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


def restore_windows(
    windows: np.ndarray, mean: np.ndarray, encoder: np.ndarray, decoder: np.ndarray, pool_size: int
) -> np.ndarray:
    """Return what linear maps to codes and back leave of windows, or of each of their parts.

    Args:
        windows: Shape `(batch, bins, frames, 1)`.
        mean: Mean averaged window, or part of one, shape `(num_steps * bins,)`.
        encoder: Map from averaged windows around the mean to codes, shape `(num_steps * bins, latent_dim)`.
        decoder: Map back, shape `(latent_dim, num_steps * bins)`.
        pool_size: Number of frames to average.
    """
    steps = average_frames(windows, pool_size).swapaxes(1, 2)
    codes = (steps.reshape(-1, mean.size) - mean) @ encoder
    restored = (mean + codes @ decoder).reshape(steps.shape)
    return interpolate_frames(restored.swapaxes(1, 2), pool_size)
