"""Tests of `spectrovae.audio.phase`."""

import subprocess
import sys
import tracemalloc
import warnings

import librosa
import numpy as np
import pytest

import spectrovae.audio.phase
from spectrovae.audio.phase import _Transform, griffin_lim
from spectrovae.audio.spectrogram import SpectrogramConverter, stream_magnitudes


def magnitudes_of(waveform, n_fft=256, hop_length=64):
    return np.concatenate(list(stream_magnitudes([waveform], n_fft, hop_length))).T


def make_tones(num_samples=8192):
    """Four tones that come and go at different speeds."""
    time = np.arange(num_samples)
    tones = [np.sin(f * time) * np.sin(s * time) for f, s in ((0.2, 3e-4), (0.31, 7e-4), (0.52, 1e-3), (1.1, 2e-3))]
    return (0.2 * np.sum(tones, axis=0)).astype(np.float32)


def spectral_convergence(magnitudes, target):
    return 20 * np.log10(np.linalg.norm(magnitudes - target) / np.linalg.norm(target))


@pytest.mark.parametrize(("hop_length", "limit"), [(32, -22), (64, -25), (128, -12), (256, -4)])
def test_waveform_has_the_magnitudes(hop_length, limit):
    target = magnitudes_of(make_tones(), hop_length=hop_length)
    waveform = griffin_lim(target, 256, hop_length, seed=0)
    assert waveform.dtype == np.float32
    assert waveform.shape == (8192,)
    assert spectral_convergence(magnitudes_of(waveform, hop_length=hop_length), target) < limit


@pytest.mark.parametrize("hop_length", [32, 64, 100])
def test_transform_is_that_of_librosa_and_back(hop_length):
    waveform = make_tones(5 * hop_length * 7)
    transform = _Transform(len(waveform), 256, hop_length)
    transform.samples[128 : 128 + len(waveform)] = waveform
    spectrum = transform.forward()
    expected = librosa.stft(waveform, n_fft=256, hop_length=hop_length)
    np.testing.assert_allclose(spectrum.T, expected, atol=1e-4)
    spectrum *= np.random.default_rng(0).uniform(0.5, 1.5, spectrum.shape)
    expected = librosa.istft(spectrum.T, n_fft=256, hop_length=hop_length, length=len(waveform))
    transform.backward(spectrum)
    np.testing.assert_allclose(transform.samples[128 : 128 + len(waveform)], expected, atol=1e-5)
    assert not transform.samples[:128].any()


def test_as_near_as_librosa():
    target = magnitudes_of(make_tones(32768))
    ours = griffin_lim(target, 256, 64, num_iterations=32, seed=0)
    padded = np.pad(target * 64, ((0, 1), (0, 1)), mode="edge")
    theirs = librosa.griffinlim(padded, n_iter=32, hop_length=64, n_fft=256, length=32768)
    errors = [spectral_convergence(magnitudes_of(waveform), target) for waveform in (ours, theirs)]
    assert errors[0] < errors[1] + 1


@pytest.mark.parametrize("hop_length", [64, 200])
def test_blocks_of_a_long_clip_have_no_seams(monkeypatch, hop_length):
    waveform = make_tones(hop_length * 1500) + 0.01 * np.random.default_rng(0).standard_normal(hop_length * 1500)
    target = magnitudes_of(waveform.astype(np.float32), hop_length=hop_length)
    whole = griffin_lim(target, 256, hop_length, seed=0)
    monkeypatch.setattr(spectrovae.audio.phase, "_MAX_BLOCK_FRAMES", 300)
    blocks = griffin_lim(target, 256, hop_length, seed=0)
    assert blocks.shape == whole.shape and not np.array_equal(blocks, whole)
    errors = [spectral_convergence(magnitudes_of(audio, hop_length=hop_length), target) for audio in (blocks, whole)]
    assert errors[0] < errors[1] + 1.5  # seeds differ by as much
    # Frame by frame: no frame is worse than the worst one of the whole, and no sample jumps.
    worst = [np.abs(magnitudes_of(audio, hop_length=hop_length) - target).max() for audio in (blocks, whole)]
    assert worst[0] < 1.5 * worst[1]
    assert np.abs(np.diff(blocks)).max() < 1.2 * np.abs(np.diff(whole)).max()


