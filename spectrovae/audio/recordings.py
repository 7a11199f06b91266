"""Recordings decoded once into a cache, and what became of each file."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import unicodedata
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from spectrovae.audio.files import find_audio_files
from spectrovae.audio.io import read_blocks
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.storage import PathLike, check_writable, remove_leftovers, replaced_when_complete, temporary_folder


@dataclass(frozen=True)
class Recording:
    """A file that is used.

    Attributes:
        path: The file.
        num_frames: Its length in spectrogram frames.
        num_windows: How many windows that do not overlap it holds.
        seconds: Its length in seconds.
    """

    path: Path
    num_frames: int
    num_windows: int
    seconds: float


@dataclass(frozen=True)
class LeftOutFile:
    """A file that is not used.

    Attributes:
        path: The file.
        reason: Why: unreadable, empty, too short or silent, with the details.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class WindowPosition:
    """Where a window comes from.

    Attributes:
        path: The file.
        start: First second of the window.
    """

    path: Path
    start: float


@dataclass(frozen=True)
class RecordingsReport:
    """What became of the files that were found: each is either used or left out for a reason.

    `str(report)` is a summary for people; odd characters of file names are escaped in it.

    Attributes:
        used: The files that are used, in order.
        left_out: The files that are not.
        window_duration: Length of a window in seconds.

    Example:
        >>> recording = Recording(Path("tone.wav"), num_frames=200, num_windows=3, seconds=1.6)
        >>> left_out = LeftOutFile(Path("b.wav"), "silent")
        >>> report = RecordingsReport((recording,), (left_out,), window_duration=0.512)
        >>> print(report)
        1 of 2 files used: 3 windows of 0.5 s, 1.6 s in all. 1 file left out:
          b.wav: silent
        >>> report.windows[1].start
        0.512
    """

    used: tuple[Recording, ...]
    left_out: tuple[LeftOutFile, ...]
    window_duration: float

    @property
    def num_windows(self) -> int:
        """Windows in all used files."""
        return sum(recording.num_windows for recording in self.used)

    @property
    def seconds(self) -> float:
        """Length of all used files in seconds."""
        return sum(recording.seconds for recording in self.used)

    @property
    def windows(self) -> list[WindowPosition]:
        """Consecutive windows of all used files, as a dataset without random offsets and shuffling gives."""
        return [
            WindowPosition(recording.path, index * self.window_duration)
            for recording in self.used
            for index in range(recording.num_windows)
        ]

    def __str__(self) -> str:
        num_files = len(self.used) + len(self.left_out)
        lines = [
            f"{len(self.used)} of {_count(num_files, 'file')} used: {_count(self.num_windows, 'window')} of "
            f"{self.window_duration:.1f} s, {_duration(self.seconds)} in all."
        ]
        if self.left_out:
            lines[0] += f" {_count(len(self.left_out), 'file')} left out:"
            lines += [f"  {printable(file.path)}: {printable(file.reason)}" for file in self.left_out]
        return "\n".join(lines)


