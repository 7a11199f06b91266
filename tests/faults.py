"""Faults for the tests: full disks, folders that may not be written, programs that are killed."""

import contextlib
import os
import resource
import signal
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from spectrovae.audio.io import read_blocks

NOBODY = 65534


@contextlib.contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Makes permissions count in the `with` block, also where the tests run as root; `folder` can be reached in it."""
    if os.geteuid() != 0:
        yield
        return
    modes = {parent: parent.stat().st_mode & 0o777 for parent in (folder, *folder.parents)}
    for parent, mode in modes.items():
        parent.chmod(mode | (0o055 if parent == folder else 0o011))
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in modes.items():
            parent.chmod(mode)


@contextlib.contextmanager
def small_disk(folder: Path, size: int = 1 << 20) -> Iterator[Path]:
    """Makes a disk of `size` bytes and gives its folder.

    Where no disk may be mounted, no file in the `with` block can grow over half of that: the system refuses it in the
    same way, whatever library writes.
    """
    disk = folder / "small_disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    with contextlib.suppress(FileNotFoundError):
        if os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0:
            try:
                yield disk
            finally:
                subprocess.run(["umount", "-l", str(disk)], check=True)
            return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        yield disk
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def measured_reading(path: Path) -> tuple[int, int]:
    """Reads a file block by block; returns the number of samples at 22,050 Hz and the peak of memory in bytes."""
    tracemalloc.start()
    try:
        num_samples = sum(len(block) for block in read_blocks(path, 22050))
        return num_samples, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
