"""The one rule by which the channels of a recording become mono, whatever its format."""

from __future__ import annotations

import math

import numpy as np

# Power relative to the loudest channel below which a channel is taken to have no signal: -40 dB.
_SILENT = 1e-4

_NAMED = 6  # how many channels a note names


class Mixer:
    """Mixes the channels of a recording to mono, and measures them meanwhile.

    The mono signal is the mean of the channels, with two exceptions:

    * Channels without signal, more than 40 dB below the loudest, are not counted: a recording of one microphone into a
      stereo file is as loud as a mono one.
    * Channels that cancel: if their mean has less than half of the power that independent channels would have (for
      stereo, 6 dB below the mean power of the two), such as where one is wired the other way round, the strongest
      channel is used alone.

    Which case it is shows when the recording has been read to its end. It then has to be mixed anew if it is not the
    one that was assumed, until `is_settled()`. A constant offset is no signal here.

    Attributes:
        notes: What is to be told about the channels, after `is_settled()`.
        has_channels: Whether there was more than one channel so far.

    Example:
        >>> mixer = Mixer()
        >>> sound = np.sin(np.arange(1000.0)).astype(np.float32)
        >>> mixer.mix(np.stack([sound, 0 * sound], axis=1)).max().round(1), mixer.is_settled()
        (np.float32(0.5), False)
        >>> mixer.mix(np.stack([sound, 0 * sound], axis=1)).max().round(1), mixer.is_settled()
        (np.float32(1.0), True)
        >>> mixer.notes
        ['channel 2 of 2 has no signal and is not counted']
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.has_channels = False
        self._chosen: dict[int, np.ndarray] = {}  # by the number of channels, which may change within a file
        self._cancelling: dict[int, float] = {}
        self._sums: dict[int, np.ndarray] = {}

    def mix(self, block: np.ndarray) -> np.ndarray:
        """Return the mono mix of a block `(samples, channels)`, float32 `(samples,)`."""
        num_channels = block.shape[1]
        if num_channels == 1:
            return block[:, 0]
        self.has_channels = True
        chosen = self._chosen.setdefault(num_channels, np.arange(num_channels))
        with np.errstate(over="ignore", invalid="ignore"):  # samples that are not finite are refused later
            mono = block.mean(axis=1) if len(chosen) == num_channels else block[:, chosen].mean(axis=1)
            # Number, sums and sums of squares, of each channel and of the mix.
            sums = self._sums.setdefault(num_channels, np.zeros((3, num_channels + 1)))
            sums[0] += len(block)
            sums[1, :-1] += block.sum(axis=0, dtype=np.float64)
            sums[1, -1] += mono.sum(dtype=np.float64)
            sums[2, :-1] += np.einsum("ij,ij->j", block, block)
            sums[2, -1] += np.dot(mono, mono)
        return mono

    def is_settled(self) -> bool:
        """Tell, at the end of the recording, whether it was mixed as it should be; else mix it anew."""
        sums, self._sums = self._sums, {}
        # Every change leaves fewer channels: those without signal go, then all but the strongest.
        changes = [self._choose(num_channels, *each) for num_channels, each in sums.items()]
        if any(changes):
            return False
        self.notes = [note for num_channels in sums for note in self._describe(num_channels)]
        return True

    def _choose(self, num_channels: int, count: np.ndarray, total: np.ndarray, square: np.ndarray) -> bool:
        """Choose the channels to use; return whether they are others than before."""
        power = square / count - (total / count) ** 2
        of_channels, of_mix = power[:-1], power[-1]
        chosen = self._chosen[num_channels]
        if not np.isfinite(power).all() or len(chosen) == 1 or of_channels.max() <= 0:
            return False
        audible = np.flatnonzero(of_channels > _SILENT * of_channels.max())
        if len(audible) < len(chosen):
            self._chosen[num_channels] = audible
            return True
        mean_power = of_channels[chosen].mean()
        if of_mix < 0.5 * mean_power / len(chosen):
            self._cancelling[num_channels] = of_mix / mean_power
            self._chosen[num_channels] = chosen[[of_channels[chosen].argmax()]]
            return True
        return False

    def _describe(self, num_channels: int) -> list[str]:
        chosen = self._chosen[num_channels]
        if num_channels in self._cancelling:
            ratio = self._cancelling[num_channels]
            level = f"{10 * math.log10(ratio):.0f} dB" if ratio > 1e-12 else "to nothing"
            return [f"channels cancel each other ({level} when mixed): channel {chosen[0] + 1}, the strongest, is used"]
        silent = [str(channel + 1) for channel in range(num_channels) if channel not in chosen]
        if not silent:
            return []
        if len(silent) == 1:
            return [f"channel {silent[0]} of {num_channels} has no signal and is not counted"]
        names = ", ".join(silent[:_NAMED]) + (" ..." if len(silent) > _NAMED else "")
        return [f"channels {names} of {num_channels} have no signal and are not counted"]
