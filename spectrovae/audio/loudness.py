"""How loud a recording is, measured while it passes."""

from __future__ import annotations

import math

import numpy as np

# In decibels: the level that files are brought to, and by how much at most.
_LEVEL = -20.0
_LARGEST_GAIN = 60.0


class LoudnessMeter:
    """Measures peak, offset and root mean square of a waveform.

    Example:
        >>> meter = LoudnessMeter()
        >>> meter.add(0.3 + 0.01 * np.sin(0.1 * np.arange(6283, dtype=np.float32)))
        >>> round(meter.offset, 3), round(meter.peak_level, 1), round(meter.gain_to_normalize(), 1)
        (0.3, -40.0, 23.0)
    """

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._sum_of_squares = 0.0
        self._least, self._largest = math.inf, -math.inf

    def add(self, block: np.ndarray) -> None:
        """Measure a block `(samples,)`."""
        if len(block):
            self._count += len(block)
            self._sum += float(block.sum(dtype=np.float64))
            self._sum_of_squares += float(np.dot(block, block))
            self._least = min(self._least, float(block.min()))
            self._largest = max(self._largest, float(block.max()))

    @property
    def offset(self) -> float:
        """Mean of the waveform."""
        return self._sum / self._count

    @property
    def peak(self) -> float:
        """Largest distance from the offset."""
        return max(self._largest - self.offset, self.offset - self._least)

    @property
    def peak_level(self) -> float:
        """The peak in dB; minus infinity for a constant."""
        return 20 * math.log10(self.peak) if self.peak > 0 else -math.inf

    def gain_to_normalize(self) -> float:
        """Return the gain in dB that brings the waveform to -20 dB, or its peak to full scale, whichever is less."""
        power = self._sum_of_squares / self._count - self.offset**2
        if power <= 0:
            return 0.0
        return min(_LEVEL - 10 * math.log10(power), -self.peak_level, _LARGEST_GAIN)
