"""How near to music a model, or any folder of sounds, comes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from spectrovae.audio.dataset import audio_dataset, dataset_report
from spectrovae.audio.phase import griffin_lim
from spectrovae.audio.recordings import WindowPosition, read_window
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import WindowSample, iterate_batches
from spectrovae.evaluation.generation import (
    GenerationReport,
    SoundReport,
    Sounds,
    TrainingMusic,
    evaluate_generation,
    evaluate_sound,
)
from spectrovae.evaluation.listening import ListeningFigures, listening_figures
from spectrovae.evaluation.sound_distance import checked_windows, maximum_mean_discrepancy, rmse_db
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.model.texture import check_texture

_BATCH_SIZE = 16

_LEAST_RATIO = 1e-8  # -160 dB: below it, magnitudes are the same

_NUM_TRAINING_CLIPS = 64  # whose rhythm and harmony stand for those of the training music


@dataclasses.dataclass(frozen=True)
class RestorationScores:
    """How near windows come to the ones that they stand for.

    Attributes:
        rmse_db: Root-mean-square difference of the levels, in dB.
        log_spectral_distance: Root-mean-square difference of the levels over the bins of a frame, averaged over all
            frames, in dB (Gray and Markel, "Distance measures for speech processing", IEEE Transactions on Acoustics,
            Speech, and Signal Processing, 1976).
        spectral_convergence: Norm of the difference of the magnitudes over that of the original magnitudes, in dB,
            averaged over the windows that are not silent (NaN where all are).
        maximum_mean_discrepancy: Squared distance of the two sets of windows by `SoundDistance`.
        rhythm_and_harmony: Squared distance of the two sets of sounds by `rhythm_and_harmony_distance`; NaN for windows
            that were not turned into sound, and for those shorter than half a second.
        sound: How lively, peaky and loud the sounds are; None for windows that were not turned into sound.
    """

    rmse_db: float
    log_spectral_distance: float
    spectral_convergence: float
    maximum_mean_discrepancy: float
    rhythm_and_harmony: float = math.nan
    sound: ListeningFigures | None = None


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Scores of a generative system, as `judge` returns them; `print` shows them as a table.

    What is heard are windows that were turned into sound, with phases by Griffin-Lim, and analysed again.

    Attributes:
        num_windows: Held-out windows that were measured.
        round_trip: The held-out windows as heard: what phases cost, the ceiling for every model.
        decoded: Reconstructions from mean codes, before they are turned into sound.
        heard: The same reconstructions as heard.
        textured: Reconstructions with texture as heard; None for a system that has none.
        generation: Generated windows before they are turned into sound.
        heard_generation: The same as heard.
    """

    num_windows: int
    round_trip: RestorationScores
    decoded: RestorationScores
    heard: RestorationScores
    textured: RestorationScores | None
    generation: GenerationReport
    heard_generation: SoundReport

    @property
    def model_share(self) -> float:
        """Share of the mean squared error (dB²) of heard reconstructions that the model makes; phases make the rest."""
        return float(min(1.0, (self.decoded.rmse_db / self.heard.rmse_db) ** 2)) if self.heard.rmse_db else 0.0

    def __repr__(self) -> str:
        rows = {
            "phases alone (the ceiling)": self.round_trip,
            "reconstruction, as decoded": self.decoded,
            "reconstruction, heard": self.heard,
            "with texture, heard": self.textured,
        }
        title = f"{self.num_windows} held-out windows"
        columns = f"{'convergence':>13}{'distance':>10}{'rhythm':>9}{'flux':>7}{'crest':>7}{'level':>7}"
        lines = [f"{title:28}{'RMSE':>7}{'log-spectral':>14}{columns}"]
        for name, scores in rows.items():
            if scores is not None:
                lines.append(
                    f"{name:28}{scores.rmse_db:>7.2f}{scores.log_spectral_distance:>14.2f}"
                    f"{scores.spectral_convergence:>13.1f}{scores.maximum_mean_discrepancy:>10.4f}"
                )
                if (sound := scores.sound) is not None:
                    lines[-1] += f"{scores.rhythm_and_harmony:>9.4f}{sound.flux_db:>7.2f}"
                    lines[-1] += f"{sound.crest_factor_db:>7.1f}{sound.level_db:>7.1f}"
        heard = self.heard_generation
        zero_lines = heard.maximum_mean_discrepancy_zero_line, heard.rhythm_and_harmony_zero_line
        lines.append(f"{'training music (zero lines)':62}{zero_lines[0]:>10.4f}{zero_lines[1]:>9.4f}")
        lines.append("Distance and rhythm (and harmony) are squared distances of sets; all other figures are in dB.")
        lines.append(f"Of the squared error of what is heard, the model makes {100 * self.model_share:.0f} %.")
        return "\n".join([*lines, "", "As decoded:", str(self.generation), "", "As heard:", str(heard)])


