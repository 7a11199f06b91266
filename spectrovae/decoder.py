"""The networks from a code to the parameters of the likelihood."""

import itertools

import keras
from keras import layers

from spectrovae.blocks import LinearUpsampling1D, convolution_block, kernel_initializer, refinement_block
from spectrovae.encoder import check_network
from spectrovae.separable import SeparableDenseTranspose

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
