"""Composed music, to train on where there are no recordings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.signal import fftconvolve, lfilter

# Semitones above the tonic, from bright to dark: all are rotations of the major scale.
MODES = {
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "ionian": (0, 2, 4, 5, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
}

# Semitones of each mode's tonic above that of the major scale with the same notes.
MODE_TONICS = {"lydian": 5, "ionian": 0, "mixolydian": 7, "dorian": 2, "aeolian": 9}

# Scale degrees of the chords' roots, one chord a bar (0 is the tonic).
PROGRESSIONS = ("0340", "0534", "0453", "5304", "0234", "3045", "0304")

# The melody's note lengths in beats, by the number of beats in a bar.
RHYTHMS: dict[int, tuple[tuple[float, ...], ...]] = {
    3: ((1, 1, 1), (2, 1), (1.5, 0.5, 1), (1, 0.5, 0.5, 1), (0.5, 0.5, 0.5, 0.5, 1)),
    4: ((1, 1, 1, 1), (0.5, 0.5, 1, 2), (1.5, 0.5, 1, 1), (2, 1, 1), (0.5, 0.5, 0.5, 0.5, 1, 1)),
}

# The eighths on which each drum is struck, by the number of beats in a bar.
GROOVES: dict[int, tuple[dict[str, str], ...]] = {
    3: ({"kick": "x.....", "hat": "..x.x."}, {"kick": "x....x", "snare": "..x...", "hat": "x.x.x."}),
    4: (
        {"kick": "x...x...", "snare": "..x...x.", "hat": "xxxxxxxx"},
        {"kick": "x..x..x.", "snare": "....x...", "hat": "x.x.x.x."},
        {"kick": "x.......", "hat": "..x...xx"},
    ),
}

# Who plays together: melody, chords and bass.
BANDS = (
    ("bell", "pad", "bass"),
    ("bowed", "plucked_string", "plucked_string"),
    ("organ", "struck_string", "bass"),
    ("plucked_string", "organ", "bass"),
    ("flute", "bowed", "plucked_string"),
    ("flute", "struck_string", "bass"),
)

# How loud each part is.
LEVELS = {"melody": 0.5, "chords": 0.24, "bass": 0.5, "kick": 0.6, "snare": 0.22, "hat": 0.1}


class Note(NamedTuple):
    """A note: start and duration in seconds, pitch as a MIDI number (drums ignore it), velocity in (0, 1]."""

    start: float
    duration: float
    pitch: int
    velocity: float
    timbre: str


@dataclass(frozen=True)
class Score:
    """A piece before it sounds.

    Attributes:
        tonic: Pitch class of the tonic, in [0, 12); 0 is C.
        mode: A key of `MODES`.
        notes: All notes, in no order.

    Example:
        >>> [Score(9, "aeolian", []).pitch(degree, octave=4) for degree in (0, 2, 4, 7)]
        [69, 72, 76, 81]
    """

    tonic: int
    mode: str
    notes: list[Note]

    def pitch(self, degree: int, octave: int) -> int:
        """Return the MIDI number of a scale degree above the octave's tonic (degree 7 is the tonic again)."""
        return 12 * (octave + 1 + degree // 7) + self.tonic + MODES[self.mode][degree % 7]


# What a part plays in a bar: for each note the start and length in beats, and the pitch.
_Beats = list[tuple[float, float, int]]


def _voice_chord(score: Score, root: int, previous: list[int]) -> list[int]:
    """Return the triad on `root` in the inversion and octave whose voices move least."""
    inversions = ((root, root + 2, root + 4), (root + 2, root + 4, root + 7), (root - 3, root, root + 2))
    chords = [[score.pitch(step, octave) for step in steps] for steps in inversions for octave in (3, 4)]
    return min(chords, key=lambda chord: sum(abs(a - b) for a, b in zip(chord, previous, strict=True)))


def _melody_degrees(rng: Generator, rhythm: tuple[float, ...], root: int, degree: int) -> list[int]:
    """Walk on from `degree` mostly by step; the first note and long ones belong to the chord."""
    chord = [root + step for step in (-7, -5, -3, 0, 2, 4, 7, 9, 11)]
    degrees = []
    for position, length in enumerate(rhythm):
        degree += int(rng.choice([-2, -1, -1, 0, 1, 1, 2]))
        if position == 0 or length >= 1.5:
            degree = min(chord, key=lambda tone: abs(tone - degree))
        if not -2 <= degree <= 10:
            degree += 7 if degree < 0 else -7
        degrees.append(degree)
    return degrees


def _chord_beats(style: str, chord: list[int], num_beats: int) -> _Beats:
    if style == "held":
        return [(0, num_beats, pitch) for pitch in chord]
    if style == "offbeat":
        weak_beats = (1, 3) if num_beats == 4 else (1, 2)
        return [(beat, 0.6, pitch) for beat in weak_beats for pitch in chord]
    return [(eighth / 2, 0.9, chord[(0, 1, 2, 1)[eighth % 4]]) for eighth in range(2 * num_beats)]  # arpeggio


def _bass_beats(style: str, score: Score, root: int, num_beats: int) -> _Beats:
    steps = {"held": (0,), "alternating": (0, 4), "walking": (0, 2, 4, 5)[:num_beats]}[style]
    length = num_beats / len(steps)
    return [(i * length, 0.9 * length, score.pitch(root + step, 2)) for i, step in enumerate(steps)]


def _drum_beats(strokes: str) -> _Beats:
    return [(eighth / 2, 0.5, 0) for eighth, stroke in enumerate(strokes) if stroke == "x"]


class _Section:
    """Four bars of one character: progression, rhythms, styles, and which parts play."""

    def __init__(self, rng: Generator, num_beats: int) -> None:
        self.num_beats = num_beats
        self.roots = [int(digit) for digit in rng.choice(PROGRESSIONS)]
        first, second, third = (RHYTHMS[num_beats][i] for i in rng.integers(len(RHYTHMS[num_beats]), size=3))
        self.rhythms = [first, second, first, third]
        self.chord_style = str(rng.choice(["held", "offbeat", "arpeggio"]))
        self.bass_style = str(rng.choice(["held", "alternating", "walking"]))
        self.groove = GROOVES[num_beats][rng.integers(len(GROOVES[num_beats]))] if rng.random() < 0.6 else {}
        self.silent_part = str(rng.choice(["none", "none", "none", "melody", "bass"]))
        self.level = rng.uniform(0.6, 1.0)

    def close(self) -> None:
        """Become the end of a piece: the tonic, held, without drums."""
        self.roots, self.rhythms = [0] * 4, [(self.num_beats,)] * 4
        self.chord_style, self.bass_style, self.groove = "held", "held", {}

    def arrange(self, score: Score, bar: int, chord: list[int], degrees: list[int]) -> dict[str, _Beats]:
        """Return what each part plays in bar 0, 1, 2 or 3, given its chord (pitches) and melody (degrees)."""
        rhythm, pitches = self.rhythms[bar], [score.pitch(degree, 4) for degree in degrees]
        parts = {
            "melody": list(zip(np.cumsum(rhythm) - rhythm, rhythm, pitches, strict=True)),
            "chords": _chord_beats(self.chord_style, chord, self.num_beats),
            "bass": _bass_beats(self.bass_style, score, self.roots[bar], self.num_beats),
            **{drum: _drum_beats(strokes) for drum, strokes in self.groove.items()},
        }
        parts.pop(self.silent_part, None)
        return parts


def _perform(
    parts: dict[str, _Beats],
    timbres: dict[str, str],
    level: float,
    first_beat: int,
    beat_seconds: float,
    rng: Generator,
) -> Iterator[Note]:
    """Play a bar as people do: a little late, and its first beat stronger."""
    for part, beats in parts.items():
        for beat, length, pitch in beats:
            start = (first_beat + beat) * beat_seconds + abs(rng.normal(0, 0.004))
            velocity = LEVELS[part] * level * (1 if beat == 0 else 0.8) * rng.uniform(0.8, 1)
            yield Note(start, length * beat_seconds, pitch, velocity, timbres.get(part, part))


class Band(NamedTuple):
    """Who plays a collection of pieces, and what they have in common.

    Attributes:
        scale: Pitch class in [0, 12) of the tonic of the major scale whose notes all pieces use, in any mode.
        timbres: The instrument of each part.
        tempo: Beats per minute, from which pieces differ by up to a tenth.
        room: Seed of the room they play in.
    """

    scale: int
    timbres: dict[str, str]
    tempo: float
    room: int


def form_band(rng: Generator) -> Band:
    """Draw a band: its instruments, the scale that its pieces share, its tempo and its room.

    Example:
        >>> form_band(np.random.default_rng(0)).timbres
        {'melody': 'flute', 'chords': 'struck_string', 'bass': 'bass'}
    """
    timbres = dict(zip(("melody", "chords", "bass"), BANDS[rng.integers(len(BANDS))], strict=True))
    return Band(int(rng.integers(12)), timbres, rng.uniform(80, 132), int(rng.integers(2**32)))


def write_score(duration: float, rng: Generator, band: Band | None = None) -> Score:
    """Write a piece of `duration` seconds in the form AABA, four bars each, that ends on the tonic chord.

    Args:
        duration: Length of the piece in seconds, the dying away of its last notes included.
        rng: Draws mode, tempo, metre, chords, melody, styles of accompaniment and dynamics.
        band: Who plays; by default it is drawn as well.

    Example:
        >>> score = write_score(20.0, np.random.default_rng(0))
        >>> score.mode in MODES and max(note.start for note in score.notes) < 20.0
        True
    """
    band = band or form_band(rng)
    mode = str(rng.choice(list(MODES)))
    score = Score((band.scale + MODE_TONICS[mode]) % 12, mode, [])
    num_beats = int(rng.choice([3, 4, 4]))
    ending = min(1.5, duration / 10)  # seconds left for the last notes to die away
    num_bars = max(1, round((duration - ending) * band.tempo * rng.uniform(0.9, 1.1) / 60 / num_beats))
    beat_seconds = (duration - ending) / (num_bars * num_beats)
    sections = {name: _Section(rng, num_beats) for name in "AB"}
    chord, degrees = [score.pitch(step, 3) for step in (0, 2, 4)], [int(rng.integers(8))]
    for bar in range(num_bars):
        section, place = sections["AABA"[bar // 4 % 4]], bar % 4
        if bar == num_bars - 1:
            section.close()
        chord = _voice_chord(score, section.roots[place], chord)
        degrees = _melody_degrees(rng, section.rhythms[place], section.roots[place], degrees[-1])
        parts = section.arrange(score, place, chord, degrees)
        score.notes.extend(_perform(parts, band.timbres, section.level, bar * num_beats, beat_seconds, rng))
    return score


# Frequency in Hz, duration in s, sample rate in Hz, source of noise -> samples; drums ignore the first two.
Timbre = Callable[[float, float, int, Generator], np.ndarray]


def time_axis(duration: float, sample_rate: int) -> np.ndarray:
    """Return the time in seconds of each sample of `duration` seconds, 2 samples at least.

    Example:
        >>> time_axis(0.5, sample_rate=8)
        array([0.   , 0.125, 0.25 , 0.375])
    """
    return np.arange(max(2, round(duration * sample_rate))) / sample_rate


def fade(samples: np.ndarray, sample_rate: int, attack: float, release: float) -> np.ndarray:
    """Fade in over `attack` and out over `release` seconds with half a cosine, in place: no clicks.

    Example:
        >>> fade(np.ones(8), sample_rate=8, attack=0.25, release=0.5).round(2)
        array([0.  , 0.5 , 1.  , 1.  , 0.85, 0.5 , 0.15, 0.  ])
    """
    for edge, seconds in ((samples, attack), (samples[::-1], release)):
        num = min(len(samples) // 2, max(1, round(seconds * sample_rate)))
        edge[:num] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(num) / num)
    return samples


def _additive(
    amplitudes: ArrayLike, edges: tuple[float, float], decay: float = 0, vibrato: float = 0, breath: float = 0
) -> Timbre:
    """Make a timbre of harmonics; `edges` are the seconds of attack and release, `decay` is in 1/s."""

    def timbre(frequency: float, duration: float, sample_rate: int, rng: Generator) -> np.ndarray:
        time = time_axis(duration + edges[1], sample_rate)
        # A vibrato of 5.5 Hz, of this relative width, that grows over the first half second.
        swing = vibrato * np.minimum(2 * time, 1) * np.sin(2 * np.pi * 5.5 * time) / (2 * np.pi * 5.5)
        phase = frequency * (time + swing)
        samples = breath * rng.normal(size=len(time))
        # Whole turns are taken off first, so that single precision is enough; each partial turns on the one before.
        turn = np.exp(2j * np.pi * (phase % 1)).astype(np.complex64)
        turned = np.ones_like(turn)
        for number, amplitude in enumerate(np.asarray(amplitudes, float), start=1):
            if number * frequency < 0.45 * sample_rate:
                turned *= turn
                partial = amplitude * turned.imag
                samples += partial * np.exp(-decay * number**0.5 * time) if decay else partial
        return fade(samples, sample_rate, *edges)

    return timbre


def _plucked_string(frequency: float, duration: float, sample_rate: int, rng: Generator) -> np.ndarray:
    """A burst of noise in a damped delay line (Karplus and Strong 1983), tuned by linear interpolation."""
    samples = np.zeros_like(time_axis(duration + 0.3, sample_rate))
    delay, fraction = divmod(sample_rate / frequency - 0.5, 1)
    burst = rng.uniform(-1, 1, min(len(samples), int(delay)))
    samples[: len(burst)] = burst - burst.mean()
    gain = 0.001 ** (1 / (2.5 * frequency))  # -60 dB after 2.5 s
    loop = gain * np.convolve([0.5, 0.5], [1 - fraction, fraction])
    samples = lfilter([1.0], np.concatenate([[1.0], np.zeros(int(delay) - 1), -loop]), samples)
    return fade(samples, sample_rate, 0.002, 0.2)


def _bell(frequency: float, duration: float, sample_rate: int, rng: Generator) -> np.ndarray:
    """Frequency modulation whose depth falls with the loudness (Chowning 1973)."""
    time = time_axis(duration + 0.6, sample_rate)
    ratio = 3 if 12 * frequency < sample_rate else 1  # keeps the side bands below Nyquist
    depth = 1.8 * np.exp(-4 * time)
    samples = np.sin(2 * np.pi * frequency * time + depth * np.sin(2 * np.pi * ratio * frequency * time))
    return fade(samples * np.exp(-2.2 * time), sample_rate, 0.002, 0.3)


def _kick(frequency: float, duration: float, sample_rate: int, rng: Generator) -> np.ndarray:
    """A sine that falls from 150 to 50 Hz."""
    time = time_axis(0.25, sample_rate)
    phase = 50 * time + 100 / 30 * (1 - np.exp(-30 * time))
    return fade(np.sin(2 * np.pi * phase) * np.exp(-12 * time), sample_rate, 0.002, 0.03)


def _noise_drum(decay: float, brightness: float) -> Timbre:
    """Make a drum of noise that dies away as exp(-decay * time); brightness in [0, 1) lifts the treble."""

    def timbre(frequency: float, duration: float, sample_rate: int, rng: Generator) -> np.ndarray:
        time = time_axis(5 / decay, sample_rate)
        noise = lfilter([1.0, -brightness], [1.0, 0.6 * brightness], rng.normal(size=len(time)))
        return fade(noise * np.exp(-decay * time), sample_rate, 0.001, 0.01)

    return timbre


_NUMBERS = np.arange(1, 15)

TIMBRES: dict[str, Timbre] = {
    "plucked_string": _plucked_string,
    "bell": _bell,
    "struck_string": _additive(_NUMBERS**-1.4, edges=(0.004, 0.25), decay=1.6),
    "organ": _additive([1, 0.6, 0.35, 0.4, 0, 0.2, 0, 0.15], edges=(0.015, 0.06)),
    "bowed": _additive(1 / (_NUMBERS + _NUMBERS**3 / 50), edges=(0.09, 0.14), vibrato=0.005),
    "flute": _additive([1, 0.35, 0.12, 0.05], edges=(0.06, 0.09), vibrato=0.004, breath=0.02),
    "pad": _additive(_NUMBERS**-1.7, edges=(0.25, 0.45), vibrato=0.002),
    "bass": _additive([1, 0.55, 0.3, 0.15, 0.08], edges=(0.006, 0.06), decay=1.1),
    "kick": _kick,
    "snare": _noise_drum(decay=20, brightness=0.3),
    "hat": _noise_drum(decay=50, brightness=0.95),
}


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


def compose(
    duration: float = 30.0, sample_rate: int = 22050, seed: int | None = None, band: Band | None = None
) -> np.ndarray:
    """Compose a piece of polyphonic music and play it.

    The seed draws mode, tempo, metre, chord progressions, melody, styles of accompaniment and dynamics, and the band,
    unless one is given.

    Args:
        duration: Length in seconds, at least 0.1.
        sample_rate: Samples per second in Hz, at least 8,000.
        seed: Repeats a piece; None draws a new one each time.
        band: Who plays.

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
    band = band or form_band(rng)
    samples = render(write_score(duration, rng, band), duration, sample_rate, rng)
    samples = _reverberate(samples, sample_rate, np.random.default_rng(band.room))
    samples = fade(samples, sample_rate, 0.002, 0.15)
    return (samples * rng.uniform(0.5, 0.9) / np.max(np.abs(samples))).astype(np.float32)


def compose_collection(
    folder: str | Path, num_pieces: int = 24, duration: float = 20.0, sample_rate: int = 22050, seed: int = 0
) -> list[Path]:
    """Compose pieces and write them to a folder as 16-bit WAV files `piece_00.wav`, `piece_01.wav`, ...

    One band plays them all, in one scale: like most folders of recordings, and enough for a quarter of an hour of music
    to teach its notes, chords and drums.

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
    rng = np.random.default_rng(seed)
    band = form_band(rng)
    seeds = rng.integers(2**32, size=num_pieces)
    paths = [folder / f"piece_{index:02d}.wav" for index in range(num_pieces)]

    def write(path: Path, piece_seed: int) -> None:
        soundfile.write(path, compose(duration, sample_rate, int(piece_seed), band), sample_rate, "PCM_16")

    with ThreadPoolExecutor(os.cpu_count()) as executor:
        list(executor.map(write, paths, seeds))
    return paths
