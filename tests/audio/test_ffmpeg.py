"""Tests of `spectrovae.audio.ffmpeg`, by way of `spectrovae.audio.io`."""

import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

import spectrovae.audio.ffmpeg
from spectrovae.audio.io import read_audio, read_blocks

AU = """
def au(values, sample_rate=8000, num_channels=1):
    samples = array.array("f", values)
    samples.byteswap()
    return struct.pack(">4s5I", b".snd", 24, 0xFFFFFFFF, 6, sample_rate, num_channels) + samples.tobytes()
"""


def make_program(path, body):
    """A stand-in for ffmpeg: it need not be installed to test how it is called."""
    path.write_text(f"#!{sys.executable}\nimport array, os, struct, sys, time\n{AU}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def unknown(tmp_path, monkeypatch):
    """A file that libsndfile does not know; programs are looked for in its folder only."""
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "tone.m4a"
    path.write_bytes(b"something that libsndfile does not know")
    return path


def test_other_formats_are_read(unknown):
    body = """
arguments = dict(zip(sys.argv, sys.argv[1:]))
assert arguments["-i"].startswith("file:") and arguments["-protocol_whitelist"] == "file" and "-ac" not in arguments
sys.stdout.buffer.write(au([0.25, 0.75] * 8000, num_channels=2))
"""
    make_program(unknown.with_name("ffmpeg"), body)
    audio = read_audio(unknown, 8000)
    assert audio.dtype == np.float32
    np.testing.assert_array_equal(audio, np.full(8000, 0.5))
    assert [len(block) for block in read_blocks(unknown, 8000, block_length=3000)] == [1500] * 5 + [500]


def test_program_that_ends_late_is_waited_for(unknown):
    body = """
os.write(1, au([0] * 100))
os.close(1)
time.sleep(0.3)
os._exit(0)
"""
    make_program(unknown.with_name("ffmpeg"), body)
    np.testing.assert_array_equal(read_audio(unknown, 8000), np.zeros(100))


def test_reader_may_stop_early(unknown, monkeypatch):
    processes = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    make_program(
        unknown.with_name("ffmpeg"), "sys.stdout.buffer.write(au([]))\nwhile True: sys.stdout.buffer.write(bytes(4000))"
    )
    blocks = read_blocks(unknown, 8000, block_length=100)
    assert len(next(blocks)) == 100
    blocks.close()
    assert [process.returncode for process in processes] == [-9]


@pytest.mark.parametrize("body", ["time.sleep(60)", "os.write(1, au([0] * 100)); os.close(1); time.sleep(60)"])
def test_program_that_hangs_is_given_up(unknown, monkeypatch, body):
    monkeypatch.setattr(spectrovae.audio.ffmpeg, "_PATIENCE", 1.0)
    make_program(unknown.with_name("ffmpeg"), body)
    with pytest.raises(ValueError, match="stood still"):
        read_audio(unknown, 8000)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "ffmpeg, which knows more formats, is missing"),
        ("sys.exit('moov atom not found\\nmore')", r"\(ffmpeg: moov atom not found\)"),
        ("sys.exit(1)", "ffmpeg: .*Format not recognised"),
        ("sys.stdout.buffer.write(au([float('nan')] * 9))", "NaN or infinite"),
    ],
)
def test_files_that_cannot_be_decoded(unknown, body, message):
    if body:
        make_program(unknown.with_name("ffmpeg"), body)
    with pytest.raises(ValueError, match=message):
        read_audio(unknown, 8000)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_program_itself(tmp_path):
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=1000:d=1:r=44100", str(tmp_path / "a.m4a")]
    subprocess.run(command, check=True)
    audio = read_audio(tmp_path / "a.m4a", 22050)
    assert len(audio) == pytest.approx(22050, abs=2100)
    assert np.abs(np.fft.rfft(audio[4096:12288])).argmax() * 22050 / 8192 == pytest.approx(1000, abs=3)
