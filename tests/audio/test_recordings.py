"""Tests of `spectrovae.audio.recordings`."""

import ast
import gc
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

import spectrovae.audio.cache
import spectrovae.audio.recordings
from spectrovae.audio.dataset import audio_dataset
from spectrovae.audio.decoding import AudioReader
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import LeftOutFile, Recording, Recordings, RecordingsReport, read_window
from spectrovae.audio.spectrogram import SpectrogramConverter

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=64, num_frames=64)  # windows of 0.512 s

SONG = Recording(Path("song.wav"), num_frames=250, num_windows=3, seconds=2.0)
NOTE = Recording(Path("note.wav"), num_frames=70, num_windows=1, seconds=0.6)


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(8000 * seconds))


@pytest.fixture
def folder(tmp_path):
    """Two good files and one of every kind that cannot be used."""
    folder = tmp_path / "recordings"
    (folder / "sub").mkdir(parents=True)
    soundfile.write(folder / "good.wav", noise(2), 8000)
    soundfile.write(folder / "sub" / "good too.flac", noise(3, seed=1), 8000)
    soundfile.write(folder / "short.ogg", noise(0.3), 8000)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 8000)
    soundfile.write(folder / "no samples.wav", np.zeros(0), 8000)
    (folder / "zero.mp3").touch()
    (folder / "garbage.wav").write_bytes(b"no audio" * 100)
    (folder / "broken.wav").symlink_to(folder / "nowhere.wav")
    soundfile.write(folder / "nan.wav", np.full(16000, np.nan), 8000, subtype="FLOAT")
    return folder


@pytest.fixture
def count_reads(monkeypatch):
    """Names of the files that were decoded."""
    names = []
    read = AudioReader.read

    def count(reader):
        names.append(reader.path.name)
        return read(reader)

    monkeypatch.setattr(AudioReader, "read", count)
    return names


