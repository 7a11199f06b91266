"""Features against known levels, distances against definitions and closed forms."""

import math

import numpy as np
import pytest
from beats import make_windows

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.sound_distance import (
    SoundDistance,
    maximum_mean_discrepancy,
    median_bandwidths,
    pairwise_distance,
    rmse_db,
    window_features,
)

CONVERTER = SpectrogramConverter(sample_rate=22050, n_fft=512, hop_length=128, num_frames=64)


def make_beats(num_windows):
    """Noise over random beats that start suddenly and die away."""
    rng = np.random.default_rng(0)
    periods = rng.integers(8, 32, size=(num_windows, 1, 1, 1))
    beats = np.exp(-(np.arange(64)[:, None] % periods) / rng.uniform(3, 12, size=periods.shape))
    return np.clip(0.4 + 0.3 * beats + rng.normal(0, 0.05, (num_windows, 256, 64, 1)), 0, 1)


def test_features_are_statistics_of_the_levels():
    # The same level everywhere: every band has that level, and nothing moves.
    features = window_features(np.full((1, 256, 64, 1), 0.75), CONVERTER)[0]
    num_bands = (len(features) - 8 * 5 - 8) // 3  # 32 modulation frequencies are 5 octaves
    assert num_bands in range(60, 65)
    np.testing.assert_allclose(features[:num_bands], -20.0, atol=1e-4)
    np.testing.assert_allclose(features[num_bands : 3 * num_bands], 0.0, atol=1e-4)
    np.testing.assert_allclose(features[3 * num_bands : -8], -20.0, atol=1e-3)  # the floor of 0.1 dB
    # 6 dB up and down from frame to frame: the fastest modulation there is.
    window = np.full((1, 256, 64, 1), 0.75)
    window[:, :, ::2] -= 6 / 80
    features = window_features(window, CONVERTER)[0]
    np.testing.assert_allclose(features[:num_bands], -23.0, atol=1e-3)
    np.testing.assert_allclose(features[num_bands : 2 * num_bands], 3.0, atol=1e-3)
    np.testing.assert_allclose(features[2 * num_bands : 3 * num_bands], 6.0, rtol=1e-3)
    modulation = features[3 * num_bands : -8].reshape(8, 5)
    assert np.all(modulation[:, 4] > modulation[:, :4].max(axis=1) + 10)
    assert np.all(np.abs(features[-8:]) < 2)  # up and down alike: next to no asymmetry


def test_features_tell_the_order_of_time():
    windows = make_beats(10)
    order = np.random.default_rng(0).permutation(64)
    plain, shuffled, backwards = (
        window_features(version, CONVERTER) for version in (windows, windows[:, :, order], windows[:, :, ::-1])
    )
    num_bands = (plain.shape[1] - 48) // 3
    np.testing.assert_allclose(shuffled[:, : 2 * num_bands], plain[:, : 2 * num_bands])
    modulation = slice(3 * num_bands, -8)
    assert np.abs(shuffled[:, modulation] - plain[:, modulation]).mean() > 2  # dB
    # Backwards, only the asymmetry of the steps changes: it turns its sign.
    np.testing.assert_allclose(backwards[:, :-8], plain[:, :-8], atol=1e-6)
    np.testing.assert_allclose(backwards[:, -8:], -plain[:, -8:], atol=1e-6)
    assert np.all(plain[:, -8:].mean(axis=0) > 0.1)  # sharp attacks, slow decays


def test_features_do_not_depend_on_batches_or_order():
    windows = make_beats(60)
    features = window_features(windows, CONVERTER)
    assert features.dtype == np.float64 and np.all(np.isfinite(features))
    order = np.random.default_rng(0).permutation(len(windows))
    np.testing.assert_allclose(window_features(windows[order], CONVERTER), features[order], rtol=1e-6)
    batches = [windows[:7], (windows[7:50], None), windows[50:, ..., 0]]
    np.testing.assert_allclose(window_features(batches, CONVERTER), features, rtol=1e-6)


def test_features_of_any_converter_and_silence():
    for n_fft in (128, 1024):
        converter = SpectrogramConverter(n_fft=n_fft, hop_length=32, scale="linear")
        features = window_features(np.zeros((2, n_fft // 2, 4, 1)), converter)
        assert np.all(np.isfinite(features))
        assert features[:, 0] == pytest.approx(-80.0, abs=1e-3)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (np.zeros((2, 128, 64, 1)), "bins"),
        (np.zeros((256, 64)), "shape"),
        (np.zeros((1, 256, 64, 2)), "shape"),
        (np.zeros((1, 256, 2, 1)), "4 frames"),
        (np.zeros((0, 256, 64, 1)), "empty"),
        (np.full((1, 256, 64, 1), np.nan), "finite"),
    ],
)
def test_features_say_what_is_wrong_with_windows(windows, message):
    with pytest.raises(ValueError, match=message):
        window_features(windows, CONVERTER)


def test_discrepancy_matches_the_definition():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 2)), rng.normal(size=(4, 2))

    def kernel(a, b):
        return np.mean([math.exp(-np.sum((a - b) ** 2) / (2 * width**2)) for width in (0.5, 2.0)])

    expected = np.mean([kernel(a, b) for i, a in enumerate(first) for j, b in enumerate(first) if i != j])
    expected += np.mean([kernel(a, b) for i, a in enumerate(second) for j, b in enumerate(second) if i != j])
    expected -= 2 * np.mean([kernel(a, b) for a in first for b in second])
    assert maximum_mean_discrepancy(first, second, [0.5, 2.0]) == pytest.approx(expected)


