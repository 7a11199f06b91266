"""The model that KerasTuner builds and fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.batching import training_part
from spectrovae.optimizer import default_optimizer
from spectrovae.tuning.distance import GenerationDistance
from spectrovae.tuning.linear_start import SharedLinearStart
from spectrovae.tuning.search_space import (
    DEFAULT_CHOICES,
    OPTIONAL_CHOICES,
    buildable_choices,
    choose_learning_rate,
    search_space,
)


class SpectroVAEHyperModel(keras_tuner.HyperModel):
    """A `SpectroVAE` whose arguments a KerasTuner tuner chooses.

    For any tuner: `RandomSearch`, `BayesianOptimization`, `Hyperband`, `GridSearch`. A trial that can't be built,
    runs out of memory or ends in NaN is marked `FAILED` with the reason as its message, and the search goes on.
    The linear start of the models is computed once for each depth and number of codes, and shared by the trials.

    Args:
        converter: The `SpectrogramConverter` that made the windows; by default one of standard settings.
        choices: For each argument the values to choose from, as for `search_space`.
        architecture: `"temporal"` or `"classic"`.
        max_parameters: Models with more weights than this fail as a trial; None for no limit.
        linear_start_folder: Folder that shares the linear start with other processes; None for this one only.
        measure_distance: Whether each epoch logs `val_distance`, see `GenerationDistance`, to search by it.
        name: Name of the hypermodel.
        **model_arguments: Further arguments of `SpectroVAE`, the same in all trials, such as `seed`.

    Attributes:
        usable_choices: The values that are searched, without those of which no model can be built.

    Raises:
        ValueError: If an argument of `choices` is not known or has no value that can be built.

    Example:
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
        """Register what is searched, without building anything.

        Args:
            hp: The `HyperParameters` of a trial or a search.

        Returns:
            What the trial chose: arguments of `SpectroVAE`, and `learning_rate` if that is searched.
        """
        arguments = search_space(hp, self.converter.window_shape, self.architecture, self.choices)
        learning_rate = choose_learning_rate(hp, self.choices)
        return arguments if learning_rate is None else arguments | {"learning_rate": learning_rate}

    def build(self, hp: keras_tuner.HyperParameters) -> SpectroVAE:
        """Build and compile the model of a trial.

        Raises:
            FailedTrialError: If it can't be built or has more than `max_parameters` weights.
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
                f"This combination can't be built: {error} Received: {arguments}"
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
        """Train the model of a trial, from the shared linear start where it has one.

        Args:
            hp: The `HyperParameters` of the trial.
            model: What `build` returned.
            x: Windows or a dataset, as for `SpectroVAE.fit`.
            *args: Further arguments of `SpectroVAE.fit`.
            **kwargs: Further arguments of `SpectroVAE.fit`, such as `validation_data` and `epochs`.

        Returns:
            The history of losses and metrics by epoch.

        Raises:
            FailedTrialError: If a loss is not finite, or memory is short.
            ValueError: If `val_distance` is to be measured and there is no `validation_data`.
        """
        callbacks = [*(kwargs.pop("callbacks", None) or []), keras.callbacks.TerminateOnNaN()]
        training = training_part(x, kwargs.get("validation_split", 0.0))
        if self.measure_distance:
            callbacks.insert(0, self._distance_callback(training, kwargs.get("validation_data")))
        try:
            if model.warm_start and model.can_adapt and not model.adapted:
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
