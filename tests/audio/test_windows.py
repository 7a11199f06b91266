"""Tests of `spectrovae.audio.windows`."""

import numpy as np

from spectrovae.audio.windows import WindowSample


def test_every_window_has_the_same_chance_to_be_sampled():
    counts = np.zeros(10)
    batches = np.arange(10.0).reshape(5, 2, 1, 1, 1)
    for seed in range(1000):
        sample = WindowSample(size=3, seed=seed)
        np.testing.assert_array_equal(list(sample.collect(batches)), batches)
        kept = np.ravel(sample.windows).astype(int)
        assert len(set(kept)) == 3
        counts[kept] += 1
    # Five standard deviations of the binomial distribution.
    np.testing.assert_allclose(counts / 1000, 0.3, atol=5 * np.sqrt(0.3 * 0.7 / 1000))
