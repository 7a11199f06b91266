"""Tests of `spectrovae.audio.cache`: what others put into a cache, or take out of it while it is used."""

import contextlib
import gc
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile_audio import CONVERTER, encode, music

from spectrovae.audio.dataset import audio_dataset
from spectrovae.audio.recordings import Recordings


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of two recordings."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.wav").write_bytes(encode(music(3, seed=seed)))
    return folder


def read(folder: Path, cache: Path) -> list[np.ndarray]:
    recordings = Recordings(folder, CONVERTER, cache, verbose=0)
    assert len(recordings.report.used) == 2
    return [recordings.frames(index, 0, 1000).copy() for index in range(2)]


def link_to_file(path: Path, other: Path) -> None:
    path.symlink_to(other)


def link_to_whole_file(path: Path, other: Path) -> None:
    """A link to what is whole, but not in the cache."""
    copy = other.with_name(f"copy{path.suffix}")
    shutil.copy(path.with_name(f"{path.name}.whole"), copy)
    path.symlink_to(copy)


def link_to_nothing(path: Path, other: Path) -> None:
    path.symlink_to(other.with_name("nothing"))


def pipe(path: Path, other: Path) -> None:
    os.mkfifo(path)  # reading it would wait for ever


@pytest.mark.parametrize("plant", [link_to_file, link_to_whole_file, link_to_nothing, pipe])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_links_and_pipes_in_a_cache_are_replaced_and_never_followed(folder, tmp_path, plant, suffix):
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    expected = read(folder, cache)
    outside.mkdir()
    other = outside / "precious"
    other.write_text("precious")
    for path in list(cache.glob(f"*{suffix}")):
        path.rename(path.with_name(f"{path.name}.whole"))
        plant(path, other)
        path.with_name(f"{path.name}.whole").unlink()
    before = {path: path.read_bytes() for path in outside.iterdir()}
    for found, frames in zip(read(folder, cache), expected, strict=True):
        np.testing.assert_array_equal(found, frames)
    assert {path: path.read_bytes() for path in outside.iterdir()} == before
    assert all(path.is_file() and not path.is_symlink() for path in cache.iterdir())


def test_what_others_keep_in_a_cache_stays(folder, tmp_path):
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    outside.mkdir()
    (outside / ".lock").touch()
    (outside / "precious").write_text("precious")
    cache.mkdir()
    names = ("notes.txt", ".hidden", ".spectrovae-1.part.npy", f"{64 * 'f'}.npy", ".spectrovae-other.part")
    for name in names:
        (cache / name).write_text(name)
    for name in ("spectrovae-experiments", "spectrovae-backup"):  # as temporary folders are called
        (cache / name).mkdir()
        (cache / name / ".lock").write_text("" if name.endswith("backup") else "a lock of another program")
        (cache / name / "precious").write_text("precious")
    (cache / "spectrovae-link").symlink_to(outside)
    (cache / f".spectrovae-{32 * '0'}.part.npy").symlink_to(outside / "precious")
    read(folder, cache)
    read(folder, cache)
    assert all((cache / name).read_text() == name for name in names)
    for place in (cache / "spectrovae-experiments", cache / "spectrovae-backup", cache / "spectrovae-link"):
        assert (place / "precious").read_text() == "precious"
    assert len(list(cache.iterdir())) == len(names) + 2 + 2 + 4


def remove_files(cache: Path) -> None:
    for path in cache.iterdir():
        path.unlink()


def truncate_files(cache: Path) -> None:
    for path in cache.glob("*.npy"):
        os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [shutil.rmtree, remove_files, truncate_files])
def test_a_cache_that_goes_while_it_is_used_is_made_again(folder, tmp_path, harm: Callable[[Path], None], caplog):
    cache = tmp_path / "cache"
    options = {"random_offset": False, "shuffle": False, "verbose": 0}
    dataset = audio_dataset(folder, CONVERTER, batch_size=2, cache=cache, **options)
    expected = np.concatenate(list(dataset))
    harm(cache)
    np.testing.assert_array_equal(np.concatenate(list(dataset)), expected)
    assert caplog.text.count("were removed or damaged: decoding it again") == 2
    assert cache.stat().st_mode & 0o077 == 0


def test_recordings_are_not_needed_while_their_frames_are_there(folder, tmp_path):
    for cache in (tmp_path / "cache", "disk"):
        dataset = audio_dataset(folder, CONVERTER, shuffle=False, seed=0, cache=cache, verbose=0)
        first = len(np.concatenate(list(dataset)))
        for path in folder.iterdir():
            path.rename(path.with_suffix(".gone"))
        assert len(np.concatenate(list(dataset))) == first
        for path in folder.iterdir():
            path.rename(path.with_suffix(".wav"))


def test_frames_that_are_gone_with_their_recording_are_told_of(folder, tmp_path):
    cache = tmp_path / "cache"
    recordings = Recordings(folder, CONVERTER, cache, verbose=0)
    shutil.rmtree(cache)
    (folder / "0.wav").unlink()
    with pytest.raises(OSError, match=r"0\.wav were removed or damaged, and .* \(unreadable: .*No such file"):
        recordings.frames(0, 0, 10)
    (folder / "1.wav").write_bytes(encode(music(4, seed=7)))
    with pytest.raises(OSError, match=r"1\.wav were removed or damaged, and .* \(it has changed\)"):
        recordings.frames(1, 0, 10)


@pytest.fixture
def limit_open_files():
    """A function that lets this process open so many files more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(number: int) -> None:
        gc.collect()  # what earlier tests left open would be closed at any time
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(number):
            os.close(held.pop())

    held: list[int] = []
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
@pytest.mark.parametrize("cache", ["memory", "kept"])
def test_too_many_open_files_are_not_blamed_on_recordings(folder, tmp_path, limit_open_files, cache):
    """With few that may be opened it works, and with none no recording is left out in silence."""
    (folder / "tone.mp3").write_bytes((folder / "0.wav").read_bytes())  # one that is decoded in another way
    Recordings(folder, CONVERTER, "memory", verbose=0)  # what is imported late
    place = tmp_path / "cache" if cache == "kept" else cache
    outcomes = []
    for number in (40, 6, 3, 2, 1, 0):
        limit_open_files(number)
        try:
            outcomes.append(len(Recordings(folder, CONVERTER, place, verbose=0).report.used))
        except OSError as error:
            assert "Too many open files" in str(error), error
            outcomes.append("told")
        if cache == "kept":
            shutil.rmtree(place, ignore_errors=True)
    assert outcomes[0] == 3 and outcomes[-1] == "told" and set(outcomes) == {3, "told"}


def test_a_cache_needs_no_temporary_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    with pytest.raises(FileNotFoundError, match=r"No usable temporary directory.*TMPDIR"):
        Recordings(folder, CONVERTER, "disk", verbose=0)
    for cache in ("memory", tmp_path / "cache"):
        assert len(Recordings(folder, CONVERTER, cache, verbose=0).report.used) == 2
    soundfile.write(folder / "0.wav", np.zeros(10), 8000)
    (folder / "broken.m4a").write_bytes(b"no sound, which ffmpeg tells" * 100)
    report = Recordings(folder, CONVERTER, "memory", verbose=0).report
    assert {file.path.name: file.reason[:12] for file in report.left_out} == {
        "0.wav": "too short: 0",
        "broken.m4a": "unreadable: ",
    }
    assert "ffmpeg" in report.left_out[1].reason and "temporary" not in report.left_out[1].reason
    # One that went after it was found.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"No such file.*TMPDIR.*nowhere"):
        Recordings(folder, CONVERTER, "disk", verbose=0)