def judge(
    model: SpectroVAE, held_out: Any, training: Any, num_windows: int = 128, texture: str = "grains", seed: int = 0
) -> Judgement:
    """Measure what a model does with held-out recordings, and what it generates.

    Args:
        model: A trained `SpectroVAE`.
        held_out: Windows of recordings that the model was not trained on, `(num_windows, bins, frames, 1)`, or a
            dataset of batches of them. At least 2; of more than `num_windows` a fair sample is taken.
        training: Windows that it was trained on, or a dataset of batches of them; or the `TrainingMusic` made of them.
        num_windows: Held-out windows to measure, and windows to generate, at most.
        texture: What is put on the means where texture is asked for, as in `SpectroVAE.decode`.
        seed: Integer that decides the sample, codes, textures and phases.

    Returns:
        The scores; `print` shows them as a table.

    Raises:
        ValueError: If a set has fewer than 2 windows, or they do not fit the model.

    Example:
        >>> import numpy as np
        >>> from spectrovae import SpectroVAE, judge
        >>> windows = np.random.default_rng(0).random((24, 32, 32, 1), np.float32)
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> judgement = judge(model, held_out=windows[:8], training=windows[8:])
        >>> judgement.round_trip.rmse_db < judgement.heard.rmse_db
        True
    """
    sample = WindowSample(num_windows, seed)
    for _ in sample.collect(np.asarray(batch) for batch in iterate_batches(held_out)):
        pass
    originals = np.stack(sample.windows)
    has_texture = check_texture(texture) != "none" and model.likelihood.per_pixel
    return judge_windows(
        originals,
        model.reconstruct(originals, _BATCH_SIZE),
        model.generate(num_windows, seed=seed, batch_size=_BATCH_SIZE, texture=texture),
        training,
        model.converter,
        model.reconstruct(originals, _BATCH_SIZE, texture, seed) if has_texture else None,
        seed,
    )


def judge_windows(
    held_out: np.ndarray,
    reconstructed: np.ndarray,
    generated: np.ndarray,
    training: Any,
    converter: SpectrogramConverter,
    textured: np.ndarray | None = None,
    seed: int = 0,
) -> Judgement:
    """Measure any system by the windows that it makes, as `judge` does.

    Args:
        held_out: Windows that the system has not seen, `(num_windows, bins, frames, 1)` in [0, 1], at least 2.
        reconstructed: What it makes of them, of the same shape.
        generated: Windows that it generated, any number from 2 on.
        training: Windows that it was trained on, or a dataset of batches of them; or the `TrainingMusic` made of them.
        converter: The `SpectrogramConverter` that made the windows.
        textured: What it makes of the held-out windows if it adds texture.
        seed: Seed of the phases.

    Example:
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
        >>> windows = np.random.default_rng(0).random((24, 32, 32, 1), np.float32)
        >>> print(judge_windows(windows[:8], 0.9 * windows[:8], windows[4:12], windows[12:], converter))
        8 held-out windows ...
    """
    music = training if isinstance(training, TrainingMusic) else _as_music(training, converter, seed)
    distance, heard_music = music.distance, resynthesize(held_out, converter, seed)
    target = distance.embed(held_out)

    def scores(windows: np.ndarray) -> RestorationScores:
        discrepancy = maximum_mean_discrepancy(distance.embed(windows), target, distance.bandwidths)
        return restoration_scores(held_out, windows, converter, discrepancy)

    def heard_scores(sounds: Sounds) -> RestorationScores:
        return dataclasses.replace(
            scores(sounds.windows),
            rhythm_and_harmony=music.rhythm_distance(sounds.clips, heard_music.clips),
            sound=listening_figures(sounds.clips, converter),
        )

    return Judgement(
        num_windows=len(held_out),
        round_trip=heard_scores(heard_music),
        decoded=scores(reconstructed),
        heard=heard_scores(resynthesize(reconstructed, converter, seed)),
        textured=None if textured is None else heard_scores(resynthesize(textured, converter, seed)),
        generation=evaluate_generation(generated, held_out, distance, converter),
        heard_generation=evaluate_sound(
            resynthesize(generated, converter, seed), Sounds(held_out, heard_music.clips), music
        ),
    )


