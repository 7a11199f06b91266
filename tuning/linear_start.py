"""The linear start of many models, computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from spectrovae import SpectroVAE
from spectrovae.batching import limited_batches
from spectrovae.files import replaced_when_complete
from spectrovae.linear import PARTS_PER_WINDOW, LinearOptimum, fit_linear_optimum, random_parts
from spectrovae.sampling import WindowSample
from spectrovae.warm_start import MAX_WINDOWS, NUM_PASSES


class SharedLinearStart:
    """`SpectroVAE.adapt` for many models on the same data: one decomposition for each depth and number of codes.

    Principal components do not depend on how many are kept, so that of the largest code serves all. What depends
    on it, the residual, is measured for each size on the same sample of windows. The prior is fitted for each
    model: that takes little time.

    Args:
        latent_dims: The code sizes that will be asked for.
        folder: Where the results are kept for other processes; None for none.
        seed: Integer that makes the decomposition repeat.
        num_passes: How often a dataset is walked over at most, as for `SpectroVAE.adapt`.
        max_windows: Bound on the number of windows that are used.

    Example:
        >>> windows = np.random.default_rng(0).random((20, 16, 16, 1), np.float32)
        >>> start = SharedLinearStart([2, 4])
        >>> for latent_dim in (2, 4):
        ...     model = SpectroVAE((16, 16, 1), latent_dim, num_components=1, decoder_depth=2, width=4)
        ...     start.adapt(model, windows)
        >>> model.adapted, start.num_computed
        (True, 1)
    """

    def __init__(
        self,
        latent_dims: Iterable[int],
        folder: str | Path | None = None,
        seed: int | None = None,
        num_passes: int = NUM_PASSES,
        max_windows: int = MAX_WINDOWS,
    ) -> None:
        self.latent_dims = sorted(set(latent_dims))
        self.folder = None if folder is None else Path(folder)
        self.seed = seed
        self.num_passes = num_passes
        self.max_windows = max_windows
        self.num_computed = 0
        self._data: Any = None
        self._optima: dict[tuple[int, int, int], LinearOptimum] = {}

    def adapt(self, model: SpectroVAE, x: Any) -> None:
        """Start a model from the linear optimum of a data set.

        Args:
            model: A `SpectroVAE` of one of the `latent_dims`.
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them. Other data than
                before are decomposed anew.

        Raises:
            ValueError: As `SpectroVAE.adapt` does.
        """
        if not model.can_adapt or model.latent_dim not in self.latent_dims or hasattr(x, "__next__"):
            model.adapt(x, verbose=0)
            return
        if self._data is not x:
            self._data, self._optima = x, {}
        pool_size = model.encoder.get_layer("linear_pooling").pool_size[0]
        key = pool_size, model.latent_steps, model.latent_dim
        if key not in self._optima:
            self._load_or_compute(x, pool_size, model.latent_steps)
        model.start_from(self._optima[key], x, self.max_windows)

    def _load_or_compute(self, x: Any, pool_size: int, latent_steps: int) -> None:
        name = f"pool_{pool_size}" if latent_steps == 1 else f"pool_{pool_size}_steps_{latent_steps}"
        file = None if self.folder is None else self.folder / f"{name}.npz"
        if file is not None and file.exists():
            optima = _load(file)
        else:
            optima = self._compute(x, pool_size, latent_steps)
            self.num_computed += 1
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                _save(file, optima)
        self._optima |= {(pool_size, latent_steps, len(optimum.variances)): optimum for optimum in optima}

    def _compute(self, x: Any, pool_size: int, latent_steps: int) -> list[LinearOptimum]:
        sample = WindowSample(size=128 * min(latent_steps, PARTS_PER_WINDOW), seed=self.seed)
        parts = random_parts(limited_batches(x, self.num_passes, self.max_windows), latent_steps, self.seed)
        batches = sample.collect(parts)
        largest = fit_linear_optimum(batches, self.latent_dims[-1], pool_size, seed=self.seed)
        windows = np.stack(sample.windows)
        return [largest.truncated(latent_dim, windows) for latent_dim in self.latent_dims]


def _save(file: Path, optima: list[LinearOptimum]) -> None:
    # The components of the largest hold those of all others.
    arrays = {
        f"{index}_{key}": value
        for index, optimum in enumerate(optima)
        for key, value in dataclasses.asdict(optimum).items()
        if key not in ("spectra", "courses", "mean")
    }
    with replaced_when_complete(file) as part, part.open("wb") as stream:
        largest = optima[-1]
        np.savez(stream, spectra=largest.spectra, courses=largest.courses, mean=largest.mean, **arrays)


def _load(file: Path) -> list[LinearOptimum]:
    with np.load(file, allow_pickle=False) as arrays:
        spectra, courses, mean = (arrays[key] for key in ("spectra", "courses", "mean"))
        optima: list[LinearOptimum] = []
        while f"{len(optima)}_variances" in arrays:
            prefix = f"{len(optima)}_"
            own = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
            scalars = {key: value.item() for key, value in own.items() if value.ndim == 0}
            kept = slice(len(own["variances"]))
            shared = {"spectra": spectra[kept], "courses": courses[kept], "mean": mean}
            optima.append(LinearOptimum(**own | scalars | shared))
    return optima
