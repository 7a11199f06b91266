"""The encoder and the decoder."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.checks import check_positive_int
from spectrovae.model.distributions import num_posterior_parameters
from spectrovae.model.likelihood import Likelihood


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


ARCHITECTURES = ("temporal", "dense_temporal", "classic")


def build_encoder(
    input_shape: tuple[int, ...],
    latent_dim: int,
    architecture: str = "temporal",
    posterior: str = "diagonal",
    depth: int = 6,
    seed: int = 0,
    latent_steps: int = 1,
) -> keras.Model:
    """Build the network whose output `posterior_distribution` turns into q(z|x).

    `"temporal"` averages the window over 2 ** depth frames, keeps the frequencies whole, and is linear in the mean
    of the code: each number looks at one spectrum over one course in time (`SeparableDense`). Deeper encoders were
    measured: held-out music did not gain from them beside the linear optimum. In `"dense_temporal"`, that of models
    saved in format 3 or before, each number has a weight for every pixel of the averaged window. `"classic"` is the
    two-dimensional convolution network of the reference model.

    Args:
        input_shape: `(bins, frames, 1)`.
        latent_dim: Size of the code.
        architecture: `"temporal"`, `"dense_temporal"` or `"classic"`.
        posterior: `"diagonal"` or `"full"`.
        depth: How often the temporal network halves the number of frames.
        seed: Integer that decides all initial weights.
        latent_steps: Number of codes along a window. Each is read off its own stretch of the window, all by the same
            weights.

    Returns:
        A functional model from `(batch, bins, frames, 1)` to `(batch, num_posterior_parameters)`, or to
        `(batch, latent_steps, num_posterior_parameters)` where there are several codes.

    Raises:
        ValueError: If an argument is not known, the frames can't be halved `depth` times, or what remains can't be
            divided among the codes.

    Example:
        >>> build_encoder((64, 64, 1), latent_dim=8, depth=3).output_shape
        (None, 16)
    """
    check_network(input_shape, architecture, depth, latent_steps)
    inputs = keras.Input(input_shape, name="windows", dtype="float32")
    if architecture == "classic":
        outputs = _classic_parameters(inputs, latent_dim, posterior, seed)
    else:
        is_dense = architecture == "dense_temporal"
        outputs = _temporal_parameters(inputs, latent_dim, posterior, depth, seed, latent_steps, is_dense)
    return keras.Model(inputs, outputs, name="encoder")


def check_network(input_shape: tuple[int, ...], architecture: str, depth: int, latent_steps: int = 1) -> None:
    """Raise a ValueError unless a network of this architecture, depth and number of codes fits such windows."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"`architecture` must be one of {ARCHITECTURES}. Received: architecture={architecture!r}")
    if len(input_shape) != 3 or input_shape[-1] != 1 or any(size < 1 for size in input_shape):
        raise ValueError(f"`input_shape` must be (bins, frames, 1). Received: input_shape={input_shape!r}")
    check_positive_int("depth", depth)
    axes = {"frames": input_shape[1]} | ({"bins": input_shape[0]} if architecture == "classic" else {})
    for axis, size in axes.items():
        if size % 2**depth:
            raise ValueError(
                f"A network of depth {depth} halves its grid {depth} times, so the number of {axis} must be a "
                f"multiple of {2**depth}. Received: input_shape={input_shape!r}. Choose a smaller depth."
            )
    check_positive_int("latent_steps", latent_steps)
    if latent_steps > 1 and architecture == "classic":
        raise ValueError(f"The classic architecture has one code for a window. Received: latent_steps={latent_steps}")
    num_steps = input_shape[1] // 2**depth
    if num_steps % latent_steps:
        raise ValueError(
            f"A window of {num_steps} steps of {2**depth} frames cannot be divided among {latent_steps} codes. "
            f"Choose a divisor of {num_steps} as `latent_steps`, or a smaller depth. "
            f"Received: latent_steps={latent_steps}"
        )


