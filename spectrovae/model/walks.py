"""Smooth ways through points, and windows that fade into one another along them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def walk_through(points: ArrayLike, num_steps: int, spherical: bool = True) -> np.ndarray:
    """Walks from the first point to the last one, through all others, and rests a little at each.

    On the straight way between two draws from a normal distribution, the middle is nearer to the mean than any draw
    is, and what it stands for is an average. The spherical way (Shoemake, "Animating rotation with quaternion
    curves", SIGGRAPH 1985, in any number of dimensions) keeps the length instead.

    Args:
        points: Shape `(num_points, dimensions)`, at least one.
        num_steps: Points of the way, evenly spaced in time; the first and the last are those of `points`.
        spherical: Whether to go from point to point on a sphere around zero (its radius changes evenly where the
            lengths differ) or straight.

    Returns:
        float64, shape `(num_steps, dimensions)`.

    Raises:
        ValueError: If there is no point, or no step.

    Example:
        >>> walk_through([[2.0, 0.0], [0.0, 2.0]], num_steps=3).round(3)
        array([[2.   , 0.   ],
               [1.414, 1.414],
               [0.   , 2.   ]])
        >>> walk_through([[2.0, 0.0], [0.0, 2.0]], num_steps=3, spherical=False)[1].round(3)
        array([1., 1.])
    """
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or not len(array) or num_steps < 1:
        raise ValueError(
            "There must be points of shape (num_points, dimensions) and at least one step. "
            f"Received: points.shape={array.shape}, num_steps={num_steps}"
        )
    positions = np.linspace(0, len(array) - 1, num_steps)
    left = np.minimum(positions.astype(int), max(len(array) - 2, 0))
    share = (positions - left)[:, None]
    share = share - np.sin(2 * np.pi * share) / (2 * np.pi)  # the speed is zero at each point: no sharp turns
    start, end = array[left], array[np.minimum(left + 1, len(array) - 1)]
    return spherical_way(start, end, share) if spherical else (1 - share) * start + share * end


def spherical_way(start: np.ndarray, end: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Goes from points to others around zero, as `walk_through` does between two.

    Args:
        start: Shape `(num_points, dimensions)`.
        end: The same.
        share: How far to go, from 0 to 1, shape `(num_points, 1)`.

    Returns:
        Shape `(num_points, dimensions)`.

    Example:
        >>> spherical_way(np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]]), np.array([[0.5]])).round(3)
        array([[1.414, 1.414]])
    """
    lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in (start, end)]
    directions = [side / np.maximum(length, 1e-12) for side, length in zip((start, end), lengths, strict=True)]
    angle = np.arccos(np.clip(np.sum(directions[0] * directions[1], axis=1, keepdims=True), -1, 1))
    turns = np.sin(angle) > 1e-6  # else the points lie on one line with zero, and so does the way
    sine = np.where(turns, np.sin(angle), 1.0)
    weights = [np.where(turns, np.sin(part * angle) / sine, part) for part in (1 - share, share)]
    radius = (1 - share) * lengths[0] + share * lengths[1]
    return radius * (weights[0] * directions[0] + weights[1] * directions[1])


def walk_between(means: np.ndarray, scales: np.ndarray, deviations: np.ndarray, num_steps: int) -> np.ndarray:
    """Walks through draws from normal distributions as varied as the draws are, and not through averages of them.

    Args:
        means: Of the distribution of each way point, `(num_waypoints, dimensions)`.
        scales: The standard deviations, the same shape.
        deviations: Where in its distribution each way point lies, in standard deviations, the same shape.
        num_steps: Points of the way.

    Returns:
        float32, shape `(num_steps, dimensions)`.

    Example:
        >>> walk_between(np.array([[1.0], [1.0]]), np.ones((2, 1)), np.array([[2.0], [-2.0]]), 3).ravel().tolist()
        [3.0, 1.0, -1.0]
    """
    mean, scale = (walk_through(values, num_steps, spherical=False) for values in (means, scales))
    return (mean + scale * walk_through(deviations, num_steps)).astype(np.float32)


def fade_loops(first: np.ndarray, second: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Repeats two sequences and tells how to fade from one to the other.

    Args:
        first: Shape `(length, dimensions)`. Its first repeat is heard alone, where there is room.
        second: The same. It ends with a whole repeat, which is heard alone too.
        num_steps: Length of the whole.

    Returns:
        The two loops, `(num_steps, dimensions)`, and the share of the second, from 0 to 1, `(num_steps, 1)`.

    Example:
        >>> first, second, share = fade_loops(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]), num_steps=5)
        >>> first.ravel().tolist(), second.ravel().tolist(), share.ravel().tolist()
        ([1.0, 2.0, 1.0, 2.0, 1.0], [4.0, 3.0, 4.0, 3.0, 4.0], [0.0, 0.0, 0.5, 1.0, 1.0])
    """
    steps = np.arange(num_steps)
    length = len(first)
    if num_steps > 2 * length:
        share = np.clip((steps - length + 0.5) / (num_steps - 2 * length), 0, 1)
    else:
        share = np.linspace(0, 1, num_steps)
    return first[steps % length], second[(steps - num_steps) % length], share[:, None]


def window_starts(num_frames: int, window_frames: int, min_overlap: int) -> np.ndarray:
    """Places windows evenly so that they cover a piece, the first at its start and the last at its end.

    Args:
        num_frames: Frames of the piece.
        window_frames: Frames of a window; a piece that is shorter gets one window.
        min_overlap: Frames that neighbours share at least, fewer than `window_frames`.

    Returns:
        The first frame of each window, int64.

    Example:
        >>> window_starts(num_frames=100, window_frames=40, min_overlap=10)
        array([ 0, 30, 60])
    """
    rest = max(0, num_frames - window_frames)
    num_windows = 1 + -(-rest // (window_frames - min_overlap))
    return np.linspace(0, rest, num_windows).round().astype(np.int64)


def crossfade_weights(starts: np.ndarray, window_frames: int) -> np.ndarray:
    """Returns how much each window counts in each of its frames: in every frame of the piece, the sum is 1.

    Windows fade over the whole of what they share with a neighbour, by the square of a sine.

    Args:
        starts: The first frame of each window, rising, as `window_starts` returns them.
        window_frames: Frames of a window.

    Returns:
        float32, shape `(num_windows, window_frames)`.

    Example:
        >>> crossfade_weights(np.array([0, 2]), window_frames=4).round(2)
        array([[1.  , 1.  , 0.85, 0.15],
               [0.15, 0.85, 1.  , 1.  ]], dtype=float32)
    """
    weights = np.ones((len(starts), window_frames))
    for index, overlap in enumerate(window_frames - np.diff(starts)):
        fade = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / overlap) ** 2
        weights[index, window_frames - overlap :] *= 1 - fade
        weights[index + 1, :overlap] *= fade
    total = np.zeros(starts[-1] + window_frames)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + window_frames] += weight
    for start, weight in zip(starts, weights, strict=True):  # where three overlap, the products do not add up to 1
        weight /= total[start : start + window_frames]
    return weights.astype(np.float32)
