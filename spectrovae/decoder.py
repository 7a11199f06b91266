"""The networks from a code to the parameters of the likelihood."""

import itertools

import keras
from keras import layers

from spectrovae.blocks import convolution_block, kernel_initializer, refinement_block
from spectrovae.encoder import check_network


def build_decoder(
    input_shape: tuple[int, ...],
    latent_dim: int,
    num_channels: int = 1,
    architecture: str = "temporal",
    depth: int = 6,
    width: int = 256,
    seed: int = 0,
) -> keras.Model:
    """Build the network whose output the likelihood turns into p(x|z).

    `"temporal"` is linear from the code to steps of 2 ** depth frames; convolutions over time refine these, and
    linear interpolation doubles their number `depth` times. `"classic"` is the two-dimensional convolution network
    of the reference model, which doubles its grid by convolutions.

    Args:
        input_shape: `(bins, frames, 1)`, the shape of a window.
        latent_dim: Size of the code.
        num_channels: How many numbers the likelihood needs for each pixel; the mean is the first.
        architecture: `"temporal"` or `"classic"`.
        depth: How often the network doubles its grid.
        width: Channels of the temporal network.
        seed: Integer that decides all initial weights.

    Returns:
        A functional model from `(batch, latent_dim)` to `(batch, bins, frames, num_channels)`.

    Raises:
        ValueError: If an argument is not known or the grid can't be halved `depth` times.

    Example:
        >>> build_decoder((64, 64, 1), latent_dim=8, num_channels=2, depth=3, width=32).output_shape
        (None, 64, 64, 2)
    """
    check_network(input_shape, architecture, depth)
    codes = keras.Input((latent_dim,), name="codes", dtype="float32")
    build = {"temporal": _temporal_window, "classic": _classic_window}[architecture]
    return keras.Model(codes, build(codes, input_shape, num_channels, depth, width, seed), name="decoder")


def _temporal_window(
    codes: keras.KerasTensor,
    input_shape: tuple[int, ...],
    num_channels: int,
    depth: int,
    width: int,
    seed: int,
) -> keras.KerasTensor:
    bins, frames, _ = input_shape
    seeds = itertools.count(seed)
    num_steps = frames // 2**depth
    linear = layers.Dense(
        num_steps * bins, kernel_initializer=kernel_initializer(seeds), name="linear_window", dtype="float32"
    )(codes)
    steps = layers.Reshape((num_steps, bins), dtype="float32")(linear)
    # Starts at zero, so that the network begins as its linear path and the gradient decides what to add.
    deep = layers.Dense(bins * num_channels, kernel_initializer="zeros", name="deep_window", dtype="float32")(
        refinement_block(steps, width, seeds)
    )
    mean = layers.Add(name="mean", dtype="float32")([steps, deep[..., :bins]])
    grid = layers.Concatenate(name="grid", dtype="float32")([mean, deep[..., bins:]])
    # Keras interpolates in two dimensions only: a height of time and a width of one.
    grid = layers.Reshape((num_steps, 1, num_channels * bins), dtype="float32")(grid)
    grid = layers.UpSampling2D((2**depth, 1), interpolation="bilinear", dtype="float32")(grid)
    grid = layers.Reshape((frames, num_channels, bins), dtype="float32")(grid)
    return layers.Permute((3, 1, 2), name="window", dtype="float32")(grid)


def _classic_window(
    codes: keras.KerasTensor,
    input_shape: tuple[int, ...],
    num_channels: int,
    depth: int,
    width: int,
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
