"""Probabilistic PCA of a data set: the linear optimum that `adapt` gives a model as its start."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from spectrovae.components import separable_components
from spectrovae.pooling import average_frames, cut_windows, restore_windows
from spectrovae.sampling import WindowSample

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
        residual_scales: Root mean square residual at each frequency, shape `(bins,)`, in pixel units.
        pool_size: Number of frames that are averaged.
        num_windows: Number of windows that this was fitted to; of parts, where windows were cut into parts.
    """

    mean: np.ndarray
    spectra: np.ndarray
    courses: np.ndarray
    variances: np.ndarray
    noise_variance: float
    residual_scales: np.ndarray
    pool_size: int
    num_windows: int

    @property
    def signal_variances(self) -> np.ndarray:
        """`lambda_i - s2`, not below 0: what the code explains, shape `(latent_dim,)`."""
        return np.maximum(self.variances - self.noise_variance, 0.0)

    def encoder_weights(self, is_dense: bool = False) -> list[np.ndarray]:
        """Return the weights of a layer from averaged windows to mean codes: a `SeparableDense`, or a dense one."""
        gains = np.sqrt(self.pool_size * self.signal_variances) / np.maximum(self.variances, self.noise_variance)
        spectra = self.spectra.T * gains
        bias = -self.courses.sum(axis=1) * (self.mean @ spectra)
        if is_dense:
            return [np.einsum("kt,fk->tfk", self.courses, spectra).reshape(-1, len(bias)), bias]
        return [self.courses.T, spectra, bias]

    def decoder_weights(self, is_dense: bool = False) -> list[np.ndarray]:
        """Return the weights of a layer back to averaged windows: a `SeparableDenseTranspose`, or a dense one."""
        spectra = self.spectra * np.sqrt(self.signal_variances / self.pool_size)[:, None]
        if is_dense:
            kernel = np.einsum("kt,kf->ktf", self.courses, spectra).reshape(len(spectra), -1)
            return [kernel, np.tile(self.mean, self.courses.shape[1])]
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
        noise_variance, residual_scales = _measure_residual(windows, self.mean, spectra, courses, self.pool_size)
        return dataclasses.replace(
            self,
            spectra=spectra,
            courses=courses,
            variances=self.variances[:latent_dim],
            noise_variance=noise_variance,
            residual_scales=residual_scales,
        )


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
    noise_variance, residual_scales = _measure_residual(sample.windows, found.mean, spectra, courses, pool_size)
    return LinearOptimum(
        mean=found.mean,
        spectra=spectra,
        courses=courses,
        variances=np.pad(pool_size * found.variances, missing),
        noise_variance=noise_variance,
        residual_scales=residual_scales,
        pool_size=pool_size,
        num_windows=sample.num_seen,
    )


def _measure_residual(
    windows: np.ndarray | list[np.ndarray], mean: np.ndarray, spectra: np.ndarray, courses: np.ndarray, pool_size: int
) -> tuple[float, np.ndarray]:
    """Return the noise variance and the residual scales that projection to the components leaves of windows."""

    def project(steps: np.ndarray) -> np.ndarray:
        codes = np.sum((steps - mean[:, None]) @ courses.T * spectra.T, axis=1)
        return mean[:, None] + (codes[:, None] * spectra.T) @ courses

    squares = np.zeros(len(mean))
    for start in range(0, len(windows), _WINDOWS_AT_ONCE):
        some = np.asarray(windows[start : start + _WINDOWS_AT_ONCE])
        residual = some - restore_windows(some, project, courses.shape[1], pool_size)
        squares += np.square(residual).mean(axis=(2, 3)).sum(axis=0) / len(windows)
    num_pixels = windows[0].size
    share_left = 1 - min(len(spectra), num_pixels - 1) / num_pixels
    return max(float(squares.mean()) / share_left, 1e-8), np.sqrt(squares)
