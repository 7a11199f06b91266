"""Tests of `spectrovae.audio.io`."""

import os

import librosa
import numpy as np
import pytest
import soundfile
from faults import measured_reading

from spectrovae.audio.io import read_audio, read_blocks, write_audio


def sine(seconds=1.0, sample_rate=8000, frequency=440.0):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "aiff", "opus"])
def test_reads_formats(tmp_path, extension):
    sample_rate = 48000 if extension == "opus" else 44100
    stereo = np.stack([sine(1, sample_rate), 0.5 * sine(1, sample_rate)], axis=1)
    path = tmp_path / f"tone.{extension}"
    if extension == "opus":
        soundfile.write(path, stereo, sample_rate, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, stereo, sample_rate)
    audio = read_audio(path, 22050)
    decoded, _ = soundfile.read(path, dtype="float32")
    expected = librosa.resample(decoded.mean(axis=1), orig_sr=sample_rate, target_sr=22050)
    assert audio.dtype == np.float32
    assert audio.shape == expected.shape
    np.testing.assert_allclose(audio, expected, atol=1e-5)
    np.testing.assert_allclose(audio[2000:20000], 0.75 * sine(1, 22050)[2000:20000], atol=0.02)


@pytest.mark.parametrize("block_length", [1000, 1 << 16])
@pytest.mark.parametrize("sample_rate", [4000, 8000, 22050])
def test_blocks_join_to_the_whole(tmp_path, block_length, sample_rate):
    path = tmp_path / "tone.wav"
    soundfile.write(path, sine(3), 8000)
    blocks = list(read_blocks(path, sample_rate, block_length))
    assert max(map(len, blocks)) <= block_length + 4000  # soxr keeps some samples back at times
    joined = np.concatenate(blocks)
    expected = librosa.resample(soundfile.read(path, dtype="float32")[0], orig_sr=8000, target_sr=sample_rate)
    assert joined.shape == expected.shape
    np.testing.assert_allclose(joined, expected, atol=1e-5)


def test_reading_is_bounded_in_memory(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 44100, channels=2) as file:
        for _ in range(120):
            file.write(np.zeros((44100, 2)))
    num_samples, peak = measured_reading(path)
    assert num_samples == 120 * 22050
    assert peak < 4e6  # the whole file would be 10 MB in mono


def test_header_that_claims_too_much(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, sine(), 8000)
    content = bytearray(path.read_bytes())
    content[40:44] = (0xFFFFFFF0).to_bytes(4, "little")  # length of the samples
    path.write_bytes(content)
    assert len(read_audio(path, 8000)) == 8000
    content[24:28] = (1).to_bytes(4, "little")  # sample rate
    path.write_bytes(content)
    with pytest.raises(ValueError, match="claims a sample rate of 1 Hz"):
        read_audio(path, 8000)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_audio(tmp_path / "missing.wav", 8000)
    with pytest.raises(IsADirectoryError):
        read_audio(tmp_path, 8000)
    for name, content in {"zero.wav": b"", "noise.wav": b"no audio" * 100, "noise.raw": b"1234"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_audio(tmp_path / name, 8000)
    bad = sine()
    bad[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", bad, 8000, subtype="FLOAT")
    for sample_rate in (8000, 22050):
        with pytest.raises(ValueError, match="NaN or infinite"):
            read_audio(tmp_path / "nan.wav", sample_rate)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(ValueError, match="regular file"):
        read_audio(tmp_path / "pipe.wav", 8000)


@pytest.mark.parametrize("extension", [".wav", ".flac"])
def test_write_then_read(tmp_path, extension):
    path = tmp_path / f"größe{extension}"
    write_audio(path, np.ones(10), 8000)
    write_audio(path, sine(), 8000)
    np.testing.assert_allclose(read_audio(path, 8000), sine(), atol=1 / 32768)
    assert soundfile.info(path).subtype == "PCM_16"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("extension", "subtype", "accuracy"),
    [("wav", "PCM_16", 3.1e-5), ("wav", "PCM_24", 1.2e-7), ("wav", "FLOAT", 0), ("flac", "PCM_24", 1.2e-7)],
)
def test_subtypes_sample_rates_and_tags(tmp_path, extension, subtype, accuracy):
    path = tmp_path / f"tone.{extension}"
    tags = {"title": "Größe", "comment": "model a.keras, seed 3"}
    write_audio(path, sine(), 8000, subtype, tags=tags)
    np.testing.assert_allclose(read_audio(path, 8000), sine(), atol=accuracy)
    write_audio(path, sine(), 8000, subtype, target_rate=44100, tags=tags | {"software": "SpectroVAE"})
    with soundfile.SoundFile(path) as file:
        assert (file.samplerate, file.subtype, file.frames) == (44100, subtype, 44100)
        assert file.copy_metadata() | {"software": file.software.split(" (")[0]} == tags | {"software": "SpectroVAE"}
    np.testing.assert_allclose(read_audio(path, 44100)[2000:-2000], sine(1, 44100)[2000:-2000], atol=1e-3)


def test_resampled_peaks_are_turned_down(tmp_path):
    square = np.sign(sine())
    write_audio(tmp_path / "square.wav", square, 8000, "FLOAT", target_rate=22050)
    assert np.abs(soundfile.read(tmp_path / "square.wav")[0]).max() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.flac", {"subtype": "FLOAT"}),
        ("a.wav", {"subtype": "PCM_17"}),
        ("a.wav", {"target_rate": 0}),
        ("a.flac", {"target_rate": 1_000_000}),
        ("a.wav", {"tags": {"mood": "sad"}}),
    ],
)
def test_write_refuses_what_the_format_has_not(tmp_path, name, options):
    with pytest.raises(ValueError, match="Received"):
        write_audio(tmp_path / name, sine(), 8000, **options)
    assert os.listdir(tmp_path) == []


def test_write_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"a peak of 1\.5"):
        write_audio(tmp_path / "a.wav", np.full(10, -1.5), 8000)
    with pytest.raises(ValueError, match="shape"):
        write_audio(tmp_path / "a.wav", np.zeros((10, 2)), 8000)
    with pytest.raises(ValueError, match=r"\.wav or \.flac"):
        write_audio(tmp_path / "a.mp3", np.zeros(10), 8000)
    with pytest.raises(ValueError, match="sample_rate"):
        write_audio(tmp_path / "a.wav", np.zeros(10), 0)
    with pytest.raises(FileNotFoundError, match="create it first"):
        write_audio(tmp_path / "missing" / "a.wav", np.zeros(10), 8000)
    assert os.listdir(tmp_path) == []


def test_samples_far_above_full_scale_are_refused(tmp_path):
    for factor in (10, 1e4, 1e38):
        soundfile.write(tmp_path / f"{factor}.wav", factor * np.stack([sine(), sine()], axis=1), 8000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "10.wav", 8000)).max() == pytest.approx(5, rel=1e-3)
    with pytest.raises(ValueError, match=r"samples of 5e\+03, where full scale is 1"):
        read_audio(tmp_path / "10000.0.wav", 8000)
    with pytest.raises(ValueError, match="samples of"):
        read_audio(tmp_path / "1e+38.wav", 22050)


@pytest.mark.parametrize("arguments", [{"sample_rate": 0}, {"sample_rate": 8000, "block_length": 0}])
def test_odd_arguments_are_refused_at_once(tmp_path, arguments):
    with pytest.raises(ValueError, match="Received"):
        read_blocks(tmp_path / "a.wav", **arguments)
