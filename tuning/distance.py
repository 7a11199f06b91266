"""How far generated windows are from held-out ones, while a model trains."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from spectrovae.batching import limited_batches
from spectrovae.checkpoints import averaged_weights
from spectrovae.distances import maximum_mean_discrepancy
from spectrovae.evaluation import SoundDistance


class GenerationDistance(keras.callbacks.Callback):
    """Logs `val_distance` after each epoch: the squared maximum mean discrepancy of generated and held-out windows.

    It is measured on log-mel statistics, as `SoundDistance` does, whitened on the training windows. The same draws
    are made after each epoch and in each trial, so that trials differ by their models and not by luck. Give it
    before callbacks that shall see what it logs, such as `ModelCheckpoint`.

    Args:
        training: Training windows, `(num_windows, bins, frames, 1)` in [0, 1], or batches of them.
        held_out: Held-out windows, at least 2.
        num_samples: Number of windows to generate, at least 2.
        max_windows: Bound on the number of training windows that are used.
        seed: Integer that decides the draws.

    Raises:
        ValueError: If there are too few windows, or draws.

    Example:
        >>> windows = np.random.default_rng(0).random((20, 32, 32, 1), np.float32)
        >>> model = SpectroVAE((32, 32, 1), 2, num_components=1, decoder_depth=2, width=4)
        >>> model.compile()
        >>> distance = GenerationDistance(windows[:10], windows[10:], num_samples=4)
        >>> history = model.fit(windows[:10], epochs=2, callbacks=[distance], verbose=0)
        >>> len(history.history["val_distance"])
        2
    """

    _distance: SoundDistance
    _real: np.ndarray

    def __init__(
        self, training: Any, held_out: Any, num_samples: int = 128, max_windows: int = 512, seed: int = 0
    ) -> None:
        super().__init__()
        if num_samples < 2:
            raise ValueError(f"`num_samples` must be 2 or more. Received: num_samples={num_samples}")
        self.training = training
        self.held_out = held_out
        self.num_samples = num_samples
        self.max_windows = max_windows
        self.seed = seed

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Measure the recordings."""
        # Each walk over a dataset cuts other windows: one walk, the same in each trial.
        training = limited_batches(self.training, num_passes=1, max_windows=self.max_windows)
        self._distance = SoundDistance(training, self.model.converter)
        self._real = self._distance.embed(self.held_out)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Generate windows and add their distance to the log; NaN if they are not finite."""
        if logs is None:
            return
        # As in validation: the average of the weights is what the training ends with.
        with averaged_weights(self.model):
            windows = self.model.generate(self.num_samples, seed=self.seed)
        logs["val_distance"] = float("nan")
        if np.isfinite(windows).all():
            generated = self._distance.embed(windows)
            logs["val_distance"] = maximum_mean_discrepancy(generated, self._real, self._distance.bandwidths)
