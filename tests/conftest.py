"""What the tests share: small windows with structure, and a small model for them."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.synthesis import compose_collection

WINDOW_SHAPE = (32, 32, 1)


@pytest.fixture(scope="session")
def windows() -> np.ndarray:
    """48 windows made of four patterns and a little noise, values in [0, 1]."""
    generator = np.random.default_rng(0)
    patterns = generator.normal(size=(4, *WINDOW_SHAPE)).cumsum(axis=2) / 10
    strengths = generator.normal(size=(48, 4)) + 2 * (np.arange(48) % 2)[:, None]
    noise = 0.02 * generator.normal(size=(48, *WINDOW_SHAPE))
    values = 0.5 + 0.1 * np.einsum("nk,kbfc->nbfc", strengths, patterns) + noise
    return np.clip(values, 0, 1).astype(np.float32)


@pytest.fixture(scope="session")
def small_converter() -> SpectrogramConverter:
    """A converter whose windows are those of `small_model`."""
    return SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32, num_iterations=8)


@pytest.fixture(scope="session")
def make_model(small_converter):
    """A function that builds a compiled model small enough for a test; its arguments go to `SpectroVAE`."""

    def make(**kwargs) -> SpectroVAE:
        settings = {
            "input_shape": WINDOW_SHAPE,
            "latent_dim": 4,
            "num_components": 2,
            "decoder_depth": 2,
            "width": 8,
            "converter": small_converter,
            "seed": 0,
        }
        model = SpectroVAE(**settings | kwargs)
        model.compile()
        return model

    return make


@pytest.fixture(scope="session")
def music(tmp_path_factory) -> Path:
    """A folder of four short pieces."""
    folder = tmp_path_factory.mktemp("music")
    compose_collection(folder, num_pieces=4, duration=1.0, sample_rate=8000)
    return folder