def test_every_file_is_accounted_for(folder, caplog):
    with caplog.at_level(logging.INFO, "spectrovae"):
        report = Recordings(folder, CONVERTER, verbose=0).report
    assert [(file.path.name, file.num_frames, file.num_windows) for file in report.used] == [
        ("good.wav", 250, 3),
        ("good too.flac", 375, 5),
    ]
    reasons = {file.path.name: file.reason for file in report.left_out}
    expected = {
        "broken.wav": "unreadable: .*No such file",
        "garbage.wav": "unreadable: .*could not be decoded",
        "nan.wav": "unreadable: .*NaN",
        "no samples.wav": "empty",
        "short.ogg": r"too short: 0\.30 s",
        "silent.wav": "silent",
        "zero.mp3": "unreadable: .*no content",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert re.match(reason, reasons[name]), name
    assert report.num_windows == 8
    assert report.seconds == pytest.approx(5)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.records[0].getMessage() == str(report)
    assert str(report).startswith("2 of 9 files used: 8 windows of 0.5 s, 5.0 s in all. 7 files left out:\n  ")


def test_windows_of_the_report(folder):
    report = Recordings(folder, CONVERTER, cache="memory", verbose=0).report
    windows = report.windows
    assert [window.path.name for window in windows] == ["good.wav"] * 3 + ["good too.flac"] * 5
    assert [window.start for window in windows[:4]] == pytest.approx([0, 0.512, 1.024, 0])


def test_nothing_left_out_is_no_warning(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", noise(1), 8000)
    with caplog.at_level(logging.INFO, "spectrovae"):
        recordings = Recordings(tmp_path, CONVERTER, verbose=0)
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert str(recordings.report) == "1 of 1 file used: 1 window of 0.5 s, 1.0 s in all."


def test_nothing_usable(tmp_path):
    soundfile.write(tmp_path / "short.wav", noise(0.1), 8000)
    with pytest.raises(ValueError, match=r"No file can be used(.|\n)*short.wav: too short"):
        Recordings(tmp_path, CONVERTER, verbose=0)


@pytest.mark.parametrize("cache", ["memory", "disk", "kept"])
def test_frames_are_those_of_the_converter(tmp_path, cache):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(20), 8000)
    recordings = Recordings(path, CONVERTER, tmp_path / "kept" if cache == "kept" else cache, verbose=0)
    expected = CONVERTER.to_spectrogram(soundfile.read(path)[0])[..., 0].T
    frames = recordings.frames(0, 0, len(expected))
    assert frames.dtype == np.float16
    assert frames.shape == (2500, 64)
    np.testing.assert_allclose(frames, expected, atol=3e-4)
    np.testing.assert_array_equal(recordings.frames(0, 1000, 64), frames[1000:1064])


def test_kept_cache_is_used_again(folder, tmp_path, count_reads):
    cache = tmp_path / "new" / "cache"
    first = Recordings(folder, CONVERTER, cache, verbose=0)
    assert len(count_reads) == 9 - 1  # the broken link is not even opened
    count_reads.clear()
    second = Recordings(folder, CONVERTER, cache, verbose=0)
    assert "good.wav" not in count_reads
    assert "good too.flac" not in count_reads
    assert second.report == first.report
    np.testing.assert_array_equal(first.frames(1, 5, 9), second.frames(1, 5, 9))
    assert sorted(path.suffix for path in cache.iterdir()) == [".json"] * 2 + [".npy"] * 2


def test_kept_cache_notices_changes(tmp_path, count_reads):
    path, cache = tmp_path / "a.wav", tmp_path / "cache"
    soundfile.write(path, noise(1), 8000)

    def num_reads(converter=CONVERTER):
        count_reads.clear()
        Recordings(path, converter, cache, verbose=0)
        return len(count_reads)

    assert (num_reads(), num_reads()) == (1, 0)
    os.utime(path, ns=(0, 1))
    assert (num_reads(), num_reads()) == (1, 0)
    other = CONVERTER.get_config() | {"dynamic_range": 60.0}
    assert (num_reads(SpectrogramConverter(**other)), num_reads()) == (1, 0)
    # The number of Griffin-Lim iterations does not touch the frames.
    assert num_reads(SpectrogramConverter(**CONVERTER.get_config() | {"num_iterations": 8})) == 0
    for ending in ("npy", "json"):
        for content in (b"", b"garbage", b"[]", next(cache.glob(f"*.{ending}")).read_bytes()[:-1]):
            for file in cache.glob(f"*.{ending}"):
                file.write_bytes(content)
            assert (num_reads(), num_reads()) == (1, 0)


def test_caches_need_no_parser(folder, monkeypatch):
    """Python 3.11's fails now and then when two threads use it, and NumPy reads headers with it."""
    monkeypatch.setattr(ast, "parse", lambda *args, **kwargs: pytest.fail("a header was parsed"))
    recordings = Recordings(folder, CONVERTER, verbose=0)
    assert recordings.frames(0, start=10, num_frames=64).shape == (64, 64)


def test_cache_files_are_plain_arrays(folder, tmp_path):
    recordings = Recordings(folder, CONVERTER, cache=tmp_path / "cache", verbose=0)
    arrays = [np.load(path, allow_pickle=False) for path in (tmp_path / "cache").glob("*.npy")]
    expected = [recordings.frames(index, 0, file.num_frames) for index, file in enumerate(recordings.report.used)]
    assert sorted(array.tobytes() for array in arrays) == sorted(frames.tobytes() for frames in expected)


def test_cache_that_goes_while_it_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(spectrovae.audio.recordings, "find_cached", lambda *args: None)
    with pytest.raises(OSError, match="damaged or removed"):
        Recordings(folder, CONVERTER, cache=tmp_path / "cache", verbose=0)


def test_failed_decoding_leaves_no_half_file(folder, tmp_path, monkeypatch):
    def fail_late(reader):
        yield noise(1).astype(np.float32)
        raise ValueError("bad packet")

    monkeypatch.setattr(AudioReader, "read", fail_late)
    with pytest.raises(ValueError, match="unreadable: bad packet"):
        Recordings(folder, CONVERTER, tmp_path / "cache", verbose=0)
    assert os.listdir(tmp_path / "cache") == []


def test_a_full_disk_is_not_blamed_on_the_recording(folder, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spectrovae.audio.recordings, "write_frames", full)
    with pytest.raises(OSError, match="No space left"):
        Recordings(folder, CONVERTER, verbose=0)


def test_temporary_cache_goes_with_its_owner(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    recordings = Recordings(folder, CONVERTER, "disk", verbose=0)
    (cache,) = tmp_path.glob("spectrovae-*")
    assert len(list(cache.glob("*.npy"))) == 2
    del recordings
    gc.collect()
    assert not cache.exists()


def test_short_files_can_be_looped(tmp_path):
    soundfile.write(tmp_path / "short.wav", noise(0.2), 8000)
    recordings = Recordings(tmp_path, CONVERTER, loop_short_files=True, verbose=0)
    assert recordings.report.num_windows == 1
    looped = np.tile(soundfile.read(tmp_path / "short.wav")[0], 3)[: CONVERTER.window_length]
    expected = CONVERTER.to_spectrogram(looped)[..., 0].T
    np.testing.assert_allclose(recordings.frames(0, 0, 64), expected, atol=3e-4)


def test_memory_does_not_grow_with_the_collection(tmp_path, monkeypatch):
    long = np.tile(noise(30), 8)
    for index in range(6):
        soundfile.write(tmp_path / f"{index}.wav", long, 8000)

    def peak(paths):
        tracemalloc.start()
        try:
            Recordings(paths, CONVERTER, verbose=0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setattr(spectrovae.audio.recordings, "_NUM_DECODERS", 1)
    files = sorted(tmp_path.glob("*.wav"))
    peak(files[0])  # what is imported late is not counted
    one, six = peak(files[0]), peak(files)
    assert six < one + 1e5  # the frames of a file are 3.8 MB
    soundfile.write(tmp_path / "longer.wav", np.tile(long, 6), 8000)
    assert peak(tmp_path / "longer.wav") < one + 1e5


def test_progress_bar(tmp_path, capsys):
    soundfile.write(tmp_path / "größe 音.wav", noise(1), 8000)
    Recordings(tmp_path, CONVERTER, cache="memory", verbose=0)
    assert capsys.readouterr().out == ""
    Recordings(tmp_path, CONVERTER, cache="memory")
    assert "1/1" in capsys.readouterr().out


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


def test_read_window_is_the_window_of_the_dataset(tmp_path, small_converter):
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 4 * small_converter.window_length)
    write_audio(tmp_path / "noise.wav", samples, small_converter.sample_rate)
    dataset = audio_dataset(
        tmp_path / "noise.wav", small_converter, random_offset=False, shuffle=False, cache="memory", verbose=0
    )
    second = next(iter(dataset))[1]
    waveform = read_window(tmp_path / "noise.wav", small_converter, start=small_converter.window_duration)
    # Frames at the edges see other samples, since a window is a cut from the whole recording.
    difference = small_converter.to_spectrogram(waveform)[:, 2:-2] - second[:, 2:-2]
    assert np.abs(difference).max() < 2e-3


def test_read_window_in_a_long_recording_of_another_rate(tmp_path, small_converter):
    times = np.arange(16000 * 20) / 16000
    write_audio(tmp_path / "rising.wav", 0.5 * np.sin(2 * np.pi * (100 * times + 20 * times**2)), 16000)
    waveform = read_window(tmp_path / "rising.wav", small_converter, start=15.0)
    assert waveform.shape == (small_converter.window_length,) and waveform.dtype == np.float32
    now = 15 + np.arange(len(waveform)) / small_converter.sample_rate
    np.testing.assert_allclose(waveform, 0.5 * np.sin(2 * np.pi * (100 * now + 20 * now**2)), atol=2e-3)


def test_read_window_repeats_short_recordings_and_refuses_starts_beyond_the_end(tmp_path, small_converter):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 100)
    write_audio(tmp_path / "short.wav", samples, small_converter.sample_rate)
    waveform = read_window(tmp_path / "short.wav", small_converter)
    np.testing.assert_allclose(waveform, np.resize(samples, small_converter.window_length), atol=1e-4)
    for start in (0.0125, 9.0, -1.0):
        with pytest.raises(ValueError, match=f"start={start}"):
            read_window(tmp_path / "short.wav", small_converter, start=start)


def test_report_names_ten_files_and_counts_the_rest(tmp_path):
    for index in range(40):
        soundfile.write(tmp_path / f"hit {index:02d}.wav", noise(0.2 if index else 1, seed=index), 8000)
    for name in ("cover.jpg", "notes.txt", "back.JPG", "TAPE1", "x.\x1b[31m"):
        (tmp_path / name).touch()
    report = Recordings(tmp_path, CONVERTER, "memory", verbose=0).report
    lines = str(report).splitlines()
    assert len(lines) == 1 + 10 + 1 + 1 + 1 and len(report.left_out) == 39
    assert lines[11] == "  ... and 29 more (`dataset_report` has all)"
    assert lines[12].startswith("39 files shorter than a window.") and "for_clips(0.2)" in lines[12]
    assert report.passed_over == ((".jpg", 2), (".\x1b[31m", 1), (".txt", 1), ("without ending", 1))
    assert lines[13] == "5 other files passed over by ending: 2 .jpg, 1 .\\x1b[31m, 1 .txt, 1 without ending"
    (tmp_path / "hit 00.wav").unlink()
    with pytest.raises(ValueError, match=r"No file can be used(.|\n)*for_clips\(0\.2\), or loop_short_files") as caught:
        Recordings(tmp_path, CONVERTER, "memory", verbose=0)
    assert len(str(caught.value)) < 3000


def test_clips_have_a_converter(tmp_path):
    for index in range(5):
        soundfile.write(tmp_path / f"{index}.wav", noise(0.5, seed=index), 8000)
    report = Recordings(tmp_path, SpectrogramConverter.for_clips(0.5), "memory", verbose=0).report
    assert len(report.used) == 5 and report.num_windows == 5


def facts_of(path, waveform, **arguments):
    soundfile.write(path, waveform, 8000, subtype="FLOAT")
    (recording,) = Recordings(path, CONVERTER, "memory", verbose=0, **arguments).report.used
    return recording


def test_quiet_loud_and_shifted_recordings_are_told(tmp_path):
    waveform = noise(2) / np.abs(noise(2)).max()
    assert facts_of(tmp_path / "a.wav", 0.5 * waveform).notes == ()
    quiet = facts_of(tmp_path / "b.wav", 1e-3 * waveform)
    assert re.fullmatch(r"97 % .* floor: its peak is -60\.0 dB \(normalize=\"file\" .*\)", quiet.notes[0])
    assert quiet.floor > 0.9 > facts_of(tmp_path / "c.wav", 0.5 * waveform).floor
    loud = facts_of(tmp_path / "d.wav", 30 * waveform)
    assert re.search(r"beyond full scale: a peak of 29\.\d dB; \d+ of 250 frames are clipped", loud.notes[-1])
    shifted = facts_of(tmp_path / "e.wav", 0.1 * waveform + 0.2)
    assert shifted.notes == ("a constant offset of 0.20 was removed",)


@pytest.mark.parametrize("cache", ["memory", "kept"])
@pytest.mark.parametrize(("factor", "gain"), [(1e-3, 52.0), (4, -20.0), (0.5, -1.9), (0, None)])
def test_files_are_brought_to_one_loudness(tmp_path, cache, factor, gain):
    waveform = np.concatenate([noise(2) / noise(2).std(), np.zeros(8000)]) / 6
    path = tmp_path / "a.wav"
    soundfile.write(path, factor * waveform, 8000, subtype="FLOAT")
    cache = tmp_path / "cache" if cache == "kept" else cache
    if gain is None:
        with pytest.raises(ValueError, match="silent"):
            Recordings(path, CONVERTER, cache, verbose=0, normalize="file")
        return
    for _ in range(2):
        recordings = Recordings(path, CONVERTER, cache, verbose=0, normalize="file")
        (recording,) = recordings.report.used
        scaled = factor * waveform * 10 ** (recording.gain / 20)
        level, peak = 10 * np.log10(np.mean(scaled**2)), np.abs(scaled).max()
        assert level == pytest.approx(-20, abs=0.1) or (peak == pytest.approx(1, abs=1e-3) and level < -20)
        assert recording.notes == ()
        expected = CONVERTER.to_spectrogram(scaled)[..., 0].T
        np.testing.assert_allclose(recordings.frames(0, 0, len(expected)), expected, atol=2e-3)
    with pytest.raises(ValueError, match="normalize='album'"):
        Recordings(path, CONVERTER, cache, verbose=0, normalize="album")


def test_caches_with_and_without_normalization_are_kept_apart(tmp_path, count_reads):
    soundfile.write(tmp_path / "a.wav", 0.01 * noise(1), 8000)
    frames = [
        Recordings(tmp_path / "a.wav", CONVERTER, tmp_path / "cache", verbose=0, normalize=normalize).frames(0, 0, 9)
        for normalize in (None, "file", None, "file")
    ]
    assert count_reads == ["a.wav"] * 3
    np.testing.assert_array_equal(frames[0], frames[2])
    np.testing.assert_array_equal(frames[1], frames[3])
    assert frames[1].mean() > frames[0].mean() + 0.3


@pytest.mark.parametrize("cache", ["memory", "kept"])
def test_report_does_not_depend_on_the_number_of_decoders(folder, tmp_path, monkeypatch, cache):
    outcomes = []
    for number in (1, 2, 7):
        monkeypatch.setattr(spectrovae.audio.recordings, "_NUM_DECODERS", number)
        recordings = Recordings(folder, CONVERTER, tmp_path / f"{number}" if cache == "kept" else cache, verbose=0)
        outcomes.append(
            (recordings.report, recordings.frames(0, 0, 250).tobytes(), recordings.frames(1, 9, 99).tobytes())
        )
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_notes_are_kept_with_the_cache(tmp_path):
    sound = noise(1)
    soundfile.write(tmp_path / "a.wav", np.stack([sound, -sound], axis=1), 8000)
    reports = [Recordings(tmp_path / "a.wav", CONVERTER, tmp_path / "cache", verbose=0).report for _ in range(2)]
    assert reports[0] == reports[1] and "cancel" in reports[1].used[0].notes[0]
    assert str(reports[1]).splitlines()[1] == "1 used file to look at:"


def test_caches_are_private(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1), 8000)
    Recordings(tmp_path / "a.wav", CONVERTER, tmp_path / "deep" / "cache", verbose=0)
    cache = tmp_path / "deep" / "cache"
    assert cache.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in cache.iterdir()} == {0o600}


