"""Tests of `spectrovae.files`."""

import logging
import os

import pytest

from spectrovae.files import find_audio_files, replaced_when_complete


def test_finds_files_in_folders(tmp_path):
    for name in ("b.WAV", "sub/a.flac", "sub/deep/ä.Mp3", "x.txt", ".hidden.wav", ".git/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio_files(tmp_path)]
    assert found == ["b.WAV", "sub/a.flac", "sub/deep/ä.Mp3"]
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
    with pytest.raises(ValueError, match=r"No audio file in .*\(1 other files"):
        find_audio_files(tmp_path)
    with pytest.raises(ValueError, match="no path at all"):
        find_audio_files([])
    with pytest.raises(FileNotFoundError, match="missing"):
        find_audio_files(tmp_path / "missing")


def test_folder_that_cannot_be_searched_is_logged(tmp_path, monkeypatch, caplog):
    (tmp_path / "a.wav").touch()
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with caplog.at_level(logging.WARNING, "spectrovae"):
        assert find_audio_files(tmp_path) == [tmp_path / "a.wav"]
    assert "locked" in caplog.text


def test_file_is_replaced_when_complete(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced_when_complete(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with replaced_when_complete(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(FileNotFoundError, match="create it first"), replaced_when_complete(path / "b" / "c"):
        pass
