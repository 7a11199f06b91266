"""The encoder and the decoder, and the layers that they are made of."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from spectrovae.checks import check_num_weights, check_positive_int
from spectrovae.model.distributions import num_posterior_parameters
from spectrovae.model.level_curves import LevelCurves

FRAMES_AT_ONCE = 4096
"""How many frames of a long sequence of codes are decoded at once."""

_MAX_PIXELS = 2**26

_FRAMES_PER_CODE, _MIN_CODES = 16, 8  # by default
_CONTEXT = 4  # codes that a frame depends on to either side: of three convolutions, and where steps overlap


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

    Along a sequence of codes, neighbors may have a say in the steps of each code. What is decoded then runs on from
    code to code, where it would otherwise jump.

    Args:
        steps: Length of a sequence.
        bins: Size of its spectra.
        num_neighbors: How many codes before and after a code its steps depend on, 0 or more. Before the first code and
            after the last one, they are taken to go on as they are.
        seed: Integer that decides the initial kernels.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(..., units)`: how much of each spectrum; with neighbors `(..., num_codes, units)`.

    Output shape:
        `(..., steps, bins)`; with neighbors `(..., num_codes, steps, bins)`.

    Raises:
        ValueError: If `steps` or `bins` is not a positive integer, or `num_neighbors` is negative.

    Example:
        >>> SeparableDenseTranspose(steps=3, bins=4)(keras.ops.ones((5, 2))).shape
        TensorShape([5, 3, 4])
    """

    def __init__(self, steps: int, bins: int, num_neighbors: int = 0, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = check_positive_int("steps", steps)
        self.bins = check_positive_int("bins", bins)
        if isinstance(num_neighbors, bool) or not isinstance(num_neighbors, int) or num_neighbors < 0:
            raise ValueError(f"`num_neighbors` must be an integer, 0 or more. Received: num_neighbors={num_neighbors!r}")
        self.num_neighbors, self.seed = num_neighbors, seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights; the courses are those of the earliest code first."""
        units, num_courses = input_shape[-1], 1 + 2 * self.num_neighbors
        _add_separable_weights(self, (num_courses * self.steps, units), (units, self.bins), self.bins)

    def call(self, inputs: Any) -> Any:
        """Return the sequences."""
        courses = ops.split(self.temporal_kernel, 1 + 2 * self.num_neighbors)
        if self.num_neighbors:
            codes = with_neighbors(inputs, self.num_neighbors)
            weighted = sum(code[..., None, :] * course for code, course in zip(codes, courses, strict=True))
        else:
            weighted = inputs[..., None, :] * courses[0]
        return ops.matmul(weighted, self.spectral_kernel) + self.bias

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Replace the numbers by steps and bins."""
        return (*input_shape[:-1], self.steps, self.bins)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        names = ("steps", "bins", "num_neighbors", "seed")
        return super().get_config() | {name: getattr(self, name) for name in names}


def with_neighbors(codes: Any, num_neighbors: int) -> list[Any]:
    """Return sequences of codes and of their neighbors, the earliest first; the outermost codes are repeated.

    Args:
        codes: Shape `(..., num_codes, units)`.
        num_neighbors: How many before and after each.

    Example:
        >>> [each.numpy().ravel().tolist() for each in with_neighbors(tf.constant([[1.0], [2.0], [3.0]]), 1)]
        [[1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 3.0]]
    """
    first, last = [codes[..., :1, :]] * num_neighbors, [codes[..., -1:, :]] * num_neighbors
    padded = ops.concatenate([*first, codes, *last], axis=-2)
    num_codes = ops.shape(codes)[-2]
    return [padded[..., index : index + num_codes, :] for index in range(1 + 2 * num_neighbors)]


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
        before, own, after = with_neighbors(inputs, 1)
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
        return batch, None if steps is None else steps * self.frames, numbers // (2 * self.frames)

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


def refinement_block(inputs: keras.KerasTensor, width: int, seeds: Iterator[int]) -> keras.KerasTensor:
    """Apply three convolutions over time, the last two around a shortcut.

    Frequencies, or the numbers of a code, are the channels. All steps share the weights, so every step of every window
    teaches them. Pre-activation as in He et al., "Identity mappings in deep residual networks" (ECCV 2016).

    Args:
        inputs: Shape `(batch, steps, channels)`, of about zero mean and unit variance.
        width: Number of channels inside.
        seeds: Seeds of the initial kernels and of the dropout, so that one integer decides the whole network.

    Returns:
        Shape `(batch, steps, width)`.
    """

    def convolve(sequence: keras.KerasTensor) -> keras.KerasTensor:
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        return layers.Conv1D(width, 3, padding="same", kernel_initializer=initializer)(sequence)

    hidden = convolve(inputs)
    outputs = convolve(layers.Activation(gelu)(hidden))
    outputs = layers.Dropout(0.1, seed=next(seeds))(layers.Activation(gelu)(outputs))
    outputs = layers.Activation(gelu)(layers.Add()([hidden, convolve(outputs)]))
    return layers.Dropout(0.1, seed=next(seeds))(outputs)


def build_encoder(
    input_shape: tuple[int, ...], latent_dim: int, posterior: str, *, depth: int, latent_steps: int, seed: int
) -> keras.Model:
    """Build the network whose output `posterior_distribution` turns into q(z|x).

    It averages the window over 2 ** depth frames, keeps the frequencies whole, and is linear in the mean of the code:
    each number looks at one spectrum over one course in time (`SeparableDense`). Deeper encoders were measured:
    held-out music did not gain from them beside the linear optimum.

    Args:
        input_shape: `(bins, frames, 1)`, the shape of a window.
        latent_dim: Size of a code.
        posterior: `"diagonal"` or `"full"`.
        depth: How often the number of frames is halved.
        latent_steps: Number of codes along a window. Each is read off its own stretch of the window, all by the same
            weights.
        seed: Integer that decides all initial weights.

    Returns:
        A functional model from `(batch, bins, frames, 1)` to `(batch, num_posterior_parameters)`, or to
        `(batch, latent_steps, num_posterior_parameters)` where there are several codes.

    Raises:
        ValueError: If the frames cannot be halved `depth` times, or what remains cannot be divided among the codes.

    Example:
        >>> build_encoder((64, 64, 1), 8, "diagonal", depth=3, latent_steps=1, seed=0).output_shape
        (None, 16)
    """
    check_grid(input_shape, depth, latent_steps)
    bins, frames, _ = input_shape
    steps_per_code = frames // 2**depth // latent_steps
    num_parameters = num_posterior_parameters(posterior, latent_dim)
    check_num_weights("encoder", (steps_per_code + bins) * latent_dim + bins * num_parameters)
    outer_shape = () if latent_steps == 1 else (latent_steps,)
    inputs = keras.Input(input_shape, name="windows", dtype="float32")
    # In float32 under any dtype policy: what is linear here is exact.
    sequence = layers.Reshape((bins, frames), dtype="float32")(inputs)
    sequence = layers.Permute((2, 1), name="frames_first", dtype="float32")(sequence)
    steps = layers.AveragePooling1D(2**depth, name="linear_pooling", dtype="float32")(sequence)
    linear = SeparableDense(latent_dim, seed, name="linear_mean", dtype="float32")
    mean = linear(layers.Reshape((*outer_shape, steps_per_code, bins), dtype="float32")(steps))
    averages = layers.AveragePooling1D(steps_per_code, dtype="float32")(steps)
    # Starts the same for all windows, as in the linear optimum.
    raw_scales = layers.Dense(
        num_parameters - latent_dim,
        kernel_initializer="zeros",
        name="raw_scales",
        dtype="float32",
    )(layers.Reshape((*outer_shape, bins), dtype="float32")(averages))
    outputs = layers.Concatenate(name="parameters", dtype="float32")([mean, raw_scales])
    return keras.Model(inputs, outputs, name="encoder")


def build_decoder(
    input_shape: tuple[int, ...],
    latent_dim: int,
    num_channels: int,
    *,
    depth: int,
    width: int,
    latent_steps: int,
    seed: int,
) -> keras.Model:
    """Build the network whose output the likelihood turns into p(x|z).

    It is linear from the code to spectra of steps of 2 ** depth frames, whose levels `LevelCurves` turn into means and
    spreads; linear interpolation makes frames of them. Convolutions over time add what neither tells. With one code for
    a window they look at the steps that the linear path has made of it. With several they look at the codes themselves,
    of which each then gives every frame that it stands for: held-out music gains much from it. Neighboring codes have a
    say in either path (`SeparableDenseTranspose`, `OverlapAdd`), or music would jump from one code to the next.

    Args:
        input_shape: `(bins, frames, 1)`, the shape of a window.
        latent_dim: Size of a code.
        num_channels: How many numbers the likelihood needs for each pixel; the mean is the first.
        depth: How often the network doubles its grid of frames.
        width: Channels of the convolutions.
        latent_steps: Number of codes along a window. All become frames by the same weights, so that a network for
            several codes decodes sequences of any length.
        seed: Integer that decides all initial weights.

    Returns:
        A functional model from `(batch, latent_dim)` to `(batch, frames, num_channels, bins)`; where there are several
        codes, from `(batch, any number of codes, latent_dim)` to as many frames as they stand for.

    Raises:
        ValueError: If the frames cannot be halved `depth` times, or what remains cannot be divided among the codes.

    Example:
        >>> build_decoder((64, 64, 1), 8, 2, depth=3, width=32, latent_steps=1, seed=0).output_shape
        (None, 64, 2, 64)
    """
    check_grid(input_shape, depth, latent_steps)
    bins, frames, _ = input_shape
    refines_codes = latent_steps > 1
    codes = keras.Input((None, latent_dim) if refines_codes else (latent_dim,), name="codes", dtype="float32")
    seeds = itertools.count(seed + 2)  # after those of the linear path
    steps_per_code = frames // 2**depth // latent_steps
    num_neighbors = 1 if refines_codes else 0
    linear = SeparableDenseTranspose(steps_per_code, bins, num_neighbors, seed, name="linear_window", dtype="float32")
    steps = layers.Reshape((-1, bins), name="levels", dtype="float32")(linear(codes))
    # Averaged spectra of music have a mean of about 0.3 and a deviation of about 0.15.
    seen = codes if refines_codes else layers.Rescaling(6.0, offset=-2.0)(steps)
    frames_per_code = frames // latent_steps if refines_codes else 1
    num_refining = width * (3 * max(latent_dim, bins) + (6 + frames_per_code) * width + num_channels * bins)
    check_num_weights("decoder", (steps_per_code + bins) * latent_dim + num_refining)
    hidden = refinement_block(seen, width, seeds)
    if refines_codes:
        per_frame = -(-width // 2)
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        hidden = layers.Dense(2 * frames_per_code * per_frame, kernel_initializer=initializer, name="frames")(hidden)
        hidden = layers.Activation(gelu)(OverlapAdd(frames_per_code)(hidden))
    # Starts at zero, so that the network begins as its linear path and the gradient decides what to add.
    deep = layers.Dense(num_channels * bins, kernel_initializer="zeros", name="deep_window", dtype="float32")(hidden)
    grid = LevelCurves(num_channels, name="level_curves", dtype="float32")(steps)
    upsampling = LinearUpsampling1D(2**depth, dtype="float32")
    if refines_codes:
        grid = layers.Add(name="grid", dtype="float32")([upsampling(grid), deep])
    else:
        grid = upsampling(layers.Add(name="grid", dtype="float32")([grid, deep]))
    window = layers.Reshape((-1, num_channels, bins), name="window", dtype="float32")(grid)
    return keras.Model(codes, window, name="decoder")


def check_grid(input_shape: tuple[int, ...], depth: int, latent_steps: int) -> None:
    """Raise a ValueError unless networks of this depth and number of codes fit such windows."""
    check_window_shape(input_shape)
    check_halvings(check_positive_int("decoder_depth", depth), frames=input_shape[1])
    num_steps = input_shape[1] // 2**depth
    if num_steps % check_positive_int("latent_steps", latent_steps):
        raise ValueError(
            f"A window of {num_steps} steps of {2**depth} frames cannot be divided among {latent_steps} codes. "
            f"Choose a divisor of {num_steps} as `latent_steps`, or a smaller `decoder_depth`. "
            f"Received: latent_steps={latent_steps}"
        )


def default_latent_steps(num_frames: int, depth: int) -> int:
    """Return how many codes a window has by default: one for 16 frames, or 1 where that would be fewer than 8.

    With the default converter a code stands for 0.19 s. Sequences of fewer codes teach a prior little.

    Args:
        num_frames: Frames of a window.
        depth: How often they are halved; the codes divide the steps that remain.

    Example:
        >>> default_latent_steps(512, depth=2), default_latent_steps(64, depth=2)
        (32, 1)
    """
    num_codes = math.gcd(num_frames // _FRAMES_PER_CODE, num_frames // 2**depth)
    return num_codes if num_codes >= _MIN_CODES else 1


def check_window_shape(input_shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless this is the shape of a window, `(bins, frames, 1)`."""
    if len(input_shape) != 3 or input_shape[-1] != 1 or any(size < 1 for size in input_shape):
        raise ValueError(f"`input_shape` must be (bins, frames, 1). Received: input_shape={input_shape!r}")
    if input_shape[0] * input_shape[1] > _MAX_PIXELS:
        raise ValueError(f"A window has at most {_MAX_PIXELS:,} pixels. Received: input_shape={input_shape!r}")


def check_halvings(depth: int, **axes: int) -> None:
    """Raise a ValueError unless the named axes can be halved so many times."""
    for axis, size in axes.items():
        if size % 2**depth:
            advice = "Choose a smaller `decoder_depth`" if size % 2 == 0 else f"Choose an even number of {axis}"
            raise ValueError(
                f"A network of depth {depth} halves its grid {depth} times, so the number of {axis} must be a "
                f"multiple of {2**depth}. Received: {axis}={size}. {advice}."
            )


def decode_in_parts(decoder: keras.Model, codes: tf.Tensor, frames_per_code: int) -> Iterator[tf.Tensor]:
    """Yield the decoder's output for a batch of codes, part by part along time.

    A long sequence is decoded in parts together with the codes around them that the network sees, so that memory does
    not grow with its length. The values are those of the whole: there is no seam.

    Args:
        decoder: What `build_decoder` returned.
        codes: Shape `(batch, num_codes, latent_dim)`, or `(batch, latent_dim)`, which gives one part.
        frames_per_code: Number of frames that each code stands for.

    Yields:
        Shape `(batch, frames of the part, num_channels, bins)`.
    """
    if len(codes.shape) == 2:
        yield decoder(codes, training=False)
        return
    num_codes, num_at_once = codes.shape[1], max(1, FRAMES_AT_ONCE // frames_per_code)
    for start in range(0, num_codes, num_at_once):
        first, end = max(0, start - _CONTEXT), min(num_codes, start + num_at_once)
        parameters = decoder(codes[:, first : end + _CONTEXT], training=False)
        yield parameters[:, (start - first) * frames_per_code : (end - first) * frames_per_code]
