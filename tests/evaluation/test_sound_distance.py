"""Sets of windows are told apart; copies, collapse and shuffled time are found."""

import math

import numpy as np
import pytest

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.sound_distance import (
    GenerationReport,
    SoundDistance,
    copy_check,
    diversity_ratio,
    evaluate_generation,
    pairwise_distance,
)

CONVERTER = SpectrogramConverter(sample_rate=22050, n_fft=512, hop_length=128, num_frames=64)


def make_windows(num_windows, seed, brightness=0.0, num_frames=64):
    """Noise with a random spectral tilt and random beats that start suddenly and die away."""
    rng = np.random.default_rng(seed)
    bins = np.linspace(0, 1, 256)[:, None]
    windows = np.empty((num_windows, 256, num_frames, 1), np.float32)
    for window in windows:
        tilt = rng.normal(0.5, 0.15) - brightness
        period = rng.integers(8, 32)
        beat = np.exp(-(np.arange(num_frames) % period) / rng.uniform(3, 12))
        level = 0.7 - tilt * bins + rng.uniform(0.05, 0.3) * beat
        window[..., 0] = np.clip(level + rng.normal(0, 0.05, level.shape), 0, 1)
    return windows


TRAINING, HELD_OUT = make_windows(60, seed=1), make_windows(30, seed=2)


def test_sound_distance_whitens_and_orders():
    distance = SoundDistance(TRAINING, CONVERTER)
    embedded = distance.embed(TRAINING)
    np.testing.assert_allclose(embedded, distance.training)
    np.testing.assert_allclose(embedded.mean(axis=0), 0, atol=1e-8)
    spread = embedded.std(axis=0)
    assert np.all(spread < 1.3) and np.all(spread > 0.3)  # 1 but for the shrinkage
    zero_line = distance.maximum_mean_discrepancy(TRAINING, HELD_OUT)
    scores = [
        distance.maximum_mean_discrepancy(make_windows(30, seed=4, brightness=shift), HELD_OUT)
        for shift in (0.0, 0.15, 0.4)
    ]
    assert abs(zero_line) < 0.05 and abs(scores[0]) < 0.05
    assert scores[0] + 0.02 < scores[1] < scores[2] - 0.05
    shuffled = HELD_OUT[:, :, np.random.default_rng(0).permutation(64)]
    assert distance.maximum_mean_discrepancy(shuffled, HELD_OUT) > 0.1


def test_sound_distance_bad_input():
    with pytest.raises(ValueError, match="identical"):
        SoundDistance(np.zeros((5, 256, 64, 1)), CONVERTER)
    with pytest.raises(ValueError, match="explained_variance"):
        SoundDistance(TRAINING, CONVERTER, explained_variance=0.0)
    with pytest.raises(ValueError, match="as many frames"):
        SoundDistance(TRAINING, CONVERTER).embed(TRAINING[:, :, :20])
    with pytest.raises(ValueError, match="at least 2 training windows"):
        SoundDistance(TRAINING[:1], CONVERTER)


def test_pairwise_distance():
    windows = np.random.default_rng(0).random((6, 8, 10, 1))
    pairs = [(a, b) for a in range(6) for b in range(a)]
    expected = np.mean([np.sqrt(np.mean((windows[a] - windows[b]) ** 2)) for a, b in pairs])
    assert pairwise_distance(windows) == pytest.approx(expected, rel=1e-5)
    assert pairwise_distance(windows[::-1]) == pytest.approx(expected, rel=1e-5)
    assert pairwise_distance(iter([windows[:4], windows[4:]])) == pytest.approx(expected, rel=1e-5)
    converter = SpectrogramConverter(n_fft=16, hop_length=4, dynamic_range=60.0)
    assert pairwise_distance(windows, converter) == pytest.approx(60 * expected, rel=1e-5)
    assert pairwise_distance(np.repeat(windows[:1], 5, axis=0)) == pytest.approx(0, abs=1e-6)
    assert pairwise_distance(windows, max_windows=3) == pairwise_distance(windows, max_windows=3)
    with pytest.raises(ValueError, match="at least 2"):
        pairwise_distance(windows[:1])


def test_diversity_ratio():
    assert diversity_ratio(HELD_OUT, HELD_OUT) == pytest.approx(1)
    collapsed = HELD_OUT[:1] + 0.001 * np.random.default_rng(0).random(HELD_OUT.shape)
    assert diversity_ratio(collapsed, HELD_OUT) < 0.05
    assert math.isnan(diversity_ratio(HELD_OUT, np.zeros((3, 256, 64, 1))))


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
    assert dull.frechet_distance > 2 * good.frechet_distance > 0
    few = report(make_windows(3, seed=5))
    assert few.frechet_distance is None and few.frechet_distance_zero_line is None
    assert "needs" in str(few)


def test_report_prints_as_a_table():
    copies = copy_check([[0.0]], [[1.0]], [[3.0]])
    report = GenerationReport(5, 40, 80, 20, 0.5, 0.1, None, None, copies, 6.0, 12.0)
    lines = str(report).splitlines()
    assert lines[0] == "5 generated, 40 held-out and 80 training windows; 20 whitened features"
    assert lines[2].split() == ["maximum", "mean", "discrepancy", "0.5", "0.1", "5.00"]
    assert "needs 40 windows" in lines[3]
    assert lines[-1].split()[-3:] == ["6", "12", "0.50"]
    assert report.maximum_mean_discrepancy_ratio == pytest.approx(5) and report.diversity_ratio == 0.5
    assert math.isnan(GenerationReport(*[5] * 5, -0.1, 1.0, 1.0, copies, 1, 1).maximum_mean_discrepancy_ratio)