def test_discrepancy_is_unbiased_and_grows_with_the_shift():
    rng = np.random.default_rng(0)
    same = [maximum_mean_discrepancy(*rng.normal(size=(2, 30, 3)), [1.0, 2.0]) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    assert min(same) < 0
    first, second = rng.normal(size=(2, 1500, 3))  # more than one block of the kernel matrix
    shifted = [maximum_mean_discrepancy(first, second + shift, [1.0]) for shift in (0, 0.2, 0.5, 1, 3)]
    assert abs(shifted[0]) < 0.002 and np.all(np.diff(shifted) > 0)
    # The closed form for two Gaussians of covariance I whose means differ by d, with a kernel of width w:
    # 2 (w^2 / (w^2 + 2))^(dimensions / 2) (1 - exp(-d^2 / (2 (w^2 + 2)))).
    expected = 2 * (1 / 3) ** 1.5 * (1 - math.exp(-3 * 0.5**2 / (2 * 3)))
    assert shifted[2] == pytest.approx(expected, abs=0.005)


def test_median_bandwidths():
    points = np.random.default_rng(0).normal(size=(3000, 2))
    # Half the squared distance of two normal points is chi-squared / 2 distributed: median 2 sqrt(ln 2).
    np.testing.assert_allclose(median_bandwidths(points), 2 * math.sqrt(math.log(2)) * np.array([0.5, 1, 2]), 0.03)
    with pytest.raises(ValueError, match="identical"):
        median_bandwidths(np.zeros((5, 2)))


def test_discrepancy_is_symmetric_and_invariant():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 3)), rng.normal(0.5, 2.0, size=(50, 3))
    discrepancy = maximum_mean_discrepancy(first, second, [1.0])
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pairs = [(second, first), (rng.permutation(first), second), (first @ rotation, second @ rotation)]
    for pair in pairs:
        assert maximum_mean_discrepancy(*pair, [1.0]) == pytest.approx(discrepancy)
    with pytest.raises(ValueError, match="number of features"):
        maximum_mean_discrepancy(first, second[:, :2], [1.0])
    with pytest.raises(ValueError, match="clips"):
        maximum_mean_discrepancy(first[:1], second, [1.0])


@pytest.mark.parametrize("bandwidths", [[], [0.0], [-1.0]])
def test_bandwidths_must_be_positive(bandwidths):
    with pytest.raises(ValueError, match="bandwidths"):
        maximum_mean_discrepancy(np.eye(3), np.eye(3), bandwidths)


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


def test_rmse_and_pairwise_distance_by_hand():
    converter = SpectrogramConverter(n_fft=16, hop_length=4, dynamic_range=60.0)
    windows = np.random.default_rng(0).random((6, 8, 10, 1)).astype(np.float32)
    pairs = [(a, b) for a in range(6) for b in range(a)]
    errors = [60 * np.sqrt(np.mean((windows[a] - windows[b]) ** 2)) for a, b in pairs]
    firsts, seconds = (windows[list(indices)] for indices in zip(*pairs, strict=True))
    np.testing.assert_allclose(rmse_db(firsts, seconds, converter), errors, rtol=1e-5)
    by_frame = 60 * np.sqrt(np.mean((firsts - seconds) ** 2, axis=(1, 3)))
    np.testing.assert_allclose(rmse_db(firsts, seconds, converter, axis=(1, 3)), by_frame, rtol=1e-5)
    for given in (windows, windows[::-1], iter([windows[:4], windows[4:]])):
        assert pairwise_distance(given, converter) == pytest.approx(np.mean(errors), rel=1e-5)
    assert pairwise_distance(np.repeat(windows[:1], 5, axis=0), converter) == pytest.approx(0, abs=1e-4)
    sampled = [pairwise_distance(windows, converter, max_windows=3) for _ in range(2)]
    assert sampled[0] == sampled[1] != pytest.approx(np.mean(errors), rel=1e-5)
    with pytest.raises(ValueError, match="at least 2"):
        pairwise_distance(windows[:1], converter)