def printable(text: object) -> str:
    r"""Return a text on one line that every terminal and encoding takes: odd characters are escaped.

    File names may hold line breaks, control characters and bytes that are no text.

    Example:
        >>> print(printable(Path("größe\n\udcff\x1b[31m.wav")))
        größe\n\udcff\x1b[31m.wav
    """
    return "".join(
        character if character.isprintable() or unicodedata.category(character) == "Zs" else ascii(character)[1:-1]
        for character in str(text)
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


logger = logging.getLogger(__name__)

# Part of every cache file's name: raise it when the content of cache files changes.
_CACHE_VERSION = 1


class Recordings:
    """The spectrogram frames of a collection of audio files, decoded once.

    Frames are kept as float16 (0.02 dB of a range of 80 dB): 88 kB for a second of sound with the default
    converter, 317 MB for an hour. On disk, they are one `.npy` file of shape `(frames, bins)` per recording,
    written block by block: the memory needed grows neither with a file nor with the collection. A file's name
    is made of path, size and time of the recording and of the converter's settings, so that a changed
    recording is decoded again.

    Args:
        path_or_paths: Files and folders, as in `find_audio_files`.
        converter: The `SpectrogramConverter`.
        cache: `"disk"`: a temporary folder (in `tempfile.gettempdir()`) that goes with this object, at the
            latest at the end of the program. `"memory"`: no files. A path: a folder that is kept, made if
            need be, and used again by the next run.
        loop_short_files: Repeats a file that is shorter than a window until it fills one; else it is left
            out.
        verbose: 1 for a progress bar, 0 for none.

    Attributes:
        report: The `RecordingsReport`.

    Raises:
        FileNotFoundError: If a given path does not exist.
        ValueError: If no file can be used; the message says what was found.

    Example:
        >>> from spectrovae.audio.io import write_audio
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=64, num_frames=64)
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_audio(Path(folder, "tone.wav"), 0.5 * np.sin(np.arange(20000)), sample_rate=8000)
        ...     recordings = Recordings(folder, converter, cache="memory", verbose=0)
        >>> recordings.report.num_windows, recordings.frames(0, start=100, num_frames=64).shape
        (4, (64, 64))
    """

    def __init__(
        self,
        path_or_paths: PathLike | Iterable[PathLike],
        converter: SpectrogramConverter,
        cache: PathLike = "disk",
        loop_short_files: bool = False,
        verbose: int = 1,
    ) -> None:
        self.converter = converter
        self.loop_short_files = loop_short_files
        paths = find_audio_files(path_or_paths)
        self._folder = self._make_folder(cache)
        self._sources: list[_CacheFile | np.ndarray] = []
        used: list[Recording] = []
        left_out: list[LeftOutFile] = []
        progress = keras.utils.Progbar(len(paths), verbose=verbose, unit_name="file")
        for path in paths:
            try:
                source = self._decode(path)
                used.append(self._describe(path, source))
                self._sources.append(source)
            except _UnusableError as error:
                left_out.append(LeftOutFile(path, str(error)))
            progress.add(1)
        self.report = RecordingsReport(tuple(used), tuple(left_out), converter.window_duration)
        if not used:
            raise ValueError(f"No file can be used. {self.report}")
        logger.log(logging.WARNING if left_out else logging.INFO, "%s", self.report)

    def frames(self, index: int, start: int, num_frames: int) -> np.ndarray:
        """Return frames of one used file.

        Args:
            index: Position of the file in `report.used`.
            start: First frame.
            num_frames: How many.

        Returns:
            float16, shape `(num_frames, bins)`.
        """
        source = self._sources[index]
        return (source if isinstance(source, np.ndarray) else source.map())[start : start + num_frames]

    def _make_folder(self, cache: PathLike) -> Path | None:
        if cache == "memory":
            return None
        if cache == "disk":
            folder, remover = temporary_folder()
            weakref.finalize(self, remover.close)
            return folder
        check_writable(Path(cache))
        remove_leftovers(Path(cache))
        return Path(cache)

    def _decode(self, path: Path) -> _CacheFile | np.ndarray:
        """Decode one file; returns its frames, or the cache file that holds them."""
        if self._folder is None:
            return np.concatenate(list(self._read(path)))
        cached = self._folder / f"{self._fingerprint(path)}.npy"
        if (found := _find_frames(cached, self.converter.num_bins)) is not None:
            return found
        with replaced_when_complete(cached) as part:
            _write_frames(part, self._read(path), self.converter.num_bins)
        if (written := _find_frames(cached, self.converter.num_bins)) is None:
            raise OSError(
                f"{cached} was damaged or removed while it was written. Start again, or choose another cache."
            )
        return written

    def _read(self, path: Path) -> Iterator[np.ndarray]:
        """Yield the frames of one file as float16 (frames, bins), block by block."""
        is_silent = True
        try:
            blocks = self._long_enough(read_blocks(path, self.converter.sample_rate))
            for frames in self.converter.stream(blocks):
                is_silent = is_silent and not frames.any()
                yield frames.astype(np.float16)
        except (OSError, ValueError) as error:
            raise _UnusableError(f"unreadable: {error}") from error
        if is_silent:
            raise _UnusableError("silent: never above the floor of the converter")

    def _long_enough(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on a waveform's blocks; one shorter than a window is repeated or refused."""
        window_length = self.converter.window_length
        head: list[np.ndarray] = []
        num_samples = 0
        while num_samples < window_length and (block := next(blocks, None)) is not None:
            head.append(block)
            num_samples += len(block)
        if num_samples == 0:
            raise _UnusableError("empty: no samples")
        if num_samples >= window_length:
            return itertools.chain(head, blocks)
        if not self.loop_short_files:
            raise _UnusableError(
                f"too short: {num_samples / self.converter.sample_rate:.2f} s, a window is "
                f"{self.converter.window_duration:.2f} s (loop_short_files=True repeats it)"
            )
        return iter([np.resize(np.concatenate(head), window_length)])

    def _fingerprint(self, path: Path) -> str:
        """Name of the cache file: changes with everything that its content depends on."""
        settings = self.converter.get_config()
        del settings["num_iterations"]
        try:
            status = path.stat()
        except OSError as error:
            raise _UnusableError(f"unreadable: {error}") from error
        facts = [_CACHE_VERSION, str(path.resolve()), status.st_size, status.st_mtime_ns, settings]
        return hashlib.sha256(json.dumps([*facts, self.loop_short_files], sort_keys=True).encode()).hexdigest()

    def _describe(self, path: Path, source: _CacheFile | np.ndarray) -> Recording:
        num_frames = source.shape[0]
        seconds = num_frames * self.converter.hop_length / self.converter.sample_rate
        return Recording(path, num_frames, num_frames // self.converter.num_frames, seconds)


class _UnusableError(Exception):
    """A file cannot be used; the message is the reason."""


class _CacheFile(NamedTuple):
    """Where the frames of a recording lie on the disk."""

    path: Path
    shape: tuple[int, int]
    offset: int

    def map(self) -> np.ndarray:
        # Mapped anew each time and let go after use: pages that stay mapped would count as the program's memory.
        return np.memmap(self.path, np.float16, "r", self.offset, self.shape)


def _find_frames(path: Path, num_bins: int) -> _CacheFile | None:
    """Return a cache file's frames if it is there and whole.

    NumPy reads headers with Python's own parser, which fails now and then when two threads use it at once ("AST
    constructor recursion depth mismatch", Python 3.11). Here it is known what the header must be.
    """
    offset = len(_header(0, num_bins))
    try:
        num_frames, rest = divmod(path.stat().st_size - offset, num_bins * np.dtype(np.float16).itemsize)
        with path.open("rb") as file:
            is_whole = not rest and num_frames > 0 and file.read(offset) == _header(num_frames, num_bins)
    except OSError:
        return None
    return _CacheFile(path, (num_frames, num_bins), offset) if is_whole else None


def _write_frames(path: Path, blocks: Iterable[np.ndarray], num_bins: int) -> None:
    """Write blocks (frames, bins) as one `.npy` file; the header again when their number is known."""
    num_frames = 0
    with path.open("wb") as file:
        file.write(_header(num_frames, num_bins))
        for block in blocks:
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


def read_window(path: PathLike, converter: SpectrogramConverter, start: float = 0.0) -> np.ndarray:
    """Read as much of a recording as one window holds.

    Args:
        path: An audio file.
        converter: Decides the sample rate and the length.
        start: First second.

    Returns:
        float32 `(converter.window_length,)`. A recording that ends sooner is repeated from `start`.

    Raises:
        ValueError: If the file cannot be decoded, or ends before `start`.

    Example:
        >>> import tempfile
        >>> from spectrovae.audio.io import write_audio
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=32, num_frames=64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_audio(f"{folder}/tone.wav", 0.5 * np.sin(np.arange(8000)), sample_rate=8000)
        ...     read_window(f"{folder}/tone.wav", converter, start=0.5).shape
        (2048,)
    """
    num_skipped = round(start * converter.sample_rate)
    num_read, kept = 0, [np.zeros(0, np.float32)]  # block by block, since a recording may be hours long
    for block in read_blocks(path, converter.sample_rate):
        kept.append(block[max(0, num_skipped - num_read) :])
        num_read += len(block)
        if num_read >= num_skipped + converter.window_length:
            break
    waveform = np.concatenate(kept)
    if start < 0 or not len(waveform):
        raise ValueError(
            f"`start` must lie within {path}, which is {num_read / converter.sample_rate:.1f} s long. "
            f"Received: start={start!r}"
        )
    return np.resize(waveform, converter.window_length)