def _temporal_parameters(
    inputs: keras.KerasTensor,
    latent_dim: int,
    posterior: str,
    depth: int,
    seed: int,
    latent_steps: int,
    is_dense: bool,
) -> keras.KerasTensor:
    bins, frames, _ = inputs.shape[1:]
    steps_per_code = frames // 2**depth // latent_steps
    outer_shape = () if latent_steps == 1 else (latent_steps,)
    # In float32 under any dtype policy: what is linear here is exact.
    sequence = layers.Reshape((bins, frames), dtype="float32")(inputs)
    sequence = layers.Permute((2, 1), name="frames_first", dtype="float32")(sequence)
    steps = layers.AveragePooling1D(2**depth, name="linear_pooling", dtype="float32")(sequence)
    if is_dense:
        initializer = keras.initializers.GlorotUniform(seed)
        linear = layers.Dense(latent_dim, kernel_initializer=initializer, name="linear_mean", dtype="float32")
        part_shape: tuple[int, ...] = (steps_per_code * bins,)
    else:
        linear = SeparableDense(latent_dim, seed, name="linear_mean", dtype="float32")
        part_shape = (steps_per_code, bins)
    mean = linear(layers.Reshape((*outer_shape, *part_shape), dtype="float32")(steps))
    # Starts the same for all windows, as in the linear optimum.
    averages = layers.AveragePooling1D(steps_per_code, dtype="float32")(steps)
    raw_scales = layers.Dense(
        num_posterior_parameters(posterior, latent_dim) - latent_dim,
        kernel_initializer="zeros",
        name="raw_scales",
        dtype="float32",
    )(layers.Reshape((*outer_shape, bins), dtype="float32")(averages))
    return layers.Concatenate(name="parameters", dtype="float32")([mean, raw_scales])


def _classic_parameters(inputs: keras.KerasTensor, latent_dim: int, posterior: str, seed: int) -> keras.KerasTensor:
    seeds = itertools.count(seed)
    hidden = convolution_block(inputs, 32, 4, seeds, strides=2)
    hidden = convolution_block(hidden, 64, 4, seeds, strides=2)
    hidden = layers.MaxPooling2D(2, padding="same")(hidden)
    for filters in (128, 256, 256):
        hidden = convolution_block(hidden, filters, 4, seeds, strides=2)
    return layers.Dense(
        num_posterior_parameters(posterior, latent_dim),
        kernel_initializer=kernel_initializer(seeds),
        name="parameters",
        dtype="float32",
    )(layers.Flatten()(hidden))


REFINED = ("steps", "codes")
"""What the convolutions of a temporal decoder may look at."""

MAX_FRAMES_PER_CODE = 32
"""Codes that stand for more frames are not refined by default: all those frames would take too many weights."""


def build_decoder(
    input_shape: tuple[int, ...],
    latent_dim: int,
    num_channels: int = 1,
    architecture: str = "temporal",
    depth: int = 6,
    width: int = 256,
    seed: int = 0,
    latent_steps: int = 1,
    refine: str | None = None,
) -> keras.Model:
    """Build the network whose output the likelihood turns into p(x|z).

    `"temporal"` is linear from the code to steps of 2 ** depth frames, and linear interpolation doubles their number
    `depth` times; convolutions over time add what is not linear, and the spread. `"classic"` is the two-dimensional
    convolution network of the reference model, which doubles its grid by convolutions.

    Args:
        input_shape: `(bins, frames, 1)`, the shape of a window.
        latent_dim: Size of the code.
        num_channels: How many numbers the likelihood needs for each pixel; the mean is the first.
        architecture: `"temporal"`, `"dense_temporal"` (with a weight for every pixel of the averaged window, as in
            models saved in format 3 or before) or `"classic"`.
        depth: How often the network doubles its grid.
        width: Channels of the temporal network.
        seed: Integer that decides all initial weights.
        latent_steps: Number of codes along a window. All become steps by the same weights, and the convolutions look
            across, so that a network for several codes decodes sequences of any length.
        refine: What the convolutions of the temporal network look at: `"steps"`, what the linear path has made of the
            code, or `"codes"`, of which each then gives every frame that it stands for. By default codes where there
            are several, of 32 frames or fewer: held-out music gains much from it.

    Returns:
        A functional model from `(batch, latent_dim)` to `(batch, bins, frames, num_channels)`; where there are several
        codes in a window, from `(batch, any number of codes, latent_dim)` to as many frames as they stand for.

    Raises:
        ValueError: If an argument is not known, the grid can't be halved `depth` times, or the frames can't be
            divided among the codes.

    Example:
        >>> build_decoder((64, 64, 1), latent_dim=8, num_channels=2, depth=3, width=32).output_shape
        (None, 64, 64, 2)
    """
    check_network(input_shape, architecture, depth, latent_steps)
    refine = check_refine(refine, latent_steps, input_shape[1])
    codes = keras.Input((latent_dim,) if latent_steps == 1 else (None, latent_dim), name="codes", dtype="float32")
    if architecture == "classic":
        window = _classic_window(codes, input_shape, num_channels, depth, seed)
    else:
        is_dense = architecture == "dense_temporal"
        sizes = (depth, width, seed, latent_steps)
        window = _temporal_window(codes, input_shape, num_channels, *sizes, refine, is_dense)
    return keras.Model(codes, window, name="decoder")


