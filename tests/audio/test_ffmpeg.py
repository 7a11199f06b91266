"""Tests of `spectrovae.audio.ffmpeg`, by way of `spectrovae.audio.io`."""

import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import spectrovae.audio.decoding
import spectrovae.audio.ffmpeg
from spectrovae.audio.decoding import AudioReader
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


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def make(path, *options, seconds=2, source="aevalsrc=0.3*sin(440*2*PI*t)|0.2*sin(550*2*PI*t)"):
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"{source}:d={seconds}:s=44100", *options, str(path)]
    subprocess.run(command, check=True)
    return path


# Seconds that the sound is longer than the original: what the encoder has added, where the format does not tell.
FORMATS = {
    "a.m4a": (["-c:a", "aac"], 0.025),
    "alac.m4a": (["-c:a", "alac"], 0),
    "fragmented.mp4": (["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"], 0.05),
    "a.aac": (["-c:a", "aac"], 0.05),
    "a.ac3": (["-c:a", "ac3"], 0.04),
    "a.wma": (["-c:a", "wmav2"], 0.05),
    "a.webm": (["-c:a", "libopus"], 0),
    "a.mka": (["-c:a", "libvorbis"], 0.025),
    "a.mkv": (["-c:a", "flac"], 0),
    "a.wv": ([], 0),
    "a.tta": ([], 0),
    "a.mov": ([], 0.025),
    "a.avi": (["-c:a", "mp3"], 0.05),
    "a.mp2": ([], 0.02),
    "mp3 in a.wav": (["-c:a", "mp3"], 0.05),
    "adpcm in a.wav": (["-c:a", "adpcm_ima_wav"], 0.05),
    "with another ending.mp3": (["-c:a", "aac", "-f", "mp4"], 0.025),
    "without an ending": (["-c:a", "flac", "-f", "flac"], 0),
}


@needs_ffmpeg
@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_read_to_the_end(tmp_path, name):
    options, tolerance = FORMATS[name]
    path = make(tmp_path / name, *options)
    audio = read_audio(path, 22050)
    assert len(audio) / 22050 == pytest.approx(2, abs=max(tolerance, 1e-3))
    peaks = np.sort(np.abs(np.fft.rfft(audio[11025:33075])).argsort()[-2:])
    np.testing.assert_allclose(peaks, [440, 550], atol=1)


@needs_ffmpeg
def test_sound_of_videos(tmp_path):
    picture = ["-f", "lavfi", "-i", "color=s=32x32:d=2", "-c:v", "mpeg4", "-map", "1:v", "-map", "0:a", "-c:a", "aac"]
    assert len(read_audio(make(tmp_path / "a.mp4", *picture), 8000)) / 8000 == pytest.approx(2, abs=0.025)
    subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "color=s=32x32:d=1",
            "-c:v",
            "mpeg4",
            str(tmp_path / "mute.mp4"),
        ],
        check=True,
    )
    with pytest.raises(ValueError, match=r"mute\.mp4 \(ffmpeg: .*no streams"):
        read_audio(tmp_path / "mute.mp4", 8000)


@needs_ffmpeg
def test_cover_pictures_do_not_matter(tmp_path):
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=64x64:d=1", "-frames:v", "1", str(tmp_path / "a.png")],
        check=True,
    )
    for name in ("a.m4a", "a.mp3", "a.flac"):
        cover = ["-i", str(tmp_path / "a.png"), "-map", "0:a", "-map", "1:v", "-c:v", "copy"]
        path = make(tmp_path / name, *cover, "-disposition:v:0", "attached_pic")
        assert len(read_audio(path, 8000)) / 8000 == pytest.approx(2, abs=0.025)


@needs_ffmpeg
def test_damaged_stretch_is_passed_over_and_told(tmp_path):
    for name in ("a.flac", "a.m4a", "a.ac3"):
        path = make(tmp_path / name, seconds=10, source="anoisesrc=a=0.3")
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
        path.write_bytes(content)
        reader = AudioReader(path, 8000)
        assert 9 < sum(map(len, reader.read_settled())) / 8000 < 10.1
        assert reader.notes[0].startswith("damaged: ")


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{name}'\n",
    "dash": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S"><Period>'
    '<AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist>{url}</CompositionPlaylist>',
}


@needs_ffmpeg
@pytest.mark.parametrize("ending", ["m4a", "aac", "mp4", "wma"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_reach_no_other_file(tmp_path, kind, ending):
    secret = make(tmp_path / "secret.aac", "-c:a", "aac", "-f", "adts")
    path = tmp_path / f"list.{ending}"
    path.write_text(PLAYLISTS[kind].format(url=secret.as_uri(), name=secret))
    with pytest.raises(ValueError, match=f"list.{ending}"):
        read_audio(path, 8000)


def test_length_is_bounded_by_the_size_of_the_file(unknown, monkeypatch):
    make_program(
        unknown.with_name("ffmpeg"),
        "sys.stdout.buffer.write(au([]))\nwhile True: sys.stdout.buffer.write(bytes(1 << 20))",
    )
    monkeypatch.setattr(spectrovae.audio.decoding, "_SHORT_SECONDS", 60)
    with pytest.raises(ValueError, match=r"more than 62 s, which a file of its size cannot hold: .*tone\.m4a"):
        read_audio(unknown, 8000)


PARENT = """
import os, sys
from pathlib import Path
from spectrovae.audio.ffmpeg import decode_with_ffmpeg
next(decode_with_ffmpeg(Path(sys.argv[1]), 100, "", []))
os._exit(1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux ends the children of a program that ends.")
def test_program_ends_with_its_parent(unknown):
    body = """
open("pid", "w").write(str(os.getpid()))
sys.stdout.buffer.write(au([0] * 1000))
sys.stdout.flush()
time.sleep(60)
"""
    make_program(unknown.with_name("ffmpeg"), body)
    subprocess.run([sys.executable, "-c", PARENT, str(unknown)], cwd=unknown.parent, check=False, timeout=60)
    pid = int((unknown.parent / "pid").read_text())
    for _ in range(100):
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if status == "Z":
            return
        time.sleep(0.05)
    pytest.fail("The program lives on.")
