"""What the tests share: small windows with structure, a small model for them, and small sweeps."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
from sweeps import CHOICES, CONVERTER

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.synthesis import compose_collection
from spectrovae.tuning import sweep
from spectrovae.tuning.sweep import SweepSettings, write_json
from spectrovae.tuning.trial_process import OUTCOME, TrialTask

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


@pytest.fixture
def small_converter() -> SpectrogramConverter:
    """A converter whose windows are those of `small_model`."""
    return SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32, num_iterations=8)


@pytest.fixture
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


@pytest.fixture
def settings(music) -> SweepSettings:
    """Settings of a small sweep over `music`."""
    return SweepSettings((str(music),), CONVERTER, CHOICES, tuner="random", epochs=1, validation_split=0.3)


@pytest.fixture
def untrained(monkeypatch) -> list[TrialTask]:
    """Trials that train nothing: their loss is a known function of what was chosen."""
    tasks = []

    def run(task):
        tasks.append(task)
        values = task.hyperparameters["values"]
        outcome = {
            "arguments": values,
            "history": {"val_loss": [9.0, values["latent_dim"] + values["num_components"] / 10]},
            "num_parameters": 1000 * values["latent_dim"],
            "seconds": 1.0,
            "peak_memory_mb": 500.0,
        }
        if values["latent_dim"] == 3:
            outcome = {"reason": "loss became nan in epoch 1.", "seconds": 1.0}
        write_json(task.folder / OUTCOME, outcome)
        return outcome

    monkeypatch.setattr(sweep, "run_in_child", run)
    return tasks