def _as_music(training: Any, converter: SpectrogramConverter, seed: int) -> TrainingMusic:
    """Return training windows as music: a sample of them is turned into sound as what is judged is."""
    sample = WindowSample(_NUM_TRAINING_CLIPS, seed)
    for _ in sample.collect(np.asarray(batch) for batch in iterate_batches(training)):
        pass
    clips = resynthesize(np.stack(sample.windows), converter, seed).clips
    return TrainingMusic(Sounds(training, clips), converter)


def judge_recordings(
    recordings: Any, reference: Any, training: Any = None, converter: SpectrogramConverter | None = None
) -> SoundReport:
    """Compare sound files of any origin with recordings.

    Args:
        recordings: The sound to judge: a file, a folder or several. Files shorter than a window are left out, with
            a warning in the log.
        reference: Real recordings, in the same way.
        training: Recordings that the system was trained on. Without them, the first half of the reference (files in
            the order of their names) takes their place, and the second half is what the sound is compared with.
        converter: Decides the sample rate and the length of the windows that are compared; `None`: one with the
            default settings.

    Returns:
        The scores; `print` shows them as a table.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If there are fewer than 2 windows of each kind.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from spectrovae import SpectrogramConverter, compose_collection, judge_recordings
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=64, num_frames=64)
        >>> with TemporaryDirectory() as folder:
        ...     _ = compose_collection(folder, num_pieces=2, duration=3.0, sample_rate=8000)
        ...     report = judge_recordings(folder, folder, converter=converter)
        >>> report.num_generated, report.num_held_out
        (10, 5)
    """
    converter = SpectrogramConverter() if converter is None else converter
    known, held_out = _split(reference, training, converter)
    generated = _recorded(recordings, converter)
    music = TrainingMusic(known.sounds(converter, _NUM_TRAINING_CLIPS), converter)
    return evaluate_sound(generated.sounds(converter), held_out.sounds(converter), music)


def training_and_held_out(reference: Any, training: Any, converter: SpectrogramConverter) -> tuple[Any, Any]:
    """Return datasets of consecutive windows of two collections; without training recordings, halves of the others.

    Args:
        reference: Audio files and folders.
        training: The same, or None.
        converter: The `SpectrogramConverter`.

    Returns:
        The training windows and the held-out ones.

    Raises:
        ValueError: If no file can be used, or the reference is too short to be split.
    """
    known, held_out = _split(reference, training, converter)
    return known.windows, held_out.windows


class _Recorded(NamedTuple):
    """A dataset of consecutive windows of recordings, and where each is from."""

    windows: Any
    positions: list[WindowPosition]

    def sounds(self, converter: SpectrogramConverter, max_clips: int = 128) -> Sounds:
        """Return the windows, and the waveforms of some that are evenly spaced."""
        places = np.linspace(0, len(self.positions) - 1, min(max_clips, len(self.positions))).round().astype(int)
        chosen = [self.positions[place] for place in places]
        clips = [read_window(position.path, converter, position.start) for position in chosen]
        return Sounds(self.windows, np.stack(clips))


