"""Makes the models in `golden/`, which every later version must load and understand in the same way.

    python tests/golden_files.py

Never replace an old file: add new ones beside it when the format changes. The weights are a short pattern repeated, so
that the files stay small.
"""

import tempfile
import zipfile
from pathlib import Path

import numpy as np

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.model.spectrovae import FORMAT_VERSION

FOLDER = Path(__file__).with_name("golden")
SETTINGS = {
    "temporal": {"width": 8, "posterior": "full", "component_names": ["a", "b"]},
    "sequence": {"width": 8, "latent_steps": 4},
    "classic": {"architecture": "classic", "likelihood": "bernoulli"},
}
"""What each model has of its own."""


def golden_windows() -> np.ndarray:
    """Return what the models are asked about, (2, 32, 32, 1)."""
    bins, frames = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    return np.stack([0.5 + 0.4 * np.sin(bins / 3 + frames / (5 + k)) for k in (0, 4)])[..., None].astype(np.float32)


def make_model(name: str) -> SpectroVAE:
    converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
    settings = {"latent_dim": 3, "num_components": 2, "decoder_depth": 2, "latent_steps": 1} | SETTINGS[name]
    model = SpectroVAE(converter.window_shape, converter=converter, seed=0, **settings)
    pattern = np.float32([0.9, -0.5, 0.3, 0.2, -0.8, 0.5, -0.4, 0.1, -0.3, 0.6, 0.7])
    for weight in model.weights:
        if "lowest" in weight.path or "highest" in weight.path:
            weight.assign(np.full(weight.shape, -2.0 if "lowest" in weight.path else 2.0))
        elif weight.dtype == "float32" and weight.ndim:
            values = np.resize(pattern, weight.shape) / np.sqrt(np.prod(weight.shape[:-1]))
            weight.assign(np.abs(values) if "variance" in weight.path else values)
    return model


def write(name: str) -> None:
    path = FOLDER / f"{name}_{FORMAT_VERSION}.keras"
    if path.exists():
        return
    model = make_model(name)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.keras"))
        with (
            zipfile.ZipFile(Path(folder, "model.keras")) as saved,
            zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as small,
        ):
            for member in saved.namelist():
                small.writestr(member, saved.read(member))
    windows = golden_windows()
    np.savez_compressed(
        path.with_suffix(".npz"),
        codes=model.encode(windows),
        reconstructions=model.reconstruct(windows).astype(np.float16),
        generated=model.generate(1, component=1, seed=1, texture=0).astype(np.float16),
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SETTINGS:
        write(name)
