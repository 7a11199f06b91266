"""Reports of generated windows and sounds: copies, collapse and dullness are found, and tables are right."""

import math

import numpy as np
import pytest
from beats import make_windows

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.copies import CopyCheck
from spectrovae.evaluation.generation import (
    GenerationReport,
    SoundReport,
    Sounds,
    TrainingMusic,
    evaluate_generation,
    evaluate_sound,
)
from spectrovae.evaluation.listening import ListeningFigures

CONVERTER = SpectrogramConverter(sample_rate=22050, n_fft=512, hop_length=128, num_frames=64)


TRAINING, HELD_OUT = make_windows(60, seed=1), make_windows(30, seed=2)


def test_report_of_good_copied_and_collapsed_windows():
    def report(windows):
        return evaluate_generation(windows, HELD_OUT, TRAINING, CONVERTER)

    good, copied, collapsed, dull = (
        report(make_windows(30, seed=5)),
        report(TRAINING[:30]),
        report(np.repeat(HELD_OUT[:1], 30, axis=0)),
        report(make_windows(30, seed=5, brightness=0.4)),
    )
    assert (good.num_generated, good.num_held_out, good.num_training) == (30, 30, 60)
    assert good.copies.ratio == pytest.approx(1, abs=0.2) and good.diversity_ratio == pytest.approx(1, abs=0.1)
    assert copied.copies.ratio < 0.01 and copied.copies.share_nearer == 1.0
    assert collapsed.diversity_ratio < 0.01
    assert dull.maximum_mean_discrepancy > 0.1 > 5 * abs(good.maximum_mean_discrepancy)
    assert dull.maximum_mean_discrepancy_zero_line == good.maximum_mean_discrepancy_zero_line


def test_report_prints_as_a_table():
    copies = CopyCheck(generated_median=2.0, held_out_median=4.0, percentile=5.0, share_nearer=0.1)
    report = GenerationReport(5, 40, 80, 20, 0.5, 0.1, copies, 6.0, 12.0)
    lines = str(report).splitlines()
    assert lines[0] == "5 generated, 40 held-out and 80 training windows; 20 whitened features"
    assert [line.split()[-3:] for line in lines[2:]] == [
        ["0.5", "0.1", "5.00"],
        ["2", "4", "0.50"],
        ["0.1", "0.05", "2.00"],
        ["6", "12", "0.50"],
    ]
    assert report.maximum_mean_discrepancy_ratio == pytest.approx(5) and report.diversity_ratio == 0.5
    assert math.isnan(GenerationReport(5, 5, 5, 5, 5, -0.1, copies, 1, 1).maximum_mean_discrepancy_ratio)


@pytest.fixture(scope="module")
def strikes() -> tuple[SpectrogramConverter, list[Sounds]]:
    """A converter, and three sets of 12 clips of decaying chords, each set in other keys."""
    converter = SpectrogramConverter(sample_rate=8000, n_fft=256, hop_length=64, num_frames=128)
    time, rng = np.arange(converter.window_length) / 8000, np.random.default_rng(0)
    sets = []
    for _ in range(3):
        pitches = 220 * 2 ** (rng.integers(12, size=(12, 1)) / 12) * np.array([1, 1.26, 1.5])
        clips = 0.1 * np.sin(2 * np.pi * pitches[..., None] * time).sum(axis=1) * np.exp(-(time % 0.25) / 0.1)
        clips += 0.001 * rng.standard_normal(clips.shape)
        sets.append(Sounds(converter.to_spectrogram(clips), clips.astype(np.float32)))
    return converter, sets


def test_sounds_are_compared_with_music(strikes):
    converter, (training, held_out, fresh) = strikes
    music = TrainingMusic(training, converter)
    good = evaluate_sound(fresh, held_out, music)
    assert list(good.stretches) == [0.75, converter.window_duration]
    assert good.generated_sound.flux_db == pytest.approx(good.held_out_sound.flux_db, rel=0.1)
    assert good.rhythm_and_harmony < 0.2
    loud = 20 * fresh.clips * (np.arange(8192) < 500)  # one blow
    bad = evaluate_sound(Sounds(converter.to_spectrogram(loud), loud), held_out, music)
    assert bad.rhythm_and_harmony > 0.5
    assert bad.rhythm_and_harmony_zero_line == good.rhythm_and_harmony_zero_line
    assert bad.generated_sound.share_over_full_scale == 1 > good.generated_sound.share_over_full_scale == 0
    assert bad.generated_sound.crest_factor_db > bad.held_out_sound.crest_factor_db + 3
    copied = evaluate_sound(training, held_out, music)
    assert all(copies.ratio < 0.1 and copies.share_nearer > 0.9 for copies in copied.stretches.values())
    assert all(copies.ratio > 0.3 for copies in good.stretches.values())


def test_rhythm_of_short_clips_is_not_a_number(strikes):
    converter, (training, held_out, fresh) = strikes
    training, held_out, fresh = (Sounds(each.windows, each.clips[:, :4000]) for each in (training, held_out, fresh))
    report = evaluate_sound(fresh, held_out, TrainingMusic(training, converter))
    assert math.isnan(report.rhythm_and_harmony) and math.isnan(report.rhythm_and_harmony_zero_line)


def test_levels_are_compared_by_their_difference():
    copies = CopyCheck(generated_median=2.0, held_out_median=4.0, percentile=5.0, share_nearer=0.1)
    figures = ListeningFigures(3.0, 16.0, -16.0, 0.5), ListeningFigures(4.0, 14.5, -20.0, 0.25)
    report = SoundReport(5, 40, 80, 20, 0.5, 0.1, copies, 6.0, 12.0, 0.2, 0.1, *figures, {1.5: copies, 5.94: copies})
    rows = {line[:34].strip(): line[34:].split(maxsplit=2) for line in str(report).splitlines()[2:]}
    assert rows["rhythm and harmony"] == ["0.2", "0.1", "2.00"]
    assert rows["flux (dB)"] == ["3", "4", "0.75"]
    assert rows["crest factor (dB)"] == ["16", "14.5", "+1.5 dB"]
    assert rows["level (dB)"] == ["-16", "-20", "+4.0 dB"]
    assert rows["share of clips with peaks over 1"] == ["0.5", "0.25", "2.00"]
    assert rows["nearest 5.94 s of training (dB)"] == ["2", "4", "0.50"]
    assert rows["share of 1.5 s too near"] == ["0.1", "0.05", "2.00"]
