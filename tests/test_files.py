"""Tests of `spectrovae.files`."""

import os
import signal
import subprocess
import sys

import pytest
from faults import small_disk, unprivileged

from spectrovae.audio.files import find_audio_files
from spectrovae.storage import check_writable, remove_leftovers, replaced_when_complete, temporary_folder


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
    with pytest.raises(ValueError, match=r"No audio file in .*\(1 other files"):
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


def test_full_disk_leaves_the_old_file(tmp_path):
    with small_disk(tmp_path) as disk:
        path = disk / "a.txt"
        path.write_text("old")
        with pytest.raises(OSError, match=r"Free some space.*a\.txt"), replaced_when_complete(path) as part:
            part.write_bytes(bytes(3_000_000))
        assert path.read_text() == "old"
        assert os.listdir(disk) == ["a.txt"]


def test_read_only_folder_is_told_at_once(tmp_path):
    tmp_path.chmod(0o555)
    with unprivileged(tmp_path):
        for folder in (tmp_path, tmp_path / "new"):
            with pytest.raises(PermissionError, match="Choose a folder that can be written"):
                check_writable(folder)
        with pytest.raises(PermissionError, match=r"a\.txt"), replaced_when_complete(tmp_path / "a.txt") as part:
            part.write_text("new")
    assert os.listdir(tmp_path) == []


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"), replaced_when_complete(tmp_path / "a.txt"):
        (tmp_path / "missing").read_text()
    with pytest.raises(OSError, match="^bad packet$"), replaced_when_complete(tmp_path / "a.txt"):
        raise OSError("bad packet")


PROGRAM = """
import sys, time
from pathlib import Path
from spectrovae.storage import replaced_when_complete, temporary_folder
folder, remover = temporary_folder()
with replaced_when_complete(Path(sys.argv[1])) as part:
    part.write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_program_left_is_cleared_away(tmp_path, monkeypatch):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "a.wav")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            folder = process.stdout.readline().strip()
            assert (tmp_path / folder).is_dir()
            present = sorted(os.listdir(tmp_path))
            assert len(present) == 2 and present[0].endswith(".part.wav")
            remove_leftovers(tmp_path)  # the program still runs
            assert sorted(os.listdir(tmp_path)) == present
        finally:
            process.send_signal(signal.SIGKILL)
    assert sorted(os.listdir(tmp_path)) == present
    (tmp_path / ".other.part").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder, remover = temporary_folder()
    assert sorted(os.listdir(tmp_path)) == [".other.part", folder.name]
    remover.close()
    assert os.listdir(tmp_path) == [".other.part"]
