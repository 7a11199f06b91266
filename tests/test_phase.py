"""Tests of `spectrovae.phase`."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

import spectrovae.phase
from spectrovae.phase import griffin_lim
from spectrovae.stft import stream_magnitudes


def magnitudes_of(waveform, n_fft=256, hop_length=64):
    return np.concatenate(list(stream_magnitudes([waveform], n_fft, hop_length))).T


def make_tones(num_samples=8192):
    """Four tones that come and go at different speeds."""
    time = np.arange(num_samples)
    tones = [np.sin(f * time) * np.sin(s * time) for f, s in ((0.2, 3e-4), (0.31, 7e-4), (0.52, 1e-3), (1.1, 2e-3))]
    return (0.2 * np.sum(tones, axis=0)).astype(np.float32)


def spectral_convergence(magnitudes, target):
    return 20 * np.log10(np.linalg.norm(magnitudes - target) / np.linalg.norm(target))


@pytest.mark.parametrize(("hop_length", "limit"), [(32, -30), (64, -25), (128, -12), (256, -4)])
def test_waveform_has_the_magnitudes(hop_length, limit):
    target = magnitudes_of(make_tones(), hop_length=hop_length)
    waveform = griffin_lim(target, 256, hop_length, seed=0)
    assert waveform.dtype == np.float32
    assert waveform.shape == (8192,)
    assert spectral_convergence(magnitudes_of(waveform, hop_length=hop_length), target) < limit


def test_more_iterations_are_better():
    target = magnitudes_of(make_tones())
    errors = [
        spectral_convergence(magnitudes_of(griffin_lim(target, 256, 64, num_iterations, seed=0)), target)
        for num_iterations in (1, 8, 64)
    ]
    assert errors[0] - 5 > errors[1] > errors[2] + 5


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
    # librosa loads and compiles its parts at their first use, here in several threads at once.
    code = (
        "import runpy, sys, numpy as np; griffin_lim = runpy.run_path(sys.argv[1])['griffin_lim'];"
        "clips = np.random.default_rng(0).uniform(size=(8, 32, 50)).astype(np.float32);"
        "assert np.isfinite(griffin_lim(clips, 64, 16, 4)).all()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, spectrovae.phase.__file__], check=True)