def check_refine(refine: str | None, latent_steps: int, num_frames: int) -> str:
    """Return what the convolutions of a decoder look at; a ValueError says so if they cannot."""
    if refine is None:
        return "codes" if latent_steps > 1 and num_frames // latent_steps <= MAX_FRAMES_PER_CODE else "steps"
    if refine not in REFINED or (refine == "codes" and latent_steps == 1):
        raise ValueError(
            f"`refine` must be one of {REFINED} or None, and 'codes' needs several of them along a window. "
            f"Received: refine={refine!r}, latent_steps={latent_steps}"
        )
    return refine


def _temporal_window(
    codes: keras.KerasTensor,
    input_shape: tuple[int, ...],
    num_channels: int,
    depth: int,
    width: int,
    seed: int,
    latent_steps: int,
    refine: str,
    is_dense: bool,
) -> keras.KerasTensor:
    bins, frames, _ = input_shape
    seeds = itertools.count(seed + 2)  # after those of the linear path
    steps_per_code = frames // 2**depth // latent_steps
    if is_dense:
        initializer = keras.initializers.GlorotUniform(seed)
        linear = layers.Dense(
            steps_per_code * bins, kernel_initializer=initializer, name="linear_window", dtype="float32"
        )
    else:
        linear = SeparableDenseTranspose(steps_per_code, bins, seed, name="linear_window", dtype="float32")
    steps = layers.Reshape((-1, bins), dtype="float32")(linear(codes))
    if refine == "steps":
        # Averaged spectra of music have a mean of about 0.3 and a deviation of about 0.15.
        seen, num_outputs = layers.Rescaling(6.0, offset=-2.0)(steps), 1
    else:
        seen, num_outputs = codes, frames // latent_steps
    # Starts at zero, so that the network begins as its linear path and the gradient decides what to add.
    deep = layers.Dense(
        num_outputs * num_channels * bins, kernel_initializer="zeros", name="deep_window", dtype="float32"
    )(refinement_block(seen, width, seeds))
    deep = layers.Reshape((-1, num_channels * bins), dtype="float32")(deep)
    upsampling = LinearUpsampling1D(2**depth, dtype="float32")
    mean = steps if refine == "steps" else upsampling(steps)
    mean = layers.Add(name="mean", dtype="float32")([mean, deep[..., :bins]])
    grid = layers.Concatenate(name="grid", dtype="float32")([mean, deep[..., bins:]])
    if refine == "steps":  # all at once, which takes less time
        grid = upsampling(grid)
    grid = layers.Reshape((-1, num_channels, bins), dtype="float32")(grid)
    return layers.Permute((3, 1, 2), name="window", dtype="float32")(grid)


