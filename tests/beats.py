"""Windows of noise with beats, on which distances of sound are tried."""

import numpy as np


def make_windows(num_windows, seed, brightness=0.0, num_frames=64):
    """Noise with a random spectral tilt and random beats that start suddenly and die away."""
    rng = np.random.default_rng(seed)
    bins = np.linspace(0, 1, 256)[:, None]
    windows = np.empty((num_windows, 256, num_frames, 1), np.float32)
    for window in windows:
        tilt = rng.normal(0.5, 0.15) - brightness
        period = rng.integers(8, 32)
        beat = np.exp(-(np.arange(num_frames) % period) / rng.uniform(3, 12))
        level = 0.7 - tilt * bins + rng.uniform(0.05, 0.3) * beat
        window[..., 0] = np.clip(level + rng.normal(0, 0.05, level.shape), 0, 1)
    return windows
