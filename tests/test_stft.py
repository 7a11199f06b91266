"""Tests of `spectrovae.stft`."""

import librosa
import numpy as np
import pytest

from spectrovae.audio.spectrogram import stream_magnitudes

NOISE = np.random.default_rng(0).uniform(-1, 1, 2048 + 255).astype(np.float32)


@pytest.mark.parametrize("hop_length", [50, 64, 255, 256])
@pytest.mark.parametrize("block_length", [1, 63, 64, 1000, 8191])
def test_matches_librosa(hop_length, block_length):
    for num_samples in (256, 2048, len(NOISE)):
        waveform = NOISE[:num_samples]
        blocks = (waveform[start : start + block_length] for start in range(0, num_samples, block_length))
        magnitudes = np.concatenate(list(stream_magnitudes(blocks, 256, hop_length)))
        expected = np.abs(librosa.stft(waveform, n_fft=256, hop_length=hop_length))
        assert magnitudes.dtype == np.float32
        assert magnitudes.shape == (num_samples // hop_length, 128)
        np.testing.assert_allclose(magnitudes.T, expected[:-1, : len(magnitudes)] / 64, atol=1e-6)


def test_long_block_is_cut():
    waveform = np.tile(NOISE, 250)
    pieces = list(stream_magnitudes([waveform], 256, 64))
    assert len(pieces) > 2
    assert sum(map(len, pieces)) == len(waveform) // 64


def test_short_waveforms():
    assert list(stream_magnitudes([], 256, 64)) == []
    assert list(stream_magnitudes([np.zeros(0, np.float32), NOISE[:63]], 256, 64)) == []
    (frames,) = stream_magnitudes([NOISE[:64]], 256, 64)
    # One frame, centred on the first sample and padded with silence.
    window = librosa.filters.get_window("hann", 256)
    expected = np.abs(np.fft.rfft(window * np.pad(NOISE[:64], (128, 64))))
    np.testing.assert_allclose(frames, expected[None, :-1] / 64, atol=1e-6)
