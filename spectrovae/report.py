"""What became of the files of a collection: which are used, which are not, and why."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path


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
    r"""Returns a text on one line that every terminal and encoding takes: odd characters are escaped.

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
