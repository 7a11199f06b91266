"""Recordings decoded once into a cache, and what became of each file."""

from __future__ import annotations

import logging
import os
import statistics
import threading
import unicodedata
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from spectrovae.audio.cache import (
    CachedFrames,
    DecodingFacts,
    find_cached,
    name_cache_file,
    write_facts,
    write_frames,
)
from spectrovae.audio.files import search_audio_files
from spectrovae.audio.frames import FrameDecoding, UnusableError
from spectrovae.audio.io import read_blocks
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.storage import (
    PathLike,
    check_writable,
    clear_on_sigterm,
    remove_leftovers,
    replaced_when_complete,
    temporary_folder,
)

# Of the files that are left out, or odd, a report names so many.
_MAX_NAMED = 10

# Threads, each of which decodes a file.
_NUM_DECODERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@dataclass(frozen=True)
class Recording:
    """A file that is used.

    Attributes:
        path: The file.
        num_frames: Its length in spectrogram frames.
        num_windows: How many windows that do not overlap it holds.
        seconds: Its length in seconds.
        notes: What is odd about it: a header that is wrong, damage, channels that cancel or have no signal, samples
            beyond full scale, a sound that hardly rises above the floor of the converter.
        floor: Share of its pixels that lie on the floor of the converter, in [0, 1].
        gain: Decibels by which it was made louder, with `normalize="file"`. What is generated from it can be brought
            back with `waveform * 10 ** (-gain / 20)`.
    """

    path: Path
    num_frames: int
    num_windows: int
    seconds: float
    notes: tuple[str, ...] = ()
    floor: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True)
class LeftOutFile:
    """A file that is not used.

    Attributes:
        path: The file.
        reason: Why: unreadable, empty, too short or silent, with the details.
        seconds: Its length in seconds, if it is too short.
    """

    path: Path
    reason: str
    seconds: float | None = None


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

    `str(report)` is a summary for people, which names ten files of each kind at most; odd characters of file names are
    escaped in it.

    Attributes:
        used: The files that are used, in order; `notes` of each say what is odd about it.
        left_out: The files that are not.
        window_duration: Length of a window in seconds.
        passed_over: Endings of the other files in the folders, and how many there are of each, the most frequent first.

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
    passed_over: tuple[tuple[str, int], ...] = ()

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

    def __repr__(self) -> str:
        num_files = len(self.used) + len(self.left_out)
        lines = [
            f"{len(self.used)} of {_count(num_files, 'file')} used: {_count(self.num_windows, 'window')} of "
            f"{self.window_duration:.1f} s, {_duration(self.seconds)} in all."
        ]
        if self.left_out:
            lines[0] += f" {_count(len(self.left_out), 'file')} left out:"
            lines += _first_lines([(file.path, file.reason) for file in self.left_out])
        short = [file.seconds for file in self.left_out if file.seconds]
        if len(short) > len(self.used):
            seconds = statistics.median(short)
            lines.append(
                f"{_count(len(short), 'file')} shorter than a window. For short sounds such as drum hits use "
                f"SpectrogramConverter.for_clips({seconds:.2g}), or loop_short_files=True to repeat each"
            )
        odd = [file for file in self.used if file.notes]
        if odd:
            lines.append(f"{_count(len(odd), 'used file')} to look at:")
            lines += _first_lines([(file.path, "; ".join(file.notes)) for file in odd])
        if self.passed_over:
            endings = [f"{number} {printable(ending)}" for ending, number in self.passed_over[:_MAX_NAMED]]
            endings += ["..."] if len(self.passed_over) > _MAX_NAMED else []
            number = sum(number for _, number in self.passed_over)
            lines.append(f"{_count(number, 'other file')} passed over by ending: {', '.join(endings)}")
        return "\n".join(lines)


def _first_lines(files: list[tuple[Path, str]]) -> list[str]:
    lines = [f"  {printable(path)}: {printable(text)}" for path, text in files[:_MAX_NAMED]]
    if len(files) > _MAX_NAMED:
        lines.append(f"  ... and {len(files) - _MAX_NAMED} more (`dataset_report` has all)")
    return lines


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


