"""The networks from a window to the parameters of its posterior."""

import itertools

import keras
from keras import layers

from spectrovae.blocks import convolution_block, kernel_initializer
from spectrovae.checks import check_positive_int
from spectrovae.posterior import num_posterior_parameters
from spectrovae.separable import SeparableDense

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
