"""Tests of `spectrovae.audio.spectrogram`."""

import keras
import librosa
import numpy as np
import pytest

from spectrovae.audio.spectrogram import SpectrogramConverter, remove_offset, stream_magnitudes

NOISE = np.random.default_rng(0).uniform(-1, 1, 2048 + 255).astype(np.float32)


@pytest.fixture
def small():
    return SpectrogramConverter(sample_rate=8000, n_fft=256, hop_length=64, num_frames=64)


def make_music(seconds, sample_rate, seed=0):
    """Decaying harmonic notes, three at a time, over faint noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(0.4 * sample_rate)) / sample_rate
    chords = []
    for _ in range(int(np.ceil(seconds / 0.4))):
        chord = np.zeros_like(time)
        for pitch in generator.integers(48, 72, 3):
            frequency = 440 * 2 ** ((pitch - 69) / 12)
            partials = range(1, int(min(10, sample_rate / 2 // frequency)))
            chord += sum(np.sin(2 * np.pi * frequency * k * time) / k**1.5 for k in partials)
        chords.append(0.1 * chord * np.exp(-3 * time))
    music = np.concatenate(chords)[: int(seconds * sample_rate)]
    return (music + 1e-4 * generator.standard_normal(len(music))).astype(np.float32)


def level(waveform):
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)))


@pytest.mark.parametrize("scale", ["decibel", "linear"])
@pytest.mark.parametrize("hop_length", [50, 64, 128, 256])
def test_matches_librosa(scale, hop_length):
    converter = SpectrogramConverter(8000, n_fft=256, hop_length=hop_length, scale=scale, dynamic_range=60.0)
    waveform = make_music(1.03, 8000)
    magnitude = np.abs(librosa.stft(waveform, n_fft=256, hop_length=hop_length))[:-1] / 64
    expected = magnitude if scale == "linear" else 1 + librosa.amplitude_to_db(magnitude, top_db=None) / 60
    frames = len(waveform) // hop_length
    spectrogram = converter.to_spectrogram(waveform)
    assert spectrogram.dtype == np.float32
    assert spectrogram.shape == (128, frames, 1)
    np.testing.assert_allclose(spectrogram[..., 0], np.clip(expected[:, :frames], 0, 1), atol=2e-5)


def test_full_scale_sine_is_0_db(small):
    sine = np.sin(2 * np.pi * 1000 * np.arange(4096) / 8000)
    k = int(np.argmin(np.abs(small.frequencies - 1000)))
    for gain in (0, -20, -50):
        levels = small.to_decibels(small.to_spectrogram(10 ** (gain / 20) * sine))
        assert levels[k, 20:-20].mean() == pytest.approx(gain, abs=0.01)


def test_window_properties():
    converter = SpectrogramConverter()
    assert converter.window_shape == (512, 512, 1)
    assert converter.window_length == 131072
    assert converter.window_duration == pytest.approx(5.944, abs=1e-3)
    assert converter.frequencies.shape == (512,)
    assert converter.frequencies[1] == pytest.approx(22050 / 1024)
    classic = SpectrogramConverter.classic()
    assert (classic.sample_rate, classic.hop_length, classic.scale) == (44100, 1024, "linear")
    assert classic.window_shape == (512, 512, 1)
    window = np.zeros(classic.window_length)
    assert classic.to_spectrogram(window).shape == classic.window_shape


def test_stream_equals_whole(small):
    waveform = make_music(1, 8000)
    blocks = [waveform[:1000], [], waveform[1000:1001], waveform[1001:]]
    streamed = np.concatenate(list(small.stream(blocks)))
    np.testing.assert_allclose(streamed.T, small.to_spectrogram(waveform)[..., 0], atol=1e-6)


@pytest.mark.parametrize("scale", ["decibel", "linear"])
@pytest.mark.parametrize("hop_length", [64, 128, 256])
def test_round_trip_keeps_magnitudes_and_loudness(scale, hop_length):
    converter = SpectrogramConverter(8000, n_fft=256, hop_length=hop_length, scale=scale)
    waveform = make_music(4.096, 8000)
    spectrogram = converter.to_spectrogram(waveform)
    audio = converter.to_audio(spectrogram, seed=1)
    assert audio.dtype == np.float32
    assert audio.shape == (spectrogram.shape[1] * hop_length,)
    assert level(audio) == pytest.approx(level(waveform), abs=0.5)
    error = converter.to_decibels(converter.to_spectrogram(audio)) - converter.to_decibels(spectrogram)
    audible = converter.to_decibels(spectrogram) > -60
    assert np.sqrt(np.mean(np.square(error[audible]))) < (3 if hop_length < 256 else 6)


def test_round_trip_of_the_default_settings():
    converter = SpectrogramConverter()
    waveform = make_music(converter.window_duration, 22050)[: converter.window_length]
    waveform = np.pad(waveform, (0, converter.window_length - len(waveform)))
    spectrogram = converter.to_spectrogram(waveform)
    audio = converter.to_audio(spectrogram, seed=1)
    target, result = (10 ** (converter.to_decibels(x) / 20) for x in (spectrogram, converter.to_spectrogram(audio)))
    assert 20 * np.log10(np.linalg.norm(result - target) / np.linalg.norm(target)) < -20
    assert level(audio) == pytest.approx(level(waveform), abs=0.5)


@pytest.mark.parametrize("scale", ["decibel", "linear"])
def test_silence_stays_silent(scale):
    converter = SpectrogramConverter(8000, n_fft=256, hop_length=64, scale=scale)
    silence = converter.to_spectrogram(np.zeros(4096))
    assert not silence.any()
    assert not converter.to_audio(silence).any()
    assert converter.to_decibels(silence).max() == pytest.approx(-80)


def test_bins_at_the_floor_are_exactly_silent(small):
    waveform = make_music(1, 8000)
    spectrogram = small.to_spectrogram(waveform)
    spectrogram[:, 60:] = 0
    audio = small.to_audio(spectrogram, seed=0)
    assert np.abs(audio[70 * 64 :]).max() == 0
    assert small.to_spectrogram(np.full(4096, 1e-5)).max() == 0


def test_clip_is_the_same_beside_a_louder_one(small):
    quiet, loud = 0.01 * make_music(1, 8000), make_music(1, 8000, seed=1)
    both = small.to_spectrogram(np.stack([loud, quiet]))
    assert both.shape == (2, 128, 125, 1)
    np.testing.assert_array_equal(both[1], small.to_spectrogram(quiet))
    np.testing.assert_array_equal(small.to_audio(both, seed=3)[1], small.to_audio(both[1], seed=3))


def test_seed_repeats(small):
    spectrogram = small.to_spectrogram(make_music(1, 8000))
    first, second = small.to_audio(spectrogram, seed=5), small.to_audio(spectrogram, seed=5)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - small.to_audio(spectrogram, seed=6)).max() > 1e-3
    assert np.abs(first - small.to_audio(spectrogram)).max() > 1e-3


def test_peaks_over_1_are_turned_down_with_a_warning(small):
    spectrogram = np.ones((2, 128, 64, 1), np.float32)
    spectrogram[0] *= 0.2
    with pytest.warns(UserWarning, match="were turned down"):
        audio = small.to_audio(spectrogram, seed=0)
    assert np.abs(audio[1]).max() <= 1
    np.testing.assert_array_equal(audio[0], small.to_audio(spectrogram[0], seed=0))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_integer_pcm(small, dtype):
    waveform = 0.5 * np.sin(np.arange(4096) / 3)
    full_scale = 2 ** (8 * np.dtype(dtype).itemsize - 1)
    pcm = np.round(waveform * full_scale + (full_scale if dtype == "uint8" else 0)).astype(dtype)
    levels = [small.to_decibels(small.to_spectrogram(x)) for x in (pcm, waveform)]
    peak = levels[1] > -20
    np.testing.assert_allclose(levels[0][peak], levels[1][peak], atol=0.5)


def test_resamples(small):
    high = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    spectrogram = small.to_spectrogram(high, sample_rate=44100)
    assert spectrogram.shape == (128, 125, 1)
    np.testing.assert_allclose(spectrogram[32, 10:-10], 1, atol=1e-3)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(255), "at least n_fft=256"),
        (np.zeros((4, 100)), "at least n_fft=256"),
        (np.zeros((44100, 2)), "mean"),
        (np.zeros((1, 2, 44100)), "shape"),
        (np.full(4096, np.nan), "finite"),
    ],
)
def test_odd_waveforms_are_refused(small, waveform, message):
    with pytest.raises(ValueError, match=message):
        small.to_spectrogram(waveform)


def test_odd_blocks_rates_and_seeds_are_refused(small):
    with pytest.raises(ValueError, match=r"block\.shape"):
        list(small.stream([np.zeros((100, 2))]))
    with pytest.raises(ValueError, match="sample_rate"):
        small.to_spectrogram(np.zeros(4096), sample_rate=0)
    with pytest.raises(ValueError, match="seed=-1"):
        small.to_audio(np.zeros(small.window_shape), seed=-1)


@pytest.mark.parametrize(
    ("spectrograms", "message"),
    [
        (np.zeros((127, 8, 1)), "shape"),
        (np.zeros((128, 8)), "shape"),
        (np.zeros((128, 8, 2)), "shape"),
        (np.zeros((128, 0, 1)), "shape"),
        (np.full((128, 8, 1), 1.01), "maximum=1.01"),
        (np.full((128, 8, 1), -0.01), "minimum=-0.01"),
        (np.full((128, 8, 1), np.nan), "nan"),
    ],
)
def test_odd_spectrograms_are_refused(small, spectrograms, message):
    with pytest.raises(ValueError, match=message):
        small.to_audio(spectrograms)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sample_rate": 0},
        {"sample_rate": 22050.5},
        {"n_fft": -1024},
        {"n_fft": 1022},
        {"n_fft": True},
        {"hop_length": 0},
        {"hop_length": 1025},
        {"num_frames": "512"},
        {"scale": "mel"},
        {"dynamic_range": 0},
        {"dynamic_range": float("nan")},
        {"num_iterations": 0},
    ],
)
def test_odd_arguments_are_refused(arguments):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=f"Received: .*{name}="):
        SpectrogramConverter(**arguments)


def test_config_round_trip(small):
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(small))
    assert restored == small
    assert restored is not small
    assert hash(restored) == hash(small)
    assert restored != SpectrogramConverter()
    assert small != "converter"
    assert eval(repr(small)) == small
    assert SpectrogramConverter.from_config(small.get_config()) == small


def test_to_decibels():
    decibel = SpectrogramConverter(dynamic_range=60)
    linear = SpectrogramConverter(dynamic_range=60, scale="linear")
    np.testing.assert_allclose(decibel.to_decibels([-1, 0, 0.5, 1, 2]), [-60, -60, -30, 0, 0])
    np.testing.assert_allclose(linear.to_decibels([0, 0.0001, 0.1, 1, 2]), [-60, -60, -20, 0, 0], atol=1e-5)


@pytest.mark.parametrize("hop_length", [50, 64, 255, 256])
@pytest.mark.parametrize("block_length", [1, 63, 64, 1000, 8191])
def test_streamed_magnitudes_match_librosa(hop_length, block_length):
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


def test_magnitudes_of_short_waveforms():
    assert list(stream_magnitudes([], 256, 64)) == []
    assert list(stream_magnitudes([np.zeros(0, np.float32), NOISE[:63]], 256, 64)) == []
    (frames,) = stream_magnitudes([NOISE[:64]], 256, 64)
    # One frame, centred on the first sample and padded with silence.
    window = librosa.filters.get_window("hann", 256)
    expected = np.abs(np.fft.rfft(window * np.pad(NOISE[:64], (128, 64))))
    np.testing.assert_allclose(frames, expected[None, :-1] / 64, atol=1e-6)


@pytest.mark.parametrize("offset", [0.05, -0.2, 0.4])
@pytest.mark.parametrize("converter", [SpectrogramConverter(), SpectrogramConverter.classic()])
def test_an_offset_is_removed(converter, offset):
    waveform = 0.5 * make_music(8, converter.sample_rate)
    expected, spectrogram = converter.to_spectrogram(waveform), converter.to_spectrogram(waveform + offset)
    errors = converter.to_decibels(spectrogram) - converter.to_decibels(expected)
    audible = converter.to_decibels(expected) > -60
    assert np.sqrt(np.mean(errors[audible] ** 2)) < 0.2 and np.abs(errors[3:]).max() < 1.5


@pytest.mark.parametrize("seconds", [0.02, 0.3, 2, 40])
def test_waveforms_without_offset_stay_as_they_are(seconds):
    drum = np.exp(-np.arange(int(seconds * 22050)) / 2000) * np.sin(0.015 * np.arange(int(seconds * 22050)))
    for waveform in (make_music(seconds, 22050), drum.astype(np.float32), np.zeros(100, np.float32)):
        blocks = np.array_split(waveform, 7)
        np.testing.assert_array_equal(np.concatenate(list(remove_offset(blocks, 22050))), waveform)


def test_a_constant_is_silence(small):
    assert not small.to_spectrogram(np.full(8000, 2 / 32768)).any()
    assert not SpectrogramConverter().to_spectrogram(np.full(2000, 0.3)).any()


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5, 1, 3, 6, 60])
def test_converters_for_clips(seconds):
    converter = SpectrogramConverter.for_clips(seconds)
    assert 32 <= converter.num_frames <= 512 and converter.num_frames.bit_count() == 1
    assert converter.window_duration <= max(seconds, 0.19)
    for seconds in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="seconds"):
            SpectrogramConverter.for_clips(seconds)
