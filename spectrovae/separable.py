"""Linear layers whose kernels are products of a spectrum and a course over time."""

from typing import Any

import keras
from keras import layers, ops

from spectrovae.checks import check_positive_int


@keras.saving.register_keras_serializable(package="spectrovae")
class SeparableDense(layers.Layer):
    """Reads numbers off a sequence of spectra: each looks at one spectrum, with one weight for each step.

    A dense layer on all steps has `steps * bins` weights for each number; this one has `steps + bins`, which is all
    that `separable_components` need.

    Args:
        units: How many numbers to read.
        seed: Integer that decides the initial kernels.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(..., steps, bins)`.

    Output shape:
        `(..., units)`.

    Raises:
        ValueError: If `units` is not a positive integer.

    Example:
        >>> layer = SeparableDense(2)
        >>> layer.build((None, 3, 4))
        >>> [tuple(weight.shape) for weight in layer.weights]  # courses, spectra and biases
        [(3, 2), (4, 2), (2,)]
    """

    def __init__(self, units: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = check_positive_int("units", units)
        self.seed = seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        steps, bins = input_shape[-2:]
        _add_weights(self, (steps, self.units), (bins, self.units), self.units)

    def call(self, inputs: Any) -> Any:
        """Return the numbers."""
        return ops.sum(ops.matmul(inputs, self.spectral_kernel) * self.temporal_kernel, axis=-2) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Replace steps and bins by the numbers."""
        return (*input_shape[:-2], self.units)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"units": self.units, "seed": self.seed}


@keras.saving.register_keras_serializable(package="spectrovae")
class SeparableDenseTranspose(layers.Layer):
    """Adds up spectra, each in its own course over time, as much of each as numbers say: `SeparableDense` backwards.

    Args:
        steps: Length of a sequence.
        bins: Size of its spectra.
        seed: Integer that decides the initial kernels.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(..., units)`.

    Output shape:
        `(..., steps, bins)`.

    Raises:
        ValueError: If `steps` or `bins` is not a positive integer.

    Example:
        >>> SeparableDenseTranspose(steps=3, bins=4)(keras.ops.ones((5, 2))).shape
        TensorShape([5, 3, 4])
    """

    def __init__(self, steps: int, bins: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = check_positive_int("steps", steps)
        self.bins = check_positive_int("bins", bins)
        self.seed = seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        units = input_shape[-1]
        _add_weights(self, (self.steps, units), (units, self.bins), self.bins)

    def call(self, inputs: Any) -> Any:
        """Return the sequences."""
        return ops.matmul(inputs[..., None, :] * self.temporal_kernel, self.spectral_kernel) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Replace the numbers by steps and bins."""
        return (*input_shape[:-1], self.steps, self.bins)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"steps": self.steps, "bins": self.bins, "seed": self.seed}


def _add_weights(layer: layers.Layer, temporal_shape: tuple, spectral_shape: tuple, num_biases: int) -> None:
    temporal, spectral = (keras.initializers.GlorotUniform(layer.seed + index) for index in range(2))
    layer.temporal_kernel = layer.add_weight(temporal_shape, temporal, name="temporal_kernel")
    layer.spectral_kernel = layer.add_weight(spectral_shape, spectral, name="spectral_kernel")
    layer.bias = layer.add_weight((num_biases,), "zeros", name="bias")