class Recordings:
    """The spectrogram frames of a collection of audio files, decoded once.

    Files are decoded in parallel, one per processor. Frames are kept as float16 (0.02 dB of a range of 80 dB): 88 kB
    for a second of sound with the default converter, 317 MB for an hour. On disk, they are one `.npy` file of shape
    `(frames, bins)` per recording, written block by block: the memory needed grows neither with a file nor with the
    collection. A file's name is made of path, size and time of the recording and of the settings, so that a changed
    recording is decoded again; a `.json` file beside it holds what was found out.

    Args:
        path_or_paths: Files and folders, as in `find_audio_files`.
        converter: The `SpectrogramConverter`.
        cache: `"disk"`: a temporary folder (in `tempfile.gettempdir()`) that goes with this object, at the
            latest at the end of the program. `"memory"`: no files. A path: a folder that is kept, made if
            need be, and used again by the next run. Other users may not read what is in it.
        loop_short_files: Repeats a file that is shorter than a window until it fills one; else it is left
            out.
        verbose: 1 for a progress bar, 0 for none.
        normalize: `"file"` brings all files to one loudness, -20 dB (root mean square of the file, 0 dB being full
            scale), but none beyond a peak of full scale, and none up by more than 60 dB. `None`: as they are.

    Attributes:
        report: The `RecordingsReport`.

    Raises:
        FileNotFoundError: If a given path does not exist.
        OSError: If the cache cannot be written, or the disk is nearly full.
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
        normalize: str | None = None,
    ) -> None:
        if normalize not in (None, "file"):
            raise ValueError(f'`normalize` must be None or "file". Received: normalize={normalize!r}')
        self.converter = converter
        self.loop_short_files = loop_short_files
        self.normalize = normalize
        paths, passed_over = search_audio_files(path_or_paths)
        self._folder = self._make_folder(cache)
        self._lock = threading.Lock()
        self._sources: list[CachedFrames | np.ndarray] = []
        used: list[Recording] = []
        left_out: list[LeftOutFile] = []
        for path, outcome in zip(paths, self._decode_all(paths, verbose), strict=True):
            if isinstance(outcome, LeftOutFile):
                left_out.append(outcome)
            else:
                source, facts = outcome
                num_frames = source.shape[0]
                seconds = num_frames * converter.hop_length / converter.sample_rate
                num_windows = num_frames // converter.num_frames
                used.append(Recording(path, num_frames, num_windows, seconds, facts.notes, facts.floor, facts.gain))
                self._sources.append(source)
        self.report = RecordingsReport(tuple(used), tuple(left_out), converter.window_duration, passed_over)
        if not used:
            raise ValueError(f"No file can be used. {self.report}")
        is_odd = left_out or any(recording.notes for recording in used)
        logger.log(logging.WARNING if is_odd else logging.INFO, "%s", self.report)

    def frames(self, index: int, start: int, num_frames: int) -> np.ndarray:
        """Return frames of one used file.

        Args:
            index: Position of the file in `report.used`.
            start: First frame.
            num_frames: How many.

        Returns:
            float16, shape `(num_frames, bins)`.

        Raises:
            OSError: If the cache file was removed, and the recording has changed or cannot be decoded again.
        """
        source = self._sources[index]
        if isinstance(source, np.ndarray):
            return source[start : start + num_frames]
        try:
            frames = source.map()
        except (OSError, ValueError):  # those who clear temporary folders away may have removed it
            frames = self._decode_again(index, source).map()
        return frames[start : start + num_frames]

    def _decode_again(self, index: int, lost: CachedFrames) -> CachedFrames:
        """Decode a used file whose cache file was removed or damaged; an OSError says so if that file has changed."""
        path = self.report.used[index].path
        with self._lock:  # many threads ask for frames: the first one decodes
            if find_cached(lost.path, self.converter.num_bins) is not None:
                return lost
            logger.warning("The decoded frames of %s were removed or damaged: decoding it again.", printable(path))
            check_writable(lost.path.parent, is_private=True)
            outcome = self._decode(path, threading.Event())
        if isinstance(outcome, LeftOutFile) or outcome[0] != lost:
            reason = outcome.reason if isinstance(outcome, LeftOutFile) else "it has changed"
            raise OSError(
                f"The decoded frames of {printable(path)} were removed or damaged, and the recording cannot be decoded "
                f"again ({printable(reason)}). Start again."
            )
        return lost

    def _make_folder(self, cache: PathLike) -> Path | None:
        if cache == "memory":
            return None
        if cache == "disk":
            folder, remover = temporary_folder()
            weakref.finalize(self, remover.close)
            return folder
        check_writable(Path(cache), is_private=True)
        remove_leftovers(Path(cache))
        return Path(cache)

    def _decode_all(
        self, paths: list[Path], verbose: int
    ) -> list[tuple[CachedFrames | np.ndarray, DecodingFacts] | LeftOutFile]:
        """Decode files in parallel; return what became of each, in order."""
        progress = keras.utils.Progbar(len(paths), verbose=verbose, unit_name="file")
        is_stopped = threading.Event()
        clear_on_sigterm()
        # libsndfile and the Fourier transform let other threads run.
        with ThreadPoolExecutor(min(_NUM_DECODERS, len(paths)), "decoder") as executor:
            futures = [executor.submit(self._decode, path, is_stopped) for path in paths]
            try:
                for future in as_completed(futures):
                    future.result()
                    progress.add(1)
            except BaseException:  # Ctrl-C as well: no thread may go on with its file
                is_stopped.set()
                executor.shutdown(wait=True, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def _decode(
        self, path: Path, is_stopped: threading.Event
    ) -> tuple[CachedFrames | np.ndarray, DecodingFacts] | LeftOutFile:
        """Decode one file; return its frames, or the cache file that holds them, and what was found out."""
        try:
            if self._folder is None:
                decoding = FrameDecoding(self.converter, path, self.loop_short_files, self.normalize, is_stopped)
                while not decoding.is_complete:
                    frames = np.concatenate(list(decoding.frames()))
                return frames, decoding.facts()
            try:
                name = name_cache_file(path, self.converter, self.loop_short_files, self.normalize)
            except OSError as error:
                raise UnusableError(f"unreadable: {error}") from error
            cached, num_bins = self._folder / name, self.converter.num_bins
            if (found := find_cached(cached, num_bins)) is not None:
                return found
            with replaced_when_complete(cached, is_private=True) as part:
                decoding = FrameDecoding(self.converter, path, self.loop_short_files, self.normalize, is_stopped)
                while not decoding.is_complete:
                    write_frames(part, decoding.frames(), num_bins, path)
                write_facts(cached, decoding.facts())
            if (written := find_cached(cached, num_bins)) is None:
                raise OSError(
                    f"{cached} was damaged or removed while it was written. Start again, or choose another cache."
                )
            return written
        except UnusableError as error:
            return LeftOutFile(path, str(error), error.seconds)


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
