"""Tests of `spectrovae.audio.mixing`: one rule for the channels of all formats."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from hostile_audio import music

from spectrovae.audio.decoding import AudioReader
from spectrovae.audio.io import read_audio, read_blocks

RATE = 44100
SOUND = music(2, RATE, seed=1)[:, 0]
OTHER = music(2, RATE, seed=2)[::-1, 0]

# Channels, what is to be heard of them, and what is said.
KINDS = {
    "stereo": ([SOUND, OTHER], (SOUND + OTHER) / 2, None),
    "wide stereo": ([SOUND + 0.4 * OTHER, SOUND - 0.4 * OTHER], SOUND, None),
    "independent channels": ([*music(2, RATE, num_channels=6).T], music(2, RATE, num_channels=6).mean(axis=1), None),
    "one wired the other way round": ([SOUND, -SOUND], SOUND, "cancel each other (to nothing when mixed): channel 1"),
    "inverted and late": ([0.9 * SOUND[3:], -SOUND[:-3]], -SOUND[:-3], "when mixed): channel 2"),
    "inverted with a quiet middle": ([SOUND + 0.01 * OTHER, 0.01 * OTHER - 0.99 * SOUND], SOUND, "dB when mixed"),
    "one dead channel": ([SOUND, 0 * SOUND], SOUND, "channel 2 of 2 has no signal"),
    "one unplugged channel": ([SOUND, 1e-4 * OTHER], SOUND, "channel 2 of 2 has no signal"),
    "one channel of an offset": ([SOUND, 0 * SOUND + 0.01], SOUND, "channel 2 of 2 has no signal"),
    "one of eight plugged in": ([0 * SOUND] * 3 + [SOUND] + [0 * SOUND] * 4, SOUND, "1, 2, 3, 5, 6, 7 ... of 8"),
    "two of four, inverted": ([0 * SOUND, SOUND, 0 * SOUND, -0.9 * SOUND], SOUND, "channel 2, the strongest"),
    "all dead": ([0 * SOUND, 0 * SOUND], 0 * SOUND, None),
}


def level(waveform):
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-20)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_become_one(tmp_path, kind):
    channels, expected, note = KINDS[kind]
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack(channels, axis=1), RATE, subtype="FLOAT")
    audio = read_audio(path, RATE)
    np.testing.assert_allclose(audio, expected, atol=0.01)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(path, RATE))), audio)
    reader = AudioReader(path, RATE)
    assert len(list(reader.read_settled())) > 0 and reader.is_settled
    assert (note in reader.notes[0]) if note else not reader.notes


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", "-c:a aac -b:a 256k"),
        ("a.ac3", "-c:a ac3 -b:a 448k"),
        ("a.wma", "-c:a wmav2 -b:a 192k"),
        ("a.mka", "-c:a flac"),
        ("a.webm", "-c:a libopus -b:a 510k"),
        ("a.mp3", "-b:a 256k"),
        ("a.mov", ""),
    ],
)
@pytest.mark.parametrize("kind", ["stereo", "front", "centre"])
def test_loudness_is_that_of_a_wav_file_whatever_the_container(tmp_path, name, options, kind):
    if kind != "stereo" and name in ("a.wma", "a.mp3"):
        pytest.skip("The format has two channels at most.")
    channels = [SOUND, OTHER] if kind == "stereo" else [0 * SOUND] * 6
    if kind != "stereo":
        channels[0 if kind == "front" else 2] = SOUND
    soundfile.write(tmp_path / "a.wav", np.stack(channels, axis=1), RATE)
    layout = ["-channel_layout", "stereo" if kind == "stereo" else "5.1"]
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), *options.split(), *layout]
    subprocess.run([*command, str(tmp_path / name)], check=True)
    levels = [level(read_audio(path, 22050)[2000:-2000]) for path in (tmp_path / "a.wav", tmp_path / name)]
    assert levels[1] == pytest.approx(levels[0], abs=0.1)
