"""A fair sample of windows that flow by."""

from collections.abc import Iterable, Iterator

import numpy as np


class WindowSample:
    """A random sample of the windows that flow by.

    Vitter, "Random sampling with a reservoir" (ACM TOMS, 1985): every window has the same chance to be in it.

    Args:
        size: Number of windows to keep.
        seed: Integer that makes the choice repeat.

    Attributes:
        windows: What was kept, each of shape `(bins, frames, 1)`.
        num_seen: Number of windows that flowed by.

    Example:
        >>> sample = WindowSample(size=2, seed=0)
        >>> batches = list(sample.collect([np.zeros((3, 4, 4, 1)), np.ones((3, 4, 4, 1))]))
        >>> len(batches), len(sample.windows), sample.num_seen
        (2, 2, 6)
    """

    def __init__(self, size: int, seed: int | None = None) -> None:
        self.size = size
        self.windows: list[np.ndarray] = []
        self.num_seen = 0
        self._generator = np.random.default_rng(seed)

    def collect(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the batches unchanged, and keep some of their windows."""
        for batch in batches:
            for window in batch:
                self.num_seen += 1
                # Copies, since a view would keep its whole batch in memory.
                if len(self.windows) < self.size:
                    self.windows.append(np.array(window))
                elif (place := self._generator.integers(self.num_seen)) < self.size:
                    self.windows[place] = np.array(window)
            yield batch
