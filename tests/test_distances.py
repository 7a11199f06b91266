"""Distances between samples against their definitions and closed forms; copies are found."""

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from spectrovae.evaluation.sound_distance import (
    copy_check,
    frechet_distance,
    maximum_mean_discrepancy,
    median_bandwidths,
)


def test_discrepancy_matches_the_definition():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 2)), rng.normal(size=(4, 2))

    def kernel(a, b):
        return np.mean([math.exp(-np.sum((a - b) ** 2) / (2 * width**2)) for width in (0.5, 2.0)])

    expected = np.mean([kernel(a, b) for i, a in enumerate(first) for j, b in enumerate(first) if i != j])
    expected += np.mean([kernel(a, b) for i, a in enumerate(second) for j, b in enumerate(second) if i != j])
    expected -= 2 * np.mean([kernel(a, b) for a in first for b in second])
    assert maximum_mean_discrepancy(first, second, [0.5, 2.0]) == pytest.approx(expected)


def test_discrepancy_is_unbiased_and_grows_with_the_shift():
    rng = np.random.default_rng(0)
    same = [maximum_mean_discrepancy(*rng.normal(size=(2, 30, 3)), [1.0, 2.0]) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(200)
    assert min(same) < 0
    first, second = rng.normal(size=(2, 1500, 3))  # more than one block of the kernel matrix
    shifted = [maximum_mean_discrepancy(first, second + shift, [1.0]) for shift in (0, 0.2, 0.5, 1, 3)]
    assert abs(shifted[0]) < 0.002 and np.all(np.diff(shifted) > 0)
    # The closed form for two Gaussians of covariance I whose means differ by d, with a kernel of width w:
    # 2 (w^2 / (w^2 + 2))^(dimensions / 2) (1 - exp(-d^2 / (2 (w^2 + 2)))).
    expected = 2 * (1 / 3) ** 1.5 * (1 - math.exp(-3 * 0.5**2 / (2 * 3)))
    assert shifted[2] == pytest.approx(expected, abs=0.005)


def test_median_bandwidths():
    points = np.random.default_rng(0).normal(size=(3000, 2))
    # Half the squared distance of two normal points is chi-squared / 2 distributed: median 2 sqrt(ln 2).
    np.testing.assert_allclose(median_bandwidths(points), 2 * math.sqrt(math.log(2)) * np.array([0.5, 1, 2]), 0.03)
    with pytest.raises(ValueError, match="identical"):
        median_bandwidths(np.zeros((5, 2)))


@pytest.mark.parametrize("function", [frechet_distance, lambda a, b: maximum_mean_discrepancy(a, b, [1.0])])
def test_sample_distances_are_symmetric_and_invariant(function):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 3)), rng.normal(0.5, 2.0, size=(50, 3))
    distance = function(first, second)
    assert function(second, first) == pytest.approx(distance)
    assert function(rng.permutation(first), rng.permutation(second)) == pytest.approx(distance)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert function(first @ rotation, second @ rotation) == pytest.approx(distance)
    with pytest.raises(ValueError, match="number of features"):
        function(first, second[:, :2])
    with pytest.raises(ValueError, match="clips"):
        function(first[:1], second)


def test_frechet_distance_matches_closed_forms():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3))
    second = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 3)) + 1.0
    covariances = np.cov(first.T), np.cov(second.T)
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(
        covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    # In one dimension: (m1 - m2)^2 + (s1 - s2)^2.
    line = rng.normal(size=(50, 1))
    assert frechet_distance(line, 3 * line + 2) == pytest.approx(
        (2 * line.mean() + 2) ** 2 + (2 * line.std(ddof=1)) ** 2
    )
    with pytest.raises(ValueError, match="at least 6 clips"):
        frechet_distance(first[:5], second)


@pytest.mark.parametrize("bandwidths", [[], [0.0], [-1.0]])
def test_bandwidths_must_be_positive(bandwidths):
    with pytest.raises(ValueError, match="bandwidths"):
        maximum_mean_discrepancy(np.eye(3), np.eye(3), bandwidths)


def test_copy_check():
    rng = np.random.default_rng(0)
    training, held_out, fresh = (
        rng.normal(size=(300, 4)),
        rng.normal(size=(200, 4)),
        rng.normal(size=(200, 4)),
    )
    honest = copy_check(fresh, training, held_out)
    assert honest.ratio == pytest.approx(1, abs=0.15) and honest.share_nearer < 0.12
    copied = copy_check(np.concatenate([fresh[:50], training[:150] + 1e-3]), training, held_out)
    assert copied.ratio < 0.05 and 0.75 <= copied.share_nearer <= 0.85
    assert copy_check(fresh + 20, training, held_out).ratio > 5
    nearest = np.linalg.norm(fresh[:, None] - training, axis=-1).min(axis=1)
    assert honest.generated_median == pytest.approx(np.median(nearest))
    assert math.isnan(copy_check(fresh, training, training).ratio)
    with pytest.raises(ValueError, match="percentile"):
        copy_check(fresh, training, held_out, percentile=101)
    with pytest.raises(ValueError, match="at least 1 clips"):
        copy_check(fresh[:0], training, held_out)
