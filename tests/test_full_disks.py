"""Full disks, folders that may not be written, caches that are not what they should be, two programs at once."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from faults import small_disk, unprivileged
from hostile_audio import CONVERTER, encode, music

import spectrovae.audio.cache
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import Recordings
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.storage import remove_leftovers, replaced_when_complete
from spectrovae.training.resumable import fit_resumably, read_history


@pytest.fixture
def recordings(tmp_path) -> Path:
    """A folder of three recordings of 40 s, whose frames take 640 kB each."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.wav").write_bytes(encode(music(40, seed=seed)))
    return folder


@contextlib.contextmanager
def fail_at(monkeypatch, target: str, call: int):
    """Has the system refuse the `call`-th call of a function of `os` or `Path` in the `with` block."""
    owner, name = (Path, target.removeprefix("Path.")) if target.startswith("Path.") else (os, target)
    real = getattr(owner, name)
    calls = []

    def refuse(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        yield calls


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".lock"}


def test_full_disk_while_decoding(recordings, tmp_path):
    with small_disk(tmp_path) as disk:
        with pytest.raises(OSError, match=r"Free some space.*\.npy"):
            Recordings(recordings, CONVERTER, disk / "cache", verbose=0)
        complete = [np.load(path, allow_pickle=False) for path in (disk / "cache").glob("*.npy")]
        assert all(frames.shape == (5000, 64) for frames in complete)
    # With room the same cache goes on.
    again = Recordings(recordings, CONVERTER, tmp_path / "cache", verbose=0)
    assert len(again.report.used) == 3


def test_full_disk_while_writing_a_sound(tmp_path):
    with small_disk(tmp_path) as disk:
        path = disk / "a.wav"
        write_audio(path, music(1)[:, 0], 8000)
        old = path.read_bytes()
        with pytest.raises(OSError, match=r"Free some space.*a\.wav"):
            write_audio(path, music(100)[:, 0], 8000)
        assert path.read_bytes() == old and visible(disk) == {"a.wav"}


def test_full_disk_while_saving_a_model(make_model, windows, tmp_path):
    with small_disk(tmp_path) as disk:
        filler = disk / "filler"
        history = fit_resumably(make_model(), disk / "out", windows, epochs=1, verbose=0)
        state = {path: path.read_bytes() for path in (disk / "out").iterdir()}
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        if filler.stat().st_size < 600_000:  # only files are bounded, not the disk
            pytest.skip("no disk could be mounted")
        with pytest.raises(OSError, match=r"Free some space.*checkpoint\.keras"):
            fit_resumably(make_model(), disk / "out", windows, epochs=2, verbose=0)
        assert {path: path.read_bytes() for path in (disk / "out").iterdir()} == state
        filler.unlink()
        resumed = fit_resumably(make_model(), disk / "out", windows, epochs=2, verbose=0)
    assert len(resumed["loss"]) == 2 and resumed["loss"][0] == history["loss"][0]


@pytest.mark.parametrize(
    ("target", "call"), [("fsync", 1), ("Path.replace", 1), ("Path.replace", 2), ("Path.replace", 3)]
)
def test_every_writing_of_a_training_may_fail(make_model, windows, tmp_path, monkeypatch, target, call):
    model = make_model()
    fit_resumably(model, tmp_path, windows, epochs=1, verbose=0)
    with fail_at(monkeypatch, target, call) as calls, pytest.raises(OSError, match="Free some space"):
        fit_resumably(model, tmp_path, windows, epochs=2, verbose=0)
    assert len(calls) >= call
    assert visible(tmp_path) == {"checkpoint.keras", "model.keras", "log.csv"}
    for name in ("checkpoint.keras", "model.keras"):
        assert zipfile.ZipFile(tmp_path / name).testzip() is None
    num_epochs = len(read_history(tmp_path)["loss"])
    assert num_epochs == (1 if call == 1 else 2)
    history = fit_resumably(model, tmp_path, windows, epochs=2, verbose=0)
    assert len(history["loss"]) == 2
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert int(saved.optimizer.iterations) == 4  # of the second epoch, whichever file failed


