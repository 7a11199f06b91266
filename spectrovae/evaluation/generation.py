"""How near generated sound comes to recordings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.copies import CopyCheck, KnownStretches, compare_nearness, copy_check
from spectrovae.evaluation.listening import (
    ListeningFigures,
    listening_figures,
    min_samples,
    rhythm_and_harmony,
    rhythm_and_harmony_distance,
)
from spectrovae.evaluation.sound_distance import (
    SoundDistance,
    maximum_mean_discrepancy,
    pairwise_distance,
    ratio_or_nan,
)

_LEVELS = ("crest factor (dB)", "level (dB)")

_STRETCHES = (0.75, 1.5, 6.0)  # seconds that are looked for in the training music


@dataclass(frozen=True)
class GenerationReport:
    """Scores of generated windows, as `evaluate_generation` returns them; `print` shows them as a table.

    Distances are between features that are whitened on the training set (see `SoundDistance`).

    Attributes:
        num_generated: Generated windows.
        num_held_out: Windows of held-out recordings.
        num_training: Windows of the training set.
        num_dimensions: Number of whitened features.
        maximum_mean_discrepancy: Squared distance of generated from held-out windows.
        maximum_mean_discrepancy_zero_line: The same for the training set against held-out windows.
        copies: How near generated windows are to the training set.
        generated_pairwise_db: Mean root-mean-square difference between two generated windows, in dB. Smooth windows
            differ less than real ones even if their contents vary.
        held_out_pairwise_db: The same for held-out windows.
    """

    num_generated: int
    num_held_out: int
    num_training: int
    num_dimensions: int
    maximum_mean_discrepancy: float
    maximum_mean_discrepancy_zero_line: float
    copies: CopyCheck
    generated_pairwise_db: float
    held_out_pairwise_db: float

    @property
    def maximum_mean_discrepancy_ratio(self) -> float:
        """Maximum mean discrepancy over its zero line; NaN where that is not positive."""
        return ratio_or_nan(self.maximum_mean_discrepancy, self.maximum_mean_discrepancy_zero_line)

    @property
    def diversity_ratio(self) -> float:
        """Mean pairwise distance of generated windows over that of held-out ones; near 0 for a collapsed model."""
        return ratio_or_nan(self.generated_pairwise_db, self.held_out_pairwise_db)

    def _rows(self) -> dict[str, tuple[float, float]]:
        """Return what is printed by name: of generated windows, and of real ones."""
        copies = self.copies
        return {
            "maximum mean discrepancy": (self.maximum_mean_discrepancy, self.maximum_mean_discrepancy_zero_line),
            "distance to nearest training clip": (copies.generated_median, copies.held_out_median),
            "share suspiciously near": (copies.share_nearer, copies.percentile / 100),
            "mean pairwise distance (dB)": (self.generated_pairwise_db, self.held_out_pairwise_db),
        }

    def __repr__(self) -> str:
        lines = [
            f"{self.num_generated} generated, {self.num_held_out} held-out and {self.num_training} training "
            f"windows; {self.num_dimensions} whitened features",
            f"{'':34}{'generated':>11}{'real':>11}{'ratio':>9}",
        ]
        for name, (generated, real) in self._rows().items():
            # Levels are compared by their difference.
            shown = f"{generated - real:+.1f} dB" if name in _LEVELS else f"{ratio_or_nan(generated, real):.2f}"
            lines.append(f"{name:34}{generated:>11.4g}{real:>11.4g}{shown:>9}")
        return "\n".join(lines)


def evaluate_generation(
    generated: Any, held_out: Any, training: Any, converter: SpectrogramConverter
) -> GenerationReport:
    """Compare generated windows with held-out recordings, beside what the training set itself reaches.

    Args:
        generated: `(num_windows, bins, frames, 1)` in [0, 1], at least 2; or batches of windows, such as a
            `tf.data.Dataset`. The same holds for the other two. Each is read twice at most.
        held_out: Windows of recordings that the model was not trained on.
        training: Windows that it was trained on, or the `SoundDistance` made of them.
        converter: The `SpectrogramConverter` that made the windows.

    Raises:
        ValueError: If a set has fewer than 2 windows, or they do not fit the converter.

    Example:
        >>> converter = SpectrogramConverter(n_fft=128, hop_length=32, num_frames=32)
        >>> windows = np.random.default_rng(0).random((60, 64, 32, 1))
        >>> report = evaluate_generation(0.9 * windows[:20], windows[20:40], windows[40:], converter)
        >>> report.maximum_mean_discrepancy > report.maximum_mean_discrepancy_zero_line
        True
    """
    distance = training if isinstance(training, SoundDistance) else SoundDistance(training, converter)
    known, bandwidths = distance.training, distance.bandwidths
    fake, real = distance.embed(generated), distance.embed(held_out)
    return GenerationReport(
        num_generated=len(fake),
        num_held_out=len(real),
        num_training=len(known),
        num_dimensions=distance.num_dimensions,
        maximum_mean_discrepancy=maximum_mean_discrepancy(fake, real, bandwidths),
        maximum_mean_discrepancy_zero_line=maximum_mean_discrepancy(known, real, bandwidths),
        copies=copy_check(fake, known, real),
        generated_pairwise_db=pairwise_distance(generated, converter),
        held_out_pairwise_db=pairwise_distance(held_out, converter),
    )


class Sounds(NamedTuple):
    """Sounds as windows, and as waveforms.

    Attributes:
        windows: `(num_windows, bins, frames, 1)` in [0, 1], or a dataset of batches of them.
        clips: Waveforms of these windows or of some of them, `(num_clips, samples)`; peaks may exceed 1.
    """

    windows: Any
    clips: np.ndarray


class TrainingMusic:
    """The music that a system was trained on, measured once for any number of comparisons.

    Args:
        sounds: The training music. Where its windows are what `audio_dataset` returned, copies are found wherever they
            begin in the recordings, else within the windows.
        converter: The `SpectrogramConverter` that made the windows.

    Attributes:
        distance: The `SoundDistance` whitened on the training windows.
        stretches: The training music as `KnownStretches`.

    Raises:
        ValueError: If there are fewer than 2 windows, or most of them are identical.
    """

    def __init__(self, sounds: Sounds, converter: SpectrogramConverter) -> None:
        self.converter = converter
        self.distance = SoundDistance(sounds.windows, converter)
        self.stretches = KnownStretches(sounds.windows, converter)
        is_long = sounds.clips.shape[1] >= min_samples(converter.sample_rate)
        self._rhythm = rhythm_and_harmony(sounds.clips, converter.sample_rate) if is_long else None

    def rhythm_distance(self, clips: np.ndarray | None, held_out: np.ndarray) -> float:
        """Return `rhythm_and_harmony_distance` of clips (None: the training music) from held-out ones.

        It is NaN where clips are shorter than half a second.
        """
        if self._rhythm is None:
            return math.nan
        rate = self.converter.sample_rate
        features = self._rhythm if clips is None else rhythm_and_harmony(clips, rate)
        return rhythm_and_harmony_distance(features, rhythm_and_harmony(held_out, rate), self._rhythm)


@dataclass(frozen=True, repr=False)
class SoundReport(GenerationReport):
    """Scores of generated sound, as `evaluate_sound` returns them; `print` shows them as a table.

    Attributes:
        rhythm_and_harmony: Squared distance of generated from held-out sound by `rhythm_and_harmony_distance`; NaN for
            clips shorter than half a second.
        rhythm_and_harmony_zero_line: The same for the training music against held-out sound.
        generated_sound: How lively, peaky and loud generated sound is.
        held_out_sound: The same for held-out sound.
        stretches: How near stretches of generated sound are to any stretch of the training music, by their length in
            seconds.
    """

    rhythm_and_harmony: float
    rhythm_and_harmony_zero_line: float
    generated_sound: ListeningFigures
    held_out_sound: ListeningFigures
    stretches: dict[float, CopyCheck]

    def _rows(self) -> dict[str, tuple[float, float]]:
        generated, real = self.generated_sound, self.held_out_sound
        return {
            **super()._rows(),
            "rhythm and harmony": (self.rhythm_and_harmony, self.rhythm_and_harmony_zero_line),
            "flux (dB)": (generated.flux_db, real.flux_db),
            "crest factor (dB)": (generated.crest_factor_db, real.crest_factor_db),
            "level (dB)": (generated.level_db, real.level_db),
            "share of clips with peaks over 1": (generated.share_over_full_scale, real.share_over_full_scale),
            **{
                f"nearest {seconds:.3g} s of training (dB)": (copies.generated_median, copies.held_out_median)
                for seconds, copies in self.stretches.items()
            },
            **{
                f"share of {seconds:.3g} s too near": (copies.share_nearer, copies.percentile / 100)
                for seconds, copies in self.stretches.items()
            },
        }


def evaluate_sound(generated: Sounds, held_out: Sounds, training: TrainingMusic) -> SoundReport:
    """Compare generated sound with held-out recordings, beside what the training music itself reaches.

    Args:
        generated: At least 2 generated sounds.
        held_out: At least 2 sounds that the system was not trained on.
        training: What it was trained on.

    Raises:
        ValueError: If a set has fewer than 2 windows or clips, or they do not fit the converter.

    Example:
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
        >>> clips = 0.1 * np.random.default_rng(0).standard_normal((60, 2048))
        >>> music, held_out, noise = (Sounds(converter.to_spectrogram(each), each) for each in np.split(clips, 3))
        >>> report = evaluate_sound(noise, held_out, TrainingMusic(music, converter))
        >>> report.stretches[converter.window_duration].ratio > 0.9
        True
    """
    converter = training.converter
    report = evaluate_generation(generated.windows, held_out.windows, training.distance, converter)
    durations = sorted({min(duration, converter.window_duration) for duration in _STRETCHES})
    nearest = [training.stretches.distances(sounds.windows, durations) for sounds in (generated, held_out)]
    return SoundReport(
        **vars(report),
        rhythm_and_harmony=training.rhythm_distance(generated.clips, held_out.clips),
        rhythm_and_harmony_zero_line=training.rhythm_distance(None, held_out.clips),
        generated_sound=listening_figures(generated.clips, converter),
        held_out_sound=listening_figures(held_out.clips, converter),
        stretches=dict(zip(durations, map(compare_nearness, *nearest), strict=True)),
    )
