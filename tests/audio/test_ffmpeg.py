"""Tests of `spectrovae.audio.ffmpeg`, by way of `spectrovae.audio.io`."""

import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

import spectrovae.audio.io
from spectrovae.audio.io import read_audio, read_blocks


def make_program(path, body):
    """A stand-in for ffmpeg: it need not be installed to test how it is called."""
    path.write_text(f"#!{sys.executable}\nimport array, sys, time\n{body}\n")
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
assert arguments["-i"].startswith("file:") and arguments["-f"] == "f32le" and arguments["-ac"] == "1"
sys.stdout.buffer.write(array.array("f", [0.25] * int(arguments["-ar"])).tobytes())
"""
    make_program(unknown.with_name("ffmpeg"), body)
    audio = read_audio(unknown, 8000)
    assert audio.dtype == np.float32
    np.testing.assert_array_equal(audio, np.full(8000, 0.25))
    assert [len(block) for block in read_blocks(unknown, 8000, block_length=3000)] == [3000, 3000, 2000]


def test_program_that_ends_late_is_waited_for(unknown):
    body = """
import os
os.write(1, bytes(400))
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
    make_program(unknown.with_name("ffmpeg"), "while True: sys.stdout.buffer.write(bytes(4000))")
    blocks = read_blocks(unknown, 8000, block_length=100)
    assert len(next(blocks)) == 100
    blocks.close()
    assert [process.returncode for process in processes] == [-9]


@pytest.mark.parametrize("body", ["time.sleep(60)", "import os; os.write(1, bytes(400)); os.close(1); time.sleep(60)"])
def test_program_that_hangs_is_given_up(unknown, monkeypatch, body):
    monkeypatch.setattr(spectrovae.audio.io, "_PATIENCE", 0.5)
    make_program(unknown.with_name("ffmpeg"), body)
    with pytest.raises(ValueError, match="stood still"):
        read_audio(unknown, 8000)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "ffmpeg, which knows more formats, is missing"),
        ("sys.exit('moov atom not found\\nmore')", r"\(ffmpeg: moov atom not found\)"),
        ("sys.exit(1)", "ffmpeg: .*Format not recognised"),
        ("sys.stdout.buffer.write(array.array('f', [float('nan')] * 9).tobytes())", "NaN or infinite"),
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