def test_a_disk_is_not_filled_to_the_last_byte(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", noise(20), 8000)
    monkeypatch.setattr(spectrovae.audio.cache, "_CHECK_INTERVAL", 1000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"nearly full while .*a\.wav is decoded\. Free some space"):
        Recordings(tmp_path / "a.wav", CONVERTER, tmp_path / "cache", verbose=0)
    assert os.listdir(tmp_path / "cache") == []


INTERRUPTED = """
import sys, time
import numpy as np
from spectrovae.audio.decoding import AudioReader
from spectrovae.audio.recordings import Recordings
from spectrovae.audio.spectrogram import SpectrogramConverter

def read(reader):
    sys.stdout.write("reading\\n")
    sys.stdout.flush()
    while True:
        yield np.random.default_rng(0).uniform(-0.1, 0.1, 65536).astype(np.float32)
        time.sleep(0.01)

AudioReader.read = read
Recordings(sys.argv[1], SpectrogramConverter(), sys.argv[2], verbose=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["disk", "kept"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)])
def test_interrupted_decoding_leaves_nothing_behind(folder, tmp_path, cache, number, status):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "kept").mkdir()
    arguments = [str(folder), str(tmp_path / "kept") if cache == "kept" else cache]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", INTERRUPTED, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            assert process.stdout.readline() == "reading\n"
            time.sleep(0.3)
            process.send_signal(number)
            assert process.wait(60) == status
        finally:
            process.kill()
    assert os.listdir(tmp_path / "tmp") == os.listdir(tmp_path / "kept") == []
