"""Instruments are in tune and end without a click; drums differ in brightness."""

import librosa
import numpy as np
import pytest

from spectrovae.synthesis import TIMBRES

SAMPLE_RATE = 22050
DRUMS = ("kick", "snare", "hat")


@pytest.mark.parametrize("timbre", sorted(set(TIMBRES) - set(DRUMS)))
@pytest.mark.parametrize("frequency", [110.0, 440.0])
def test_timbres_are_in_tune(timbre, frequency):
    samples = TIMBRES[timbre](frequency, 1.5, SAMPLE_RATE, np.random.default_rng(0))
    # Vibrato stays within a third of a semitone.
    pitch = librosa.yin(samples.astype(np.float32), fmin=60, fmax=1000, sr=SAMPLE_RATE, frame_length=4096)
    middle = np.median(pitch[8:40])
    assert abs(12 * np.log2(middle / frequency)) < 0.3
    assert abs(samples[0]) < 1e-6 * np.max(np.abs(samples)) and abs(samples[-1]) < 0.01


@pytest.mark.parametrize("timbre", TIMBRES)
@pytest.mark.parametrize("sample_rate", [8000, 44100])
@pytest.mark.parametrize("frequency", [40.0, 2000.0])
def test_timbres_sound_at_the_edges_of_their_range(timbre, sample_rate, frequency):
    samples = TIMBRES[timbre](frequency, 0.3, sample_rate, np.random.default_rng(0))
    peak = np.max(np.abs(samples))
    assert np.all(np.isfinite(samples)) and peak > 0
    assert abs(samples[0]) < 1e-6 * peak and abs(samples[-1]) < 0.01 * peak
    assert samples.ndim == 1 and 0.1 * sample_rate <= len(samples) <= sample_rate


def test_drums_differ_in_brightness():
    centroids = []
    for drum in DRUMS:
        samples = TIMBRES[drum](0.0, 0.0, SAMPLE_RATE, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(samples)) ** 2
        centroids.append(np.average(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), weights=power))
    assert centroids[0] < 200 and 2000 < centroids[1] < centroids[2] - 1000
