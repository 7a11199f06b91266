"""Figures of what is heard against known waves; rhythm and harmony are told apart."""

import numpy as np
import pytest

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.listening import (
    listening_figures,
    rhythm_and_harmony,
    rhythm_and_harmony_distance,
    spectral_flux,
)

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
TIME = np.arange(16000) / 8000


def test_level_and_peaks_are_those_of_known_waves():
    sine = np.sin(2 * np.pi * 500 * TIME)
    figures = listening_figures(np.stack([2 * sine, 2 * sine, 0.5 * sine]), CONVERTER)
    assert figures.crest_factor_db == pytest.approx(3.01, abs=0.01)
    assert figures.level_db == pytest.approx(3.01, abs=0.01)
    assert figures.share_over_full_scale == pytest.approx(2 / 3)
    # Silence has no crest factor and no level, but counts as a clip.
    with_silence = listening_figures(np.stack([2 * sine, 0 * sine]), CONVERTER)
    assert with_silence.level_db == pytest.approx(3.01, abs=0.01) and with_silence.share_over_full_scale == 0.5
    silent = listening_figures(np.zeros((2, 16000)), CONVERTER)
    assert np.isnan([silent.flux_db, silent.crest_factor_db, silent.level_db]).all()


def test_noise_changes_more_than_a_tone():
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, 16000))
    tone = np.sin(2 * np.pi * 500 * TIME)[None]
    assert listening_figures(noise, CONVERTER).flux_db > 3 > 0.5 > listening_figures(tone, CONVERTER).flux_db
    assert np.isnan(spectral_flux(np.zeros((64, 8)), CONVERTER))


def make_chords(notes: tuple[int, ...], interval: int, seed: int) -> np.ndarray:
    """Return 12 clips of chords in any key, struck every `interval` samples."""
    rng = np.random.default_rng(seed)
    decay = np.exp(-np.arange(len(TIME)) % interval / 1000)
    frequencies = 220 * 2 ** (rng.integers(12, size=(12, 1)) / 12) * 2 ** (np.array(notes) / 12)
    clips = decay * np.sin(2 * np.pi * frequencies[..., None] * TIME).sum(axis=1)
    return clips + 0.01 * rng.standard_normal(clips.shape)


def test_rhythm_and_harmony_are_told_apart():
    music, same, other_rhythm, other_harmony = (
        rhythm_and_harmony(make_chords(notes, interval, seed), 8000)
        for notes, interval, seed in (
            ((0, 4, 7), 4000, 0),
            ((0, 4, 7), 4000, 1),
            ((0, 4, 7), 1600, 2),
            ((0, 1, 2), 4000, 3),
        )
    )
    assert music.shape == (12, 16) and np.isfinite(music).all()
    near, *far = (rhythm_and_harmony_distance(each, music, music) for each in (same, other_rhythm, other_harmony))
    assert min(far) > 0.3 > 0.1 > near
    # Louder is the same music.
    louder = rhythm_and_harmony(3 * make_chords((0, 4, 7), 4000, 1), 8000)
    assert rhythm_and_harmony_distance(louder, music, music) == pytest.approx(near, abs=0.05)


def test_errors_say_what_came():
    with pytest.raises(ValueError, match=r"shape=\(16000,\)"):
        listening_figures(np.zeros(16000), CONVERTER)
    with pytest.raises(ValueError, match=r"at least 4352 samples. Received: clips.shape=\(1, 100\)"):
        rhythm_and_harmony(np.zeros((1, 100)), 8000)
