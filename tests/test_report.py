"""Tests of `spectrovae.report`."""

from pathlib import Path

import pytest

from spectrovae.audio.recordings import LeftOutFile, Recording, RecordingsReport

SONG = Recording(Path("song.wav"), num_frames=250, num_windows=3, seconds=2.0)
NOTE = Recording(Path("note.wav"), num_frames=70, num_windows=1, seconds=0.6)


def test_sums_and_windows():
    report = RecordingsReport((SONG, NOTE), (), window_duration=0.5)
    assert report.num_windows == 4
    assert report.seconds == pytest.approx(2.6)
    assert [(window.path.name, window.start) for window in report.windows] == [
        ("song.wav", 0.0),
        ("song.wav", 0.5),
        ("song.wav", 1.0),
        ("note.wav", 0.0),
    ]


def test_summary():
    hour = Recording(Path("hour.wav"), num_frames=450000, num_windows=7031, seconds=3600.0)
    silent = LeftOutFile(Path("b.wav"), "silent")
    cases = {
        ((NOTE,), ()): "1 of 1 file used: 1 window of 0.5 s, 0.6 s in all.",
        ((NOTE, hour), ()): "2 of 2 files used: 7032 windows of 0.5 s, 60.0 min in all.",
        ((), (silent,)): "0 of 1 file used: 0 windows of 0.5 s, 0.0 s in all. 1 file left out:\n  b.wav: silent",
        ((SONG,), (silent, silent)): "1 of 3 files used: 3 windows of 0.5 s, 2.0 s in all. 2 files left out:"
        "\n  b.wav: silent\n  b.wav: silent",
    }
    for (used, left_out), summary in cases.items():
        assert str(RecordingsReport(used, left_out, window_duration=0.5)) == summary