def test_read_only_output_is_told_before_training(make_model, windows, recordings, tmp_path):
    output = tmp_path / "out"
    output.mkdir(mode=0o555)
    model = make_model()
    with unprivileged(tmp_path), pytest.raises(PermissionError, match="Choose a folder that can be written"):
        fit_resumably(model, output, windows, epochs=1, verbose=0)
    assert not model.adapted and int(model.optimizer.iterations) == 0
    with unprivileged(tmp_path), pytest.raises(PermissionError, match="Choose a folder that can be written"):
        Recordings(recordings, CONVERTER, output, verbose=0)


def test_caches_of_other_versions_and_converters_are_not_used(recordings, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = Recordings(recordings, CONVERTER, cache, verbose=0)
    others = {"dynamic_range": 60.0, "hop_length": 32, "sample_rate": 4000, "scale": "linear"}
    for name, value in others.items():
        converter = SpectrogramConverter(**CONVERTER.get_config() | {name: value})
        again = Recordings(recordings, converter, cache, verbose=0)
        fresh = Recordings(recordings, converter, "memory", verbose=0)
        np.testing.assert_array_equal(again.frames(0, 10, 50), fresh.frames(0, 10, 50))
    assert len(list(cache.glob("*.npy"))) == 3 * (1 + len(others))
    monkeypatch.setattr(spectrovae.audio.cache, "_VERSION", 1000)
    assert Recordings(recordings, CONVERTER, cache, verbose=0).report == first.report
    assert len(list(cache.glob("*.npy"))) == 3 * (2 + len(others))


def test_damaged_caches_are_rebuilt(recordings, tmp_path):
    cache = tmp_path / "cache"
    first = Recordings(recordings, CONVERTER, cache, verbose=0)
    expected = first.frames(0, 0, 5000).copy()
    whole = {path: path.read_bytes() for path in cache.iterdir()}
    generator = np.random.default_rng(0)
    pickled = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    damages = [lambda content, size=size: content[:size] for size in generator.integers(0, 640_000, 10)]
    damages += [lambda content: b"", lambda content: content + b"more", lambda content: pickled + b"cos\nsystem\n."]
    damages += [lambda content: content.replace(b"<f2", b"<f8", 1), lambda content: bytes(len(content))]
    for damage in damages:
        for path, content in whole.items():
            path.write_bytes(damage(content))
        again = Recordings(recordings, CONVERTER, cache, verbose=0)
        assert again.report == first.report
        np.testing.assert_array_equal(again.frames(0, 0, 5000), expected)


SHARER = """
import sys
from hostile_audio import CONVERTER
from spectrovae.audio.recordings import Recordings
sys.stdin.readline()
recordings = Recordings(sys.argv[1], CONVERTER, sys.argv[2], verbose=0)
print(recordings.report.num_windows, sum(recordings.frames(i, 0, 5000).astype("f8").sum() for i in range(3)))
"""


@pytest.mark.slow
def test_two_programs_share_a_cache(recordings, tmp_path):
    expected = Recordings(recordings, CONVERTER, "memory", verbose=0)
    total = sum(expected.frames(index, 0, 5000).astype("f8").sum() for index in range(3))
    command = [sys.executable, "-c", SHARER, str(recordings), str(tmp_path / "cache")]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parent}
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(subprocess.Popen(command, **options)) for _ in range(3)]
        answers = [program.communicate("go\n")[0].split() for program in programs]
    assert [int(answer[0]) for answer in answers] == [expected.report.num_windows] * 3
    assert [float(answer[1]) for answer in answers] == [pytest.approx(total)] * 3
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3


def test_what_is_being_written_is_no_leftover(tmp_path):
    stop = threading.Event()

    def clear():
        while not stop.is_set():
            remove_leftovers(tmp_path)

    cleaner = threading.Thread(target=clear)
    cleaner.start()
    try:
        for number in range(300):
            with replaced_when_complete(tmp_path / "file.txt") as part:
                part.write_text(str(number))
    finally:
        stop.set()
        cleaner.join()
    assert (tmp_path / "file.txt").read_text() == "299"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_many_threads_share_a_cache(recordings, tmp_path):
    expected = Recordings(recordings, CONVERTER, "memory", verbose=0).frames(1, 0, 5000)
    barrier = threading.Barrier(6)
    found = []

    def run():
        barrier.wait()
        found.append(Recordings(recordings, CONVERTER, tmp_path / "cache", verbose=0).frames(1, 0, 5000))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(list((tmp_path / "cache").glob("*.npy"))) == 3
    for frames in found:
        np.testing.assert_array_equal(frames, expected)
