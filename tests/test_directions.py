import numpy as np
import pytest
import sklearn.decomposition

import spectrovae.directions
from spectrovae.directions import fold, principal_directions, symmetric_directions

NUM_CHANNELS = 6


def sequences(num_sequences, num_steps):
    """Sequences with some strong directions and much noise."""
    rng = np.random.default_rng(0)
    strong = rng.standard_normal((4, NUM_CHANNELS * num_steps)) * [[8], [6], [4], [3]]
    values = (
        rng.standard_normal((num_sequences, 4)) @ strong + rng.standard_normal((num_sequences, strong.shape[1])) + 5
    )
    return values.reshape(-1, NUM_CHANNELS, num_steps).astype(np.float32)


def assert_is_that_of_scikit_learn(found, data):
    mean, directions, variances = found
    features = data.reshape(len(data), -1)
    pca = sklearn.decomposition.PCA(4).fit(features)
    np.testing.assert_allclose(mean.ravel(), pca.mean_, atol=1e-4)
    np.testing.assert_allclose(variances, pca.explained_variance_, rtol=1e-3)
    flat = directions.reshape(4, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(4), atol=1e-4)
    np.testing.assert_allclose(np.abs(flat @ pca.components_.T), np.eye(4), atol=0.02)


@pytest.mark.parametrize("num_sequences", [20, 200])
@pytest.mark.parametrize("num_steps", [1, 8, 9])
def test_directions_are_those_of_scikit_learn(num_sequences, num_steps, monkeypatch):
    data = sequences(num_sequences, num_steps)
    batches = [data[:7], data[7:]]
    assert_is_that_of_scikit_learn(principal_directions(batches, 4, seed=0), data)
    monkeypatch.setattr(spectrovae.directions, "_BLOCK_SIZE", 4 * num_steps * num_sequences)  # 4 channels, then 2
    assert_is_that_of_scikit_learn(principal_directions(batches, 4, seed=0), data)
    mirrored = np.concatenate([data, data[..., ::-1]])
    found = symmetric_directions([fold(batch) for batch in batches], 4, seed=0)
    assert_is_that_of_scikit_learn(found, mirrored)


def test_small_variances_are_found_beside_large_ones():
    rng = np.random.default_rng(0)
    scales = np.geomspace(1, 1e-2, 16)
    data = np.linalg.qr(rng.standard_normal((40, 16)))[0] * scales @ np.linalg.qr(rng.standard_normal((240, 16)))[0].T
    data = data.reshape(40, NUM_CHANNELS, 40).astype(np.float32)
    _, _, variances = principal_directions([data], 16, seed=0)
    expected = np.linalg.svd((data - data.mean(axis=0)).reshape(40, -1), compute_uv=False)[:16] ** 2 / 39
    np.testing.assert_allclose(variances, expected, rtol=0.01)


@pytest.mark.parametrize("num_steps", [1, 2, 8, 9])
def test_folding_twice_changes_nothing(num_steps):
    data = sequences(5, num_steps)
    np.testing.assert_allclose(fold(fold(data)), data, atol=1e-5)
    half = num_steps // 2
    np.testing.assert_allclose(fold(data + data[..., ::-1])[..., num_steps - half :], 0, atol=1e-5)
    np.testing.assert_allclose(fold(data - data[..., ::-1])[..., : num_steps - half], 0, atol=1e-5)


def test_what_does_not_vary_has_no_directions():
    still = np.ones((5, NUM_CHANNELS, 8), np.float32)
    for mean, directions, variances in (principal_directions([still], 3), symmetric_directions([fold(still)], 3)):
        np.testing.assert_allclose(mean, 1, rtol=1e-6)
        assert directions.shape == (0, NUM_CHANNELS, 8)
        assert variances.shape == (0,)
