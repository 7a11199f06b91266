"""The reference model that this library began as: two-dimensional convolutions over grey values."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
from keras import layers

from spectrovae.checks import check_num_weights, check_positive_int
from spectrovae.model.distributions import num_posterior_parameters
from spectrovae.model.networks import check_halvings, check_window_shape

CLASSIC_SETTINGS: dict[str, Any] = {
    "latent_dim": 100,
    "num_components": 2,
    "decoder_depth": 6,
    "architecture": "classic",
    "posterior": "full",
    "likelihood": "bernoulli",
    "num_kl_samples": 3,
    "learn_weights": False,
    "warm_start": False,
}
"""The arguments of `SpectroVAE` that make the reference model."""


def build_classic_encoder(
    input_shape: tuple[int, ...], latent_dim: int, posterior: str, *, depth: int, latent_steps: int, seed: int
) -> keras.Model:
    """Build the encoder of the reference model; arguments and result are those of `build_encoder`.

    Its depth is fixed; `depth` is that of the decoder, which the windows must fit.

    Example:
        >>> build_classic_encoder((64, 64, 1), 8, "full", depth=6, latent_steps=1, seed=0).output_shape
        (None, 44)
    """
    check_classic_grid(input_shape, depth, latent_steps)
    num_features = 256 * math.ceil(input_shape[0] / 64) * math.ceil(input_shape[1] / 64)
    check_num_weights("encoder", num_features * num_posterior_parameters(posterior, latent_dim))
    inputs = keras.Input(input_shape, name="windows", dtype="float32")
    seeds = itertools.count(seed)
    hidden = _convolution_block(inputs, 32, 4, seeds, strides=2)
    hidden = _convolution_block(hidden, 64, 4, seeds, strides=2)
    hidden = layers.MaxPooling2D(2, padding="same")(hidden)
    for filters in (128, 256, 256):
        hidden = _convolution_block(hidden, filters, 4, seeds, strides=2)
    outputs = layers.Dense(
        num_posterior_parameters(posterior, latent_dim),
        kernel_initializer=_initializer(seeds),
        name="parameters",
        dtype="float32",
    )(layers.Flatten()(hidden))
    return keras.Model(inputs, outputs, name="encoder")


def build_classic_decoder(
    input_shape: tuple[int, ...],
    latent_dim: int,
    num_channels: int,
    *,
    depth: int,
    width: int,
    latent_steps: int,
    seed: int,
) -> keras.Model:
    """Build the decoder of the reference model, which doubles its grid by convolutions.

    Arguments and result are those of `build_decoder`; its width is fixed.

    Example:
        >>> build_classic_decoder((64, 64, 1), 8, 1, depth=3, width=1, latent_steps=1, seed=0).output_shape
        (None, 64, 1, 64)
    """
    check_classic_grid(input_shape, depth, latent_steps)
    bins, frames, _ = input_shape
    seeds = itertools.count(seed)
    codes = keras.Input((latent_dim,), name="codes", dtype="float32")
    grid = (bins // 2**depth, frames // 2**depth, 256)
    check_num_weights("decoder", math.prod(grid) * latent_dim)
    hidden = layers.Dense(grid[0] * grid[1] * grid[2], activation="relu", kernel_initializer=_initializer(seeds))(codes)
    hidden = layers.Reshape(grid)(hidden)
    for level, filters in enumerate(itertools.islice(itertools.cycle((128, 64, 32)), depth)):
        hidden = layers.UpSampling2D(2)(hidden)
        hidden = _convolution_block(hidden, filters, 3, seeds, batch_normalization=level < 2)
    window = layers.Conv2D(
        num_channels, 3, padding="same", kernel_initializer=_initializer(seeds), name="window", dtype="float32"
    )(hidden)
    window = layers.Permute((2, 3, 1), dtype="float32")(window)
    return keras.Model(codes, window, name="decoder")


def check_classic_grid(input_shape: tuple[int, ...], depth: int, latent_steps: int) -> None:
    """Raise a ValueError unless the networks of the reference model fit such windows."""
    check_window_shape(input_shape)
    check_halvings(check_positive_int("decoder_depth", depth), frames=input_shape[1], bins=input_shape[0])
    if latent_steps > 1:
        raise ValueError(f"The classic architecture has one code for a window. Received: latent_steps={latent_steps}")


def _convolution_block(
    inputs: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    seeds: Iterator[int],
    strides: int = 1,
    batch_normalization: bool = True,
) -> keras.KerasTensor:
    """Apply a convolution over frequency and time, ReLU, and batch normalization where it is asked for."""
    outputs = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        activation="relu",
        kernel_initializer=_initializer(seeds),
    )(inputs)
    return layers.BatchNormalization()(outputs) if batch_normalization else outputs


def _initializer(seeds: Iterator[int]) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=next(seeds))
