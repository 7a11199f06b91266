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
from spectrovae.audio.io import write_audio
from spectrovae.audio.limiter import limit_peaks
from spectrovae.audio.recordings import RecordingsReport, printable
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import limited_batches
from spectrovae.evaluation.collection import consecutive_windows, encode_collection
from spectrovae.evaluation.diagnosis import Diagnosis, diagnose
from spectrovae.evaluation.generation import evaluate_generation
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.report.page import PAGE, Clip, reconstruction_clips, to_audio, write_page
from spectrovae.report.plotting import plot_comparison, plot_history, plot_spectrograms, save_figure
from spectrovae.storage import PathLike, remove_leftovers, write_text

_NUM_ORIGINALS = 3  # held-out windows on the page

_AMOUNT = 0.5  # of the variations on the page

_NUM_COMPARED = 32  # generated windows that are compared with music

_MAX_TRAINING_WINDOWS = 256  # that they are compared with


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
    remove_leftovers(folder)
    sounds = np.asarray(to_audio(converter, windows, seed) if waveforms is None else waveforms)
    width = len(str(len(sounds)))
    paths = [folder / f"{name}_{number:0{width}d}{extension}" for number in range(1, len(sounds) + 1)]
    for path, waveform, window in zip(paths, sounds, np.asarray(windows), strict=True):
        tags = {"title": path.stem, **options.get("tags", {})}
        write_audio(path, waveform, converter.sample_rate, **options | {"tags": tags})
        save_figure(plot_spectrograms(window, converter, [path.stem]), path.with_suffix(".png"))
    return paths


def write_reconstruction(
    original: Clip, reconstruction: Clip, converter: SpectrogramConverter, folder: PathLike
) -> list[Path]:
    """Write a recording and its reconstruction as sounds, and both as one picture.

    Args:
        original: One of the pairs that `reconstruction_clips` returns.
        reconstruction: The other half of the pair.
        converter: The `SpectrogramConverter` that made the windows.
        folder: Made if need be.

    Returns:
        The paths of `original.wav`, `reconstruction.wav` and `reconstruction.png`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("original.wav", "reconstruction.wav", "reconstruction.png")]
    for path, clip in zip(paths, (original, reconstruction), strict=False):
        write_audio(path, limit_peaks(clip.waveform, converter.sample_rate), converter.sample_rate)
    titles = ["Original", f"Reconstruction ({reconstruction.details[0]})"]
    save_figure(plot_spectrograms([original.window, reconstruction.window], converter, titles), paths[2])
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
            with all generated windows, `comparison.png` with some of them beside recordings, `loss_curves.png`,
            `summary.txt`: the model's diagnosis, how near generated windows are to held-out music, and what became of
            each recording; and `index.html`, on which to hear and see it all (`write_page`).
        num_samples: Windows to generate, at least 2.
        seed: Integer for draws that repeat; the page tells it, also where it was not given.
        cache: What `audio_dataset` was given: for the comparison with the training windows their recordings are read
            once more, and decoded again unless this is a folder.

    Returns:
        The diagnosis on the held-out windows, or on the training windows where fewer than two are held out.

    Example:
        >>> import tempfile
        >>> from spectrovae import SpectroVAE, audio_dataset, compose_collection, write_results
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> music, results = tempfile.mkdtemp(), tempfile.mkdtemp()
        >>> _ = compose_collection(music, num_pieces=1, duration=0.1)
        >>> training = audio_dataset(music, model.converter, verbose=0)
        >>> diagnosis = write_results(model, training, None, {"loss": [2.0, 1.0]}, results, num_samples=2)
    """
    folder, converter = Path(folder), model.converter
    # Python's generator, since keras.utils.set_random_seed seeds it.
    seed = random.randrange(2**31) if seed is None else seed
    codes = model.prior.sample(num_samples, seed=seed).numpy()
    generated = model.decode(codes, texture="grains", seed=seed)
    waveforms = to_audio(converter, generated, seed)
    write_windows(generated, converter, folder, waveforms=waveforms)
    save_figure(plot_spectrograms(generated, converter), folder / "generated.png")
    save_figure(plot_history(history), folder / "loss_curves.png")
    reports = [dataset_report(dataset) for dataset in (training, held_out) if dataset is not None]
    positions = reports[-1].windows
    enough = held_out is not None and len(positions) > 1
    diagnosis = diagnose(model, held_out if enough else training, training)
    amount = _AMOUNT if model.latent_steps > 1 else None
    rows = reconstruction_clips(model, positions[:: max(1, -(-len(positions) // _NUM_ORIGINALS))], seed, amount)
    shown = rows[len(rows) // 2]
    write_reconstruction(shown[0], shown[1], converter, folder)
    originals = [row[0].window for row in rows]
    save_figure(plot_comparison(originals, generated, converter), folder / "comparison.png")
    nearness = _nearness(model, training, held_out, seed) if enough else ""
    remarks = [nearness, f"The reconstruction shown is of {shown[0].details[0]}."]
    summary = _summary(diagnosis, [remark for remark in remarks if remark], reports)
    write_text(folder / "summary.txt", summary)
    write_page(
        folder / PAGE,
        model,
        generated,
        list(waveforms),
        codes,
        collection=encode_collection(model, consecutive_windows(training, converter, cache=cache)),
        reconstructions=rows,
        history=history,
        diagnosis=diagnosis,
        text=f"Sounds of seed {seed}, pictures and figures of the model in this folder. {nearness}".rstrip(),
        seed=seed,
    )
    return diagnosis


def _nearness(model: SpectroVAE, training: tf.data.Dataset, held_out: tf.data.Dataset, seed: int) -> str:
    """Return a line on how near generated windows are to held-out music."""
    known = np.concatenate(list(limited_batches(training, num_passes=1, max_windows=_MAX_TRAINING_WINDOWS)))
    generated = model.generate(_NUM_COMPARED, seed=seed)
    try:
        report = evaluate_generation(generated, held_out, known, model.converter)
    except ValueError:  # a single training window, or all alike: there is no scale to measure with
        return ""
    return (
        f"How near generated windows are to held-out music: a distance of {report.maximum_mean_discrepancy:.3f}, where "
        f"the training music itself is at {report.maximum_mean_discrepancy_zero_line:.3f}."
    )


def _summary(diagnosis: Diagnosis, remarks: Sequence[str], reports: Sequence[RecordingsReport]) -> str:
    """Return the figures, and what became of each recording; the reports are of training and of held-out files."""
    recordings = dataclasses.replace(reports[0], used=tuple(used for report in reports for used in report.used))
    lines = [str(diagnosis), *remarks, "", str(recordings)]
    for title, report in zip(("Trained on", "Held out"), reports, strict=False):
        lines += ["", f"{title}:", *(f"  {printable(recording.path)}" for recording in report.used)]
    return "\n".join(lines) + "\n"
