"""What the simplest models of the training windows reach, for a trained one to be measured against."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn.decomposition
import tensorflow as tf

from spectrovae.batching import limited_batches
from spectrovae.linear import random_parts
from spectrovae.objective import Objective
from spectrovae.pooling import average_frames, restore_windows
from spectrovae.warm_start import MAX_WINDOWS, NUM_PASSES

_MAX_POOL_SIZE = 16  # frames that are averaged before PCA, which would be further from held-out music without


class TrainingReference:
    """The mean spectrum of training windows, PCA with as many numbers as a model, and what the prior makes of them.

    The principal components are scikit-learn's, of windows averaged over time; where the model has several codes along
    a window, of the parts that each stands for. As many windows are used as `SpectroVAE.adapt` uses.

    Args:
        model: The model whose size is taken.
        training: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
        batch_size: Number of windows at once, where `training` is an array.

    Attributes:
        num_windows: How many were used, those of repeated walks included.
        spectrum: Mean level at each frequency in dB, shape `(bins,)`.
        shares: Share of the codes that each component of the prior makes, shape `(num_components,)`.

    Raises:
        ValueError: If there are fewer than two windows, they do not have the model's shape, or their values are not
            finite.
    """

    def __init__(self, model: Objective, training: Any, batch_size: int) -> None:
        self.num_windows = 0
        self.spectrum = np.zeros(model.encoder.input_shape[1])
        self.shares = np.zeros(model.prior.num_components)
        self._pool_size = math.gcd(model.encoder.input_shape[2] // model.latent_steps, _MAX_POOL_SIZE)
        batches = self._watched(model, limited_batches(training, NUM_PASSES, MAX_WINDOWS, batch_size))
        parts = random_parts(batches, model.latent_steps, seed=0)
        averaged = [average_frames(batch, self._pool_size) for batch in parts]
        if self.num_windows < 2:
            raise ValueError(f"A comparison needs at least 2 training windows. Received: {self.num_windows}")
        steps = np.concatenate(averaged)
        self._num_steps = steps.shape[-1]
        features = steps.reshape(len(steps), -1)
        self._pca = sklearn.decomposition.PCA(min(model.latent_dim, *features.shape), random_state=0).fit(features)
        self.spectrum, self.shares = self.spectrum / self.num_windows, self.shares / self.num_windows

    def _watched(self, model: Objective, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for windows in batches:
            draws = model.posterior_of(windows).sample(seed=tf.constant([self.num_windows, 1], tf.int32))
            self.shares += np.sum(model.prior.responsibilities(draws), axis=0)
            self.spectrum += model.converter.to_decibels(windows).mean(axis=(2, 3)).sum(axis=0)
            self.num_windows += len(windows)
            yield windows

    def reconstruct(self, windows: np.ndarray) -> np.ndarray:
        """Return what PCA makes of windows, in [0, 1]."""
        return np.clip(restore_windows(windows, self._project, self._num_steps, self._pool_size), 0, 1)

    def _project(self, steps: np.ndarray) -> np.ndarray:
        codes = self._pca.transform(steps.reshape(len(steps), -1))
        return self._pca.inverse_transform(codes).reshape(steps.shape)
