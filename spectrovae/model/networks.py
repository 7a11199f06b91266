"""The encoder and the decoder."""

import itertools
import math
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras import layers

from spectrovae.checks import check_num_weights, check_positive_int
from spectrovae.model.distributions import num_posterior_parameters
from spectrovae.model.layers import LinearUpsampling1D, OverlapAdd, SeparableDense, SeparableDenseTranspose, gelu
from spectrovae.model.level_curves import LevelCurves

FRAMES_AT_ONCE = 4096
"""How many frames of a long sequence of codes are decoded at once."""

_MAX_PIXELS = 2**26

_FRAMES_PER_CODE, _MIN_CODES = 16, 8  # by default
_CONTEXT = 4  # codes that a frame depends on to either side: of three convolutions, and where steps overlap


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
    of which each then gives every frame that it stands for: held-out music gains much from it. In either path codes
    have a say in what their neighbours give (`SeparableDenseTranspose`, `OverlapAdd`), or music would jump from one
    code to the next.

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
    num_neighbours = 1 if refines_codes else 0
    linear = SeparableDenseTranspose(steps_per_code, bins, num_neighbours, seed, name="linear_window", dtype="float32")
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
