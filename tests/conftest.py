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
def adapted_model(make_model, windows) -> SpectroVAE:
    """A small model at its linear optimum, for tests that only read it."""
    model = make_model()
    model.adapt(windows, verbose=0)
    return model


@pytest.fixture(scope="session")
def shifted_windows(windows) -> np.ndarray:
    """160 windows, shifted in time so that what follows what is no accident of the window's start."""
    shifts = np.random.default_rng(0).integers(0, 32, 160)
    return np.stack([np.roll(windows[k % 48], shift, axis=1) for k, shift in enumerate(shifts)])


@pytest.fixture(scope="session")
def sequence_model(make_model, shifted_windows) -> SpectroVAE:
    """A small trained model with four codes of three numbers along a window, for tests that only read it."""
    model = make_model(latent_dim=3, latent_steps=4)
    model.compile(run_eagerly=True)  # for so few steps compiling takes longer
    model.fit(shifted_windows, batch_size=80, epochs=2, verbose=0)
    return model


@pytest.fixture(scope="session")
def music(tmp_path_factory) -> Path:
    """A folder of four short pieces."""
    folder = tmp_path_factory.mktemp("music")
    compose_collection(folder, num_pieces=4, duration=1.0, sample_rate=8000)
    return folder
