"""Tests of `spectrovae.storage`."""

import errno
import os
import resource
import signal
import subprocess
import sys

import pytest
from faults import small_disk, unprivileged

from spectrovae.storage import (
    check_writable,
    raise_if_exhausted,
    remove_leftovers,
    replaced_when_complete,
    temporary_folder,
    used_by_one,
    write_text,
)


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


def test_too_many_open_files_are_told(tmp_path):
    """Libraries tell of other errors then."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match=r"Too many open files.*ulimit -n"):
            raise_if_exhausted(ValueError("System error."))
        with pytest.raises(OSError, match=r"Too many open files.*ulimit -n.*a\.txt"):
            write_text(tmp_path / "a.txt", "new")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with pytest.raises(OSError, match=r"Cannot allocate memory.*Close other programs.*a\.wav"):
        raise_if_exhausted(OSError(errno.ENOMEM, "Cannot allocate memory", "a.wav"))
    raise_if_exhausted(OSError(errno.EIO, "Input/output error", "a.wav"))
    assert os.listdir(tmp_path) == []


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.txt").symlink_to("precious")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "a.txt").is_symlink() and (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_is_used_by_one(tmp_path):
    with used_by_one(tmp_path, "training"):
        message = "Another training is using .*wait for its end"
        with pytest.raises(BlockingIOError, match=message), used_by_one(tmp_path, "training"):
            pass
        assert os.listdir(tmp_path) == []
    with used_by_one(tmp_path, "training"):
        pass
