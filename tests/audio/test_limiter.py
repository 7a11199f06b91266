import numpy as np
import pytest

from spectrovae.audio.limiter import limit_peaks

RATE = 8000


def tone(num_samples=RATE, level=0.5):
    return (level * np.sin(2 * np.pi * 440 / RATE * np.arange(num_samples))).astype(np.float32)


def test_sound_within_full_scale_is_the_same_array():
    sound = tone(level=1.0)
    assert limit_peaks(sound, RATE) is sound
    assert limit_peaks(np.zeros((2, 0), np.float32), RATE).shape == (2, 0)


def test_only_the_surroundings_of_a_peak_are_turned_down():
    sound = tone()
    sound[4000:4010] *= 3
    limited = limit_peaks(sound, RATE)
    assert limited.dtype == np.float32
    assert 0.99 < np.abs(limited).max() <= 1
    far = np.abs(np.arange(RATE) - 4005) > 0.05 * RATE
    np.testing.assert_array_equal(limited[far], sound[far])
    # Far less is lost than by a factor on the whole.
    assert np.square(limited).mean() > 0.97 * np.square(tone()).mean()


def test_gain_has_no_edges():
    sound = tone(level=0.9)
    sound[3000:5000] *= 1.5
    gains = limit_peaks(sound, RATE) / np.where(sound == 0, 1, sound)
    heard = np.abs(sound) > 0.1
    assert np.abs(np.diff(gains[heard])).max() < 0.02
    assert gains[heard].min() == pytest.approx(1 / 1.35, rel=0.02)


def test_clips_are_limited_each_by_itself():
    loud, soft = 1.5 * tone(), tone(level=0.9)
    limited = limit_peaks(np.stack([loud, soft]), RATE)
    np.testing.assert_array_equal(limited[1], soft)
    np.testing.assert_array_equal(limited[0], limit_peaks(loud, RATE))


@pytest.mark.parametrize("num_samples", [1, 2, 100])
@pytest.mark.filterwarnings("ignore:There were peaks")
def test_whatever_the_sound_no_peak_is_left(num_samples):
    sound = np.random.default_rng(0).normal(0, 10, (5, num_samples)).astype(np.float32)
    assert np.abs(limit_peaks(sound, RATE)).max() <= 1


def test_much_is_told_of():
    with pytest.warns(UserWarning, match=r"peaks of 8\.0 dB over full scale"):
        limit_peaks(2.5 * np.ones(9, np.float32), RATE)
