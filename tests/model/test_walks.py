import numpy as np
import pytest

from spectrovae.model.walks import crossfade_weights, walk_between, walk_through, window_starts


def test_walk_passes_every_point():
    points = np.random.default_rng(0).normal(size=(4, 5))
    for spherical in (True, False):
        walk = walk_through(points, 31, spherical)
        np.testing.assert_allclose(walk[::10], points, atol=1e-12)
        steps = np.linalg.norm(np.diff(walk, axis=0), axis=1)
        assert steps[[0, 9, 10, 29]].max() < 0.3 * steps.max()  # slow at the points, so without sharp turns
        np.testing.assert_array_equal(walk_through(points, 1, spherical), points[:1])


def test_spherical_walk_keeps_the_spread_of_draws_and_the_straight_one_does_not():
    draws = np.random.default_rng(0).normal(size=(300, 64))
    middles = {name: walk_through(draws, 2 * 299 + 1, name == "spherical")[1::2] for name in ("spherical", "straight")}
    assert middles["spherical"].std() == pytest.approx(1, abs=0.03)
    assert middles["straight"].std() == pytest.approx(np.sqrt(0.5), abs=0.03)


@pytest.mark.parametrize("ends", [[[1.0, 0.0], [2.0, 0.0]], [[1.0], [-1.0]], [[0.0, 0.0], [0.0, 3.0]]])
def test_spherical_walk_where_no_sphere_leads(ends):
    walk = walk_through(ends, 9)
    assert np.isfinite(walk).all()
    np.testing.assert_allclose(walk[[0, -1]], ends, atol=1e-12)


def test_way_points_are_as_varied_as_draws():
    # The points of a long walk through draws from one distribution have its mean and spread.
    mean, scale = np.array([1.0, -2.0, 0.0]), np.array([0.5, 1.0, 3.0])
    draws = np.random.default_rng(0).standard_normal((2000, 3))
    points = walk_between(np.tile(mean, (2000, 1)), np.tile(scale, (2000, 1)), draws, 8001)
    np.testing.assert_allclose(points.mean(axis=0), mean, atol=0.2 * scale.max())
    np.testing.assert_allclose(points.std(axis=0) / scale, 1, atol=0.1)


def test_walk_refuses():
    for points, num_steps in (([], 3), (np.zeros((0, 2)), 3), ([1.0, 2.0], 3), ([[1.0]], 0)):
        with pytest.raises(ValueError, match="Received"):
            walk_through(points, num_steps)


@pytest.mark.parametrize("num_frames", [1, 64, 65, 100, 112, 113, 1000])
def test_windows_cover_a_piece_and_their_weights_sum_to_one(num_frames):
    starts = window_starts(num_frames, 64, 16)
    assert starts[0] == 0 and starts[-1] + 64 == max(64, num_frames)
    assert (np.diff(starts) <= 48).all() and (np.diff(starts) > 0).all()
    weights = crossfade_weights(starts, 64)
    total = np.zeros(starts[-1] + 64)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + 64] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert np.abs(np.diff(weights)).max() < 0.25 and weights.min() >= 0
