import keras
import numpy as np
import pytest

from spectrovae import SpectrogramConverter
from spectrovae.model.dynamics import Dynamics

BINS, FRAMES = 16, 32


def converter(scale: str) -> SpectrogramConverter:
    return SpectrogramConverter(n_fft=32, hop_length=8, num_frames=FRAMES, scale=scale)


def windows(levels: np.ndarray, scale: str) -> np.ndarray:
    """Windows whose frames have those levels in dB, alike at all frequencies."""
    shape = (*levels.shape[:-1], BINS, levels.shape[-1])
    levels = np.broadcast_to(levels[..., None, :], shape).astype(np.float32)
    return 1 + levels / 80 if scale == "decibel" else 10 ** (levels / 20)


def levels_of(means: np.ndarray, scale: str) -> np.ndarray:
    return 80 * (means[0] - 1) if scale == "decibel" else 20 * np.log10(means[0])


def slow_music(spread: float, swing: float, mean: float, seed: int) -> np.ndarray:
    """Levels of clips that differ by a spread and swing slowly within a clip, (64, FRAMES)."""
    rng = np.random.default_rng(seed)
    swings = np.sin(2 * np.pi * (np.arange(FRAMES) / FRAMES + rng.uniform(size=(64, 1))))
    return mean + spread * rng.standard_normal((64, 1)) + swing * swings


@pytest.mark.parametrize("scale", ["decibel", "linear"])
def test_draws_get_the_distribution_of_the_musics_levels(scale):
    music, drawn = slow_music(2.0, 1.0, -30.0, seed=0), slow_music(5.0, 3.0, -24.0, seed=1)
    dynamics = Dynamics(converter(scale))
    dynamics.fit(windows(music, scale), windows(drawn, scale))
    scales = np.full((BINS, FRAMES), 0.1, np.float32)
    matched = []
    for window in windows(slow_music(5.0, 3.0, -24.0, seed=2), scale):
        means, new_scales = dynamics.match(window, scales)
        matched.append(levels_of(means, scale))
        # A spread in dB stays one in dB.
        expected = scales if scale == "decibel" else scales * means / window
        np.testing.assert_allclose(new_scales, expected, rtol=1e-4)
    averages = np.mean(matched, axis=1), music.mean(axis=1)
    assert np.mean(averages[0]) == pytest.approx(np.mean(averages[1]), abs=0.7)
    assert np.std(averages[0]) == pytest.approx(np.std(averages[1]), rel=0.3)
    # What is further out than the percentiles is moved with them, not brought nearer.
    assert np.std(matched, axis=1).mean() == pytest.approx(music.std(axis=1).mean(), rel=0.4)


def test_all_frequencies_change_alike_and_pieces_of_any_length_work():
    dynamics = Dynamics(converter("decibel"))
    dynamics.fit(windows(slow_music(2, 1, -30, 0), "decibel"), windows(slow_music(4, 2, -20, 1), "decibel"))
    means = np.random.default_rng(0).uniform(0.3, 0.9, (BINS, 3 * FRAMES)).astype(np.float32)
    matched, _ = dynamics.match(means, means)
    change = matched - means
    assert matched.dtype == np.float32 and np.abs(change).max() > 0.01
    np.testing.assert_allclose(change, np.broadcast_to(change[:1], change.shape), atol=1e-6)


def test_nothing_changes_before_fit_and_silence_stays_silent():
    dynamics = Dynamics(converter("decibel"))
    means = np.random.default_rng(0).uniform(-0.1, 1.2, (BINS, FRAMES)).astype(np.float32)
    np.testing.assert_array_equal(dynamics.match(means, means)[0], means)
    silence = np.zeros((3, BINS, FRAMES), np.float32)
    dynamics.fit(silence, silence)
    np.testing.assert_array_equal(dynamics.match(silence[0], silence[0])[0], silence[0])


def test_curves_survive_saving(tmp_path):
    layer = Dynamics(converter("decibel"))
    layer.fit(windows(slow_music(2, 1, -30, 0), "decibel"), windows(slow_music(4, 2, -20, 1), "decibel"))
    copy = Dynamics.from_config(layer.get_config())
    copy.set_weights(layer.get_weights())
    means = np.random.default_rng(0).uniform(0, 1, (BINS, FRAMES)).astype(np.float32)
    np.testing.assert_array_equal(copy.match(means, means)[0], layer.match(means, means)[0])
    assert keras.saving.get_registered_name(Dynamics) == "spectrovae>Dynamics"
