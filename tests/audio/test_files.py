"""Tests of `spectrovae.audio.files`."""

import os

import pytest
from faults import unprivileged

from spectrovae.audio.files import find_audio_files


def test_finds_files_in_folders(tmp_path):
    for name in ("b.WAV", "sub/a.flac", "sub/deep/ä.Mp3", "x.txt", ".hidden.wav", ".git/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav" / "sub").mkdir(parents=True)
    (tmp_path / "folder.wav" / "sub" / "d.wav").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio_files(tmp_path)]
    assert found == ["b.WAV", "folder.wav/sub/d.wav", "sub/a.flac", "sub/deep/ä.Mp3"]
    assert find_audio_files([tmp_path / "sub", str(tmp_path)]) == find_audio_files(str(tmp_path))
    # A file given by its own path is taken whatever it is called.
    assert find_audio_files([tmp_path / "x.txt", tmp_path / ".hidden.wav"]) == [
        tmp_path / ".hidden.wav",
        tmp_path / "x.txt",
    ]


def test_links_are_followed_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "y.wav").symlink_to(tmp_path / "a" / "x.wav")
    (tmp_path / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    assert find_audio_files(tmp_path) == [tmp_path / "a" / "x.wav", tmp_path / "broken.wav"]


def test_nothing_found(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"No audio file in .*\(other files: 1 \.txt;"):
        find_audio_files(tmp_path)
    with pytest.raises(ValueError, match="no path at all"):
        find_audio_files([])
    with pytest.raises(FileNotFoundError, match="missing"):
        find_audio_files(tmp_path / "missing")


def test_what_is_no_file_is_listed_so_that_reading_tells(tmp_path):
    for name in ("locked", "empty.wav", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty.wav" / "notes.txt").touch()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "own.wav").symlink_to(tmp_path / "own.wav")
    (tmp_path / "locked").chmod(0)
    with unprivileged(tmp_path):
        found = [path.name for path in find_audio_files(tmp_path)]
    assert found == ["empty.wav", "locked", "own.wav", "pipe.wav"]
    assert find_audio_files(tmp_path / "own.wav") == [tmp_path / "own.wav"]


def test_folder_whose_files_may_be_listed_but_not_looked_at(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.wav").touch()
    (tmp_path / "sub").chmod(0o444)
    with unprivileged(tmp_path):
        assert [path.name for path in find_audio_files(tmp_path)] == ["a.wav"]
