import math

import numpy as np
import pytest
import tensorflow as tf

from spectrovae import SpectrogramConverter
from spectrovae.audio.io import write_audio
from spectrovae.evaluation.generation import TrainingMusic
from spectrovae.evaluation.judging import (
    judge,
    judge_recordings,
    judge_windows,
    restoration_scores,
    resynthesize,
)
from spectrovae.synthesis import compose_collection

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64, num_iterations=16)


@pytest.fixture(scope="module")
def tones() -> np.ndarray:
    """24 windows of two tones each, which come and go."""
    rng = np.random.default_rng(0)
    time = np.arange(CONVERTER.window_length) / CONVERTER.sample_rate
    waveforms = [
        sum(
            0.3 * np.sin(2 * np.pi * rng.uniform(200, 3500) * time) * np.sin(np.pi * rng.uniform(1, 8) * time) ** 2
            for _ in range(2)
        )
        for _ in range(24)
    ]
    return CONVERTER.to_spectrogram(np.stack(waveforms))


def test_restoration_scores_by_hand(tones):
    rng = np.random.default_rng(1)
    originals, restored = tones[:5], np.clip(tones[:5] + 0.1 * rng.standard_normal(tones[:5].shape), 0, 1)
    scores = restoration_scores(originals, restored, CONVERTER, 0.25)
    errors = 80.0 * (originals - restored)[..., 0]
    assert scores.rmse_db == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)
    assert scores.log_spectral_distance == pytest.approx(np.sqrt(np.mean(errors**2, axis=1)).mean(), rel=1e-5)
    magnitudes = [np.where(values > 0, 10 ** (4 * (values - 1)), 0) for values in (originals, restored)]
    ratios = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(*magnitudes, strict=True)]
    assert scores.spectral_convergence == pytest.approx(20 * np.log10(ratios).mean(), rel=1e-4)
    assert scores.maximum_mean_discrepancy == 0.25
    perfect = restoration_scores(originals, originals, CONVERTER, 0.0)
    assert (perfect.rmse_db, perfect.log_spectral_distance) == (0, 0) and perfect.spectral_convergence < -100
    silence = np.zeros_like(originals)
    assert math.isnan(restoration_scores(silence, originals, CONVERTER, 0.0).spectral_convergence)
    with pytest.raises(ValueError, match="restored.shape"):
        restoration_scores(originals, restored[:4], CONVERTER, 0.0)


def test_what_is_heard_is_near_and_silence_stays_silent(tones):
    heard, clips = resynthesize(tones[:4], CONVERTER)
    assert heard.shape == tones[:4].shape and clips.shape == (4, CONVERTER.window_length)
    assert restoration_scores(tones[:4], heard, CONVERTER, 0.0).spectral_convergence < -10
    np.testing.assert_array_equal(resynthesize(tones[:4], CONVERTER).windows, heard)
    np.testing.assert_array_equal(resynthesize(0 * tones[:2], CONVERTER).clips, 0)


def test_judgement_tells_phases_from_the_model(tones):
    held_out, training = tones[:8], tones[8:]
    perfect = judge_windows(held_out, held_out, tones[4:12], training, CONVERTER)
    assert perfect.heard == perfect.round_trip and perfect.decoded.rmse_db == 0 and perfect.model_share == 0
    smooth = np.repeat(held_out.mean(axis=2, keepdims=True), 64, axis=2)
    blurred = judge_windows(held_out, smooth, np.repeat(smooth[:1], 8, axis=0), training, CONVERTER, held_out)
    assert blurred.heard.rmse_db > blurred.round_trip.rmse_db == perfect.round_trip.rmse_db
    assert 0.5 < blurred.model_share <= 1
    assert blurred.heard.maximum_mean_discrepancy > perfect.heard.maximum_mean_discrepancy
    assert blurred.textured == blurred.round_trip and perfect.textured is None
    assert blurred.decoded.sound is None and blurred.heard.sound.flux_db < perfect.heard.sound.flux_db
    assert perfect.heard_generation.held_out_sound == perfect.round_trip.sound
    assert blurred.heard_generation.diversity_ratio < 0.01 < perfect.heard_generation.diversity_ratio
    zero_lines = {r.maximum_mean_discrepancy_zero_line for r in (blurred.generation, blurred.heard_generation)}
    assert len(zero_lines) == 1
    text = str(blurred)
    for part in (
        "phases alone",
        "with texture, heard",
        "zero line",
        "As heard:",
        "crest factor (dB)",
        "nearest 0.256 s",
    ):
        assert part in text
    assert "with texture" not in str(perfect)


def test_judge_measures_a_model(make_model, windows):
    model = make_model()
    model.adapt(windows, verbose=0)
    music = TrainingMusic(resynthesize(windows[12:], model.converter)._replace(windows=windows[12:]), model.converter)
    judgement = judge(model, windows[:12], music, num_windows=8)
    assert (judgement.num_windows, judgement.generation.num_generated, judgement.generation.num_training) == (8, 8, 36)
    held_out = tf.data.Dataset.from_tensor_slices(windows[:12]).batch(5)
    assert judge(model, held_out, windows[12:], num_windows=8) == judgement  # repeats, and takes datasets
    assert judge(model, held_out, windows[12:], num_windows=8, seed=1) != judgement
    assert judgement.textured.rmse_db > judgement.heard.rmse_db > judgement.decoded.rmse_db
    plain = judge(model, windows[:12], windows[12:], num_windows=8, texture=0)
    assert plain.textured is None and plain.heard == judgement.heard
    with pytest.raises(ValueError, match="at least 2"):
        judge(model, windows[:1], windows[12:])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of music, and one of noise as loud."""
    music, noise = (tmp_path_factory.mktemp(name) for name in ("music", "noise"))
    compose_collection(music, num_pieces=4, duration=3.0, sample_rate=8000)
    rng = np.random.default_rng(0)
    for name in "ab":
        write_audio(noise / f"{name}.wav", np.clip(0.1 * rng.standard_normal(24000), -1, 1), 8000)
    return music, noise


def test_folders_of_sound_are_compared(folders):
    music, noise = folders
    near, far = (judge_recordings(folder, music, converter=CONVERTER) for folder in (music, noise))
    assert near.num_generated == 44 and near.num_held_out == near.num_training == 22
    assert far.num_generated == 22
    assert far.maximum_mean_discrepancy > 0.5 > near.maximum_mean_discrepancy
    assert far.maximum_mean_discrepancy_zero_line == near.maximum_mean_discrepancy_zero_line
    copied = judge_recordings(music, noise, training=music, converter=CONVERTER)
    assert copied.num_training == 44 and copied.copies.generated_median == pytest.approx(0, abs=1e-6)
    # Stretches do not begin where those of the training music do, to half a step.
    assert all(copies.generated_median < 0.2 * copies.held_out_median for copies in copied.stretches.values())
    assert far.generated_sound.flux_db > near.generated_sound.flux_db
    with pytest.raises(FileNotFoundError):
        judge_recordings(music / "missing", music, converter=CONVERTER)
    with pytest.raises(ValueError, match="Received: 1 windows of 1.6 s"):
        judge_recordings(music, noise / "a.wav", converter=SpectrogramConverter(8000, 128, 32, 400))
