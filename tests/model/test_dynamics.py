import numpy as np
import pytest

from spectrovae import SpectrogramConverter
from spectrovae.model.dynamics import Dynamics

BINS, FRAMES = 16, 32
CONVERTER = SpectrogramConverter(n_fft=32, hop_length=8, num_frames=FRAMES)


def magnitudes(levels: np.ndarray) -> np.ndarray:
    """Windows `(..., BINS, frames)` whose frames have those levels in dB, alike at all frequencies."""
    shape = (*levels.shape[:-1], BINS, levels.shape[-1])
    return 10 ** (np.broadcast_to(levels[..., None, :], shape) / 20).astype(np.float32)


def slow_music(spread: float, swing: float, mean: float, seed: int) -> np.ndarray:
    """Levels of clips that differ by a spread and swing slowly within a clip, (64, FRAMES)."""
    rng = np.random.default_rng(seed)
    swings = np.sin(2 * np.pi * (np.arange(FRAMES) / FRAMES + rng.uniform(size=(64, 1))))
    return mean + spread * rng.standard_normal((64, 1)) + swing * swings


def test_draws_get_the_distribution_of_the_musics_levels():
    music, drawn = slow_music(2.0, 1.0, -22.0, seed=0), slow_music(5.0, 3.0, -10.0, seed=1)
    dynamics = Dynamics(CONVERTER)
    dynamics.fit(magnitudes(music), magnitudes(drawn))
    tones = magnitudes(slow_music(5.0, 3.0, -10.0, seed=2))
    matched = [20 * np.log10(dynamics.match(tone, np.zeros_like(tone))[0][0]) for tone in tones]
    averages = np.mean(matched, axis=1), music.mean(axis=1)
    assert np.mean(averages[0]) == pytest.approx(np.mean(averages[1]), abs=0.7)
    assert np.std(averages[0]) == pytest.approx(np.std(averages[1]), rel=0.3)
    # What is further out than the percentiles is moved with them, not brought nearer.
    assert np.std(matched, axis=1).mean() == pytest.approx(music.std(axis=1).mean(), rel=0.4)


def test_tone_and_noise_change_alike_and_the_background_stays():
    dynamics = Dynamics(CONVERTER)
    dynamics.fit(magnitudes(slow_music(2, 1, -30, 0)), magnitudes(slow_music(4, 2, -20, 1)))
    levels = np.repeat([[-20.0], [-25.0], [-55.0], [-90.0]], 3 * FRAMES, axis=1)  # a piece of three windows
    tone, noise = magnitudes(np.zeros(3 * FRAMES))[:4] * 10 ** (levels / 20), np.full(levels.shape, 1e-6)
    new_tone, new_noise = dynamics.match(tone, noise)
    changes = 20 * np.log10(new_tone / tone)
    np.testing.assert_allclose(new_noise / noise, new_tone / tone, rtol=1e-5)
    assert (changes[0] < -3).all()
    np.testing.assert_allclose(changes[1], changes[0], rtol=1e-3)
    np.testing.assert_allclose(changes[2], 0.5 * changes[0], rtol=0.02)
    np.testing.assert_array_equal(changes[3], 0)


def test_nothing_changes_before_fit_and_silence_stays_silent():
    dynamics = Dynamics(CONVERTER)
    tone, noise = np.random.default_rng(0).uniform(0, 1, (2, BINS, FRAMES)).astype(np.float32)
    np.testing.assert_array_equal(dynamics.match(tone, noise), [tone, noise])
    silence = np.zeros((3, BINS, FRAMES), np.float32)
    dynamics.fit(silence, silence)
    np.testing.assert_array_equal(dynamics.match(silence[0], silence[0]), silence[:2])


def test_curves_survive_saving():
    layer = Dynamics(CONVERTER)
    layer.fit(magnitudes(slow_music(2, 1, -30, 0)), magnitudes(slow_music(4, 2, -20, 1)))
    copy = Dynamics.from_config(layer.get_config())
    copy.set_weights(layer.get_weights())
    tone, noise = np.random.default_rng(0).uniform(0, 1, (2, BINS, FRAMES)).astype(np.float32)
    np.testing.assert_array_equal(copy.match(tone, noise), layer.match(tone, noise))
