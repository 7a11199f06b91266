"""What a trained model leaves in a folder: sounds, pictures, a summary and a page."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from spectrovae.audio.dataset import dataset_report
from spectrovae.audio.io import read_audio, write_audio
from spectrovae.audio.recordings import printable, read_window
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.collection import consecutive_windows, encode_collection
from spectrovae.evaluation.diagnosis import Diagnosis
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.report.page import PAGE, to_audio, write_page
from spectrovae.report.plotting import plot_history, plot_spectrograms
from spectrovae.storage import PathLike

_NUM_ORIGINALS = 3  # held-out windows on the page


def write_windows(
    windows: ArrayLike,
    converter: SpectrogramConverter,
    folder: PathLike,
    name: str = "generated",
    seed: int | None = None,
    extension: str = ".wav",
    waveforms: ArrayLike | None = None,
    **options: Any,
) -> list[Path]:
    """Write each window as a sound and as a picture: `generated_1.wav`, `generated_1.png`, ...

    Args:
        windows: Values in [0, 1], `(num_windows, bins, frames, 1)`, any number of frames.
        converter: The `SpectrogramConverter` that made the windows.
        folder: Made if need be.
        name: First part of the file names.
        seed: Seed of the phases that the sounds start from.
        extension: `.wav` or `.flac`.
        waveforms: Their sounds, each `(samples,)`; by default they are made here.
        **options: Further arguments of `write_audio`: `subtype`, `target_rate`, `tags`. Each file's title is its name.

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
    sounds = np.asarray(to_audio(converter, windows, seed) if waveforms is None else waveforms)
    width = len(str(len(sounds)))
    paths = [folder / f"{name}_{number:0{width}d}{extension}" for number in range(1, len(sounds) + 1)]
    for path, waveform, window in zip(paths, sounds, np.asarray(windows), strict=True):
        tags = {"title": path.stem, **options.get("tags", {})}
        write_audio(path, waveform, converter.sample_rate, **options | {"tags": tags})
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
    write_audio(paths[1], to_audio(converter, reconstruction, seed), converter.sample_rate)
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
    cache: PathLike = "disk",
) -> Diagnosis:
    """Write what shows a trained model: generated sounds, reconstructions, the loss curves, a summary, a page.

    Args:
        model: A trained model.
        training: What `audio_dataset` returned for training.
        held_out: What it returned for validation, or None.
        history: For each metric its values by epoch, such as `History.history` of what `fit` returns.
        folder: Made if need be. It gets what `write_windows` and `write_reconstruction` write, `generated.png`
            with all generated windows, `loss_curves.png`, `summary.txt`: the model's diagnosis, and what became
            of each recording; and `index.html`, on which to hear and see it all (`write_page`).
        num_samples: Windows to generate, at least 2.
        seed: Integer for draws that repeat; the page tells it, also where it was not given.
        cache: What `audio_dataset` was given: for the comparison with the training windows their recordings are read
            once more, and decoded again unless this is a folder.

    Returns:
        The diagnosis on the held-out windows, or on the training windows where fewer than two are held out.
    """
    folder, converter = Path(folder), model.converter
    # Python's generator, since keras.utils.set_random_seed seeds it.
    seed = random.randrange(2**31) if seed is None else seed
    generated = model.generate(num_samples, seed=seed)
    sounds = write_windows(generated, converter, folder, seed=seed)
    plot_spectrograms(generated, converter).savefig(folder / "generated.png")
    reports = [dataset_report(dataset) for dataset in (training, held_out) if dataset is not None]
    positions = reports[-1].windows
    shown = positions[len(positions) // 2]
    write_reconstruction(model, read_window(shown.path, converter, shown.start), folder, seed)
    plot_history(history).savefig(folder / "loss_curves.png")
    enough = held_out is not None and len(positions) > 1
    diagnosis = model.diagnose(held_out if enough else training, training)
    recordings = dataclasses.replace(reports[0], used=tuple(used for report in reports for used in report.used))
    place = f"The reconstruction shown is of {printable(shown.path)} from {shown.start:.1f} s on."
    lines = [str(diagnosis), place, "", str(recordings)]
    for title, report in zip(("Trained on", "Held out"), reports, strict=False):
        lines += ["", f"{title}:", *(f"  {printable(recording.path)}" for recording in report.used)]
    (folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_page(
        folder / PAGE,
        model,
        generated,
        [read_audio(sound, converter.sample_rate) for sound in sounds],
        model.prior.sample(num_samples, seed=seed).numpy(),  # those that `generate` has drawn
        collection=encode_collection(model, consecutive_windows(training, converter, cache=cache)),
        originals=positions[:: max(1, -(-len(positions) // _NUM_ORIGINALS))],
        history=history,
        diagnosis=diagnosis,
        text=f"Sounds of seed {seed}, pictures and figures of the model in this folder.",
        seed=seed,
    )
    return diagnosis
