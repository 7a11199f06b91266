"""The instruments of the composed pieces, each a function from a note to its samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.signal import lfilter

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
        for number, amplitude in enumerate(np.asarray(amplitudes, float), start=1):
            if number * frequency < 0.45 * sample_rate:
                # Whole turns are taken off first, so that single precision (twice as fast) is enough.
                angle = (2 * np.pi * ((number * phase) % 1)).astype(np.float32)
                partial = amplitude * np.sin(angle)
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