def _split(reference: Any, training: Any, converter: SpectrogramConverter) -> tuple[_Recorded, _Recorded]:
    """Return what is known and what is held out, as `training_and_held_out` says."""
    windows, positions = held_out = _recorded(reference, converter)
    if training is not None:
        return _recorded(training, converter), held_out
    if len(positions) < 4:
        raise ValueError(
            "The reference must have at least 2 windows in each half. Give longer recordings, training recordings or a "
            f"converter of fewer frames. Received: {len(positions)} windows of {converter.window_duration:.3g} s"
        )
    half = len(positions) // 2
    single = windows.unbatch()
    return (
        _Recorded(single.take(half).batch(_BATCH_SIZE), positions[:half]),
        _Recorded(single.skip(half).batch(_BATCH_SIZE), positions[half:]),
    )


def _recorded(paths: Any, converter: SpectrogramConverter) -> _Recorded:
    windows = audio_dataset(paths, converter, _BATCH_SIZE, random_offset=False, shuffle=False, verbose=0)
    return _Recorded(windows, dataset_report(windows).windows)


def restoration_scores(
    originals: np.ndarray, restored: np.ndarray, converter: SpectrogramConverter, maximum_mean_discrepancy: float
) -> RestorationScores:
    """Compare windows with those that they stand for, one by one.

    Args:
        originals: `(num_windows, bins, frames, 1)` in [0, 1].
        restored: Of the same shape.
        converter: The `SpectrogramConverter` that made the windows.
        maximum_mean_discrepancy: What compares the two as sets.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> converter = SpectrogramConverter(n_fft=64, hop_length=16, num_frames=8)
        >>> scores = restoration_scores(np.full((1, 32, 8, 1), 0.5), np.full((1, 32, 8, 1), 0.6), converter, 0.0)
        >>> round(scores.rmse_db, 3), round(scores.log_spectral_distance, 3)
        (8.0, 8.0)
    """
    if np.shape(originals) != np.shape(restored):
        raise ValueError(
            "Windows must have the shape of those that they stand for. "
            f"Received: originals.shape={np.shape(originals)}, restored.shape={np.shape(restored)}"
        )
    by_frame, convergences = [], []
    for pair in zip(checked_windows(originals), checked_windows(restored), strict=True):
        by_frame.append(rmse_db(*pair, converter, axis=1))  # (num_windows, frames)
        target, result = map(converter.to_magnitudes, pair)
        norm = np.linalg.norm(target, axis=(1, 2))
        ratio = np.linalg.norm(result - target, axis=(1, 2))[norm > 0] / norm[norm > 0]
        convergences.append(20 * np.log10(np.maximum(ratio, _LEAST_RATIO)))
    errors, convergence = np.concatenate(by_frame), np.concatenate(convergences)
    return RestorationScores(
        rmse_db=float(np.sqrt(np.square(errors).mean())),
        log_spectral_distance=float(errors.mean()),
        spectral_convergence=float(convergence.mean()) if len(convergence) else float("nan"),
        maximum_mean_discrepancy=maximum_mean_discrepancy,
    )


def resynthesize(windows: np.ndarray, converter: SpectrogramConverter, seed: int = 0) -> Sounds:
    """Turn windows into sound, and the sound into windows again; peaks over 1 are left as they are.

    Example:
        >>> converter = SpectrogramConverter(n_fft=64, hop_length=16, num_frames=8, num_iterations=2)
        >>> sounds = resynthesize(np.zeros((3, 32, 8, 1)), converter)
        >>> sounds.windows.shape, sounds.clips.shape
        ((3, 32, 8, 1), (3, 128))
    """
    clips = []
    for batch in checked_windows(windows):
        magnitudes = converter.to_magnitudes(batch)
        clips.append(griffin_lim(magnitudes, converter.n_fft, converter.hop_length, converter.num_iterations, seed))
    audio = np.concatenate(clips)
    return Sounds(converter.to_spectrogram(audio), audio)
