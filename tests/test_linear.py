import itertools

import numpy as np
import pytest
import sklearn.decomposition

from spectrovae.model.networks import SeparableDense, SeparableDenseTranspose
from spectrovae.model.pca import fit_linear_optimum

PLAIN = {"stationary": False, "transposition": False}


@pytest.fixture
def uncorrelated(windows) -> np.ndarray:
    """Windows of 8 bins and 4 frames whose cosines over time are uncorrelated: every cosine, with either sign."""
    cosines = np.cos(np.pi * np.outer(np.arange(4), np.arange(4) + 0.5) / 4)
    strengths = windows[:, :8, [0, 9, 18, 27], 0] - windows[:, :8, [0, 9, 18, 27], 0].mean(axis=0)
    signs = np.array(list(itertools.product([-1, 1], repeat=4)))
    values = np.einsum("nfk,sk,kt->nsft", strengths * [4, 3, 2, 1] / 10, signs, cosines)
    return (0.5 + values.reshape(-1, 8, 4, 1)).astype(np.float32)


def flatten(windows):
    return windows[..., 0].reshape(len(windows), -1)


def components(optimum):
    return np.einsum("kf,kt->kft", optimum.spectra, optimum.courses).reshape(len(optimum.spectra), -1)


def test_optimum_is_that_of_scikit_learn(uncorrelated):
    batches = [uncorrelated[:20], uncorrelated[20:]]
    optimum = fit_linear_optimum(batches, 4, pool_size=1, **PLAIN, num_residual_windows=2000, seed=0)
    features = flatten(uncorrelated)
    pca = sklearn.decomposition.PCA(4).fit(features)
    np.testing.assert_allclose(optimum.variances, pca.explained_variance_, rtol=0.01)
    np.testing.assert_allclose(np.abs(components(optimum) @ pca.components_.T), np.eye(4), atol=0.01)
    residual = np.square(features - pca.inverse_transform(pca.transform(features))).mean() / (1 - 4 / 32)
    assert optimum.noise_variance == pytest.approx(residual, rel=0.01)
    assert optimum.noise_variance == pytest.approx(pca.noise_variance_, rel=0.01)
    assert np.mean(optimum.residual_scales**2) == pytest.approx(residual * (1 - 4 / 32), rel=0.01)
    assert optimum.num_windows == len(uncorrelated)


def test_codes_have_the_moments_of_the_standard_normal(uncorrelated):
    optimum = fit_linear_optimum([uncorrelated], 4, pool_size=1, **PLAIN, num_residual_windows=2000, seed=0)
    courses, spectra, bias = optimum.encoder_weights()
    codes = np.einsum("nft,tk,fk->nk", uncorrelated[..., 0], courses, spectra) + bias
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(codes.var(axis=0, ddof=1) + optimum.posterior_scales**2, 1, rtol=0.02)


def test_encoder_and_decoder_shrink_the_projection(windows):
    optimum = fit_linear_optimum([windows], latent_dim=4, pool_size=4, seed=0)
    encoder, decoder = SeparableDense(4), SeparableDenseTranspose(steps=8, bins=32)
    encoder.build((None, 8, 32))
    decoder.build((None, 4))
    encoder.set_weights(optimum.encoder_weights())
    decoder.set_weights(optimum.decoder_weights())
    steps = np.einsum("kf,kt->ktf", optimum.spectra, optimum.courses).astype(np.float32) + optimum.mean
    restored = np.asarray(decoder(encoder(steps))) - optimum.mean
    gains = np.einsum("ktf,kf,kt->k", restored, optimum.spectra, optimum.courses)
    np.testing.assert_allclose(gains, 1 - optimum.noise_variance / optimum.variances, rtol=1e-3)


def test_components_without_data_are_left_to_the_prior(windows):
    still = np.repeat(np.round(64 * windows[:3, :, :1]) / 64, 32, axis=2)  # exact in half precision
    optimum = fit_linear_optimum([still], latent_dim=6, pool_size=4, transposition=False, seed=0)
    assert optimum.spectra.shape == (6, 32) and optimum.courses.shape == (6, 8)
    np.testing.assert_allclose(optimum.encoder_weights()[1][:, 2:], 0, atol=1e-3)
    np.testing.assert_allclose(optimum.posterior_scales[2:], 1, rtol=1e-3)


def test_the_same_seed_gives_the_same_optimum(windows):
    first, second = (fit_linear_optimum([windows], 4, 4, num_residual_windows=8, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.spectra, second.spectra)
    assert first.noise_variance == second.noise_variance


def test_truncated_optimum_is_that_of_fewer_dimensions(windows):
    largest, smaller = (fit_linear_optimum([windows], latent_dim, pool_size=4, seed=0) for latent_dim in (4, 2))
    truncated = largest.truncated(2, windows)
    np.testing.assert_allclose(truncated.variances, smaller.variances, rtol=0.01)
    np.testing.assert_allclose(np.abs(components(truncated) @ components(smaller).T), np.eye(2), atol=0.01)
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
