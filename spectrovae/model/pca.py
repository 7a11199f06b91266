"""Probabilistic PCA of windows: the linear optimum from which a model starts."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import scipy.linalg
import scipy.sparse
import tensorflow as tf

from spectrovae.audio.windows import WindowSample


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


SEMITONES = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)
"""How far music is transposed."""

TRANSPOSED_SHARE = 0.4
"""How much of the covariance is that of transposed music, where music is transposed."""

_NUM_AT_ONCE = 128  # sequences in float32

_COURSES_AT_ONCE = 32

_COURSE_RIDGE = 1e-3


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


def transpose_windows(windows: np.ndarray, semitones: float) -> np.ndarray:
    """Return windows with all frequencies some semitones higher or lower; what comes from above the highest is 0.

    Args:
        windows: Shape `(batch, bins, frames, 1)`; the frequencies of the bins are evenly spaced from 0 Hz on.
        semitones: How far; 12 is an octave.

    Example:
        >>> window = np.zeros((1, 9, 2, 1), np.float32)
        >>> window[:, 3] = 1.0
        >>> transpose_windows(window, 12)[0, :, 0, 0].tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """
    by_bin = windows.swapaxes(0, 1)
    moved = _transposition(len(by_bin), semitones) @ by_bin.reshape(len(by_bin), -1)
    return moved.reshape(by_bin.shape).swapaxes(0, 1).astype(np.float32)


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


_WINDOWS_AT_ONCE = 16

PARTS_PER_WINDOW = 8
"""How many parts of a window are used at most, where windows are cut into parts: neighbours are much alike."""


@dataclasses.dataclass(frozen=True)
class LinearOptimum:
    """The linear variational autoencoder of greatest likelihood, in closed form.

    Tipping and Bishop, "Probabilistic principal component analysis" (JRSS B, 1999); Lucas et al., "Don't blame
    the ELBO!" (NeurIPS 2019). Windows are averaged over `pool_size` frames, to `num_steps` steps, since what
    that throws away does not generalise to other music. With P the pool size, `u_i` the principal components
    of the averaged windows (`separable_components`), each a spectrum times a course over time, P times their variance
    `lambda_i`, and `s2` the mean squared residual of the full windows,

        z_i = sqrt(P (lambda_i - s2)) / lambda_i * u_i . (averaged window - mean),   variance s2 / lambda_i,
        window = interpolated (mean + sum_i u_i * sqrt((lambda_i - s2) / P) * z_i).

    Components with `lambda_i` below `s2` are left to the prior.

    Attributes:
        mean: Mean spectrum, shape `(bins,)`.
        spectra: Unit vectors, shape `(latent_dim, bins)`.
        courses: Unit vectors over time, shape `(latent_dim, num_steps)`.
        variances: `lambda_i`, descending, shape `(latent_dim,)`.
        noise_variance: `s2`, in squared pixel units.
        pool_size: Number of frames that are averaged.
        num_windows: Number of windows that this was fitted to; of parts, where windows were cut into parts.
    """

    mean: np.ndarray
    spectra: np.ndarray
    courses: np.ndarray
    variances: np.ndarray
    noise_variance: float
    pool_size: int
    num_windows: int

    @property
    def signal_variances(self) -> np.ndarray:
        """`lambda_i - s2`, not below 0: what the code explains, shape `(latent_dim,)`."""
        return np.maximum(self.variances - self.noise_variance, 0.0)

    def encoder_weights(self) -> list[np.ndarray]:
        """Return the weights of the `SeparableDense` from averaged windows to mean codes."""
        gains = np.sqrt(self.pool_size * self.signal_variances) / np.maximum(self.variances, self.noise_variance)
        spectra = self.spectra.T * gains
        bias = -self.courses.sum(axis=1) * (self.mean @ spectra)
        return [self.courses.T, spectra, bias]

    def decoder_weights(self) -> list[np.ndarray]:
        """Return the weights of the `SeparableDenseTranspose` back to averaged windows."""
        spectra = self.spectra * np.sqrt(self.signal_variances / self.pool_size)[:, None]
        return [self.courses.T, spectra, self.mean]

    @property
    def posterior_scales(self) -> np.ndarray:
        """Standard deviations of q(z|x), at most 1, shape `(latent_dim,)`."""
        return np.sqrt(self.noise_variance / np.maximum(self.variances, self.noise_variance))

    def truncated(self, latent_dim: int, windows: np.ndarray) -> "LinearOptimum":
        """Return the linear optimum of fewer dimensions: principal components do not depend on how many are kept.

        Args:
            latent_dim: Number of components to keep, from 1 to that of this optimum.
            windows: Windows on which the residual is measured, shape `(num_windows, bins, frames, 1)`.

        Raises:
            ValueError: If there are not as many components.

        Example:
            >>> windows = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
            >>> largest = fit_linear_optimum([windows], latent_dim=6, pool_size=2, seed=0)
            >>> largest.truncated(3, windows).noise_variance > largest.noise_variance
            True
        """
        if not 1 <= latent_dim <= len(self.variances):
            raise ValueError(
                f"`latent_dim` must be from 1 to {len(self.variances)}, the number of components of this optimum. "
                f"Received: latent_dim={latent_dim}"
            )
        spectra, courses = self.spectra[:latent_dim], self.courses[:latent_dim]
        noise_variance = _measure_residual(windows, self.mean, spectra, courses, self.pool_size)
        return dataclasses.replace(
            self,
            spectra=spectra,
            courses=courses,
            variances=self.variances[:latent_dim],
            noise_variance=noise_variance,
        )


def fit_courses(contexts: np.ndarray, steps: np.ndarray, spectra: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Find the courses in which codes and their neighbours come nearest to windows, by least squares.

    The projection of parts, each by itself, jumps from part to part. Neighbouring codes tell how it goes on, so that
    this lowers the error at the edges of parts, like the lapped transforms of Malvar and Staelin (IEEE Transactions on
    Acoustics, Speech, and Signal Processing, 1989).

    Args:
        contexts: Draws of codes, each with its neighbours, `(num_windows, num_codes, num_neighbours, latent_dim)`.
        steps: The averaged parts they stand for, `(num_windows, num_codes, num_steps, bins)`.
        spectra: How much of each spectrum a code adds, `(latent_dim, bins)`.
        mean: Mean spectrum, `(bins,)`.

    Returns:
        Shape `(num_neighbours * num_steps, latent_dim)`.

    Example:
        >>> codes = np.random.default_rng(0).standard_normal((9, 4, 1, 1))
        >>> fit_courses(codes, codes * 3.0, np.ones((1, 1)), np.zeros(1)).round(2).tolist()
        [[3.0]]
    """
    num_neighbours, latent_dim = contexts.shape[2:]
    num_steps = steps.shape[2]
    flat = contexts.reshape(-1, num_neighbours * latent_dim).astype(np.float64)
    along = (steps - mean) @ spectra.T  # (num_windows, num_codes, num_steps, latent_dim)
    products = (flat.T @ along.reshape(len(flat), -1)).reshape(num_neighbours, latent_dim, num_steps, latent_dim)
    targets = np.einsum("jdsd->jds", products).reshape(-1, num_steps)
    matrix = flat.T @ flat * np.tile(spectra @ spectra.T, (num_neighbours, num_neighbours))
    matrix += _COURSE_RIDGE * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    courses = np.linalg.solve(matrix, targets).reshape(num_neighbours, latent_dim, num_steps)
    return courses.swapaxes(1, 2).reshape(-1, latent_dim).astype(np.float32)


