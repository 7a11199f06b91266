"""Compose short pieces of polyphonic music: something to train on when no recordings are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from scipy.signal import fftconvolve, lfilter

from spectrovae.score import Score, write_score
from spectrovae.timbres import TIMBRES, fade, time_axis


def render(score: Score, duration: float, sample_rate: int, rng: Generator) -> np.ndarray:
    """Play a score, without a room.

    Args:
        score: What to play; notes after `duration` are not heard.
        duration: Length in seconds.
        sample_rate: Samples per second in Hz.
        rng: Source of noise for strings, flutes and drums.

    Returns:
        float64 `(round(duration * sample_rate),)`, with a peak of any size.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> render(write_score(2.0, rng), duration=2.0, sample_rate=8000, rng=rng).shape
        (16000,)
    """
    samples = np.zeros(round(duration * sample_rate))
    sounds: dict[tuple[str, int, float], np.ndarray] = {}
    for note in score.notes:
        key = (note.timbre, note.pitch, note.duration)
        if key not in sounds:
            frequency = 440.0 * 2 ** ((note.pitch - 69) / 12)
            sound = TIMBRES[note.timbre](frequency, note.duration, sample_rate, rng)
            sounds[key] = sound / np.max(np.abs(sound))
        start = round(note.start * sample_rate)
        heard = samples[start : start + len(sounds[key])]
        heard += note.velocity * sounds[key][: len(heard)]
    return samples


def _reverberate(samples: np.ndarray, sample_rate: int, rng: Generator) -> np.ndarray:
    """Add a room: exponentially decaying noise without its highest frequencies."""
    time = time_axis(rng.uniform(0.5, 1.5), sample_rate)
    impulse = lfilter([0.4], [1, -0.6], rng.normal(size=len(time))) * np.exp(-6.9 * time / time[-1])
    wet = fftconvolve(samples, impulse / np.linalg.norm(impulse))[: len(samples)]
    return samples + rng.uniform(0.15, 0.4) * wet


def compose(duration: float = 30.0, sample_rate: int = 22050, seed: int | None = None) -> np.ndarray:
    """Compose a piece of polyphonic music and play it.

    The seed draws key, mode, tempo, metre, chord progressions, melody, styles of accompaniment, instruments,
    dynamics and the room it is played in.

    Args:
        duration: Length in seconds, at least 0.1.
        sample_rate: Samples per second in Hz, at least 8,000.
        seed: Repeats a piece; None draws a new one each time.

    Returns:
        Mono samples, float32 `(round(duration * sample_rate),)`, with a peak between 0.5 and 0.9.

    Raises:
        ValueError: If `duration` or `sample_rate` is too small.

    Example:
        >>> compose(duration=2.0, seed=7).shape
        (44100,)
    """
    if not 0.1 <= duration < np.inf:
        raise ValueError(f"`duration` must be at least 0.1 seconds. Received: duration={duration}")
    if sample_rate < 8000:
        raise ValueError(f"`sample_rate` must be at least 8,000 Hz. Received: sample_rate={sample_rate}")
    rng = np.random.default_rng(seed)
    samples = render(write_score(duration, rng), duration, sample_rate, rng)
    samples = fade(_reverberate(samples, sample_rate, rng), sample_rate, 0.002, 0.15)
    return (samples * rng.uniform(0.5, 0.9) / np.max(np.abs(samples))).astype(np.float32)


def compose_collection(
    folder: str | Path, num_pieces: int = 24, duration: float = 20.0, sample_rate: int = 22050, seed: int = 0
) -> list[Path]:
    """Compose pieces and write them to a folder as 16-bit WAV files `piece_00.wav`, `piece_01.wav`, ...

    Args:
        folder: Where to write; made if it is missing.
        num_pieces: How many. The first pieces of a longer collection are those of a shorter one.
        duration: Length of each piece in seconds.
        sample_rate: Samples per second in Hz.
        seed: Repeats the collection.

    Returns:
        The paths of the files, in order.

    Raises:
        ValueError: If `num_pieces` is not positive, or as `compose` does.

    Example:
        >>> import tempfile
        >>> [path.name for path in compose_collection(tempfile.mkdtemp(), num_pieces=2, duration=1.0)]
        ['piece_00.wav', 'piece_01.wav']
    """
    if num_pieces < 1:
        raise ValueError(f"`num_pieces` must be at least 1. Received: num_pieces={num_pieces}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, piece_seed in enumerate(np.random.default_rng(seed).integers(2**32, size=num_pieces)):
        paths.append(folder / f"piece_{index:02d}.wav")
        soundfile.write(paths[-1], compose(duration, sample_rate, int(piece_seed)), sample_rate, "PCM_16")
    return paths
