"""Principal directions of sequences, with or without their mirror images."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from sklearn.utils.extmath import randomized_range_finder

Directions = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean `(num_channels, num_steps)`, orthonormal directions `(num_directions, num_channels, num_steps)`, variances."""

_BLOCK_SIZE = 2**24  # numbers that are copied at once: 64 MB


def principal_directions(batches: Sequence[np.ndarray], num_directions: int, seed: int | None = None) -> Directions:
    """Find the directions in which sequences vary most.

    Memory holds the batches as they are, in half precision if you like, and some of their channels in float32.

    Args:
        batches: Arrays of shape `(batch, num_channels, num_steps)`, of at least 2 sequences in all.
        num_directions: How many to find at most; there are not more than sequences, or numbers in one.
        seed: Integer that makes the randomised decomposition repeat.

    Returns:
        Mean, directions and the variances along them, the largest first.

    Example:
        >>> sequences = np.random.default_rng(0).standard_normal((50, 2, 4)) * [[3], [1]]
        >>> _, directions, variances = principal_directions([sequences], num_directions=3, seed=0)
        >>> directions.shape, bool(variances[0] > 4)
        ((3, 2, 4), True)
    """
    mean = _mean(batches)
    directions, squares = _decompose(batches, mean, num_directions, seed)
    return mean, directions, squares / (sum(map(len, batches)) - 1)


def symmetric_directions(folded: Sequence[np.ndarray], num_directions: int, seed: int | None = None) -> Directions:
    """Find the directions in which sequences, and the same ones played backwards, vary most.

    With both in the data every direction is either its own mirror image or minus that. The two kinds are found apart
    from each other, in the two halves of folded sequences.

    Args:
        folded: Batches as for `principal_directions`, of sequences that `fold` has folded.
        num_directions: How many to find at most.
        seed: Integer that makes the randomised decomposition repeat.

    Returns:
        Mean, directions and the variances along them, the largest first; not folded.

    Example:
        >>> sequences = np.random.default_rng(0).standard_normal((50, 2, 5))
        >>> _, directions, _ = symmetric_directions([fold(sequences)], num_directions=3, seed=0)
        >>> np.allclose(np.abs(directions), np.abs(directions[..., ::-1]))
        True
    """
    num_channels, num_steps = folded[0].shape[1:]
    split = num_steps - num_steps // 2
    even, odd = ([batch[..., part] for batch in folded] for part in (slice(split), slice(split, None)))
    mean = np.pad(_mean(even), [(0, 0), (0, num_steps - split)])
    even_directions, even_squares = _decompose(even, mean[:, :split], num_directions, seed)
    odd_directions, odd_squares = _decompose(odd, mean[:, split:], num_directions, seed)
    squares = np.concatenate([even_squares, odd_squares])
    order = np.argsort(-squares, kind="stable")[:num_directions]
    is_even = order < len(even_squares)
    directions = np.zeros((len(order), num_channels, num_steps), np.float32)
    directions[is_even, :, :split] = even_directions[order[is_even]]
    directions[~is_even, :, split:] = odd_directions[order[~is_even] - len(even_squares)]
    num_sequences = 2 * sum(map(len, folded))
    return fold(mean), fold(directions), 2 * squares[order] / (num_sequences - 1)


def fold(sequences: np.ndarray) -> np.ndarray:
    """Turn sequences so that the first half of them holds what is its own mirror image, and the second half the rest.

    With `s` for a sequence and `r` for the same one played backwards, the first half becomes that of
    `(r + s) / sqrt(2)`, the second half that of `(r - s) / sqrt(2)`; a step in the middle stays. Lengths and angles
    stay what they are, and `fold` undoes itself.

    Args:
        sequences: Shape `(..., num_steps)`.

    Example:
        >>> fold(np.array([1.0, 2.0, 2.0, 1.0])).round(3).tolist()
        [1.414, 2.828, 0.0, 0.0]
    """
    num_steps = sequences.shape[-1]
    signs = np.where(np.arange(num_steps) < (num_steps + 1) // 2, 1, -1).astype(sequences.dtype)
    folded = signs * sequences
    folded += sequences[..., ::-1]
    folded *= np.sqrt(0.5, dtype=sequences.dtype)
    if num_steps % 2:
        folded[..., num_steps // 2] = sequences[..., num_steps // 2]
    return folded


def _mean(batches: Sequence[np.ndarray]) -> np.ndarray:
    total = sum(batch.sum(axis=0, dtype=np.float64) for batch in batches)
    return (total / sum(map(len, batches))).astype(np.float32)


def _decompose(
    batches: Sequence[np.ndarray], mean: np.ndarray, num_directions: int, seed: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading right singular vectors of the centred sequences, and the squares of the singular values.

    Halko, Martinsson and Tropp, "Finding structure with randomness" (SIAM Review 2011).
    """
    num_sequences = sum(map(len, batches))
    size = min(num_directions + 10, num_sequences, mean.size)
    if not size:
        return np.zeros((0, *mean.shape), np.float32), np.zeros(0)
    blocks = partial(_centred_blocks, batches, mean)
    if num_sequences < mean.size:
        # The Gram matrix of few long rows has the same left singular vectors, and is a power iteration by itself.
        matrix, num_iterations = np.zeros((num_sequences, num_sequences), np.float32), 1
        for block in blocks():
            matrix += block @ block.T
    else:
        matrix, num_iterations = np.concatenate([*blocks()], axis=1), 3  # fewer lose directions
    # Without LU decompositions between them iterations lose all but the strongest directions in float32.
    basis = randomized_range_finder(
        matrix, size=size, n_iter=num_iterations, power_iteration_normalizer="LU", random_state=seed
    )
    reduced = np.concatenate([basis.T @ block for block in blocks()], axis=1)
    # Of so few rows the eigenvectors of the Gram matrix are found sooner than singular vectors.
    squares, vectors = np.linalg.eigh(np.dot(reduced, reduced.T).astype(np.float64))
    squares, vectors = np.maximum(squares[::-1], 0)[:num_directions], vectors[:, ::-1][:, :num_directions]
    is_there = squares > 1e-7 * squares[0]
    directions = (vectors[:, is_there] / np.sqrt(squares[is_there])).astype(np.float32).T @ reduced
    return directions.reshape(-1, *mean.shape), squares[is_there]


def _centred_blocks(batches: Sequence[np.ndarray], mean: np.ndarray) -> Iterator[np.ndarray]:
    """Yield all sequences without their mean, some channels at once, `(num_sequences, channels * num_steps)`."""
    num_channels, num_steps = mean.shape
    num_sequences = sum(map(len, batches))
    num_at_once = max(1, _BLOCK_SIZE // (num_sequences * num_steps))
    for start in range(0, num_channels, num_at_once):
        channels = slice(start, start + num_at_once)
        block = np.concatenate([batch[:, channels] for batch in batches], dtype=np.float32)
        block -= mean[channels]
        yield block.reshape(num_sequences, -1)
