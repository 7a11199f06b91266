"""Audio files decoded block by block, mixed to mono and resampled, with notes on what is odd about them."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from spectrovae.audio.ffmpeg import decode_with_ffmpeg
from spectrovae.audio.mixing import Mixer
from spectrovae.audio.segments import Piece, PiecedFile, find_segments
from spectrovae.checks import SAMPLE_RATES

# Loud masters go some decibels above full scale; 60 dB above are integers in disguise, or garbage.
_LARGEST_SAMPLE = 1000.0

# No format needs less for a second of sound, but for silence; and what is short is not suspected.
_BYTES_PER_SECOND = 16
_SHORT_SECONDS = 600

# What decoders cut off or add at the ends, in seconds.
_TOLERANCE = 0.05


class AudioReader:
    """Reads an audio file block by block, mixed to mono and resampled.

    The channels are mixed by the rule of `Mixer`, whatever the format. It may take a second pass over the file, since
    only its end shows how: read again until `is_settled`.

    Args:
        path: The file.
        sample_rate: Samples per second (Hz) of the result.
        block_length: Most samples of one block, about.

    Attributes:
        is_settled: Whether the last pass gave the samples as they should be.
        notes: What is odd about the file and its sound, after the last pass.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     soundfile.write(f"{folder}/tone.wav", np.zeros((8000, 2)), 8000)
        ...     reader = AudioReader(Path(folder, "tone.wav"), sample_rate=4000)
        ...     sum(len(block) for block in reader.read()), reader.is_settled
        (4000, True)
    """

    def __init__(self, path: Path, sample_rate: int, block_length: int = 1 << 16) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.block_length = block_length
        self.is_settled = False
        self.notes: list[str] = []
        self._mixer = Mixer()

    def read(self) -> Iterator[np.ndarray]:
        """Yield the samples, float32 `(samples,)` with full scale at 1.

        Raises:
            OSError: If the file cannot be opened.
            ValueError: If nothing of it can be decoded, or it has samples that are not finite or a thousand times full
                scale, or more than a file of its size can hold.
        """
        yield from self._resampled(self._mixed())

    def read_settled(self) -> Iterator[np.ndarray]:
        """Yield the samples as `read` does, but as they should be at once: several channels are measured first."""
        mixed = self._mixed()
        first = list(itertools.islice(mixed, 1))
        if self._mixer.has_channels:
            while not self.is_settled:
                for _ in mixed:
                    pass
                mixed = self._mixed()
            first = []
        yield from self._resampled(itertools.chain(first, mixed))

    def _resampled(self, mixed: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
        for rate, blocks in itertools.groupby(mixed, key=lambda block: block[0]):
            yield from _resample((mono for _, mono in blocks), rate, self.sample_rate)

    def _mixed(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield sample rate and blocks `(samples,)`."""
        self.notes = []
        longest = _SHORT_SECONDS + self.path.stat().st_size / _BYTES_PER_SECOND
        seconds = 0.0
        for rate, block in self._decode():
            if rate not in SAMPLE_RATES:
                raise ValueError(f"The file claims a sample rate of {rate} Hz: {self.path}")
            seconds += len(block) / rate
            if seconds > longest:
                raise ValueError(
                    f"The file decodes to more than {longest:.0f} s, which a file of its size cannot hold: {self.path}"
                )
            mono = self._mixer.mix(block)
            self._check(block)
            yield rate, mono
        self.is_settled = self._mixer.is_settled()
        self.notes += self._mixer.notes

    def _check(self, block: np.ndarray) -> None:
        peak = max(block.max(initial=0), -block.min(initial=0))
        if not np.isfinite(peak):
            raise ValueError(f"The file has NaN or infinite samples: {self.path}")
        if peak > _LARGEST_SAMPLE:
            raise ValueError(f"The file has samples of {peak:.3g}, where full scale is 1: scale it down: {self.path}")

    def _decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield sample rate and blocks `(samples, channels)`."""
        if self.path.exists() and not self.path.is_dir() and not self.path.is_file():
            raise ValueError(f"Not a regular file: {self.path}")  # reading a pipe would wait for ever
        with self.path.open("rb") as content:  # an OSError says best what is wrong with a path
            if not content.read(1):
                raise ValueError(f"The file has no content: {self.path}")
        segments, notes = find_segments(self.path)
        self.notes += notes
        num_decoded, rate = 0, 1
        try:
            for pieces in segments or [[]]:
                for rate, block in self._decode_segment(pieces):
                    num_decoded += len(block)
                    yield rate, block
        except _UndecodableError as error:
            yield from self._decode_rest(num_decoded, num_decoded / rate, error)

    def _decode_segment(self, pieces: list[Piece]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode a segment of the file, or without pieces all of it, by libsndfile."""
        # As bytes, since soundfile knows no names that are no UTF-8. Windows has none.
        name = self.path if os.name == "nt" else os.fsencode(self.path)
        try:
            file = _SequentialFile(PiecedFile(self.path, pieces) if pieces else name)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless samples
            reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
            raise _UndecodableError(reason) from error
        with file:
            rate, claimed, num_read = file.samplerate, file.frames, 0
            # Few enough that neither many channels nor a low sample rate make a block large.
            ratio = min(1.0, rate / self.sample_rate) / file.channels
            length = max(1, math.floor(self.block_length * ratio))
            try:
                while len(block := file.read(length, dtype="float32", always_2d=True)):
                    num_read += len(block)
                    yield rate, block
            except soundfile.LibsndfileError as error:
                raise _UndecodableError(error.error_string or "the content is damaged") from error
            if not pieces and _TOLERANCE * rate < claimed - num_read < claimed < 1 << 48:
                raise _UndecodableError("it ends early", claimed / rate)

    def _decode_rest(
        self, num_decoded: int, seconds: float, cause: _UndecodableError
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decode with ffmpeg what comes after so many samples, which last so many seconds."""
        messages: list[str] = []
        num_read = 0
        try:
            for rate, block in decode_with_ffmpeg(self.path, self.block_length, str(cause), messages):
                rest = block[max(0, num_decoded - num_read) :]
                num_read += len(block)
                if len(rest):
                    seconds = num_read / rate
                    yield rate, rest
        except ValueError:
            if not num_decoded:
                raise
        if num_decoded and cause.claimed is None:
            messages = [f"damaged: {seconds:.1f} s could be decoded ({cause})"]
        elif cause.claimed is not None and seconds < cause.claimed - _TOLERANCE:
            messages = [f"the header claims {cause.claimed:.1f} s, only {seconds:.1f} s could be decoded"]
        self.notes += messages


class _UndecodableError(Exception):
    """libsndfile cannot decode a file, or not beyond a place; the message is the reason."""

    def __init__(self, reason: str, claimed: float | None = None) -> None:
        super().__init__(reason)
        self.claimed = claimed  # seconds that the header claims


class _SequentialFile(soundfile.SoundFile):
    """A file that is only read onwards: soundfile seeks after each read, and some OGG files then fail."""

    def seekable(self) -> bool:
        return False


def _resample(blocks: Iterable[np.ndarray], in_rate: int, out_rate: int) -> Iterator[np.ndarray]:
    if in_rate == out_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(in_rate, out_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        if len(resampled := resampler.resample_chunk(np.ascontiguousarray(block))):
            yield resampled
    if len(rest := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield rest
