"""Principal directions of sequences, with or without their mirror images."""

import numpy as np
from sklearn.utils.extmath import randomized_range_finder

Directions = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean `(num_steps, num_channels)`, orthonormal directions `(num_directions, num_steps, num_channels)`, variances."""


def principal_directions(sequences: np.ndarray, num_directions: int, seed: int | None = None) -> Directions:
    """Find the directions in which sequences vary most.

    Args:
        sequences: Shape `(num_sequences, num_steps, num_channels)`, at least 2 of them.
        num_directions: How many to find at most; there are not more than sequences, or numbers in one.
        seed: Integer that makes the randomised decomposition repeat.

    Returns:
        Mean, directions and the variances along them, the largest first.

    Example:
        >>> sequences = np.random.default_rng(0).standard_normal((50, 4, 2)) * [3, 1]
        >>> _, directions, variances = principal_directions(sequences, num_directions=3, seed=0)
        >>> directions.shape, bool(variances[0] > 4)
        ((3, 4, 2), True)
    """
    mean = sequences.mean(axis=0)
    directions, squares = _decompose(sequences - mean, num_directions, seed)
    return mean, directions, squares / (len(sequences) - 1)


def symmetric_directions(sequences: np.ndarray, num_directions: int, seed: int | None = None) -> Directions:
    """Find the directions in which sequences, and the same ones played backwards, vary most.

    With both in the data every direction is either its own mirror image or minus that. The two kinds are found apart
    from each other, from half as many rows of half as many numbers.

    Args:
        sequences: As for `principal_directions`.
        num_directions: How many to find at most.
        seed: Integer that makes the randomised decomposition repeat.

    Returns:
        Mean, directions and the variances along them, the largest first.

    Example:
        >>> sequences = np.random.default_rng(0).standard_normal((50, 5, 2))
        >>> _, directions, _ = symmetric_directions(sequences, num_directions=3, seed=0)
        >>> np.allclose(np.abs(directions), np.abs(directions[:, ::-1]))
        True
    """
    num_sequences, num_steps, _ = sequences.shape
    half = num_steps // 2
    first, middle, last = sequences[:, :half], sequences[:, half : num_steps - half], sequences[:, ::-1][:, :half]
    root = np.sqrt(0.5, dtype=sequences.dtype)
    even = np.concatenate([root * (first + last), middle], axis=1)
    mean = even.mean(axis=0)
    even -= mean
    even_directions, even_squares = _decompose(even, num_directions, seed)
    del even
    odd_directions, odd_squares = _decompose(root * (first - last), num_directions, seed)

    def unfold(parts: np.ndarray) -> np.ndarray:
        return np.concatenate([root * parts[:, :half], parts[:, half:], root * parts[:, :half][:, ::-1]], axis=1)

    odd_directions = unfold(np.pad(odd_directions, ((0, 0), (0, num_steps % 2), (0, 0))))
    odd_directions[:, num_steps - half :] *= -1
    squares = np.concatenate([even_squares, odd_squares])
    order = np.argsort(-squares, kind="stable")[:num_directions]
    directions = np.concatenate([unfold(even_directions), odd_directions])[order]
    return unfold(mean[None])[0], directions, 2 * squares[order] / (2 * num_sequences - 1)


def _decompose(centred: np.ndarray, num_directions: int, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading right singular vectors, each shaped as a sequence, and the squares of the singular values.

    Halko, Martinsson and Tropp, "Finding structure with randomness" (SIAM Review 2011).
    """
    matrix = centred.reshape(len(centred), -1)
    num_directions = min(num_directions, *matrix.shape)
    if not num_directions or not matrix.any():
        return np.zeros((0, *centred.shape[1:]), matrix.dtype), np.zeros(0)
    # Fewer than three power iterations lose directions.
    size = min(num_directions + 10, *matrix.shape)
    reduced = randomized_range_finder(matrix, size=size, n_iter=3, random_state=seed).T @ matrix
    # Of so few rows the eigenvectors of the Gram matrix are found sooner than singular vectors.
    squares, vectors = np.linalg.eigh(np.dot(reduced, reduced.T).astype(np.float64))
    squares, vectors = np.maximum(squares[::-1], 0)[:num_directions], vectors[:, ::-1][:, :num_directions]
    is_there = squares > 1e-7 * squares[0]
    scales = np.where(is_there, 1 / np.sqrt(np.maximum(squares, np.finfo(float).tiny)), 0)
    directions = (vectors * scales).astype(matrix.dtype).T @ reduced
    return directions[is_there].reshape(-1, *centred.shape[1:]), squares[is_there]
