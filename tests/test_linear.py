import numpy as np
import pytest
import sklearn.decomposition

from spectrovae.linear import fit_linear_optimum
from spectrovae.pooling import average_frames


def test_optimum_is_that_of_scikit_learn(windows):
    optimum = fit_linear_optimum([windows[:20], windows[20:]], latent_dim=4, pool_size=1, seed=0)
    features = windows[..., 0].swapaxes(1, 2).reshape(len(windows), -1)
    pca = sklearn.decomposition.PCA(4).fit(features)
    np.testing.assert_allclose(optimum.variances, pca.explained_variance_, rtol=0.01)
    np.testing.assert_allclose(np.abs(optimum.directions @ pca.components_.T), np.eye(4), atol=0.01)
    residual = np.square(features - pca.inverse_transform(pca.transform(features))).mean()
    assert optimum.noise_variance == pytest.approx(residual, rel=0.01)
    assert np.mean(optimum.residual_scales**2) == pytest.approx(residual, rel=0.01)
    assert optimum.num_windows == len(windows)


def test_codes_have_the_moments_of_the_standard_normal(windows):
    optimum = fit_linear_optimum([windows], latent_dim=4, pool_size=4, seed=0)
    features = average_frames(windows, 4).swapaxes(1, 2).reshape(len(windows), -1)
    codes = features @ optimum.encoder_kernel + optimum.encoder_bias
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(codes.var(axis=0, ddof=1) + optimum.posterior_scales**2, 1, rtol=0.02)


def test_encoder_and_decoder_shrink_the_projection(windows):
    optimum = fit_linear_optimum([windows], latent_dim=4, pool_size=4, seed=0)
    gains = np.diag(optimum.directions @ optimum.encoder_kernel @ optimum.decoder_kernel @ optimum.directions.T)
    np.testing.assert_allclose(gains, 1 - optimum.noise_variance / optimum.variances, rtol=1e-3)


def test_directions_without_data_are_left_to_the_prior(windows):
    optimum = fit_linear_optimum([windows[:3]], latent_dim=6, pool_size=4, seed=0)
    assert optimum.directions.shape == (6, 8 * 32)
    np.testing.assert_array_equal(optimum.encoder_kernel[:, 3:], 0)
    np.testing.assert_array_equal(optimum.posterior_scales[3:], 1)


def test_the_same_seed_gives_the_same_optimum(windows):
    first, second = (fit_linear_optimum([windows], 4, 4, num_residual_windows=8, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.directions, second.directions)
    assert first.noise_variance == second.noise_variance


def test_truncated_optimum_is_that_of_fewer_dimensions(windows):
    largest, smaller = (fit_linear_optimum([windows], latent_dim, pool_size=4, seed=0) for latent_dim in (4, 2))
    truncated = largest.truncated(2, windows)
    np.testing.assert_allclose(truncated.variances, smaller.variances, rtol=0.01)
    np.testing.assert_allclose(np.abs(truncated.directions @ smaller.directions.T), np.eye(2), atol=0.01)
    assert truncated.noise_variance == pytest.approx(smaller.noise_variance, rel=0.01)
    np.testing.assert_allclose(truncated.residual_scales, smaller.residual_scales, rtol=0.01)
    same = largest.truncated(4, windows)
    assert same.noise_variance == pytest.approx(largest.noise_variance, rel=1e-6)


@pytest.mark.parametrize("latent_dim", [0, 5])
def test_optimum_cannot_be_truncated_to_what_it_has_not(latent_dim, windows):
    optimum = fit_linear_optimum([windows], latent_dim=4, pool_size=4, seed=0)
    with pytest.raises(ValueError, match=f"from 1 to 4.*Received: latent_dim={latent_dim}"):
        optimum.truncated(latent_dim, windows)


def test_one_window_is_too_few(windows):
    with pytest.raises(ValueError, match="at least 2 windows.*warm_start=False.*Received: 1"):
        fit_linear_optimum([windows[:1]], latent_dim=2, pool_size=4)


@pytest.mark.parametrize("num_frames", [32, 20])
def test_time_reversal_is_that_of_windows_and_their_mirror_images(windows, num_frames):
    windows = windows[:, :, :num_frames]
    symmetric = fit_linear_optimum([windows], 6, pool_size=4, time_reversal=True, seed=0)
    both = fit_linear_optimum([windows, windows[:, :, ::-1]], 6, pool_size=4, seed=0)
    np.testing.assert_allclose(symmetric.mean, both.mean, atol=2e-4)  # half precision
    np.testing.assert_allclose(symmetric.variances, both.variances, rtol=1e-3)
    np.testing.assert_allclose(np.abs(symmetric.directions @ both.directions.T), np.eye(6), atol=0.02)
