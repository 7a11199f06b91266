"""The convolution blocks that encoder and decoder share."""

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from spectrovae.checks import check_positive_int


def kernel_initializer(seeds: Iterator[int]) -> keras.initializers.Initializer:
    """Return a Glorot initializer with the next of `seeds`, so that one integer decides a whole network."""
    return keras.initializers.GlorotUniform(seed=next(seeds))


@keras.saving.register_keras_serializable(package="spectrovae")
class LinearUpsampling1D(layers.Layer):
    """Interpolates a sequence linearly to `size` times as many steps, whatever its length.

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


def refinement_block(inputs: keras.KerasTensor, width: int, seeds: Iterator[int]) -> keras.KerasTensor:
    """Look at a sequence of spectra or codes with three convolutions over time, the last two around a shortcut.

    Frequencies, or the numbers of a code, are the channels. All steps share the weights, so every step of every window
    teaches them. Pre-activation as in He et al., "Identity mappings in deep residual networks" (ECCV 2016).

    Args:
        inputs: Shape `(batch, steps, channels)`, of mean 0 and deviation 1, about.
        width: Number of channels inside.
        seeds: Seeds of the initial kernels and of the dropout.

    Returns:
        Shape `(batch, steps, width)`.
    """

    def convolve(sequence: keras.KerasTensor) -> keras.KerasTensor:
        return layers.Conv1D(width, 3, padding="same", kernel_initializer=kernel_initializer(seeds))(sequence)

    hidden = convolve(inputs)
    outputs = convolve(layers.Activation("gelu")(hidden))
    outputs = layers.Dropout(0.1, seed=next(seeds))(layers.Activation("gelu")(outputs))
    outputs = layers.Activation("gelu")(layers.Add()([hidden, convolve(outputs)]))
    return layers.Dropout(0.1, seed=next(seeds))(outputs)


def convolution_block(
    inputs: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    seeds: Iterator[int],
    strides: int = 1,
    batch_normalization: bool = True,
) -> keras.KerasTensor:
    """Apply the classic model's block: convolution over frequency and time, ReLU, batch normalization.

    Args:
        inputs: Shape `(batch, bins, frames, channels)`.
        filters: Number of output channels.
        kernel_size: Side of the square kernel.
        seeds: Seeds of the initial kernels.
        strides: Factor by which both axes shrink.
        batch_normalization: Whether the block ends with batch normalization.

    Returns:
        Shape `(batch, bins / strides, frames / strides, filters)`.
    """
    outputs = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        activation="relu",
        kernel_initializer=kernel_initializer(seeds),
    )(inputs)
    return layers.BatchNormalization()(outputs) if batch_normalization else outputs
