"""Audio files read in blocks and written."""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from spectrovae.checks import SAMPLE_RATES, check_positive_int, check_sample_rate, check_waveform
from spectrovae.storage import PathLike, replaced_when_complete

# Loud masters go some decibels above full scale; 60 dB above are integers in disguise, or garbage.
_LARGEST_SAMPLE = 1000.0

_LARGEST_FLAC_RATE = 655_350

_TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")


def read_blocks(path: PathLike, sample_rate: int, block_length: int = 1 << 16) -> Iterator[np.ndarray]:
    """Read an audio file block by block, mixed to mono and resampled.

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
        ValueError: If it cannot be decoded, or has samples that are not finite or a thousand times full scale.

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
    """Read a whole audio file, mixed to mono and resampled.

    Args:
        path: The file; formats as in `read_blocks`.
        sample_rate: Samples per second (Hz) of the result.

    Returns:
        float32, shape `(samples,)`, full scale at 1.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it cannot be decoded, or has samples that are not finite or a thousand times full scale.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_audio(Path(folder, "tone.wav"), np.zeros(8000), sample_rate=8000)
        ...     read_audio(Path(folder, "tone.wav"), sample_rate=22050).shape
        (22050,)
    """
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(path, sample_rate)])


def write_audio(
    path: PathLike,
    waveform: ArrayLike,
    sample_rate: int,
    subtype: str = "PCM_16",
    target_rate: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a mono waveform as a WAV or FLAC file, by default of 16 bits, which every player plays.

    The file appears when it is complete: an interrupted program leaves no half file and keeps the old one.

    Args:
        path: Ends with `.wav` or `.flac`; its folder must exist.
        waveform: Shape `(samples,)`, floats in [-1, 1] or integer PCM.
        sample_rate: Samples per second (Hz).
        subtype: How samples are stored: `"PCM_16"`, `"PCM_24"` and, in WAV files only, `"PCM_32"`, `"FLOAT"` and
            what else `soundfile.available_subtypes` lists for the format.
        target_rate: Samples per second (Hz) of the file, if not those of the waveform: it is then resampled, and
            scaled down where that lifts its peak over 1.
        tags: Texts to store with the sound, such as `{"title": ..., "comment": ...}`; names are those of
            `SoundFile.copy_metadata`: title, comment, software, artist, album, date, genre, copyright ...

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the disk is full, or the folder cannot be written.
        ValueError: If the waveform has another shape or values outside [-1, 1], the ending is another one, or the
            format knows no such subtype, sample rate or tag.

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
    if target_rate is not None and check_sample_rate("target_rate", target_rate) != sample_rate:
        audio = soxr.resample(audio, sample_rate, target_rate, quality="HQ")
        audio /= max(1.0, float(np.abs(audio).max(initial=0)))
    content = _encode(audio, target_rate or sample_rate, path.suffix[1:].upper(), subtype, tags or {})
    with replaced_when_complete(path) as part:
        part.write_bytes(content.getbuffer())


def _encode(audio: np.ndarray, sample_rate: int, file_format: str, subtype: str, tags: Mapping[str, str]) -> io.BytesIO:
    subtypes = soundfile.available_subtypes(file_format)
    if subtype not in subtypes:
        raise ValueError(f"`subtype` must be one of {', '.join(subtypes)}. Received: subtype={subtype!r}")
    if file_format == "FLAC" and sample_rate > _LARGEST_FLAC_RATE:
        raise ValueError(f"FLAC goes up to {_LARGEST_FLAC_RATE} Hz: write a .wav file. Received: {sample_rate} Hz")
    content = io.BytesIO()  # soundfile would not say that a disk is full
    with soundfile.SoundFile(content, "w", sample_rate, 1, subtype, format=file_format) as file:
        for name, text in tags.items():
            if name not in _TAGS:
                raise ValueError(f"`tags` may have {', '.join(_TAGS)}. Received: tags={dict(tags)}")
            setattr(file, name, text)
        file.write(audio)
    return content


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
    yield from _decode(path, sample_rate, block_length)


def _decode(path: Path, sample_rate: int, block_length: int) -> Iterator[np.ndarray]:
    try:
        # As bytes, since soundfile knows no names that are no UTF-8. Windows has none.
        file = _SequentialFile(path if os.name == "nt" else os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless samples
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        yield from _checked(read_with_ffmpeg(path, sample_rate, block_length, reason), path)
        return
    with file:
        if file.samplerate not in SAMPLE_RATES:
            raise ValueError(f"The file claims a sample rate of {file.samplerate} Hz: {path}")
        # Few enough that neither many channels nor a low sample rate make a block large.
        ratio = min(1.0, file.samplerate / sample_rate) / file.channels
        blocks = _mono_blocks(file, max(1, math.floor(block_length * ratio)))
        try:
            yield from _resample(_checked(blocks, path), file.samplerate, sample_rate)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"The file could not be decoded: {path} ({error.error_string})") from error


def _mono_blocks(file: soundfile.SoundFile, block_length: int) -> Iterator[np.ndarray]:
    while len(block := file.read(block_length, dtype="float32", always_2d=True)):
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told by _checked
            mono = block.mean(axis=1)
        yield mono


def _checked(blocks: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    for block in blocks:
        peak = np.abs(block).max(initial=0)
        if not np.isfinite(peak):
            raise ValueError(f"The file has NaN or infinite samples: {path}")
        if peak > _LARGEST_SAMPLE:
            raise ValueError(f"The file has samples of {peak:.3g}, where full scale is 1: scale it down: {path}")
        yield block


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


# Seconds after which a program that gives no samples is taken to hang.
_PATIENCE = 120.0


def read_with_ffmpeg(path: Path, sample_rate: int, block_length: int, reason: str) -> Iterator[np.ndarray]:
    """Read an audio file block by block with ffmpeg, which mixes it to mono and resamples it.

    Args:
        path: The file.
        sample_rate: Samples per second (Hz) of the result.
        block_length: Most samples of one block.
        reason: Why the file is not read in another way, for the message if ffmpeg cannot help.

    Yields:
        float32, shape `(samples,)`, full scale at 1.

    Raises:
        ValueError: If ffmpeg is not installed, cannot decode the file, or hangs.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(
            f"The file could not be decoded: {path} ({reason}; ffmpeg, which knows more formats, is missing)"
        )
    command = [program, "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:a:0"]
    command += ["-ac", "1", "-ar", str(sample_rate), "-f", "f32le", "-"]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        output = cast(IO[bytes], process.stdout)
        try:
            while content := _read_with_timeout(output, 4 * block_length, process):
                yield np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(np.float32)
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"The file could not be decoded: {path} (ffmpeg stood still for {_PATIENCE:.0f} s)"
            ) from error
        finally:
            process.kill()  # if the reader stopped early; else it has ended
        if status:
            messages.seek(0)
            line = messages.readline(2000).decode(errors="replace").strip()
            raise ValueError(f"The file could not be decoded: {path} (ffmpeg: {line or reason})")


def _read_with_timeout(output: IO[bytes], num_bytes: int, process: subprocess.Popen[bytes]) -> bytes:
    """Read from a program; kills it if nothing comes for too long."""
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        process.kill()

    timer = threading.Timer(_PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    try:
        content = output.read(num_bytes)
    finally:
        timer.cancel()
    if is_late.is_set():
        raise subprocess.TimeoutExpired(process.args, _PATIENCE)
    return content
