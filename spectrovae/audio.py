"""Read and write audio files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from spectrovae.checks import SAMPLE_RATES, check_positive_int, check_sample_rate, check_waveform
from spectrovae.ffmpeg import read_with_ffmpeg
from spectrovae.files import PathLike, replaced_when_complete


def read_blocks(path: PathLike, sample_rate: int, block_length: int = 1 << 16) -> Iterator[np.ndarray]:
    """Reads an audio file block by block, mixed to mono and resampled.

    Memory is bounded, whatever the file says of itself. Formats that libsndfile does not know (M4A, AAC, WMA
    …) are read with the program `ffmpeg`, if it is installed.

    Args:
        path: The file.
        sample_rate: Samples per second (Hz) of the result.
        block_length: Most samples of one block, about.

    Returns:
        Iterator of float32 arrays `(samples,)`, full scale at 1.

    Raises:
        OSError: If the file cannot be opened (raised by the first `next`, like what follows).
        ValueError: If it cannot be decoded, or has samples that are not finite.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_audio(Path(folder, "tone.wav"), np.zeros(8000), sample_rate=8000)
        ...     sum(len(block) for block in read_blocks(Path(folder, "tone.wav"), sample_rate=4000))
        4000
    """
    check_sample_rate("sample_rate", sample_rate)
    check_positive_int("block_length", block_length)
    return _read_blocks(Path(path), sample_rate, block_length)


def read_audio(path: PathLike, sample_rate: int) -> np.ndarray:
    """Reads a whole audio file, mixed to mono and resampled.

    Args:
        path: The file; formats as in `read_blocks`.
        sample_rate: Samples per second (Hz) of the result.

    Returns:
        float32, shape `(samples,)`, full scale at 1.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it cannot be decoded, or has samples that are not finite.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_audio(Path(folder, "tone.wav"), np.zeros(8000), sample_rate=8000)
        ...     read_audio(Path(folder, "tone.wav"), sample_rate=22050).shape
        (22050,)
    """
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(path, sample_rate)])


def write_audio(path: PathLike, waveform: ArrayLike, sample_rate: int) -> None:
    """Writes a mono waveform as a 16-bit WAV or FLAC file, which every player plays.

    The file appears when it is complete: an interrupted program leaves no half file and keeps the old one.

    Args:
        path: Ends with `.wav` or `.flac`; its folder must exist.
        waveform: Shape `(samples,)`, floats in [-1, 1] or integer PCM.
        sample_rate: Samples per second (Hz).

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If the waveform has another shape or values outside [-1, 1], or the ending is another one.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_audio(Path(folder, "tone.wav"), 0.5 * np.sin(0.1 * np.arange(8000)), sample_rate=8000)
    """
    path = Path(path)
    check_sample_rate("sample_rate", sample_rate)
    audio = check_waveform("waveform", waveform)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise ValueError(f"`path` must end with .wav or .flac. Received: path={path}")
    peak = float(np.abs(audio).max())
    if peak > 1:
        raise ValueError(
            "`waveform` has values outside [-1, 1], which would be clipped: divide by its peak. "
            f"Received: a peak of {peak:.6g}"
        )
    with replaced_when_complete(path) as part:
        soundfile.write(part, audio, sample_rate, "PCM_16", format=path.suffix[1:].upper())


class _SequentialFile(soundfile.SoundFile):
    """A file that is only read onwards: soundfile seeks after each read, and some OGG files then fail."""

    def seekable(self) -> bool:
        return False


def _read_blocks(path: Path, sample_rate: int, block_length: int) -> Iterator[np.ndarray]:
    if path.exists() and not path.is_dir() and not path.is_file():  # reading a pipe would wait for ever
        raise ValueError(f"Not a regular file: {path}")
    with path.open("rb") as content:  # an OSError says best what is wrong with a path
        if not content.read(1):
            raise ValueError(f"The file has no content: {path}")
    for block in _decode(path, sample_rate, block_length):
        if not np.isfinite(block).all():
            raise ValueError(f"The file has NaN or infinite samples: {path}")
        yield block


def _decode(path: Path, sample_rate: int, block_length: int) -> Iterator[np.ndarray]:
    try:
        file = _SequentialFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless samples
        yield from read_with_ffmpeg(path, sample_rate, block_length, reason=str(error))
        return
    with file:
        if file.samplerate not in SAMPLE_RATES:
            raise ValueError(f"The file claims a sample rate of {file.samplerate} Hz: {path}")
        # Few enough that neither many channels nor a low sample rate make a block large.
        ratio = min(1.0, file.samplerate / sample_rate) / file.channels
        blocks = _mono_blocks(file, max(1, math.floor(block_length * ratio)))
        try:
            yield from _resample(blocks, file.samplerate, sample_rate)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"The file could not be decoded: {path} ({error})") from error


def _mono_blocks(file: soundfile.SoundFile, block_length: int) -> Iterator[np.ndarray]:
    while len(block := file.read(block_length, dtype="float32", always_2d=True)):
        yield block.mean(axis=1)


def _resample(blocks: Iterable[np.ndarray], in_rate: int, out_rate: int) -> Iterator[np.ndarray]:
    if in_rate == out_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(in_rate, out_rate, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        if len(resampled := resampler.resample_chunk(block)):
            yield resampled
    if len(rest := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield rest
