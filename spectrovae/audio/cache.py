"""Decoded recordings on the disk: their frames as an array, and what was found out about them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.storage import replaced_when_complete

# Part of every cache file's name: raise it when the content of cache files changes.
_VERSION = 2

# A program that fills the disk hinders all others. How much stays free, and after how many bytes it is looked.
_LEAST_FREE = 64 << 20
_CHECK_INTERVAL = 32 << 20

_LARGEST_FACTS = 1 << 20  # bytes


@dataclass(frozen=True)
class DecodingFacts:
    """What was found out about a recording while it was decoded.

    Attributes:
        notes: What is odd about it, for people.
        floor: Share of its pixels that lie on the floor of the converter.
        gain: Decibels by which it was made louder.
    """

    notes: tuple[str, ...] = ()
    floor: float = 0.0
    gain: float = 0.0


class CachedFrames(NamedTuple):
    """Where the frames of a recording lie on the disk."""

    path: Path
    shape: tuple[int, int]
    offset: int

    def map(self) -> np.ndarray:
        """Return the frames, float16 `(frames, bins)`."""
        # Mapped anew each time and let go after use: pages that stay mapped would count as the program's memory.
        return np.memmap(self.path, np.float16, "r", self.offset, self.shape)


def name_cache_file(path: Path, converter: SpectrogramConverter, loop_short_files: bool, normalize: str | None) -> str:
    """Return a name that changes with everything that the content depends on.

    Raises:
        OSError: If the recording is not there.
    """
    settings = converter.get_config()
    del settings["num_iterations"]
    status = path.stat()
    facts = [_VERSION, str(path.resolve()), status.st_size, status.st_mtime_ns, settings, loop_short_files, normalize]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest() + ".npy"


def find_cached(path: Path, num_bins: int) -> tuple[CachedFrames, DecodingFacts] | None:
    """Return a cache file's frames and facts if they are there and whole.

    NumPy reads headers with Python's own parser, which fails now and then when two threads use it at once ("AST
    constructor recursion depth mismatch", Python 3.11). Here it is known what the header must be.
    """
    offset = len(_header(0, num_bins))
    try:
        num_frames, rest = divmod(_size(path) - offset, num_bins * np.dtype(np.float16).itemsize)
        with path.open("rb") as file:
            is_whole = not rest and num_frames > 0 and file.read(offset) == _header(num_frames, num_bins)
        facts = _read_facts(path.with_suffix(".json"))
    except (OSError, ValueError, TypeError):
        return None
    return (CachedFrames(path, (num_frames, num_bins), offset), facts) if is_whole else None


def _size(path: Path) -> int:
    """Return the size of a regular file: links are not followed, and reading a pipe would wait for ever."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file.")
    return status.st_size


def _read_facts(path: Path) -> DecodingFacts:
    if _size(path) > _LARGEST_FACTS:
        raise ValueError(f"{path} is too large.")
    content = json.loads(path.read_text(encoding="utf-8"))
    notes, floor, gain = content["notes"], float(content["floor"]), float(content["gain"])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError(f"No notes in {path}.")
    return DecodingFacts(tuple(notes), floor, gain)


def write_facts(path: Path, facts: DecodingFacts) -> None:
    """Write what was found out about a recording beside its cache file, before that is complete."""
    with replaced_when_complete(path.with_suffix(".json"), is_private=True) as part:
        part.write_text(json.dumps(asdict(facts)), encoding="utf-8")


def write_frames(path: Path, blocks: Iterable[np.ndarray], num_bins: int, recording: Path) -> None:
    """Write blocks (frames, bins) as one `.npy` file; the header again when their number is known.

    Raises:
        OSError: If the disk is full, or nearly so; the message names the recording.
    """
    num_frames = num_unchecked = 0
    with path.open("wb") as file:
        file.write(_header(num_frames, num_bins))
        for block in blocks:
            num_unchecked += block.nbytes
            if num_unchecked > _CHECK_INTERVAL:
                num_unchecked = 0
                disk = shutil.disk_usage(path.parent)
                if disk.free < min(_LEAST_FREE, disk.total // 50):
                    raise OSError(errno.ENOSPC, f"The disk is nearly full while {recording} is decoded")
            file.write(block.tobytes())
            num_frames += len(block)
        file.seek(0)
        file.write(_header(num_frames, num_bins))


def _header(num_frames: int, num_bins: int) -> bytes:
    # NumPy leaves room for the first axis to grow: the header's length does not depend on it.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f2", "fortran_order": False, "shape": (num_frames, num_bins)}
    )
    return header.getvalue()
