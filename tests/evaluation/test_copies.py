"""Copies of the training music are found, and nothing else is taken for one."""

import math

import numpy as np
import pytest

from spectrovae import audio_dataset, dataset_report
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import read_window
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.copies import KnownStretches, copy_check
from spectrovae.evaluation.sound_distance import mel_levels

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)


def test_copy_check():
    rng = np.random.default_rng(0)
    training, held_out, fresh = (
        rng.normal(size=(300, 4)),
        rng.normal(size=(200, 4)),
        rng.normal(size=(200, 4)),
    )
    honest = copy_check(fresh, training, held_out)
    assert honest.ratio == pytest.approx(1, abs=0.15) and honest.share_nearer < 0.12
    copied = copy_check(np.concatenate([fresh[:50], training[:150] + 1e-3]), training, held_out)
    assert copied.ratio < 0.05 and 0.75 <= copied.share_nearer <= 0.85
    assert copy_check(fresh + 20, training, held_out).ratio > 5
    nearest = np.linalg.norm(fresh[:, None] - training, axis=-1).min(axis=1)
    assert honest.generated_median == pytest.approx(np.median(nearest))
    assert math.isnan(copy_check(fresh, training, training).ratio)
    with pytest.raises(ValueError, match="percentile"):
        copy_check(fresh, training, held_out, percentile=101)
    with pytest.raises(ValueError, match="at least 1 clips"):
        copy_check(fresh[:0], training, held_out)


def make_music(num_windows: int, num_frames: int, seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).standard_normal((num_windows, 64, num_frames, 1))
    return np.clip(0.5 + 0.03 * steps.cumsum(axis=2), 0, 0.9).astype(np.float32)


def test_distances_are_those_of_the_definition():
    converter = SpectrogramConverter(sample_rate=1000, n_fft=100, hop_length=50, num_frames=6)  # a step is one frame
    known, queried = np.random.default_rng(0).uniform(0.3, 0.9, (2, 2, 50, 6, 1))
    (distances,) = KnownStretches(known, converter).distances(queried, [0.1])  # stretches of two frames
    music, wanted = (np.maximum(mel_levels(each[..., 0], converter, 32), -70) for each in (known, queried))
    stretches = [each[:, start : start + 2] for each in wanted for start in (0, 2, 4)]
    expected = [
        min(np.std(stretch - each[:, start : start + 2]) for each in music for start in range(5))
        for stretch in stretches
    ]
    np.testing.assert_allclose(distances, expected, rtol=1e-3)


def test_copies_are_found_wherever_they_begin_and_however_loud():
    music = make_music(2, 300, seed=0)
    known = KnownStretches([music[:1], music[1:]], CONVERTER)
    copied, fresh = music[:1, :, 37:101] + 0.05, make_music(1, 64, seed=1)
    for near, far in zip(*(known.distances(each, [0.06, 0.2, 6.0]) for each in (copied, fresh)), strict=True):
        assert near.max() < 1.0 < 0.5 * np.median(far)
        assert len(near) == len(far)
    assert len(far) == 1  # longer than the window: all of it


def test_whole_recordings_are_known_where_a_dataset_tells_of_them(tmp_path):
    converter = SpectrogramConverter(sample_rate=8000, n_fft=512, hop_length=256, num_frames=16)
    for seed, name in enumerate("abc"):
        samples = 0.1 * np.random.default_rng(seed).standard_normal(4 * converter.window_length)
        write_audio(tmp_path / f"{name}.wav", samples, 8000)
    dataset, _ = audio_dataset(tmp_path, converter, validation_split=0.4, cache="memory", seed=0, verbose=0)
    trained_on = {recording.path for recording in dataset_report(dataset).used}
    assert len(trained_on) == 2
    known = KnownStretches(dataset, converter)
    for path in tmp_path.iterdir():
        window = converter.to_spectrogram(read_window(path, converter, start=7 * 256 / 8000))  # not where windows begin
        (distances,) = known.distances(window[None, :, 2:-2], [6.0])  # frames at the edges see other samples
        assert (distances.max() < 0.1) == (path in trained_on)