def _classic_window(
    codes: keras.KerasTensor,
    input_shape: tuple[int, ...],
    num_channels: int,
    depth: int,
    seed: int,
) -> keras.KerasTensor:
    bins, frames, _ = input_shape
    seeds = itertools.count(seed)
    grid = (bins // 2**depth, frames // 2**depth, 256)
    hidden = layers.Dense(grid[0] * grid[1] * grid[2], activation="relu", kernel_initializer=kernel_initializer(seeds))(
        codes
    )
    hidden = layers.Reshape(grid)(hidden)
    for level, filters in enumerate(itertools.islice(itertools.cycle((128, 64, 32)), depth)):
        hidden = layers.UpSampling2D(2)(hidden)
        hidden = convolution_block(hidden, filters, 3, seeds, batch_normalization=level < 2)
    return layers.Conv2D(
        num_channels,
        3,
        padding="same",
        kernel_initializer=kernel_initializer(seeds),
        name="window",
        dtype="float32",
    )(hidden)


DECODER_CONTEXT = 5
"""How many steps, or codes, the decoder sees on either side at most: three convolutions, and the interpolation."""

STEPS_AT_ONCE = 1024
"""How many steps of its grid the decoder computes at once, of a long sequence of codes."""


class Decoding:
    """The part of `SpectroVAE` that knows how long codes and windows are, and runs the decoder on them."""

    encoder: keras.Model
    decoder: keras.Model
    likelihood: Likelihood
    converter: SpectrogramConverter
    latent_dim: int
    latent_steps: int
    decoder_depth: int
    refine: str

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the code of a window: `(latent_dim,)`, or `(latent_steps, latent_dim)` where there are several."""
        return (self.latent_dim,) if self.latent_steps == 1 else (self.latent_steps, self.latent_dim)

    def decoded(self, codes: tf.Tensor, with_scales: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each pixel, not clipped; where pixels share one deviation, zeros.

        A long sequence of codes is decoded in stretches with what the network sees around them, so that the memory it
        takes is that of the result. No seam is left: the values are those of the whole.

        Args:
            codes: One batch of codes, as for `decode`.
            with_scales: Whether the deviations are needed; else they are zeros, which takes less time.

        Returns:
            Two arrays `(num_windows, bins, frames, 1)`.
        """
        num_steps = codes.shape[1] if self.latent_steps > 1 else 1
        frames_per_step = self.encoder.input_shape[2] // self.latent_steps
        frames_per_refined = frames_per_step if self.refine == "codes" else 2**self.decoder_depth
        margin = -(-DECODER_CONTEXT * frames_per_refined // frames_per_step)
        stretch = max(STEPS_AT_ONCE * 2**self.decoder_depth // frames_per_step, self.latent_steps)
        means, scales = [], []
        for start in range(0, num_steps, stretch):
            first, last = max(0, start - margin), min(num_steps, start + stretch + margin)
            seen = codes if self.latent_steps == 1 else codes[:, first:last]
            parameters = self.decoder(seen, training=False)
            own = slice((start - first) * frames_per_step, (start - first + stretch) * frames_per_step)
            mean = self.likelihood.mean(parameters).numpy()
            is_known = with_scales and self.likelihood.per_pixel
            scale = self.likelihood.scale(parameters).numpy() if is_known else np.zeros_like(mean)
            means.append(mean[:, :, own])
            scales.append(scale[:, :, own])
        return np.concatenate(means, axis=2), np.concatenate(scales, axis=2)

    def num_frames_of(self, duration: float) -> int:
        """Return how many frames last `duration` seconds, the last one begun."""
        return -(-self.num_samples_of(duration) // self.converter.hop_length)

    def num_samples_of(self, duration: float) -> int:
        """Return how many samples last `duration` seconds; a ValueError says so if it is not above 0 and finite."""
        if not 0 < duration < math.inf:
            raise ValueError(f"`duration` must be above 0 (s). Received: duration={duration!r}")
        return max(1, round(duration * self.converter.sample_rate))

    def num_steps_for(self, num_frames: int) -> int:
        """Return how many codes stand for so many frames, where there are several codes along a window."""
        if self.latent_steps == 1:
            raise ValueError(
                "A model with one code for a window generates windows; `generate_audio` makes pieces of any length of "
                f"them. Build the model with latent_steps above 1. Received: latent_steps={self.latent_steps}"
            )
        return -(-num_frames * self.latent_steps // self.encoder.input_shape[2])
