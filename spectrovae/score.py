"""Write pieces of polyphonic music as lists of notes: key, chords, melody, accompaniment, drums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

# Semitones above the tonic, from bright to dark: all are rotations of the major scale.
MODES = {
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "ionian": (0, 2, 4, 5, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "aeolian": (0, 2, 3, 5, 7, 8, 10),
}
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

# Who may play what, and how loud each part is.
CASTS = {
    "melody": ("plucked_string", "struck_string", "bell", "bowed", "flute", "organ"),
    "chords": ("struck_string", "plucked_string", "organ", "pad", "bowed"),
    "bass": ("bass", "bass", "plucked_string"),
}
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


def write_score(duration: float, rng: Generator) -> Score:
    """Write a piece of `duration` seconds in the form AABA, four bars each, that ends on the tonic chord.

    Args:
        duration: Length of the piece in seconds, the dying away of its last notes included.
        rng: Draws key, mode, tempo, metre, chords, melody, styles, instruments and dynamics.

    Example:
        >>> score = write_score(20.0, np.random.default_rng(0))
        >>> score.mode in MODES and max(note.start for note in score.notes) < 20.0
        True
    """
    score = Score(int(rng.integers(12)), str(rng.choice(list(MODES))), [])
    num_beats = int(rng.choice([3, 4, 4]))
    ending = min(1.5, duration / 10)  # seconds left for the last notes to die away
    num_bars = max(1, round((duration - ending) * rng.uniform(72, 144) / 60 / num_beats))
    beat_seconds = (duration - ending) / (num_bars * num_beats)
    sections = {name: _Section(rng, num_beats) for name in "AB"}
    timbres = {part: str(rng.choice(names)) for part, names in CASTS.items()}
    chord, degrees = [score.pitch(step, 3) for step in (0, 2, 4)], [int(rng.integers(8))]
    for bar in range(num_bars):
        section, place = sections["AABA"[bar // 4 % 4]], bar % 4
        if bar == num_bars - 1:
            section.close()
        chord = _voice_chord(score, section.roots[place], chord)
        degrees = _melody_degrees(rng, section.rhythms[place], section.roots[place], degrees[-1])
        parts = section.arrange(score, place, chord, degrees)
        score.notes.extend(_perform(parts, timbres, section.level, bar * num_beats, beat_seconds, rng))
    return score
