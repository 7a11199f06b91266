"""Principal components of spectrograms, each a spectrum that comes and goes in a course of its own."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.linalg
import scipy.sparse
import tensorflow as tf

SEMITONES = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)
"""How far music is transposed."""

TRANSPOSED_SHARE = 0.4
"""How much of the covariance is that of transposed music, where music is transposed."""

_NUM_AT_ONCE = 128  # sequences in float32
_COURSES_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of sequences of spectra, the outer products of spectra and courses.

    Attributes:
        mean: Mean spectrum, shape `(bins,)`.
        spectra: Unit vectors, shape `(num_components, bins)`.
        courses: Unit vectors over time, shape `(num_components, num_steps)`; those that differ are orthogonal.
        variances: Variance along the components, descending, shape `(num_components,)`.
    """

    mean: np.ndarray
    spectra: np.ndarray
    courses: np.ndarray
    variances: np.ndarray


def separable_components(
    batches: Sequence[np.ndarray], num_components: int, stationary: bool = True, transposition: bool = True
) -> Components:
    """Find the components along which sequences of spectra vary most, if what they do over time is uncorrelated.

    The covariance of `num_steps * bins` numbers is more than some hours of music can tell. Here it is made of less. The
    courses that level and colour take within a sequence are the principal components over time of all frequencies
    together, much like the cosines of the discrete cosine transform (Ahmed, Natarajan and Rao, IEEE Transactions on
    Computers, 1974). Different courses are taken to be uncorrelated, which leaves one covariance of `bins * bins` for
    each. And music some semitones higher or lower is music too. Held-out music is nearer to such components than to
    those of whole sequences.

    Memory holds the batches as they are, in half precision if you like, and some of them in float32.

    Args:
        batches: Arrays of shape `(batch, bins, num_steps)`, of at least 2 sequences in all; the frequencies of the bins
            are evenly spaced from 0 Hz on.
        num_components: How many to find at most; there are not more than numbers in a sequence.
        stationary: Whether statistics are taken not to depend on when a sequence begins, as where they are cut at
            random, and to be the same backwards. Sequences that all begin alike, such as drum hits, are not like that.
        transposition: Whether they are taken to be as likely some semitones higher or lower.

    Example:
        >>> sequences = np.random.default_rng(0).standard_normal((50, 2, 4)) * [[3], [1]]
        >>> components = separable_components([sequences], num_components=3, transposition=False)
        >>> components.spectra.shape, components.courses.shape, bool(components.variances[0] > 4)
        ((3, 2), (3, 4), True)
    """
    num_sequences = sum(map(len, batches))
    bins = batches[0].shape[1]
    total = sum(block.sum(axis=0).sum(axis=1, dtype=np.float64) for block in _blocks(batches))
    mean = (total / (num_sequences * batches[0].shape[2])).astype(np.float32)
    changes = [_transposition(bins, semitones) for semitones in SEMITONES] if transposition else []
    # By more than this a transposition does not make a matrix' norm grow.
    growth = max((change.sum(axis=0).max() for change in changes), default=1.0)
    spectra, courses, variances = np.zeros((0, bins)), np.zeros((0, batches[0].shape[2])), np.zeros(0)
    for course, matrix in _covariances(batches, mean, _courses(batches, mean, stationary)):
        # No eigenvalue is above this norm, so that most of the weaker courses need not be decomposed.
        bound = growth * np.sqrt(np.linalg.norm(matrix @ matrix))
        # Below a millionth of the largest is what rounding leaves.
        least = variances[-1] if len(variances) == num_components else 1e-6 * max([bound, *variances[:1]])
        if bound <= least:
            continue
        values, vectors = scipy.linalg.eigh(_transposed(matrix, changes), subset_by_value=(least, np.inf))
        variances = np.concatenate([variances, values])
        order = np.argsort(-variances, kind="stable")[:num_components]
        variances = variances[order]
        spectra = np.concatenate([spectra, vectors.T])[order]
        courses = np.concatenate([courses, np.tile(course, (len(values), 1))])[order]
    return Components(mean, spectra.astype(np.float32), courses.astype(np.float32), variances)


def _blocks(batches: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        for start in range(0, len(batch), _NUM_AT_ONCE):
            # TensorFlow turns half precision into single on all cores, and NumPy on one.
            yield np.asarray(tf.cast(batch[start : start + _NUM_AT_ONCE], tf.float32))


def _courses(batches: Sequence[np.ndarray], mean: np.ndarray, stationary: bool) -> np.ndarray:
    """Return the principal components over time, the strongest first, `(num_steps, num_steps)`."""
    products = np.zeros((batches[0].shape[-1],) * 2)
    for block in _blocks(batches):
        rows = (block - mean[:, None]).reshape(-1, block.shape[-1])
        products += np.dot(rows.T, rows).astype(np.float64)
    if stationary:
        # What two steps have in common depends on nothing but how far apart they are.
        products = scipy.linalg.toeplitz([np.diagonal(products, lag).mean() for lag in range(len(products))])
    return np.linalg.eigh(products)[1].T[::-1].astype(np.float32)


def _covariances(
    batches: Sequence[np.ndarray], mean: np.ndarray, courses: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each course with the covariance of its spectra, `(bins, bins)`."""
    num_sequences, bins = sum(map(len, batches)), len(mean)
    for start in range(0, len(courses), _COURSES_AT_ONCE):
        some = courses[start : start + _COURSES_AT_ONCE]
        spectra = np.empty((len(some), num_sequences, bins), np.float32)
        end = 0
        for block in _blocks(batches):
            begin, end = end, end + len(block)
            spectra[:, begin:end] = (some @ block.reshape(-1, block.shape[-1]).T).reshape(len(some), -1, bins)
        spectra -= some.sum(axis=1)[:, None, None] * mean
        for course, rows in zip(some, spectra, strict=True):
            yield course, np.dot(rows.T, rows) / np.float32(num_sequences - 1)


def _transposition(bins: int, semitones: float) -> scipy.sparse.csr_array:
    """Return the map that moves spectra up by some semitones, by linear interpolation, `(bins, bins)`.

    Nothing is known of what comes down from above the highest bin: it stays at the mean.
    """
    sources = np.arange(bins) / 2 ** (semitones / 12)
    rows = np.flatnonzero(sources <= bins - 1)
    below = np.floor(sources[rows]).astype(int)
    above, share = np.minimum(below + 1, bins - 1), (sources[rows] - below).astype(np.float32)
    entries = np.concatenate([1 - share, share]), (np.tile(rows, 2), np.concatenate([below, above]))
    return scipy.sparse.csr_array(entries, shape=(bins, bins))


def _transposed(covariance: np.ndarray, changes: list[scipy.sparse.csr_array]) -> np.ndarray:
    """Mix the covariance with those of transposed music."""
    if not changes:
        return covariance
    transposed = sum(change @ (change @ covariance).T for change in changes)
    return (1 - TRANSPOSED_SHARE) * covariance + TRANSPOSED_SHARE / len(changes) * transposed
