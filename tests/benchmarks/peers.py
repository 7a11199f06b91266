"""Other libraries for `bench_training.py`: in an environment of their own, on the same music."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from spectrovae import SpectrogramConverter
from spectrovae.audio.io import read_audio

PEERS = ("rave", "pythae")

# RAVE's packages ask for an old SciPy; these are the newest of PyTorch that go with it.
REQUIREMENTS = ("acids-rave==2.3.1", "pythae==0.1.2", "torch==2.2.2", "torchaudio==2.2.2", "setuptools<70")


@dataclass(frozen=True)
class PeerResult:
    """What became of a peer's training.

    Attributes:
        num_seen: Windows of training it has seen; RAVE's crops last as long as a window.
        memory: Peak memory in MB.
        reconstructed: Reconstructions of the held-out windows.
        generated: Generated windows.
    """

    num_seen: int
    memory: float
    reconstructed: np.ndarray
    generated: np.ndarray


def make_environment(folder: Path) -> dict[str, float]:
    """Install the peers, unless they are; return the seconds it took and the megabytes on disk."""
    record = folder / "installed.json"
    if not record.exists():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
        record.write_text(json.dumps({"seconds": time.perf_counter() - start, "megabytes": size / 1e6}))
    return json.loads(record.read_text())


def train_peer(
    name: str,
    environment: Path,
    folder: Path,
    paths: tuple[list[Path], list[Path]],
    windows: tuple[tf.data.Dataset, np.ndarray],
    converter: SpectrogramConverter,
    seconds: float,
    seed: int,
) -> PeerResult:
    """Train a peer, reconstruct the held-out windows, and generate as many.

    Args:
        name: One of `PEERS`.
        environment: The folder of `make_environment`.
        folder: For the files that are exchanged; emptied.
        paths: The files to train on and those held out, in the order of their windows.
        windows: The dataset to train on, and the held-out windows.
        converter: That of the windows.
        seconds: How long to train.
        seed: Seed of the peer.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    training, test = windows
    if name == "rave":
        _write_audio(folder, *paths, converter, len(test))
    else:
        np.save(folder / "training.npy", np.concatenate([batch.numpy() for batch in training]))
        np.save(folder / "held_out.npy", test)
    script = Path(__file__).with_name("peer_systems.py")
    options = {
        "--seconds": seconds,
        "--sample-rate": converter.sample_rate,
        "--clip-length": converter.window_length,
        "--num-samples": len(test),
        "--seed": seed,
    }
    words = [str(word) for option in options.items() for word in option]
    command = [str(environment / "bin" / "python"), str(script), name, str(folder), *words]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    if name == "rave":
        sounds = [np.load(path) for path in sorted(folder.glob("reconstructed_*.npy"))]
        reconstructed = np.concatenate([_windows_of(sound, converter) for sound in sounds])[: len(test)]
        generated = _windows_of(np.load(folder / "generated.npy").ravel(), converter)
    else:
        reconstructed, generated = (np.load(folder / f"{name}.npy") for name in ("reconstructed", "generated"))
    return PeerResult(report["seen"], report["memory"], reconstructed, generated)


def _write_audio(
    folder: Path, training: list[Path], held_out: list[Path], converter: SpectrogramConverter, num_windows: int
) -> None:
    """Write all music to train on, and of the held-out files as many as have so many windows."""
    np.save(folder / "training.npy", np.concatenate([read_audio(path, converter.sample_rate) for path in training]))
    for index, path in enumerate(held_out):
        audio = read_audio(path, converter.sample_rate)
        if len(audio) >= converter.window_length:
            np.save(folder / f"held_out_{index:03d}.npy", audio)
        num_windows -= len(audio) // converter.window_length
        if num_windows <= 0:
            return


def _windows_of(sound: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    """Return the whole windows of a sound, one after the other; it may be silent or beyond full scale."""
    length = converter.window_length
    return converter.to_spectrogram(sound[: len(sound) // length * length].reshape(-1, length))