def random_parts(batches: Iterable[np.ndarray], num_parts: int, seed: int | None = None) -> Iterator[np.ndarray]:
    """Cut windows into parts and keep some of them, `PARTS_PER_WINDOW` for each window at most.

    Args:
        batches: Arrays of windows, shape `(batch, bins, frames, 1)`.
        num_parts: How many parts of each window; of 1, windows pass as they are.
        seed: Integer that makes the choice repeat.

    Example:
        >>> [parts.shape for parts in random_parts([np.zeros((3, 4, 32, 1))], num_parts=16, seed=0)]
        [(24, 4, 2, 1)]
    """
    rng = np.random.default_rng(seed)
    num_kept = min(num_parts, PARTS_PER_WINDOW)
    for windows in map(np.asarray, batches):
        parts = cut_windows(windows, num_parts)
        yield windows if num_parts == 1 else rng.choice(parts, num_kept * len(windows), replace=False)


def fit_linear_optimum(
    batches: Iterable[np.ndarray],
    latent_dim: int,
    pool_size: int,
    stationary: bool = True,
    transposition: bool = True,
    num_residual_windows: int = 128,
    seed: int | None = None,
) -> LinearOptimum:
    """Fit probabilistic PCA to a stream of windows.

    Memory holds the averaged windows and a random sample of full ones, no more.

    Args:
        batches: Arrays of shape `(batch, bins, frames, 1)`.
        latent_dim: Number of components. Where the windows do not vary in as many ways, the rest carry nothing.
        pool_size: Number of frames to average.
        stationary: Whether windows are taken not to know when they begin (`separable_components`).
        transposition: Whether windows are taken to be as likely some semitones higher or lower.
        num_residual_windows: Number of full windows on which the residual is measured.
        seed: Integer that makes the sample repeat.

    Raises:
        ValueError: If there are fewer than two windows, or their values are not finite.
    """
    sample = WindowSample(num_residual_windows, seed)
    averaged = (average_frames(batch, pool_size) for batch in sample.collect(map(np.asarray, batches)))
    # In half precision, as recordings lie in their cache: half the memory, and far finer than what PCA leaves. NumPy
    # takes up to fifty times as long to round numbers near zero.
    steps = [tf.cast(batch, tf.float16).numpy() for batch in averaged]
    if sample.num_seen < 2:
        raise ValueError(
            "The linear start needs at least 2 windows; a model with warm_start=False does without. "
            f"Received: {sample.num_seen}"
        )
    if not all(np.isfinite(batch).all() for batch in steps):
        raise ValueError("Windows must have finite values from 0 to 1. Received: windows that hold NaN or infinity")
    found = separable_components(steps, latent_dim, stationary, transposition)
    del steps
    missing = (0, latent_dim - len(found.variances))
    spectra, courses = (np.pad(vectors, (missing, (0, 0))) for vectors in (found.spectra, found.courses))
    noise_variance = _measure_residual(sample.windows, found.mean, spectra, courses, pool_size)
    return LinearOptimum(
        mean=found.mean,
        spectra=spectra,
        courses=courses,
        variances=np.pad(pool_size * found.variances, missing),
        noise_variance=noise_variance,
        pool_size=pool_size,
        num_windows=sample.num_seen,
    )


def _measure_residual(
    windows: np.ndarray | list[np.ndarray], mean: np.ndarray, spectra: np.ndarray, courses: np.ndarray, pool_size: int
) -> float:
    """Return the noise variance, of what projection to the components leaves of windows."""

    def project(steps: np.ndarray) -> np.ndarray:
        codes = np.sum((steps - mean[:, None]) @ courses.T * spectra.T, axis=1)
        return mean[:, None] + (codes[:, None] * spectra.T) @ courses

    mean_square = 0.0
    for start in range(0, len(windows), _WINDOWS_AT_ONCE):
        some = np.asarray(windows[start : start + _WINDOWS_AT_ONCE])
        residual = some - restore_windows(some, project, courses.shape[1], pool_size)
        mean_square += np.square(residual).sum(dtype=np.float64) / (len(windows) * windows[0].size)
    num_pixels = windows[0].size
    share_left = 1 - min(len(spectra), num_pixels - 1) / num_pixels
    return max(float(mean_square) / share_left, 1e-8)
