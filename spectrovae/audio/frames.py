"""Recordings decoded to spectrogram frames, with notes on what is odd about their sound."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spectrovae.audio.cache import DecodingFacts
from spectrovae.audio.decoding import AudioReader
from spectrovae.audio.loudness import LoudnessMeter
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.storage import raise_if_exhausted

# Share of pixels on the floor, and peak in dB, beyond which a recording is named as quiet.
_MUCH_FLOOR = 0.9
_QUIET_PEAK = -30.0


class UnusableError(Exception):
    """A file cannot be used; the message is the reason."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class FrameDecoding:
    """The frames of one file, in as many passes as it takes until channels and loudness are right.

    Args:
        converter: The `SpectrogramConverter`.
        path: The file.
        loop_short_files: As in `Recordings`, like the next one.
        normalize: `"file"` or `None`.
        is_stopped: Set when the program is about to end: decoding then stops.

    Attributes:
        is_complete: Whether the last pass gave the frames as they should be.
    """

    def __init__(
        self,
        converter: SpectrogramConverter,
        path: Path,
        loop_short_files: bool,
        normalize: str | None,
        is_stopped: threading.Event,
    ) -> None:
        self.is_complete = False
        self._converter = converter
        self._loop_short_files = loop_short_files
        self._is_stopped = is_stopped
        self._reader = AudioReader(path, self._converter.sample_rate)
        self._meter = LoudnessMeter()
        self._gain: float | None = None if normalize else 0.0
        self._num_pixels = self._num_on_floor = self._num_frames = self._num_clipped = 0

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the frames of one pass as float16 (frames, bins), block by block."""
        self._meter = LoudnessMeter()
        self._num_pixels = self._num_on_floor = self._num_frames = self._num_clipped = 0
        try:
            for frames in self._converter.stream(self._long_enough(self._waveform())):
                if self._is_stopped.is_set():
                    raise _StoppedError
                self._num_pixels += frames.size
                self._num_on_floor += frames.size - int(np.count_nonzero(frames))
                self._num_frames += len(frames)
                self._num_clipped += int(np.count_nonzero(frames.max(axis=1) >= 1))
                yield frames.astype(np.float16)
        except (OSError, ValueError) as error:
            raise_if_exhausted(error)
            raise UnusableError(f"unreadable: {error}") from error
        if not self._reader.is_settled:
            return
        if self._gain is None:
            self._gain = self._meter.gain_to_normalize()
            if self._gain:
                return
        self.is_complete = True
        if self._num_on_floor == self._num_pixels:
            raise UnusableError("silent: never above the floor of the converter")

    def facts(self) -> DecodingFacts:
        """Return what was found out, after the last pass."""
        floor = self._num_on_floor / self._num_pixels
        notes = list(self._reader.notes)
        if abs(self._meter.offset) > 0.01:
            notes.append(f"a constant offset of {self._meter.offset:.2f} was removed")
        if self._num_clipped and self._meter.peak > 1.05:
            notes.append(
                f"beyond full scale: a peak of {self._meter.peak_level:.1f} dB; {self._num_clipped} of "
                f'{self._num_frames} frames are clipped at 0 dB, which normalize="file" avoids'
            )
        if floor > _MUCH_FLOOR or self._meter.peak_level < _QUIET_PEAK:
            advice = ' (normalize="file" makes it louder)' if self._meter.gain_to_normalize() > 6 else ""
            level = self._meter.peak_level
            notes.append(f"{100 * floor:.0f} % of its pixels lie on the floor: its peak is {level:.1f} dB{advice}")
        return DecodingFacts(tuple(notes), floor, self._gain or 0.0)

    def _waveform(self) -> Iterator[np.ndarray]:
        factor = np.float32(10 ** ((self._gain or 0.0) / 20))
        for block in self._reader.read():
            scaled = block * factor if self._gain else block
            self._meter.add(scaled)
            yield scaled

    def _long_enough(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass on a waveform's blocks; one shorter than a window is repeated or refused."""
        window_length, sample_rate = self._converter.window_length, self._converter.sample_rate
        head: list[np.ndarray] = []
        num_samples = 0
        while num_samples < window_length and (block := next(blocks, None)) is not None:
            head.append(block)
            num_samples += len(block)
        if num_samples == 0:
            raise UnusableError("empty: no samples")
        if num_samples >= window_length:
            return itertools.chain(head, blocks)
        if not self._loop_short_files:
            seconds = num_samples / sample_rate
            raise UnusableError(
                f"too short: {seconds:.2f} s, a window is {self._converter.window_duration:.2f} s "
                "(loop_short_files=True repeats it)",
                seconds,
            )
        return iter([np.resize(np.concatenate(head), window_length)])


class _StoppedError(Exception):
    """The program is about to end."""
