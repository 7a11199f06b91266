"""Whatever lies in the folder: each file ends as used or with a reason, in bounded memory."""

import os

import numpy as np
import pytest
from faults import measured_reading, unprivileged
from hostile_audio import CONVERTER, KINDS, TEN_HOURS, encode, music, mutate, seed_contents, wav_header

from spectrovae.audio.recordings import Recordings


def assert_is_accounted_for(recordings, expected):
    """Every expected file is there with its outcome, and frames are what a model takes."""
    report = recordings.report
    outcomes = {file.path.name: "used" for file in report.used}
    outcomes |= {file.path.name: file.reason for file in report.left_out}
    assert outcomes.keys() == expected.keys()
    for name, outcome in expected.items():
        assert outcomes[name].startswith(tuple(outcome.split(" or "))), (name, outcomes[name])
    for index, recording in enumerate(report.used):
        frames = recordings.frames(index, 0, recording.num_frames)
        assert frames.shape == (recording.num_frames, CONVERTER.num_bins) and recording.num_windows >= 1
        assert np.isfinite(frames).all() and frames.min() >= 0 and frames.max() <= 1


@pytest.mark.parametrize("cache", ["memory", "kept"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_used_or_has_a_reason(tmp_path, monkeypatch, kind, cache):
    monkeypatch.setenv("PATH", str(tmp_path))  # outcomes without ffmpeg
    folder = tmp_path / kind
    folder.mkdir()
    expected = KINDS[kind](folder)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o777)
    CONVERTER.to_spectrogram(music()[:, 0])  # librosa imports its parts when they are called
    with unprivileged(folder):
        recordings = Recordings(folder, CONVERTER, tmp_path / "kept" if cache == "kept" else cache, verbose=0)
        assert_is_accounted_for(recordings, expected)
    # Few lines, that any terminal and any encoding takes.
    lines = str(recordings.report).splitlines()
    assert len(lines) <= 1 + min(len(recordings.report.left_out), 11) + 12 + 2
    assert all(line.isprintable() and line.encode("utf-8") for line in lines)


def test_short_files_loop_whatever_they_hold(tmp_path):
    (tmp_path / "one sample.wav").write_bytes(encode(np.array([0.5])))  # repeated, it is an offset and no sound
    (tmp_path / "one silent sample.wav").write_bytes(encode(np.array([0.0])))
    (tmp_path / "few.wav").write_bytes(encode(music(0.1)))
    recordings = Recordings(tmp_path, CONVERTER, "memory", loop_short_files=True, verbose=0)
    expected = {"one sample.wav": "silent", "one silent sample.wav": "silent", "few.wav": "used"}
    assert_is_accounted_for(recordings, expected)


def test_no_file_stays_open(tmp_path):
    for kind in ("formats", "broken"):
        (tmp_path / kind).mkdir()
        KINDS[kind](tmp_path / kind)
    Recordings(tmp_path, CONVERTER, "memory", verbose=0)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        recordings = Recordings(tmp_path, CONVERTER, tmp_path / "cache", verbose=0)
        for index in range(len(recordings.report.used)):
            recordings.frames(index, 0, 1)
    assert os.listdir("/proc/self/fd") == before


LIES = {
    "10 hours": {"num_bytes": 2 * 8000 * TEN_HOURS},
    "4 GB of 32 bits": {"num_bytes": 0xFFFFFFFF, "bits": 32},
    "1024 channels": {"num_bytes": 0xFFFFFFFF, "num_channels": 1024},
    "100 Hz": {"num_bytes": 0xFFFFFFFF, "sample_rate": 100},
    "10 MHz": {"num_bytes": 0xFFFFFFFF, "sample_rate": 9_999_991},
    "a prime rate": {"num_bytes": 0xFFFFFFFF, "sample_rate": 44_101},
}


@pytest.mark.parametrize("lie", LIES)
def test_memory_is_bounded_whatever_a_header_claims(tmp_path, lie):
    path = tmp_path / "liar.wav"
    path.write_bytes(wav_header(**LIES[lie]) + bytes(range(1, 255)) * 4000)
    before = resident_memory()
    num_samples, peak = measured_reading(path)
    assert num_samples > 0
    assert peak < 5e6
    assert resident_memory() - before < 60e6  # what libsndfile and soxr take for themselves


def resident_memory():
    """Memory of this process in bytes, that of C libraries included."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_mutated_files(tmp_path, monkeypatch):
    """A few of the many that `benchmarks/fuzz_audio.py` tries, in one go."""
    monkeypatch.setenv("PATH", str(tmp_path))  # a program for each of them would take long
    contents = seed_contents()
    generator = np.random.default_rng(2)
    for index in range(300):
        name = generator.choice(list(contents))
        (tmp_path / f"{index} {name}").write_bytes(mutate(contents[name], generator))
    (tmp_path / "good.wav").write_bytes(encode(music()))
    recordings = Recordings(tmp_path, CONVERTER, "memory", verbose=0)
    assert_is_accounted_for(
        recordings, dict.fromkeys(os.listdir(tmp_path), "used or unreadable or empty or silent or too short")
    )
    assert len(recordings.report.used) > 20 and len(recordings.report.left_out) > 20
