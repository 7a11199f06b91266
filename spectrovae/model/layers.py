"""The layers that the encoder and the decoder are made of."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from spectrovae.checks import check_count, check_positive_int


@keras.saving.register_keras_serializable(package="spectrovae")
class SeparableDense(layers.Layer):
    """Read numbers off a sequence of spectra: each looks at one spectrum, with one weight for each step.

    A dense layer on all steps has `steps * bins` weights for each number. This one has `steps + bins`, which is all
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
        _add_separable_weights(self, (steps, self.units), (bins, self.units), self.units)

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
    """Add up spectra, each in its own course over time: the reverse of `SeparableDense`.

    Along a sequence of codes, neighbours may have a say in the steps of each code. What is decoded then runs on from
    code to code, where it would otherwise jump.

    Args:
        steps: Length of a sequence.
        bins: Size of its spectra.
        num_neighbours: How many codes before and after a code its steps depend on, 0 or more. Before the first code and
            after the last one, they are taken to go on as they are.
        seed: Integer that decides the initial kernels.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(..., units)`: how much of each spectrum; with neighbours `(..., num_codes, units)`.

    Output shape:
        `(..., steps, bins)`; with neighbours `(..., num_codes, steps, bins)`.

    Raises:
        ValueError: If `steps` or `bins` is not a positive integer, or `num_neighbours` is negative.

    Example:
        >>> SeparableDenseTranspose(steps=3, bins=4)(keras.ops.ones((5, 2))).shape
        TensorShape([5, 3, 4])
    """

    def __init__(self, steps: int, bins: int, num_neighbours: int = 0, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = check_positive_int("steps", steps)
        self.bins = check_positive_int("bins", bins)
        self.num_neighbours, self.seed = check_count("num_neighbours", num_neighbours), seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights; the courses are those of the earliest code first."""
        units, num_courses = input_shape[-1], 1 + 2 * self.num_neighbours
        _add_separable_weights(self, (num_courses * self.steps, units), (units, self.bins), self.bins)

    def call(self, inputs: Any) -> Any:
        """Return the sequences."""
        courses = ops.split(self.temporal_kernel, 1 + 2 * self.num_neighbours)
        if self.num_neighbours:
            codes = with_neighbours(inputs, self.num_neighbours)
            weighted = sum(code[..., None, :] * course for code, course in zip(codes, courses, strict=True))
        else:
            weighted = inputs[..., None, :] * courses[0]
        return ops.matmul(weighted, self.spectral_kernel) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Replace the numbers by steps and bins."""
        return (*input_shape[:-1], self.steps, self.bins)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        names = ("steps", "bins", "num_neighbours", "seed")
        return super().get_config() | {name: getattr(self, name) for name in names}


def with_neighbours(codes: Any, num_neighbours: int) -> list[Any]:
    """Return sequences of codes and of their neighbours, the earliest first; the outermost codes are repeated.

    Args:
        codes: Shape `(..., num_codes, units)`.
        num_neighbours: How many before and after each.

    Example:
        >>> [each.numpy().ravel().tolist() for each in with_neighbours(tf.constant([[1.0], [2.0], [3.0]]), 1)]
        [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    first, last = [codes[..., :1, :]] * num_neighbours, [codes[..., -1:, :]] * num_neighbours
    padded = ops.concatenate([*first, codes, *last], axis=-2)
    num_codes = ops.shape(codes)[-2]
    return [padded[..., index : index + num_codes, :] for index in range(1 + 2 * num_neighbours)]


@keras.saving.register_keras_serializable(package="spectrovae")
class OverlapAdd(layers.Layer):
    """Fade from what one step of a sequence says of some frames to what the next one says of them.

    Each step says what it takes to be in as many frames as it stands for, and in half as many before and after. Where
    two steps say something of a frame, it gets both, the nearer one more. So there is no seam between steps.

    Args:
        frames: Number of frames that a step stands for, an even number.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(batch, num_steps, 2 * frames * channels)`.

    Output shape:
        `(batch, num_steps * frames, channels)`.

    Raises:
        ValueError: If `frames` is not a positive, even number.

    Example:
        >>> steps = tf.constant([[[0.0] * 8, [8.0] * 8]])
        >>> OverlapAdd(frames=4)(steps)[0, :, 0].numpy().tolist()
        [0.0, 0.0, 1.0, 3.0, 5.0, 7.0, 8.0, 8.0]
    """

    def __init__(self, frames: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frames = check_positive_int("frames", frames)
        if frames % 2:
            raise ValueError(f"`frames` must be even. Received: frames={frames}")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Return the frames."""
        half, num_channels = self.frames // 2, inputs.shape[-1] // (2 * self.frames)
        before, own, after = with_neighbours(inputs, 1)
        fade = (ops.arange(self.frames, dtype=inputs.dtype) + 0.5) / self.frames  # from 0 to 1
        rising, falling = (ops.repeat(each, num_channels) for each in (fade, 1 - fade))
        size = half * num_channels
        # Of this step's frames, the first half is shared with the step before, the second with the one after it.
        first = own[..., size : 2 * size] * rising[size:] + before[..., 3 * size :] * falling[size:]
        second = own[..., 2 * size : 3 * size] * falling[:size] + after[..., :size] * rising[:size]
        return ops.reshape(ops.concatenate([first, second], axis=-1), (ops.shape(inputs)[0], -1, num_channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Replace steps by frames."""
        batch, steps, numbers = input_shape
        num_channels = None if numbers is None else numbers // (2 * self.frames)
        return batch, None if steps is None else steps * self.frames, num_channels

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"frames": self.frames}


def _add_separable_weights(layer: layers.Layer, temporal: tuple, spectral: tuple, num_biases: int) -> None:
    initializers = [keras.initializers.GlorotUniform(layer.seed + index) for index in range(2)]
    layer.temporal_kernel = layer.add_weight(temporal, initializers[0], name="temporal_kernel")
    layer.spectral_kernel = layer.add_weight(spectral, initializers[1], name="spectral_kernel")
    layer.bias = layer.add_weight((num_biases,), "zeros", name="bias")


@keras.saving.register_keras_serializable(package="spectrovae")
class LinearUpsampling1D(layers.Layer):
    """Interpolate a sequence linearly to `size` times as many steps, whatever its length.

    Keras interpolates in two dimensions only, of a size that is known beforehand.

    Args:
        size: Factor on the number of steps.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(batch, steps, channels)`.

    Output shape:
        `(batch, size * steps, channels)`.

    Raises:
        ValueError: If `size` is not a positive integer.

    Example:
        >>> LinearUpsampling1D(2)(tf.constant([[[0.0], [4.0]]]))[0, :, 0].numpy().tolist()
        [0.0, 1.0, 3.0, 4.0]
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = check_positive_int("size", size)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the interpolated sequence."""
        num_steps = tf.shape(inputs)[1] * self.size
        outputs = tf.image.resize(inputs[:, :, None, :], tf.stack([num_steps, 1]), "bilinear")[:, :, 0, :]
        outputs.set_shape(self.compute_output_shape(inputs.shape))
        return outputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Multiply the number of steps."""
        batch, steps, channels = input_shape
        return batch, None if steps is None else self.size * steps, channels

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"size": self.size}


@keras.saving.register_keras_serializable(package="spectrovae")
def gelu(inputs: Any) -> Any:
    """Return inputs times the standard Gaussian's distribution function at them.

    Hendrycks and Gimpel, "Gaussian error linear units" (2016). Keras' own computes the same by `erfc`, which converters
    to ONNX do not know.

    Example:
        >>> gelu(tf.constant([-100.0, 0.0, 100.0])).numpy().tolist()
        [-0.0, 0.0, 100.0]
    """
    return 0.5 * inputs * (1.0 + ops.erf(inputs * 0.5**0.5))
