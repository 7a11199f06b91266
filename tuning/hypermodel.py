"""The model of a trial: from hyperparameters to a compiled `SpectroVAE`, its start and its training."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import WindowSample, limited_batches, training_part
from spectrovae.evaluation.sound_distance import SoundDistance, maximum_mean_discrepancy
from spectrovae.model.linear_start import MAX_WINDOWS, NUM_PASSES, start_from
from spectrovae.model.pca import PARTS_PER_WINDOW, LinearOptimum, fit_linear_optimum, random_parts
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.storage import replaced_when_complete
from spectrovae.training.optimizer import default_optimizer
from spectrovae.tuning.search_space import (
    DEFAULT_CHOICES,
    OPTIONAL_CHOICES,
    SweepSettings,
    buildable_choices,
    choose_arguments,
    choose_learning_rate,
)


class SharedLinearStart:
    """`SpectroVAE.adapt` for many models on the same data: one decomposition for each depth and number of codes.

    Principal components do not depend on how many are kept, so those of the largest code serve all sizes. The residual
    does depend on it: it is measured for each size on the same sample of windows. The prior is fitted for each
    model, which takes little time.

    Args:
        latent_dims: The sizes of the codes of all models.
        folder: Where to keep the results for other processes; None for nowhere.
        seed: Integer that makes the decomposition repeatable.
        num_passes: How often to read a dataset at most, as for `SpectroVAE.adapt`.
        max_windows: Largest number of windows to use.

    Example:
        >>> import numpy as np
        >>> from spectrovae import SpectroVAE
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
        """Start a model from the linear optimum of a dataset.

        Args:
            model: A `SpectroVAE` of one of the `latent_dims`.
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them. Data other than those
                of the last call are decomposed anew.

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
        start_from(model, self._optima[key], x, self.max_windows)

    def _load_or_compute(self, x: Any, pool_size: int, latent_steps: int) -> None:
        name = f"pool_{pool_size}" if latent_steps == 1 else f"pool_{pool_size}_steps_{latent_steps}"
        file = None if self.folder is None else self.folder / f"{name}.npz"
        optima = [] if file is None else _load(file)
        if [len(optimum.variances) for optimum in optima] != self.latent_dims:
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
    """Return what `_save` wrote; nothing if there is no file, or one that is damaged."""
    optima: list[LinearOptimum] = []
    try:
        with np.load(file, allow_pickle=False) as arrays:
            spectra, courses, mean = (arrays[key] for key in ("spectra", "courses", "mean"))
            while f"{len(optima)}_variances" in arrays:
                prefix = f"{len(optima)}_"
                own = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
                scalars = {key: value.item() for key, value in own.items() if value.ndim == 0}
                kept = slice(len(own["variances"]))
                shared = {"spectra": spectra[kept], "courses": courses[kept], "mean": mean}
                optima.append(LinearOptimum(**own | scalars | shared))
    except (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile):
        return []
    return optima


class GenerationDistance(keras.callbacks.Callback):
    """Log `val_distance` after each epoch: the squared maximum mean discrepancy of generated and held-out windows.

    It is measured on log-mel statistics, as `SoundDistance` does, whitened on the training windows. The random draws
    are the same after each epoch and in each trial, so that trials differ by their models only. Pass it before
    callbacks that read what it logs, such as `ModelCheckpoint`.

    Args:
        training: Training windows, `(num_windows, bins, frames, 1)` in [0, 1], or batches of them.
        held_out: Held-out windows, at least 2.
        num_samples: Number of windows to generate, at least 2.
        max_windows: Largest number of training windows to use.
        seed: Integer that decides the draws.

    Raises:
        ValueError: If there are fewer than two windows or samples.

    Example:
        >>> import numpy as np
        >>> from spectrovae import SpectroVAE
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
        # A dataset cuts other windows each time it is read: it is read once, with the same result in each trial.
        training = limited_batches(self.training, num_passes=1, max_windows=self.max_windows)
        self._distance = SoundDistance(training, self.model.converter)
        self._real = self._distance.embed(self.held_out)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Generate windows and add their distance to the log; NaN if the model's weights are not finite."""
        if logs is None:
            return
        logs["val_distance"] = float("nan")
        if all(np.isfinite(weight).all() for weight in self.model.trainable_variables):
            generated = self._distance.embed(self.model.generate(self.num_samples, seed=self.seed))
            logs["val_distance"] = maximum_mean_discrepancy(generated, self._real, self._distance.bandwidths)


