"""What a trained model leaves in a folder: sounds, pictures, and a summary in plain words."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from spectrovae.audio import PathLike, read_blocks, write_audio
from spectrovae.converter import SpectrogramConverter
from spectrovae.dataset import dataset_report
from spectrovae.diagnosis import Diagnosis
from spectrovae.model import SpectroVAE
from spectrovae.plotting import plot_history, plot_spectrograms

logger = logging.getLogger(__name__)


def read_window(path: PathLike, converter: SpectrogramConverter, start: float = 0.0) -> np.ndarray:
    """Read as much of a recording as one window holds.

    Args:
        path: An audio file.
        converter: Decides the sample rate and the length.
        start: First second.

    Returns:
        float32 `(converter.window_length,)`. A recording that ends sooner is repeated from `start`.

    Raises:
        ValueError: If the file cannot be decoded, or ends before `start`.

    Example:
        >>> import tempfile
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_audio(f"{folder}/tone.wav", 0.5 * np.sin(np.arange(8000)), sample_rate=8000)
        ...     read_window(f"{folder}/tone.wav", converter, start=0.5).shape
        (2048,)
    """
    num_skipped = round(start * converter.sample_rate)
    num_read, kept = 0, [np.zeros(0, np.float32)]  # block by block, since a recording may be hours long
    for block in read_blocks(path, converter.sample_rate):
        kept.append(block[max(0, num_skipped - num_read) :])
        num_read += len(block)
        if num_read >= num_skipped + converter.window_length:
            break
    waveform = np.concatenate(kept)
    if start < 0 or not len(waveform):
        raise ValueError(
            f"`start` must lie within {path}, which is {num_read / converter.sample_rate:.1f} s long. "
            f"Received: start={start!r}"
        )
    return np.resize(waveform, converter.window_length)


def write_windows(
    windows: ArrayLike,
    converter: SpectrogramConverter,
    folder: PathLike,
    name: str = "generated",
    seed: int | None = None,
) -> list[Path]:
    """Write each window as a sound and as a picture: `generated_1.wav`, `generated_1.png`, ...

    Args:
        windows: Values in [0, 1], `(num_windows, bins, frames, 1)`, any number of frames.
        converter: The `SpectrogramConverter` that made the windows.
        folder: Made if need be.
        name: First part of the file names.
        seed: Seed of the phases that the sounds start from.

    Returns:
        The paths of the sounds, in order. The pictures beside them differ in their ending.

    Example:
        >>> import tempfile
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
        >>> [path.name for path in write_windows(np.zeros((2, 64, 64, 1)), converter, tempfile.mkdtemp())]
        ['generated_1.wav', 'generated_2.wav']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    waveforms = _to_audio(converter, windows, seed)
    width = len(str(len(waveforms)))
    paths = [folder / f"{name}_{number:0{width}d}.wav" for number in range(1, len(waveforms) + 1)]
    for path, waveform, window in zip(paths, waveforms, np.asarray(windows), strict=True):
        write_audio(path, waveform, converter.sample_rate)
        plot_spectrograms(window, converter, [path.stem]).savefig(path.with_suffix(".png"))
    return paths


def write_reconstruction(
    model: SpectroVAE, waveform: np.ndarray, folder: PathLike, seed: int | None = None
) -> list[Path]:
    """Write a sound beside what the model makes of it.

    Args:
        model: A trained model.
        waveform: `(converter.window_length,)`, as `read_window` returns it.
        folder: Made if need be.
        seed: Seed of the phases that the reconstruction starts from.

    Returns:
        The paths of `original.wav`, `reconstruction.wav` and `reconstruction.png`, which shows both.

    Example:
        >>> import tempfile
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8)
        >>> waveform = 0.1 * np.sin(np.arange(model.converter.window_length))
        >>> [path.name for path in write_reconstruction(model, waveform, tempfile.mkdtemp())]
        ['original.wav', 'reconstruction.wav', 'reconstruction.png']
    """
    folder, converter = Path(folder), model.converter
    folder.mkdir(parents=True, exist_ok=True)
    original = converter.to_spectrogram(waveform)
    reconstruction = model.reconstruct(original[None])[0]
    difference = converter.to_decibels(original) - converter.to_decibels(reconstruction)
    paths = [folder / name for name in ("original.wav", "reconstruction.wav", "reconstruction.png")]
    write_audio(paths[0], waveform / max(1.0, np.abs(waveform).max()), converter.sample_rate)
    write_audio(paths[1], _to_audio(converter, reconstruction, seed), converter.sample_rate)
    titles = ["Original", f"Reconstruction ({np.sqrt(np.mean(difference**2)):.1f} dB RMSE)"]
    plot_spectrograms([original, reconstruction], converter, titles).savefig(paths[2])
    return paths


def write_results(
    model: SpectroVAE,
    training: tf.data.Dataset,
    held_out: tf.data.Dataset | None,
    history: Mapping[str, Sequence[float]],
    folder: PathLike,
    num_samples: int = 5,
    seed: int | None = None,
) -> Diagnosis:
    """Write what shows a trained model: generated sounds, a reconstruction, the loss curves, a summary.

    Args:
        model: A trained model.
        training: What `audio_dataset` returned for training.
        held_out: What it returned for validation, or None.
        history: For each metric its values by epoch, such as `History.history` of what `fit` returns.
        folder: Made if need be. It gets what `write_windows` and `write_reconstruction` write, `generated.png`
            with all generated windows, `loss_curves.png`, and `summary.txt`: the model's diagnosis, and what became
            of each recording.
        num_samples: Windows to generate, at least 2.
        seed: Integer for draws that repeat.

    Returns:
        The diagnosis on the held-out windows, or on the training windows where fewer than two are held out.
    """
    folder, converter = Path(folder), model.converter
    generated = model.generate(num_samples, seed=seed)
    write_windows(generated, converter, folder, seed=seed)
    plot_spectrograms(generated, converter).savefig(folder / "generated.png")
    reports = [dataset_report(dataset) for dataset in (training, held_out) if dataset is not None]
    positions = reports[-1].windows
    shown = positions[len(positions) // 2]
    write_reconstruction(model, read_window(shown.path, converter, shown.start), folder, seed)
    plot_history(history).savefig(folder / "loss_curves.png")
    enough = held_out is not None and len(positions) > 1
    diagnosis = model.diagnose(held_out if enough else training, training)
    recordings = dataclasses.replace(reports[0], used=tuple(used for report in reports for used in report.used))
    place = f"The reconstruction shown is of {shown.path} from {shown.start:.1f} s on."
    lines = [str(diagnosis), place, "", str(recordings)]
    for title, report in zip(("Trained on", "Held out"), reports, strict=False):
        lines += ["", f"{title}:", *(f"  {recording.path}" for recording in report.used)]
    (folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return diagnosis


def _to_audio(converter: SpectrogramConverter, windows: ArrayLike, seed: int | None) -> np.ndarray:
    """Turn windows into sound; warnings become plain lines of the log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveforms = converter.to_audio(windows, seed=seed)
    for warning in caught:
        logger.warning("%s", warning.message)
    return waveforms
