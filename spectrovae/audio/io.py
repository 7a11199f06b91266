"""Audio files read in blocks and written."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from spectrovae.audio.decoding import AudioReader
from spectrovae.audio.limiter import limit_peaks
from spectrovae.checks import check_positive_int, check_sample_rate, check_waveform
from spectrovae.storage import PathLike, replaced_when_complete

_LARGEST_FLAC_RATE = 655_350

_TAGS = ("title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre")


def read_blocks(path: PathLike, sample_rate: int, block_length: int = 1 << 16) -> Iterator[np.ndarray]:
    """Read an audio file block by block, mixed to mono and resampled.

    Memory is bounded, whatever the file says of itself. Formats that libsndfile does not know (M4A, AAC, WMA
    …) are read with the program `ffmpeg`, if it is installed. How channels are mixed, and what is done about wrong
    headers and damage, `audio_dataset` says. A file of several channels is read twice, since its end decides how they
    are mixed.

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
    return AudioReader(Path(path), sample_rate, block_length).read_settled()


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
    reader = AudioReader(Path(path), check_sample_rate("sample_rate", sample_rate))
    blocks: list[np.ndarray] = []
    while not reader.is_settled:
        blocks = list(reader.read())
    return np.concatenate([np.zeros(0, np.float32), *blocks])


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
            turned down where that lifts a peak over 1.
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
            "`waveform` has values outside [-1, 1], which would be clipped: divide by its peak, or turn them down "
            f"with spectrovae.audio.limiter.limit_peaks. Received: a peak of {peak:.6g}"
        )
    if target_rate is not None and check_sample_rate("target_rate", target_rate) != sample_rate:
        audio = soxr.resample(audio, sample_rate, target_rate, quality="HQ")
        audio = limit_peaks(audio, target_rate)
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
            # Names of files, which tags may hold, may be bytes that are no text.
            setattr(file, name, text.encode("utf-8", "backslashreplace").decode("utf-8"))
        file.write(audio)
    return content