class SpectroVAEHyperModel(keras_tuner.HyperModel):
    """A `SpectroVAE` whose arguments are chosen by a tuner of KerasTuner.

    It works with every tuner: `RandomSearch`, `BayesianOptimization`, `Hyperband`, `GridSearch`. A trial that cannot be
    built, runs out of memory or ends in NaN is marked `FAILED` with the reason as its message, and the search goes on.
    The linear start of the models is computed once for each depth and number of codes, and shared by the trials.

    Args:
        converter: The `SpectrogramConverter` that made the windows; by default one with default settings.
        choices: For each argument the values to choose from, as for `choose_arguments`.
        architecture: `"temporal"` or `"classic"`.
        max_parameters: Models with more weights than this fail; None for no limit.
        linear_start_folder: Folder that shares the linear start with other processes; None for this process only.
        measure_distance: Whether each epoch logs `val_distance` (see `GenerationDistance`), to search by it.
        name: Name of the hypermodel.
        **model_arguments: Further arguments of `SpectroVAE`, the same in all trials, such as `seed`.

    Attributes:
        usable_choices: The values that are searched, without those from which no model can be built.

    Raises:
        ValueError: If an argument of `choices` is unknown, or no model can be built from any of its values.

    Example:
        >>> import keras_tuner
        >>> from spectrovae import SpectrogramConverter
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
        >>> hypermodel = SpectroVAEHyperModel(converter, {"latent_dim": [2, 4]}, width=8)
        >>> hypermodel.build(keras_tuner.HyperParameters()).latent_dim
        2
    """

    def __init__(
        self,
        converter: SpectrogramConverter | None = None,
        choices: Mapping[str, Iterable] | None = None,
        architecture: str = "temporal",
        max_parameters: int | None = None,
        linear_start_folder: str | Path | None = None,
        measure_distance: bool = False,
        name: str | None = None,
        **model_arguments: Any,
    ) -> None:
        super().__init__(name=name)
        self.converter = SpectrogramConverter() if converter is None else converter
        self.architecture = architecture
        self.max_parameters = max_parameters
        self.measure_distance = measure_distance
        searchable = (DEFAULT_CHOICES | OPTIONAL_CHOICES).keys() & model_arguments.keys()
        fixed = {key: [model_arguments.pop(key)] for key in searchable}
        self.choices = {key: list(values) for key, values in (dict(choices or {}) | fixed).items()}
        self.model_arguments = model_arguments
        self.usable_choices = buildable_choices(self.converter.window_shape, architecture, self.choices)
        self.linear_start = SharedLinearStart(
            self.usable_choices["latent_dim"], linear_start_folder, model_arguments.get("seed")
        )

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Register the arguments that are searched, without building a model.

        Args:
            hp: The `HyperParameters` of a trial or a search.

        Returns:
            The values of the trial: arguments of `SpectroVAE`, and `learning_rate` if that is searched.
        """
        arguments = choose_arguments(hp, self.converter.window_shape, self.architecture, self.choices)
        learning_rate = choose_learning_rate(hp, self.choices)
        return arguments if learning_rate is None else arguments | {"learning_rate": learning_rate}

    def build(self, hp: keras_tuner.HyperParameters) -> SpectroVAE:
        """Build and compile the model of a trial.

        Raises:
            FailedTrialError: If it cannot be built or has more than `max_parameters` weights.
        """
        arguments = self.declare_hyperparameters(hp)
        learning_rate = arguments.pop("learning_rate", None)
        try:
            model = SpectroVAE(
                self.converter.window_shape,
                architecture=self.architecture,
                converter=self.converter,
                **arguments | self.model_arguments,
            )
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise _out_of_memory(error) from error
        except ValueError as error:
            raise keras_tuner.errors.FailedTrialError(
                f"This combination cannot be built: {error} Received: {arguments}"
            ) from error
        num_parameters = model.count_params()
        if self.max_parameters is not None and num_parameters > self.max_parameters:
            raise keras_tuner.errors.FailedTrialError(
                f"The model has {num_parameters:,} weights, the limit is {self.max_parameters:,}."
            )
        model.compile(None if learning_rate is None else default_optimizer(learning_rate))
        return model

    def fit(
        self, hp: keras_tuner.HyperParameters, model: SpectroVAE, x: Any, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Train the model of a trial, from the shared linear start if it has one.

        Args:
            hp: The `HyperParameters` of the trial.
            model: What `build` returned.
            x: Windows or a dataset, as for `SpectroVAE.fit`.
            *args: Further arguments of `SpectroVAE.fit`.
            **kwargs: Further arguments of `SpectroVAE.fit`, such as `validation_data` and `epochs`.

        Returns:
            The history of losses and metrics by epoch.

        Raises:
            FailedTrialError: If a loss is not finite, or there is not enough memory.
            ValueError: If `val_distance` is measured and there is no `validation_data`.
        """
        callbacks = [*(kwargs.pop("callbacks", None) or []), keras.callbacks.TerminateOnNaN()]
        training = training_part(x, kwargs.get("validation_split", 0.0))
        if self.measure_distance:
            callbacks.insert(0, self._distance_callback(training, kwargs.get("validation_data")))
        try:
            # Of an iterator, `model.fit` reads ahead what it needs.
            if model.warm_start and model.can_adapt and not model.adapted and not hasattr(training, "__next__"):
                self.linear_start.adapt(model, training)
            history = model.fit(x, *args, callbacks=callbacks, **kwargs)
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise _out_of_memory(error) from error
        for name, values in history.history.items():
            if not np.isfinite(values).all():
                epoch = int(np.flatnonzero(~np.isfinite(values))[0])
                raise keras_tuner.errors.FailedTrialError(
                    f"{name} became {values[epoch]} in epoch {kwargs.get('initial_epoch', 0) + epoch + 1}."
                )
        return history

    def _distance_callback(self, training: Any, held_out: Any) -> GenerationDistance:
        if held_out is None:
            raise ValueError("val_distance needs held-out windows. Received: validation_data=None")
        held_out = held_out[0] if isinstance(held_out, (tuple, list)) else held_out
        return GenerationDistance(training, held_out, seed=self.model_arguments.get("seed") or 0)


def _out_of_memory(error: Exception) -> keras_tuner.errors.FailedTrialError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return keras_tuner.errors.FailedTrialError(f"Out of memory: {first_line}")


def make_hypermodel(settings: SweepSettings, linear_start_folder: Path | None = None) -> SpectroVAEHyperModel:
    """Return the hypermodel of a sweep, which shares its linear start through the folder."""
    return SpectroVAEHyperModel(
        settings.make_converter(),
        settings.choices,
        settings.architecture,
        settings.max_parameters,
        linear_start_folder,
        settings.make_objective().name == "val_distance",
        seed=settings.seed,
    )