def test_memory_of_a_long_clip_is_that_of_its_block():
    magnitudes = np.full((128, 40_000), 0.01, np.float32)  # 20 MB; its transforms would take 120 MB
    tracemalloc.start()
    griffin_lim(magnitudes, 256, 64, num_iterations=1, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45e6


def test_more_iterations_are_better():
    noise = 0.05 * np.random.default_rng(0).standard_normal(8192, np.float32)
    target = magnitudes_of(make_tones() + noise)  # tones alone are right from the start
    errors = [
        spectral_convergence(magnitudes_of(griffin_lim(target, 256, 64, num_iterations, seed=0)), target)
        for num_iterations in (1, 8, 64)
    ]
    assert errors[0] - 3 > errors[1] > errors[2] + 3


def test_clips_of_a_batch_are_as_if_alone():
    clip = magnitudes_of(make_tones())
    batch = np.stack([[clip, 0.1 * clip, 0 * clip]] * 2)  # (2, 3, bins, frames)
    waveforms = griffin_lim(batch, 256, 64, seed=3)
    assert waveforms.shape == (2, 3, 8192)
    np.testing.assert_array_equal(waveforms[0], waveforms[1])
    for index in range(3):
        np.testing.assert_array_equal(waveforms[0, index], griffin_lim(batch[0, index], 256, 64, seed=3))
    assert not waveforms[:, 2].any()


def test_seed_repeats_and_none_differs():
    target = magnitudes_of(make_tones(2048))
    waveforms = [griffin_lim(target, 256, 64, 4, seed=seed) for seed in (5, 5, 6, None, None)]
    np.testing.assert_array_equal(waveforms[0], waveforms[1])
    for i, j in ((0, 2), (0, 3), (3, 4)):
        assert np.abs(waveforms[i] - waveforms[j]).max() > 1e-3


@pytest.mark.parametrize("hop_length", [64, 200, 256])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 97])
def test_any_number_of_frames(num_frames, hop_length):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waveform = griffin_lim(np.full((128, num_frames), 0.1, np.float32), 256, hop_length, 4)
    assert waveform.shape == (num_frames * hop_length,)
    assert np.isfinite(waveform).all()
    assert waveform.any()


def test_empty_batch():
    waveforms = griffin_lim(np.zeros((0, 128, 7), np.float32), 256, 64)
    assert (waveforms.shape, waveforms.dtype) == ((0, 448), np.float32)


def test_first_call_of_a_program_may_be_a_batch():
    # Nothing may be loaded or compiled at its first use, which is here in several threads at once.
    code = (
        "import runpy, sys, numpy as np; griffin_lim = runpy.run_path(sys.argv[1])['griffin_lim'];"
        "clips = np.random.default_rng(0).uniform(size=(8, 32, 50)).astype(np.float32);"
        "assert np.isfinite(griffin_lim(clips, 64, 16, 4)).all()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, spectrovae.audio.phase.__file__], check=True)


def test_partials_go_on_from_the_first_estimate():
    time = np.arange(8000) / 8000
    tones = 0.3 * np.sin(2 * np.pi * 612.3 * time) + 0.2 * np.sin(2 * np.pi * (1500 + 200 * time) * time)
    converter = SpectrogramConverter(sample_rate=8000, n_fft=512, hop_length=128, num_frames=62)
    target = converter.to_magnitudes(converter.to_spectrogram(tones)[..., 0])
    waveform = griffin_lim(target, 512, 128, num_iterations=0, seed=0)
    heard = converter.to_magnitudes(converter.to_spectrogram(waveform)[..., 0])
    error = 20 * np.log10(np.linalg.norm(heard - target) / np.linalg.norm(target))
    assert error < -14, error  # random phases give -4 dB, and 16 iterations -13
    other = griffin_lim(target, 512, 128, num_iterations=0, seed=1)
    assert np.abs(waveform - other).max() > 0.1  # each partial starts where the seed says
